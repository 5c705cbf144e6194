//! `Doubt`: a client was given bytes that do not match their sums.

use vdfs_proto::data::Doubt;

use crate::node::Node;

pub(crate) fn handle(node: &Node, doubt: Doubt) {
    // Of what is not here nobody was given anything.
    if node.store().chain_of(doubt.chunk) == Some(doubt.chain) {
        node.engine.doubt(doubt.chunk, doubt.chain);
    }
}
