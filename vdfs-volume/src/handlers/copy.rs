//! `CopyBytes`: a client has bytes of one chunk copied to another; both have their heads here.

use vdfs_proto::Status;
use vdfs_proto::data::CopyBytes;

use crate::engine::BegunChange;
use crate::node::Node;
use crate::store::Job;

pub(crate) fn handle(node: &Node, copy: CopyBytes) -> Result<BegunChange<'_>, Status> {
    let source_lost_below = node
        .engine
        .lost_below(copy.source.chain, copy.source.epoch)?;
    node.engine.begin(Job::Copy {
        copy,
        source_lost_below,
    })
}
