//! `ChangeSpace`: a client punches, zeroes or allocates a range of a chunk, at the head of its chain.

use vdfs_proto::Status;
use vdfs_proto::data::{ChangeSpace, Written};

use crate::node::Node;

pub(crate) fn handle(node: &Node, ask: &ChangeSpace) -> Result<Written, Status> {
    let membership = node.membership.read();
    let place = membership.sole_place(ask.chain, ask.epoch)?;
    membership.check_data(ask.chunk.data)?;
    let terms = node.write_terms(&membership, place, ask.op.session);
    node.store.change_space(ask, terms)
}
