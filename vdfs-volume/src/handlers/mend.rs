//! `Mend`: some of what the volume has is not what its chain has.

use vdfs_proto::data::{Content, Mend};
use vdfs_proto::limits::CHUNKS_PER_STOCK_MAX;
use vdfs_proto::{ChunkId, Status};

use crate::node::Node;
use crate::repair;

pub(crate) async fn handle(node: &Node, mend: &Mend) -> Result<(), Status> {
    if mend.chunks.len() > CHUNKS_PER_STOCK_MAX {
        return Err(Status::Invalid);
    }
    let chunks = mend.chunks.iter();
    let chunks: Vec<(ChunkId, Option<Content>)> = chunks
        .map(|(chunk, content)| (*chunk, Some(*content)))
        .collect();
    let refused = repair::have_given_again(&node.engine, mend.chain, &chunks).await?;
    match refused.is_empty() {
        true => Ok(()),
        false => Err(Status::NotFound),
    }
}
