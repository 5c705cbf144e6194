//! Writing: replace a range of a chunk's bytes, all or nothing for whoever was answered.

use std::fs::File;
use std::sync::Arc;

use vdfs_proto::chunk::{BLOCK_BYTES, block_pieces};
use vdfs_proto::data::Write;
use vdfs_proto::limits::{DATA_SLOTS_PER_SESSION, PAYLOAD_BYTES_MAX};
use vdfs_proto::sums::{crc32c, payload_sum, piece_sums};
use vdfs_proto::{ChainId, ChunkId, DataId, Epoch, OpId, Status, Version};

use super::budget::{NoSpace, Reservation};
use super::chunks::{Body, Chunk, Condition};
use super::job::Job;
use super::plan::{Plan, PlannedRoom, PlannedSums};
use super::record::{Content, EPOCH_MAX};
use super::steps::Step;
use super::sums::{Blocks, zero_block_sum};
use super::{CHUNK_BYTES, PAGE_BYTES, Store, memory};
use crate::chain::{Admission, Change, Failure, Rule, Terms};

impl From<NoSpace> for Status {
    fn from(_: NoSpace) -> Self {
        Status::NoSpace
    }
}

/// Room for a change that may still be refused.
pub(super) struct Room<'a> {
    pub(super) reservation: Reservation<'a>,
    pub(super) planned: PlannedRoom,
}

impl Store {
    pub(super) fn check_write(&self, write: &Write, payload: &[u8]) -> Result<(), Status> {
        check_op(write.op, write.epoch)?;
        let in_bounds = (1..=PAYLOAD_BYTES_MAX).contains(&payload.len());
        let end = u64::from(write.offset) + payload.len() as u64;
        if !in_bounds || end > u64::from(self.chunk_bytes()?) {
            return Err(Status::Invalid);
        }
        if piece_sums(write.offset, payload) != write.sums {
            return Err(Status::Corrupt);
        }
        Ok(())
    }

    /// Runs `work` on a chunk with the version that the rule gives it, if the terms let it. `Err` of
    /// the version if the change was made before.
    pub(super) fn change_by<T>(
        &self,
        job: &Job,
        rule: Rule,
        terms: Terms,
        work: impl FnOnce(&mut Body, Version) -> Result<T, Status>,
    ) -> Result<Result<T, Version>, Failure> {
        let mut outcome = Err(Failure::Diverged);
        let (chain, _) = job.chain();
        let changed = self.with_chunk(job.chunk(), chain, |body| {
            outcome = match (body.state.admission(rule), terms.admission) {
                (Admission::Already(version), _) => Ok(Err(version)),
                (_, Err(status)) => return Err(status),
                (Admission::Go(version), Ok(())) => Ok(Ok(work(body, version)?)),
                (Admission::Late, Ok(())) => return Err(Status::NotServing),
                (Admission::Diverged, Ok(())) => Err(Failure::Diverged),
            };
            Ok(())
        });
        match changed {
            Ok(()) => outcome,
            Err(status) => Err(Failure::Refused(status)),
        }
    }

    /// Runs `work` on a chunk of this chain, which is in the map; a chunk made for it goes again if it
    /// is refused.
    pub(super) fn with_chunk(
        &self,
        id: ChunkId,
        chain: ChainId,
        work: impl FnOnce(&mut Body) -> Result<(), Status>,
    ) -> Result<(), Status> {
        loop {
            let chunk = self.chunks.find_or_make(id, chain, &self.reaped)?;
            let mut body = chunk.body.write();
            if body.condition == Condition::Detached {
                continue;
            }
            if body.condition == Condition::Coming {
                self.remove_attached(&mut body);
                self.chunks.remove(id);
                continue;
            }
            // Whose a chunk without a record was, nobody knows.
            let is_of_chain = body.chain == chain || body.condition == Condition::Bad;
            let result = match is_of_chain {
                true => work(&mut body),
                false => Err(Status::Invalid),
            };
            if body.condition == Condition::New && !self.held.contains(chunk.id) {
                self.discard_new(&chunk, &mut body);
            }
            return result;
        }
    }

    pub(super) fn discard_new(&self, chunk: &Chunk, body: &mut Body) {
        body.condition = Condition::Detached;
        self.chunks.remove(chunk.id);
        self.free_new(body);
    }

    /// Frees what a chunk without a record has.
    pub(super) fn free_new(&self, body: &mut Body) {
        let Some(entry) = body.entry.take() else {
            return;
        };
        self.sums.clear(&mut body.sums);
        self.index.free(std::iter::once(entry));
        self.files.remove(body.id);
    }

    pub(super) fn plan_write(
        &self,
        body: &mut Body,
        write: &Write,
        payload: &[u8],
        terms: Terms,
    ) -> Result<Plan, Status> {
        check_present(body, write.len_expected, terms.lost_below)?;
        let len = payload.len() as u32;
        let (room, file) = self.make_room(body, Blocks::touched(write.offset, len))?;
        self.files.secure(&file, write.offset, len)?;
        let sums = self.merged_sums(&file, body, write, payload)?;
        let change = Change::Write {
            offset: write.offset,
            len,
            sum: payload_sum(&write.sums),
        };
        Ok(Plan {
            change,
            room: room.hold(),
            sums: PlannedSums::Write(sums),
        })
    }

    /// Makes sure of all that bytes in `blocks` will take, also of a chunk that is new; gives the
    /// chunk's file.
    pub(super) fn make_room(
        &self,
        body: &mut Body,
        blocks: Blocks,
    ) -> Result<(Room<'_>, Arc<File>), NoSpace> {
        let is_new = body.condition == Condition::New;
        let page_bytes = u64::from(body.sums.absent_count(blocks)) * PAGE_BYTES;
        let reservation = self
            .budget
            .reserve(page_bytes + if is_new { CHUNK_BYTES } else { 0 })?;
        self.sums.extend(&mut body.sums, blocks, &self.budget)?;
        let file = if is_new {
            self.begin_chunk(body)?
        } else {
            self.files.get(body.id)
        };
        let room = Room {
            reservation,
            planned: PlannedRoom {
                page_bytes,
                is_of_new: is_new,
            },
        };
        Ok((room, file))
    }

    /// Gives a new chunk its place in the index and its file.
    fn begin_chunk(&self, body: &mut Body) -> Result<Arc<File>, NoSpace> {
        let places = self.index.allocate(1, &self.budget)?;
        body.entry = Some(places[0]);
        let file = self.files.create(body.id);
        self.passed(Step::FileCreated, body.id);
        Ok(file)
    }

    /// The sums of the touched blocks as they will be. A block that is overwritten in part is
    /// verified first: otherwise a flipped bit beside the range would be certified.
    fn merged_sums(
        &self,
        file: &File,
        body: &Body,
        write: &Write,
        payload: &[u8],
    ) -> Result<Vec<u32>, Status> {
        let mut rest = payload;
        let pieces = block_pieces(write.offset, payload.len() as u32);
        let merged = pieces.zip(&write.sums).map(|((block, within, take), sum)| {
            let (piece, tail) = rest.split_at(take as usize);
            rest = tail;
            if take == BLOCK_BYTES {
                return Ok(*sum);
            }
            let mut bytes = self.verified_block(file, body, block)?;
            bytes[within as usize..(within + take) as usize].copy_from_slice(piece);
            Ok(crc32c(&bytes))
        });
        merged.collect()
    }

    /// One whole block from memory; `Corrupt` unless it matches its sum.
    pub(super) fn verified_block(
        &self,
        file: &File,
        body: &Body,
        block: u32,
    ) -> Result<Vec<u8>, Status> {
        self.matching_block(file, body, block).ok_or_else(|| {
            tracing::error!(chunk = %body.id, block, "a block does not match its sum");
            Status::Corrupt
        })
    }

    /// The same; none unless it matches.
    pub(super) fn matching_block(&self, file: &File, body: &Body, block: u32) -> Option<Vec<u8>> {
        let bytes = memory::read(file, block * BLOCK_BYTES, BLOCK_BYTES);
        let stored = self.sums.load(&body.sums, Blocks::one(block))[0];
        (crc32c(&bytes) == stored.unwrap_or_else(zero_block_sum)).then_some(bytes)
    }

    /// The chunk is closed for the write. Nothing here is refused or fails.
    pub(super) fn apply_write(
        &self,
        file: &File,
        body: &mut Body,
        offset: u32,
        payload: &[u8],
        sums: &[u32],
    ) -> Version {
        let len = payload.len() as u32;
        self.record(body, Content::Live(body.state));
        self.passed(Step::ChangeRecorded, body.id);
        memory::write(file, offset, payload);
        self.passed(Step::BytesChanged, body.id);
        let entry = body.entry.expect("recorded");
        let blocks = Blocks::touched(offset, len);
        self.sums.store(entry, &mut body.sums, blocks, sums);
        self.finish_change(body)
    }

    /// The bytes and sums of the pending change are in place: opens the chunk again.
    pub(super) fn finish_change(&self, body: &mut Body) -> Version {
        self.passed(Step::SumsChanged, body.id);
        let version = body.state.apply();
        self.record(body, Content::Live(body.state));
        self.passed(Step::CleanRecorded, body.id);
        version
    }
}

/// Refuses what no client sends.
pub(super) fn check_op(op: OpId, epoch: Epoch) -> Result<(), Status> {
    check_epoch(epoch)?;
    if op.slot >= DATA_SLOTS_PER_SESSION || !op.session.is_client() {
        return Err(Status::Invalid);
    }
    Ok(())
}

/// Refuses epochs that records have no room for.
pub(super) fn check_epoch(epoch: Epoch) -> Result<(), Status> {
    if epoch.0 > EPOCH_MAX {
        return Err(Status::Invalid);
    }
    Ok(())
}

/// `DataLost` if bytes that must be there are not: never zeros.
pub(super) fn check_present(
    body: &Body,
    len_expected: u32,
    lost_below: DataId,
) -> Result<(), Status> {
    let is_lost = match body.condition {
        Condition::New | Condition::Coming => body.id.data < lost_below || len_expected > 0,
        Condition::Whole => body.id.data < lost_below || body.state.len() < len_expected,
        Condition::Bad | Condition::Detached => true,
    };
    if is_lost {
        Err(Status::DataLost)
    } else {
        Ok(())
    }
}
