//! `Write`: a client replaces bytes of a chunk, at the head of its chain.

use vdfs_proto::Status;
use vdfs_proto::data::{Write, Written};

use crate::node::Node;

pub(crate) fn handle(node: &Node, write: &Write, payload: &[u8]) -> Result<Written, Status> {
    let membership = node.membership.read();
    let place = membership.place(write.chain, write.epoch)?;
    if !place.is_head {
        return Err(Status::NotServing);
    }
    if place.members > 1 {
        return Err(Status::NotSupported);
    }
    let terms = node.write_terms(&membership, place, write.op.session);
    node.store.write(write, payload, terms)
}
