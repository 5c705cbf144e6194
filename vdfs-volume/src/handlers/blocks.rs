//! `CountBlocks`: what a file takes here.

use vdfs_proto::Status;
use vdfs_proto::data::{BlockCount, CountBlocks};

use crate::node::Node;

pub(crate) async fn handle(node: &Node, count: &CountBlocks) -> Result<BlockCount, Status> {
    let look = |lost_below| node.store().count_blocks(&count.part, lost_below);
    let blocks = node.engine.ask(&count.part, look).await?;
    Ok(BlockCount { blocks })
}
