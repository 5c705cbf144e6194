//! `Write`: a client replaces bytes of a chunk, at the head of its chain.

use vdfs_proto::Status;
use vdfs_proto::data::{Write, Written};

use crate::node::Node;

pub(crate) fn handle(node: &Node, write: &Write, payload: &[u8]) -> Result<Written, Status> {
    let membership = node.membership.read();
    let place = membership.sole_place(write.chain, write.epoch)?;
    membership.check_data(write.chunk.data)?;
    let terms = node.write_terms(&membership, place, write.op.session);
    node.store.write(write, payload, terms)
}
