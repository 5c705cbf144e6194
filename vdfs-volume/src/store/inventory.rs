//! What the store has, for whoever compares it with what others have and with the namespace.

use vdfs_proto::ChunkId;
use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::data::{Content, StockedChunk};
use vdfs_proto::sums::payload_sum;

use super::Store;
use super::chunks::Condition;
use super::sums::Blocks;

impl Store {
    /// The first chunk behind `after`, in an order of the store's own, that has come to something.
    pub(crate) fn stocked_behind(&self, after: Option<ChunkId>) -> Option<StockedChunk> {
        let mut ids = self.chunks.ids_behind(after);
        ids.find_map(|id| self.stocked(id))
    }

    pub(crate) fn stocked(&self, id: ChunkId) -> Option<StockedChunk> {
        let chunk = self.chunks.find(id)?;
        let body = chunk.attached()?;
        let is_bad = match body.condition {
            Condition::Whole => false,
            Condition::Bad => true,
            Condition::New | Condition::Coming | Condition::Detached => return None,
        };
        let sums = self.block_sums(
            &body,
            Blocks {
                first: 0,
                count: body.state.len().div_ceil(BLOCK_BYTES),
            },
        );
        Some(StockedChunk {
            chunk: id,
            chain: body.known_chain(),
            content: Content {
                version: body.state.version(),
                len: body.state.len(),
                sum: payload_sum(&sums),
            },
            is_bad,
        })
    }
}
