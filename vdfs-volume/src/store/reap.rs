//! Reaping: remove all chunks of data ids that no file has any more.

use vdfs_proto::DataId;

use super::chunks::{Body, Chunk, Condition};
use super::record::{Content, ENTRY_BYTES};
use super::steps::Step;
use super::{CHUNK_BYTES, Store, memory};

impl Store {
    /// Frees all chunks of `ids`, which answer `Gone` from now on. Idempotent.
    pub fn reap(&self, ids: &[DataId]) {
        for id in ids {
            self.reaped.insert(*id);
            for chunk in self.chunks.take(*id) {
                self.remove(&chunk);
            }
        }
    }

    pub(super) fn remove(&self, chunk: &Chunk) {
        self.remove_attached(&mut chunk.body.write());
    }

    /// The same for one whose lock is held.
    pub(super) fn remove_attached(&self, body: &mut Body) {
        let was = std::mem::replace(&mut body.condition, Condition::Detached);
        // Its first write may have been refused since it was taken out of the map.
        if matches!(was, Condition::New | Condition::Detached) {
            return;
        }
        if body.entry.is_some() {
            self.record(body, Content::Reaped);
            self.passed(Step::ReapRecorded, body.id);
        }
        self.remove_body(body);
        self.budget.release(body.charged + CHUNK_BYTES);
    }

    /// Frees what a chunk has: pages, name, sums and entry, in this order, so that a restart finds
    /// the record until all else is gone. Pages are freed before the name: others may hold the file
    /// open.
    pub(super) fn remove_body(&self, body: &mut Body) {
        if self.files.exists(body.id) {
            memory::free(&self.files.get(body.id));
            self.passed(Step::Punched, body.id);
            self.files.remove(body.id);
            self.passed(Step::Unlinked, body.id);
        }
        self.sums.clear(&mut body.sums);
        self.passed(Step::SumsCleared, body.id);
        if let Some(entry) = body.entry.take() {
            self.index.write(entry, &[0; ENTRY_BYTES]);
            self.index.free(std::iter::once(entry));
        }
    }
}
