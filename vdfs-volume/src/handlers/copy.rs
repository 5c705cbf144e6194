//! `CopyBytes`: a client has bytes of one chunk copied to another; both have their heads here.

use vdfs_proto::Status;
use vdfs_proto::data::{CopyBytes, Written};

use crate::node::Node;

pub(crate) fn handle(node: &Node, copy: &CopyBytes) -> Result<Written, Status> {
    let membership = node.membership.read();
    let place = membership.sole_place(copy.chain, copy.epoch)?;
    membership.check_data(copy.chunk.data)?;
    let source = membership.sole_place(copy.source.chain, copy.source.epoch)?;
    let terms = node.write_terms(&membership, place, copy.op.session);
    node.store.copy(copy, source.lost_below, terms)
}
