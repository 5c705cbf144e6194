//! Opening a store that was in use: what was interrupted is finished or taken back.
//!
//! - A write whose bytes are all there is rolled forward, with its op, so that a retry is
//!   recognised. Otherwise the chunk keeps its length, the touched blocks get sums of what is in
//!   memory (no byte outside the range was touched), and the version is taken without the op: a
//!   retry is executed.
//! - A trim, a change of space and a removal are finished.
//! - A copy that was being taken from another member is removed, or bad if it was before.
//! - A record without its file, and a file with bytes but without a record, are bad copies: they
//!   answer `DataLost`. An empty file without a record is a creation that had not begun.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::sums::{crc32c, payload_sum, piece_sums};
use vdfs_proto::{ChainId, ChunkId};

use super::chunks::{Body, Condition};
use super::files::FoundFile;
use super::record::{Content, ENTRY_BYTES, Record};
use super::sums::{Blocks, FoundLeaf};
use super::{CHUNK_BYTES, PAGE_BYTES, Store, memory};
use crate::chain::{Change, Pending};

/// What was found when the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    pub chunks: u64,
    /// Changes that were finished.
    pub rolled_forward: u64,
    /// Writes whose bytes were incomplete; a retry writes them again.
    pub taken_back: u64,
    /// Removals that were finished.
    pub removed: u64,
    /// Records without a file, and files without a record.
    pub bad_copies: u64,
}

/// An entry of the index that counts.
struct Entry {
    place: u32,
    record: Record,
}

type Leaves = HashMap<u32, Vec<FoundLeaf>>;
type Files = HashMap<ChunkId, FoundFile>;

impl Store {
    /// Fills the empty maps from what lies in RAM.
    pub(super) fn recover(&self) -> io::Result<Recovery> {
        let entries = self.scan_index();
        let mut leaves = self.scan_sums(&entries);
        let mut files = self.scan_files()?;
        let mut report = Recovery::default();
        for entry in entries {
            let found = leaves.remove(&entry.place).unwrap_or_default();
            self.recover_chunk(entry, found, &mut files, &mut report);
        }
        for file in files.into_values() {
            self.recover_orphan(file, &mut report);
        }
        report.chunks = self.chunks.len();
        Ok(report)
    }

    fn scan_index(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut damaged = 0u32;
        self.index.scan(|place, wire| {
            let wire: &[u8; ENTRY_BYTES] = wire.try_into().expect("one entry");
            match Record::newest(wire) {
                Some((_, record)) => entries.push(Entry { place, record }),
                None => damaged += u32::from(wire.iter().any(|byte| *byte != 0)),
            }
        });
        if damaged > 0 {
            tracing::error!(damaged, "records of chunks are damaged");
        }
        self.index.occupy(entries.iter().map(|entry| entry.place));
        entries
    }

    /// The leaves of each entry; those of no entry are cleared.
    fn scan_sums(&self, entries: &[Entry]) -> Leaves {
        let mut owned: Leaves = HashMap::with_capacity(entries.len());
        owned.extend(entries.iter().map(|entry| (entry.place, Vec::new())));
        let mut places = Vec::new();
        for leaf in self.sums.scan() {
            match owned.get_mut(&leaf.entry) {
                Some(leaves) => {
                    places.push(leaf.place());
                    leaves.push(leaf);
                }
                None => self.sums.clear_orphan(&leaf),
            }
        }
        self.sums.occupy(places.into_iter());
        owned
    }

    fn scan_files(&self) -> io::Result<Files> {
        let found = self.files.scan()?;
        Ok(found.into_iter().map(|file| (file.chunk, file)).collect())
    }

    fn recover_chunk(
        &self,
        entry: Entry,
        leaves: Vec<FoundLeaf>,
        files: &mut Files,
        report: &mut Recovery,
    ) {
        let file = files.remove(&entry.record.chunk);
        let mut body = Body::new(entry.record.chunk, entry.record.chain);
        body.entry = Some(entry.place);
        body.sequence = entry.record.sequence;
        body.sums = self.sums.adopt(leaves);
        match (entry.record.content, file) {
            (Content::Reaped | Content::Coming { was_lost: false }, _) => {
                report.removed += 1;
                self.remove_body(&mut body);
                return;
            }
            (Content::Coming { was_lost: true }, _) => {
                report.bad_copies += 1;
                self.sums.clear(&mut body.sums);
                self.files.remove(body.id);
                body.condition = Condition::Bad;
            }
            (Content::Live(state), Some(file)) => {
                body.state = state;
                self.recover_whole(&mut body, file, report);
            }
            (Content::Live(state), None) => {
                report.bad_copies += 1;
                body.state = state;
                body.condition = Condition::Bad;
            }
        }
        self.budget.charge(CHUNK_BYTES);
        self.chunks.insert(body);
    }

    fn recover_whole(&self, body: &mut Body, file: FoundFile, report: &mut Recovery) {
        body.condition = Condition::Whole;
        let present = u64::from(body.sums.present_count()) * PAGE_BYTES;
        self.recharge(body, present.max(file.allocated));
        if let Some(pending) = body.state.pending().copied() {
            self.settle(body, pending, report);
        } else if file.len > u64::from(body.state.len()) {
            self.drop_surplus(body);
        }
        if let Some(op) = body.state.op() {
            self.replies.repair(op, body.chain, body.state.version());
        }
    }

    /// Drops bytes of a copy that was still coming.
    fn drop_surplus(&self, body: &mut Body) {
        let (file, len) = (self.files.get(body.id), body.state.len());
        memory::cut(&file, len);
        self.cut_sums(body, len, None);
        self.recharge_pages(body, &file);
    }

    /// Ends a change that was interrupted.
    fn settle(&self, body: &mut Body, pending: Pending, report: &mut Recovery) {
        let file = self.files.get(body.id);
        if let Change::Space(space) = pending.change {
            self.redo_space(&file, body, space);
        }
        if is_whole(&file, pending.change) {
            report.rolled_forward += 1;
            body.state.apply();
        } else {
            report.taken_back += 1;
            body.state.abandon();
        }
        let len = body.state.len();
        memory::cut(&file, len);
        self.cut_sums(body, len, None);
        self.sum_again(body, &file, pending.change);
        self.recharge_pages(body, &file);
        self.record(body, Content::Live(body.state));
    }

    /// Makes the sums of the blocks that a change touched from what lies in memory.
    fn sum_again(&self, body: &mut Body, file: &File, change: Change) {
        let len = body.state.len();
        let (from, to) = match change {
            Change::Write {
                offset, len: bytes, ..
            } => (offset, len.min(offset + bytes)),
            Change::Trim { .. } => (len - len % BLOCK_BYTES, len),
            // Done with the change.
            Change::Space(_) => return,
        };
        if from >= to {
            return;
        }
        let blocks = Blocks::touched(from, to - from);
        let start = blocks.first * BLOCK_BYTES;
        let bytes = memory::read(file, start, blocks.count * BLOCK_BYTES);
        let sums: Vec<u32> = bytes.chunks(BLOCK_BYTES as usize).map(crc32c).collect();
        self.sums
            .extend(&mut body.sums, blocks, &self.budget)
            .expect("the table grew before the change began");
        let entry = body.entry.expect("it has a record");
        self.sums.store(entry, &mut body.sums, blocks, &sums);
    }

    fn recover_orphan(&self, file: FoundFile, report: &mut Recovery) {
        if file.len == 0 {
            self.files.remove(file.chunk);
            return;
        }
        report.bad_copies += 1;
        let mut body = Body::new(file.chunk, ChainId(u32::MAX));
        body.condition = Condition::Bad;
        self.recharge(&mut body, file.allocated);
        self.budget.charge(CHUNK_BYTES);
        self.chunks.insert(body);
    }
}

/// Whether all bytes of the change are there.
fn is_whole(file: &File, change: Change) -> bool {
    match change {
        Change::Write { offset, len, sum } => {
            let bytes = memory::read(file, offset, len);
            payload_sum(&piece_sums(offset, &bytes)) == sum
        }
        // Cutting again does no harm.
        Change::Trim { .. } => true,
        // Done again just now.
        Change::Space(_) => true,
    }
}
