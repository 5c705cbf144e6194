//! `CountBlocks`: what a file takes here.

use vdfs_proto::Status;
use vdfs_proto::data::{BlockCount, CountBlocks};

use crate::node::Node;

pub(crate) fn handle(node: &Node, count: &CountBlocks) -> Result<BlockCount, Status> {
    let membership = node.membership.read();
    let lost_below = membership.part(&count.part)?;
    let blocks = node.store.count_blocks(&count.part, lost_below)?;
    Ok(BlockCount { blocks })
}
