//! `ChangeSpace`: a client punches, zeroes or allocates a range of a chunk, at the head of its chain.

use vdfs_proto::Status;
use vdfs_proto::data::ChangeSpace;

use crate::engine::BegunChange;
use crate::node::Node;
use crate::store::Job;

pub(crate) fn handle(node: &Node, ask: ChangeSpace) -> Result<BegunChange<'_>, Status> {
    node.engine.begin(Job::Space(ask))
}
