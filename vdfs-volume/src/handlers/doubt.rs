//! `Doubt`: a client was given bytes that do not match their sums.

use vdfs_proto::data::{Doubt, Doubted};

use crate::node::Node;

pub(crate) fn handle(node: &Node, doubt: Doubt) -> Doubted {
    // Of what is not here nobody was given anything.
    let is_here = node.store().chain_of(doubt.chunk) == Some(doubt.chain);
    Doubted {
        is_open: is_here && node.engine.doubt(doubt.chunk, doubt.chain),
    }
}
