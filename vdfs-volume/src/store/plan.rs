//! A change that has all that it needs: what it will do to its chunk, and the room for it. Up to here
//! it may be refused; from here on it cannot fail.
//!
//! The last member of a chain plans a change and carries it out in one go. The others hold the plan
//! until their successor has applied: meanwhile the chunk's bytes and record stay as they are.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use vdfs_proto::{ChunkId, OpId, Status, Version};

use super::chunks::{Body, Chunk, Condition};
use super::job::Job;
use super::space::Edge;
use super::write::Room;
use super::{CHUNK_BYTES, Store};
use crate::chain::{Change, Failure, Prepared, Rule, Terms};

/// What is to be done.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) change: Change,
    pub(super) room: PlannedRoom,
    pub(super) sums: PlannedSums,
}

/// Room that is taken of the budget.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PlannedRoom {
    pub(super) page_bytes: u64,
    /// The chunk is made for the change.
    pub(super) is_of_new: bool,
}

impl PlannedRoom {
    fn bytes(self) -> u64 {
        self.page_bytes + if self.is_of_new { CHUNK_BYTES } else { 0 }
    }
}

/// The sums as they will be.
#[derive(Debug)]
pub(super) enum PlannedSums {
    /// Of all blocks that a write touches.
    Write(Vec<u32>),
    /// Of the blocks that a change of space zeroes in part.
    Space(Vec<Edge>),
    /// Of the block at the cut.
    Cut(Option<u32>),
}

/// A plan that waits for the successor.
#[derive(Debug)]
struct Held {
    op: OpId,
    version: Version,
    chunk: Arc<Chunk>,
    job: Arc<Job>,
    plan: Plan,
}

/// At most one a chunk.
#[derive(Debug, Default)]
pub(super) struct HeldPlans(Mutex<HashMap<ChunkId, Held>>);

impl HeldPlans {
    pub(super) fn contains(&self, chunk: ChunkId) -> bool {
        self.0.lock().contains_key(&chunk)
    }

    fn take(&self, op: OpId, chunk: ChunkId) -> Held {
        let held = self.0.lock().remove(&chunk).expect("it was prepared");
        assert_eq!(held.op, op, "one change of a chunk at a time");
        held
    }
}

impl Store {
    /// Makes a change that was checked, or finds that it was made before.
    ///
    /// Refuses with `Corrupt` if a block that is changed in part does not match its sum; `NoSpace`,
    /// `DataLost`, `Gone`; and what the terms refuse.
    pub fn execute(&self, job: &Job, rule: Rule, terms: Terms) -> Result<Version, Failure> {
        if let Job::Copy {
            copy,
            source_lost_below,
        } = job
        {
            terms.admission.map_err(Failure::Refused)?;
            let write = self.copied(copy, *source_lost_below);
            return self.execute(&write.map_err(Failure::Refused)?, rule, terms);
        }
        let done = self.change_by(job, rule, terms, |body, version| {
            Ok(match self.plan(body, job, rule, terms)? {
                Some(plan) => self.carry_out(body, job, version, plan),
                None => body.state.version(),
            })
        });
        done.map(|done| done.unwrap_or_else(|already| already))
    }

    /// Plans a change that was checked, and holds the plan for [`Store::apply`] or
    /// [`Store::discard`]. Refuses as [`Store::execute`] does.
    pub fn prepare(&self, job: &Arc<Job>, rule: Rule, terms: Terms) -> Result<Prepared, Failure> {
        let prepared = self.change_by(job, rule, terms, |body, version| {
            let base = body.state.version();
            let Some(plan) = self.plan(body, job, rule, terms)? else {
                return Ok(Prepared::Already(base));
            };
            let chunk = self.chunks.find(body.id);
            let held = Held {
                op: job.op(),
                version,
                // It may have been reaped since it was looked up.
                chunk: chunk.ok_or(Status::Gone)?,
                job: job.clone(),
                plan,
            };
            let before = self.held.0.lock().insert(body.id, held);
            assert!(before.is_none(), "one change of a chunk at a time");
            Ok(Prepared::Ready { base, version })
        });
        prepared.map(|done| done.unwrap_or_else(Prepared::Already))
    }

    /// Makes the change that was prepared. If its file was reaped meanwhile, nothing is left to do.
    pub fn apply(&self, op: OpId, chunk: ChunkId) {
        let held = self.held.take(op, chunk);
        let mut body = held.chunk.body.write();
        if body.condition == Condition::Detached {
            return self.let_go(&held, &mut body);
        }
        self.carry_out(&mut body, &held.job, held.version, held.plan);
    }

    /// Drops the change that was prepared.
    pub fn discard(&self, op: OpId, chunk: ChunkId) {
        let held = self.held.take(op, chunk);
        let mut body = held.chunk.body.write();
        self.let_go(&held, &mut body);
    }

    fn let_go(&self, held: &Held, body: &mut Body) {
        match body.condition {
            Condition::New => self.discard_new(&held.chunk, body),
            // Reaped before its first write: only the plan knew what it had.
            Condition::Detached => self.free_new(body),
            Condition::Whole | Condition::Bad | Condition::Coming => {}
        }
        self.budget.release(held.plan.room.bytes());
    }

    /// `None` if there is nothing to do, which only the head of a chain finds out: the others follow
    /// it.
    fn plan(
        &self,
        body: &mut Body,
        job: &Job,
        rule: Rule,
        terms: Terms,
    ) -> Result<Option<Plan>, Status> {
        let is_head = matches!(rule, Rule::Next(_));
        match job {
            Job::Write { write, payload } => self.plan_write(body, write, payload, terms).map(Some),
            Job::Space(ask) => self.plan_space(body, ask, terms, is_head),
            Job::Cut(cut) => Ok(self.plan_cut(body, cut, is_head)),
            Job::Copy { .. } => unreachable!("its bytes were read, it is a write"),
        }
    }

    /// Nothing here is refused or fails.
    fn carry_out(&self, body: &mut Body, job: &Job, version: Version, plan: Plan) -> Version {
        body.charged += plan.room.page_bytes;
        body.condition = Condition::Whole;
        let pending = body.state.close(Some(job.op()), version, plan.change);
        let file = self.files.get(body.id);
        match (job, plan.sums) {
            (Job::Write { write, payload }, PlannedSums::Write(sums)) => {
                self.apply_write(&file, body, write.offset, payload, &sums)
            }
            (Job::Space(_), PlannedSums::Space(edges)) => {
                let Change::Space(space) = pending.change else {
                    unreachable!("planned for it")
                };
                self.apply_space(&file, body, space, &edges)
            }
            (Job::Cut(cut), PlannedSums::Cut(boundary)) => {
                // A block that was bad when this was planned may have been made good.
                let boundary = boundary.or_else(|| self.boundary_sum(&file, body, cut.len));
                self.apply_cut(&file, body, cut.len, boundary)
            }
            _ => unreachable!("a plan is carried out with its job"),
        }
    }
}

impl Room<'_> {
    /// The room is taken until the plan is carried out or dropped.
    pub(super) fn hold(self) -> PlannedRoom {
        self.reservation.keep();
        self.planned
    }
}
