//! Pages under a range of a chunk: given back, zeroed, or provided.
//!
//! A punch makes whole blocks absent. A block that it covers in part, and one that a zeroing covers
//! in part, is verified first and then gets the sum of what is left. Each of these changes brings the
//! same bytes however often it is done, so an interrupted one is done again at the next start.

use std::fs::File;

use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::data::{ChangeSpace, SpaceKind};
use vdfs_proto::limits::PAYLOAD_BYTES_MAX;
use vdfs_proto::sums::crc32c;
use vdfs_proto::{Status, Version};

use super::chunks::{Body, Condition};
use super::files::provide_pages;
use super::plan::{Plan, PlannedRoom, PlannedSums};
use super::record::Content;
use super::steps::Step;
use super::sums::{Blocks, zero_block_sum};
use super::write::{check_op, check_present};
use super::{Store, memory};
use crate::chain::{Change, Space, Terms};

/// A block that a range covers in part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    block: u32,
    /// The block's sum without what is zeroed.
    sum: u32,
}

impl Store {
    pub(super) fn check_space(&self, ask: &ChangeSpace) -> Result<(), Status> {
        check_op(ask.op, ask.epoch)?;
        let end = u64::from(ask.offset) + u64::from(ask.len);
        let is_long = ask.kind != SpaceKind::Punch && ask.len as usize > PAYLOAD_BYTES_MAX;
        if ask.len == 0 || is_long || end > u64::from(self.chunk_bytes()?) {
            return Err(Status::Invalid);
        }
        Ok(())
    }

    /// What a punch finds absent it leaves as it is.
    pub(super) fn plan_space(
        &self,
        body: &mut Body,
        ask: &ChangeSpace,
        terms: Terms,
        is_head: bool,
    ) -> Result<Option<Plan>, Status> {
        check_present(body, ask.len_expected, terms.lost_below)?;
        let mut space = Space {
            kind: ask.kind,
            offset: ask.offset,
            len: ask.len,
        };
        if space.kind == SpaceKind::Punch {
            let end = body.state.len().min(ask.offset + ask.len);
            space.len = end.saturating_sub(ask.offset);
        }
        if is_head && is_done(body, space) {
            return Ok(None);
        }
        match space.kind {
            SpaceKind::Punch => self.plan_punch(body, space),
            SpaceKind::Zero | SpaceKind::Allocate => self.plan_provision(body, space),
        }
        .map(Some)
    }

    fn plan_punch(&self, body: &Body, space: Space) -> Result<Plan, Status> {
        // A chunk without bytes has nothing to verify, and perhaps no file.
        let edges = match body.state.is_empty() {
            true => Vec::new(),
            false => {
                let file = self.files.get(body.id);
                self.edges(body, space, |block| self.verified_block(&file, body, block))?
            }
        };
        Ok(Plan {
            change: Change::Space(space),
            room: PlannedRoom::default(),
            sums: PlannedSums::Space(edges),
        })
    }

    fn plan_provision(&self, body: &mut Body, space: Space) -> Result<Plan, Status> {
        let blocks = Blocks::touched(space.offset, space.len);
        let (room, file) = self.make_room(body, blocks)?;
        let edges = self.edges(body, space, |block| self.verified_block(&file, body, block))?;
        provide_pages(&file, space.offset, space.len)?;
        Ok(Plan {
            change: Change::Space(space),
            room: room.hold(),
            sums: PlannedSums::Space(edges),
        })
    }

    /// The blocks with a sum that the range zeroes in part, with the sums that they will have.
    fn edges(
        &self,
        body: &Body,
        space: Space,
        bytes_of: impl Fn(u32) -> Result<Vec<u8>, Status>,
    ) -> Result<Vec<Edge>, Status> {
        if space.kind == SpaceKind::Allocate {
            return Ok(Vec::new());
        }
        let (from, to) = (space.offset, space.offset + space.len);
        let mut blocks = vec![from / BLOCK_BYTES, (to - 1) / BLOCK_BYTES];
        blocks.dedup();
        let whole = whole_blocks(space, body.state.len());
        blocks.retain(|block| !whole.contains(*block) && body.sums.is_present(*block));
        let edge = |block: u32| {
            let mut bytes = bytes_of(block)?;
            let start = block * BLOCK_BYTES;
            let zeroed_from = from.max(start) - start;
            let zeroed_to = to.min(start + BLOCK_BYTES) - start;
            bytes[zeroed_from as usize..zeroed_to as usize].fill(0);
            let sum = crc32c(&bytes);
            Ok(Edge { block, sum })
        };
        blocks.into_iter().map(edge).collect()
    }

    /// The chunk is closed for the change. Nothing here is refused or fails.
    pub(super) fn apply_space(
        &self,
        file: &File,
        body: &mut Body,
        space: Space,
        edges: &[Edge],
    ) -> Version {
        let len_before = body.state.len();
        self.record(body, Content::Live(body.state));
        self.passed(Step::ChangeRecorded, body.id);
        change_bytes(file, space, len_before);
        self.passed(Step::BytesChanged, body.id);
        self.change_sums(body, space, edges);
        self.recharge_pages(body, file);
        self.finish_change(body)
    }

    /// Does an interrupted change again, up to its sums.
    pub(super) fn redo_space(&self, file: &File, body: &mut Body, space: Space) {
        assert!(body.condition == Condition::Whole, "it has a record");
        change_bytes(file, space, body.state.len());
        if space.kind != SpaceKind::Punch {
            let blocks = Blocks::touched(space.offset, space.len);
            let extended = self.sums.extend(&mut body.sums, blocks, &self.budget);
            extended.expect("the table grew before the change began");
        }
        let in_memory = |block| Ok(memory::read(file, block * BLOCK_BYTES, BLOCK_BYTES));
        let edges = self.edges(body, space, in_memory);
        let edges = edges.expect("memory refuses nothing");
        self.change_sums(body, space, &edges);
    }

    fn change_sums(&self, body: &mut Body, space: Space, edges: &[Edge]) {
        let entry = body.entry.expect("recorded");
        let blocks = Blocks::touched(space.offset, space.len);
        match space.kind {
            SpaceKind::Punch => {
                let whole = whole_blocks(space, body.state.len());
                self.sums.remove(entry, &mut body.sums, whole);
            }
            SpaceKind::Zero => {
                let zeros = vec![zero_block_sum(); blocks.count as usize];
                self.sums.store(entry, &mut body.sums, blocks, &zeros);
            }
            SpaceKind::Allocate => {
                let sums = self.block_sums(body, blocks);
                self.sums.store(entry, &mut body.sums, blocks, &sums);
            }
        }
        for edge in edges {
            let one = Blocks::one(edge.block);
            self.sums.store(entry, &mut body.sums, one, &[edge.sum]);
        }
    }
}

/// Nothing is left to do: no page to give back, or none to provide.
fn is_done(body: &Body, space: Space) -> bool {
    let blocks = Blocks::touched(space.offset, space.len);
    match space.kind {
        SpaceKind::Punch => body.sums.first_present(blocks).is_none(),
        SpaceKind::Zero => false,
        SpaceKind::Allocate => {
            let is_within = space.offset + space.len <= body.state.len();
            is_within && body.sums.absent_count(blocks) == 0
        }
    }
}

/// The blocks of which nothing is left but zeros; past the chunk's length `len` there are only zeros.
fn whole_blocks(space: Space, len: u32) -> Blocks {
    let to = space.offset + space.len;
    let first = space.offset.div_ceil(BLOCK_BYTES);
    let end = match to >= len {
        true => to.div_ceil(BLOCK_BYTES),
        false => to / BLOCK_BYTES,
    };
    Blocks {
        first,
        count: end.saturating_sub(first),
    }
}

fn change_bytes(file: &File, space: Space, len_before: u32) {
    let Space { offset, len, kind } = space;
    match kind {
        SpaceKind::Punch => {
            let end = match offset + len >= len_before {
                // The last page has nothing else.
                true => (offset + len).next_multiple_of(BLOCK_BYTES),
                false => offset + len,
            };
            memory::punch(file, offset, end - offset);
        }
        SpaceKind::Zero => {
            memory::cut(file, len_before.max(offset + len));
            memory::zero(file, offset, len);
        }
        SpaceKind::Allocate => memory::cut(file, len_before.max(offset + len)),
    }
}
