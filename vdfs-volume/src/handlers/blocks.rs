//! `CountBlocks`: what a file takes here.

use vdfs_proto::Status;
use vdfs_proto::data::{BlockCount, CountBlocks};

use crate::node::Node;

pub(crate) fn handle(node: &Node, count: &CountBlocks) -> Result<BlockCount, Status> {
    let lost_below = node.engine.part(&count.part)?;
    let blocks = node.store().count_blocks(&count.part, lost_below)?;
    Ok(BlockCount { blocks })
}
