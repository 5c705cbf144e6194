//! Truncations, and other trims, from the first recall to the last cut chunk.
//!
//! | phase | what it waits for |
//! |---|---|
//! | `Recalling` | all other sessions have given the layout up, or ended |
//! | `Durable` | the record with the new size and the pending trim is on the disk |
//! | `Trimming` | the volumes have cut the chunks |
//!
//! A truncation to nothing, and one that cuts no chunk, ends with the first phase. Requests that
//! need the layout meanwhile wait in the work's queue. After a restart a pending trim goes on from
//! `Durable`; a recall begins anew with the retry of its request.

use std::collections::{BTreeMap, VecDeque};

use vdfs_proto::meta::{Access, Mutation, Truncate};
use vdfs_proto::session::{Event, Right};
use vdfs_proto::volume::Command;
use vdfs_proto::{ChunkId, Ino, OpId, SessionId, Status, VolumeId};

use super::Core;
use super::dispatch::WaitFor;
use super::limits::TRIMS_IN_FLIGHT_MAX;
use super::live::{AfterDurable, InProgress, Parked, Recall, Sent};
use super::record::Record;
use super::state::PendingTrim;

/// The session under which the master's own chain writes are known.
pub(crate) const MASTER_SESSION: SessionId = SessionId(0);

/// What is being done to one inode's chunks.
#[derive(Debug, Default)]
pub(crate) struct Work {
    phase: Phase,
    /// Requests that wait for the end.
    pub(crate) waiters: VecDeque<Parked>,
}

#[derive(Debug, Default)]
enum Phase {
    Recalling(OpId, Truncate),
    #[default]
    Durable,
    Trimming(Trimming),
}

#[derive(Debug)]
struct Trimming {
    trim: PendingTrim,
    /// The next chunk to cut.
    next: u32,
    outstanding: BTreeMap<u32, Cut>,
}

/// A chunk whose trim is under way.
#[derive(Clone, Copy, Debug)]
struct Cut {
    volume: VolumeId,
    op: OpId,
    failed: bool,
}

impl Core {
    pub(crate) fn work_on(&self, ino: Ino) -> Option<Ino> {
        self.live.works.contains_key(&ino).then_some(ino)
    }

    /// The session still holds the layout that a truncation recalls: until it has given it up, it
    /// may ask again for what it needs to flush.
    pub(crate) fn is_being_recalled(&self, ino: Ino, session: SessionId) -> bool {
        let phase = self.live.works.get(&ino).map(|work| &work.phase);
        matches!(phase, Some(Phase::Recalling(..))) && self.live.opens.holds_layout(ino, session)
    }

    /// The work that an open has to wait for. A first writer of a file with an unknown tail begins
    /// one: the tail is cut before anything can be written behind it.
    pub(crate) fn work_before_open(&mut self, ino: Ino, access: Access) -> Option<Ino> {
        if let Some(ino) = self.work_on(ino) {
            return Some(ino);
        }
        let file = *self.state.file(ino).ok()?;
        let may_cut = self.live.unresumed.is_empty() && self.live.log_full.is_none();
        if !access.write || !file.tail_unknown || self.live.opens.has_writer(ino) || !may_cut {
            return None;
        }
        let end_chunk = self.state.tail_end_chunk(&file);
        self.log(Record::TailTrim { ino, end_chunk });
        self.begin_durable(ino);
        Some(ino)
    }

    /// Recalls the layout from everybody else, then truncates.
    pub(crate) fn begin_truncate(&mut self, op: OpId, truncate: Truncate) {
        if let Err(status) = self.state.check_truncate(&truncate) {
            self.refuse(op, status);
            return;
        }
        if !self.live.unresumed.is_empty() {
            let mutation = Mutation::Truncate(truncate);
            let request = vdfs_proto::meta::MutateRequest { op, mutation };
            self.park(WaitFor::Resumes, Parked::Mutation(request));
            return;
        }
        let ino = truncate.ino;
        let holders = self.live.opens.layout_holders(ino, op.session);
        if holders.is_empty() {
            self.truncate_now(op, truncate);
            return;
        }
        for holder in holders {
            self.recall(holder, ino, Right::Layout);
        }
        let work = Work {
            phase: Phase::Recalling(op, truncate),
            waiters: VecDeque::new(),
        };
        self.live.works.insert(ino, work);
    }

    fn truncate_now(&mut self, op: OpId, truncate: Truncate) {
        let ino = truncate.ino;
        self.do_mutation(op, Mutation::Truncate(truncate));
        if self.state.trims.contains(ino) {
            self.begin_durable(ino);
        } else {
            self.end_work(ino);
        }
    }

    fn begin_durable(&mut self, ino: Ino) {
        self.live.works.entry(ino).or_default().phase = Phase::Durable;
        self.after_sync(AfterDurable::Trim(ino));
    }

    /// The work is done: what waited for it goes on.
    fn end_work(&mut self, ino: Ino) {
        let work = self.live.works.remove(&ino);
        self.live.maybe_dead.insert(ino);
        if let Some(work) = work {
            self.redispatch(work.waiters);
        }
    }

    /// Goes on with the trims that were pending when this term began.
    pub(crate) fn resume_trims(&mut self) {
        let pending: Vec<(Ino, PendingTrim)> = self
            .state
            .trims
            .iter()
            .map(|(ino, trim)| (ino, *trim))
            .collect();
        for (ino, trim) in pending {
            if let Some(op) = trim.op {
                let waiting = InProgress {
                    seq: op.seq,
                    ticket: None,
                };
                self.live.in_progress.insert((op.session, op.slot), waiting);
            }
            self.begin_durable(ino);
        }
    }

    /// Asks a session to give a right back, once.
    pub(crate) fn recall(&mut self, session: SessionId, ino: Ino, right: Right) {
        let recall = Recall {
            session,
            ino,
            right,
        };
        if self.live.recalls.values().any(|other| *other == recall) {
            return;
        }
        let number = self.live.next_recall;
        self.live.next_recall += 1;
        self.live.recalls.insert(number, recall);
        let event = Event::Recall {
            recall: number,
            ino,
            right,
        };
        self.live.notify(session, event);
    }

    /// A session has given up what it held of the inode: whoever waits for that goes on.
    pub(crate) fn rights_changed(&mut self, ino: Ino) {
        self.go_on_truncating(ino);
        if self.live.opens.appender(ino).is_none()
            && let Some(waiters) = self.live.append_waiters.remove(&ino)
        {
            self.redispatch(waiters);
        }
    }

    fn go_on_truncating(&mut self, ino: Ino) {
        let Some(work) = self.live.works.get(&ino) else {
            return;
        };
        let Phase::Recalling(op, truncate) = &work.phase else {
            return;
        };
        let (op, truncate) = (*op, truncate.clone());
        if !self.live.in_progress.contains_key(&(op.session, op.slot)) {
            self.end_work(ino);
            return;
        }
        if !self.live.opens.layout_holders(ino, op.session).is_empty() {
            return;
        }
        match self.live.log_full.is_some() {
            true => {
                self.give_up((op.session, op.slot), Status::NoSpace);
                self.end_work(ino);
            }
            false => self.truncate_now(op, truncate),
        }
    }

    /// The record of the trim is durable: the volumes may cut.
    pub(crate) fn begin_trimming(&mut self, ino: Ino) {
        let Some(trim) = self.state.trims.get(ino).copied() else {
            return;
        };
        let chunk_size = self.state.config.chunk_size;
        let next = (trim.size / u64::from(chunk_size.bytes())) as u32;
        let trimming = Trimming {
            trim,
            next,
            outstanding: BTreeMap::new(),
        };
        self.live.works.entry(ino).or_default().phase = Phase::Trimming(trimming);
        self.pump_trims();
    }

    /// Sends trims as far as windows and slots allow.
    fn pump_trims(&mut self) {
        let inos: Vec<Ino> = self.live.works.keys().copied().collect();
        for ino in inos {
            while self.cut_next_chunk(ino) {}
        }
    }

    /// False if there is nothing more to send now.
    fn cut_next_chunk(&mut self, ino: Ino) -> bool {
        let Some(Phase::Trimming(trimming)) = self.live.works.get(&ino).map(|work| &work.phase)
        else {
            return false;
        };
        let index = trimming.next;
        if index >= trimming.trim.end_chunk || trimming.outstanding.len() >= TRIMS_IN_FLIGHT_MAX {
            return false;
        }
        let cut = match self.volume_of_chunk(ino, index) {
            None => None,
            Some(volume) => match self.take_slot(volume) {
                None => return false,
                Some(op) => Some(Cut {
                    volume,
                    op,
                    failed: false,
                }),
            },
        };
        let trimming = self.trimming_mut(ino).expect("seen above");
        trimming.next += 1;
        if let Some(cut) = cut {
            trimming.outstanding.insert(index, cut);
            self.send_trim(ino, index, cut);
        }
        true
    }

    fn trimming_mut(&mut self, ino: Ino) -> Option<&mut Trimming> {
        match &mut self.live.works.get_mut(&ino)?.phase {
            Phase::Trimming(trimming) => Some(trimming),
            Phase::Recalling(..) | Phase::Durable => None,
        }
    }

    /// `None` if no volume ever held this chunk's chain.
    fn volume_of_chunk(&self, ino: Ino, index: u32) -> Option<VolumeId> {
        let file = self.state.file(ino).ok()?;
        let chain = self.state.table.chain(file.layout().chain(index))?;
        Some(chain.members.first()?.volume)
    }

    fn take_slot(&mut self, volume: VolumeId) -> Option<OpId> {
        let live = self.live.volumes.get_mut(&volume)?;
        let slot = live.free_slots.pop_first()?;
        let seq = live.next_seq;
        live.next_seq += 1;
        Some(OpId {
            session: MASTER_SESSION,
            slot,
            seq,
        })
    }

    fn send_trim(&mut self, ino: Ino, index: u32, cut: Cut) {
        let Some(trim) = self.state.trims.get(ino) else {
            return;
        };
        let file = self.state.file(ino).expect("a trimmed inode is a file");
        let command = Command::Trim {
            op: cut.op,
            chain: file.layout().chain(index),
            chunk: ChunkId {
                data: file.data,
                index,
            },
            len: self.state.config.chunk_size.chunk_len(trim.size, index),
        };
        self.live
            .send(cut.volume, command, Sent::Trim { ino, index });
    }

    pub(crate) fn trim_answered(&mut self, ino: Ino, index: u32, result: Result<(), Status>) {
        let done = match result {
            Ok(()) | Err(Status::Gone | Status::NotFound | Status::DataLost) => true,
            Err(_) => false,
        };
        let Some(trimming) = self.trimming_mut(ino) else {
            return;
        };
        if !done {
            if let Some(cut) = trimming.outstanding.get_mut(&index) {
                cut.failed = true;
            }
            return;
        }
        let Some(cut) = trimming.outstanding.remove(&index) else {
            return;
        };
        if let Some(live) = self.live.volumes.get_mut(&cut.volume) {
            live.free_slots.insert(cut.op.slot);
        }
        self.pump_trims();
    }

    /// Sends trims again.
    fn resend_trims(&mut self, which: impl Fn(&Cut) -> bool) {
        let mut again = Vec::new();
        for (ino, work) in &mut self.live.works {
            let Phase::Trimming(trimming) = &mut work.phase else {
                continue;
            };
            for (index, cut) in &mut trimming.outstanding {
                if which(cut) {
                    cut.failed = false;
                    again.push((*ino, *index, *cut));
                }
            }
        }
        for (ino, index, cut) in again {
            self.send_trim(ino, index, cut);
        }
    }

    /// Tries again what volumes refused: a new op in the same slot, as the refusal was an answer.
    pub(crate) fn retry_trims(&mut self) {
        for work in self.live.works.values_mut() {
            let Phase::Trimming(trimming) = &mut work.phase else {
                continue;
            };
            let failed = trimming.outstanding.values_mut().filter(|cut| cut.failed);
            for cut in failed {
                let live = self.live.volumes.get_mut(&cut.volume);
                let next_seq = &mut live.expect("its slot is taken").next_seq;
                cut.op.seq = *next_seq;
                *next_seq += 1;
            }
        }
        self.resend_trims(|cut| cut.failed);
    }

    /// The volume has registered again, and may have missed any of them: each goes with its op id,
    /// so that none is done twice.
    pub(crate) fn resend_trims_to(&mut self, volume: VolumeId) {
        self.resend_trims(|cut| cut.volume == volume);
    }

    /// Logs trims whose last chunk is cut, and answers those who wait for them.
    pub(crate) fn finish_trims(&mut self) {
        let is_done = |work: &Work| match &work.phase {
            Phase::Trimming(trimming) => {
                trimming.next >= trimming.trim.end_chunk && trimming.outstanding.is_empty()
            }
            Phase::Recalling(..) | Phase::Durable => false,
        };
        let works = self.live.works.iter();
        let done: Vec<Ino> = works
            .filter(|(_, work)| is_done(work))
            .map(|(ino, _)| *ino)
            .collect();
        for ino in done {
            let applied = self.log(Record::Trimmed { ino });
            if let Some((op, outcome)) = applied.answer {
                self.settle(op, outcome);
            }
            self.end_work(ino);
        }
    }
}
