//! `CopyBytes`: a client has bytes of one chunk copied to another; both have their heads here.

use vdfs_proto::Status;
use vdfs_proto::data::{CopyBytes, Written};

use crate::node::Node;
use crate::store::Job;

pub(crate) async fn handle(node: &Node, copy: CopyBytes) -> Result<Written, Status> {
    let (source, engine) = (copy.source, &node.engine);
    let source_lost_below = engine
        .readable(source.chain, source.epoch, source.chunk)
        .await?;
    let begun = engine.begin(Job::Copy {
        copy,
        source_lost_below,
    })?;
    begun.written().await
}
