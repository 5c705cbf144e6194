//! `Write`: a client replaces bytes of a chunk, at the head of its chain.

use bytes::Bytes;
use vdfs_proto::Status;
use vdfs_proto::data::Write;

use crate::engine::BegunChange;
use crate::node::Node;
use crate::store::Job;

pub(crate) fn handle(node: &Node, write: Write, payload: Bytes) -> Result<BegunChange<'_>, Status> {
    node.engine.begin(Job::Write { write, payload })
}
