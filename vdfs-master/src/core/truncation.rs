//! Truncations, and other trims, from the first recall to the last cut chunk.
//!
//! | phase | what it waits for |
//! |---|---|
//! | `Recalling` | all other sessions have given the layout up, or ended |
//! | `Durable` | the record with the pending trim, and the new size, is on the disk |
//! | `Trimming` | the volumes have cut the chunks |
//!
//! A truncation to nothing, one that cuts no chunk, and a change of where the bytes lie, end with the
//! first phase. An op that makes a gap in a file with an unknown tail has the tail cut in the same way.
//! Requests that need the layout meanwhile wait in the work's queue. After a restart a pending trim goes on from
//! `Durable`; a recall begins anew with the retry of its request.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use vdfs_proto::limits::CHAINS_PER_GROUP;
use vdfs_proto::meta::{Access, Commit, Mutation, TakeOver, Truncate};
use vdfs_proto::session::{Event, Right};
use vdfs_proto::volume::Command;
use vdfs_proto::{ChainId, ChainTable, Ino, OpId, SessionId, Status, VolumeId};

use super::Core;
use super::chains::head_of;
use super::dispatch::WaitFor;
use super::live::{AfterDurable, AskedBack, InProgress, LiveVolume, Parked, Recall, Sent};
use super::record::Record;
use super::state::PendingTrim;

/// What is being done to one inode's chunks.
#[derive(Debug, Default)]
pub(crate) struct Work {
    phase: Phase,
    /// Requests that wait for the end.
    pub(crate) waiters: VecDeque<Parked>,
}

#[derive(Debug, Default)]
enum Phase {
    Recalling(OpId, Then),
    #[default]
    Durable,
    Trimming(Trimming),
}

/// What follows when nobody but the session of the op holds the layout.
#[derive(Clone, Debug)]
enum Then {
    Truncate(Truncate),
    /// Ends with it.
    TakeOver(TakeOver),
    /// The op waits for the end of it.
    CutTail,
}

#[derive(Debug, Default)]
struct Trimming {
    /// Who cuts the chunks of each chain: its head. `None` while it has none: the work waits.
    heads: BTreeMap<ChainId, Option<VolumeId>>,
    /// Volumes that have not been asked for want of a slot.
    unsent: BTreeSet<VolumeId>,
    under_way: BTreeMap<VolumeId, Cut>,
}

/// A volume cuts the chunks that it has.
#[derive(Clone, Copy, Debug)]
struct Cut {
    op: OpId,
    failed: bool,
}

impl Trimming {
    fn is_done(&self) -> bool {
        let is_idle = self.unsent.is_empty() && self.under_way.is_empty();
        is_idle && self.heads.values().all(Option::is_some)
    }

    /// Leaves volumes that are no heads any more, and asks those that are new ones. Gives the slots
    /// that nobody uses now.
    fn follow(&mut self, table: &ChainTable) -> Vec<(VolumeId, u16)> {
        for (id, head) in &mut self.heads {
            let now = table.chain(*id).and_then(head_of);
            let before = std::mem::replace(head, now);
            let Some(volume) = now.filter(|_| now != before) else {
                continue;
            };
            // What it is doing already may not know of this chain.
            match self.under_way.get_mut(&volume) {
                Some(cut) => cut.failed = true,
                None => drop(self.unsent.insert(volume)),
            }
        }
        let heads: BTreeSet<VolumeId> = self.heads.values().copied().flatten().collect();
        self.unsent.retain(|volume| heads.contains(volume));
        let gone = self
            .under_way
            .extract_if(.., |volume, _| !heads.contains(volume));
        gone.map(|(volume, cut)| (volume, cut.op.slot)).collect()
    }
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

    /// The session waits for others to give up their layouts. It appends nothing before it has cut,
    /// not even to give up its token: what others commit until then waits for neither.
    pub(crate) fn is_truncating(&self, ino: Ino, session: SessionId) -> bool {
        let phase = self.live.works.get(&ino).map(|work| &work.phase);
        matches!(phase, Some(Phase::Recalling(op, _)) if op.session == session)
    }

    /// What an open has to wait for. A first writer of a file with an unknown tail begins a work:
    /// the tail is cut before anything can be written behind it.
    pub(crate) fn wait_before_open(&mut self, ino: Ino, access: Access) -> Option<WaitFor> {
        if let Some(ino) = self.work_on(ino) {
            return Some(WaitFor::Work(ino));
        }
        if self.is_empty_on_lost_chains(ino) {
            if !self.live.unresumed.is_empty() {
                return Some(WaitFor::Resumes);
            }
            self.renew_empty(ino);
        }
        let file = *self.state.file(ino).ok()?;
        let may_cut = self.live.unresumed.is_empty() && self.live.log_full.is_none();
        if !access.write || !file.tail_unknown || self.live.opens.has_writer(ino) || !may_cut {
            return None;
        }
        self.cut_tail(ino);
        Some(WaitFor::Work(ino))
    }

    /// What an op that lets the file grow without bytes has to wait for. Nobody else's bytes may lie
    /// in the gap that nobody answers for: an unknown tail is cut when all others have committed
    /// what they have behind the end.
    pub(crate) fn wait_before_gap(&mut self, op: OpId, commit: &Commit) -> Option<WaitFor> {
        let ino = commit.ino;
        if let Some(ino) = self.work_on(ino) {
            return Some(WaitFor::Work(ino));
        }
        if let Some(wait) = self.wait_before_commit(op.session, commit) {
            return Some(wait);
        }
        let file = *self.state.file(ino).ok()?;
        let is_stale = (commit.data, commit.truncations) != (file.data, file.truncations);
        if is_stale || commit.end < file.size || !file.tail_unknown {
            return None;
        }
        if !self.live.unresumed.is_empty() {
            return Some(WaitFor::Resumes);
        }
        self.recall_from_others(op, ino, Then::CutTail);
        Some(WaitFor::Work(ino))
    }

    fn cut_tail(&mut self, ino: Ino) {
        self.log(Record::TailTrim { ino });
        self.begin_durable(ino);
    }

    /// Recalls the layout from everybody else, then truncates.
    pub(crate) fn begin_truncate(&mut self, op: OpId, truncate: Truncate) {
        if let Err(status) = self.state.check_truncate(&truncate) {
            self.refuse(op, status);
            return;
        }
        match self.live.unresumed.is_empty() {
            true => self.recall_from_others(op, truncate.ino, Then::Truncate(truncate)),
            false => self.park_for_resumes(op, Mutation::Truncate(truncate)),
        }
    }

    /// Recalls the layout from everybody else, so that they commit what they have, and then lets the
    /// file have its bytes elsewhere. Who has them open asks for the new layout.
    pub(crate) fn begin_take_over(&mut self, op: OpId, take: TakeOver) {
        let others = self.live.opens.layout_holders(take.from, op.session);
        let planned = match others.is_empty() && self.work_on(take.from).is_none() {
            true => self.state.plan_take_over(&take).map(drop),
            false => Err(Status::Invalid),
        };
        if let Err(status) = planned {
            self.refuse(op, status);
            return;
        }
        match self.live.unresumed.is_empty() {
            true => self.recall_from_others(op, take.ino, Then::TakeOver(take)),
            false => self.park_for_resumes(op, Mutation::TakeOver(take)),
        }
    }

    /// It is not known yet who has what open.
    fn park_for_resumes(&mut self, op: OpId, mutation: Mutation) {
        let request = vdfs_proto::meta::MutateRequest { op, mutation };
        self.park(WaitFor::Resumes, Parked::Mutation(request));
    }

    /// An op that is repeated, or a session that resumes, may be given a layout that a truncation has
    /// recalled from all others.
    pub(crate) fn recall_from_late(&mut self, session: SessionId, ino: Ino) {
        let phase = self.live.works.get(&ino).map(|work| &work.phase);
        if matches!(phase, Some(Phase::Recalling(op, _)) if op.session != session) {
            self.recall(session, ino, Right::Layout);
        }
    }

    fn recall_from_others(&mut self, op: OpId, ino: Ino, then: Then) {
        let holders = self.live.opens.layout_holders(ino, op.session);
        if holders.is_empty() {
            self.go_on_alone(op, ino, then);
            return;
        }
        for holder in holders {
            self.recall(holder, ino, Right::Layout);
        }
        let work = Work {
            phase: Phase::Recalling(op, then),
            waiters: VecDeque::new(),
        };
        self.live.works.insert(ino, work);
        // Commits that waited for the token of the one who now waits for them.
        if let Some(waiters) = self.live.append_waiters.remove(&ino) {
            self.redispatch(waiters);
        }
    }

    fn go_on_alone(&mut self, op: OpId, ino: Ino, then: Then) {
        match then {
            Then::Truncate(truncate) => self.truncate_now(op, truncate),
            Then::TakeOver(take) => {
                self.do_mutation(op, Mutation::TakeOver(take));
                self.end_work(take.ino);
            }
            Then::CutTail => self.cut_tail(ino),
        }
    }

    fn truncate_now(&mut self, op: OpId, truncate: Truncate) {
        let ino = truncate.ino;
        if self.is_empty_on_lost_chains(ino) {
            self.renew_empty(ino);
        }
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
        if self
            .live
            .recalls
            .values()
            .any(|other| other.recall == recall)
        {
            return;
        }
        let (number, now_ms) = (self.live.next_recall, self.live.now.boot_ms);
        self.live.next_recall += 1;
        let asked = AskedBack {
            recall,
            asked_ms: now_ms,
            heard_ms: now_ms,
        };
        self.live.recalls.insert(number, asked);
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
        let Phase::Recalling(op, then) = &work.phase else {
            return;
        };
        let (op, then) = (*op, then.clone());
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
            false => self.go_on_alone(op, ino, then),
        }
    }

    /// The record of the trim is durable: the volumes may cut.
    pub(crate) fn begin_trimming(&mut self, ino: Ino) {
        let Some(trim) = self.state.trims.get(ino).copied() else {
            return;
        };
        let heads = self.heads_past(ino, trim.size);
        let trimming = Trimming {
            unsent: heads.values().copied().flatten().collect(),
            under_way: BTreeMap::new(),
            heads,
        };
        self.live.works.entry(ino).or_default().phase = Phase::Trimming(trimming);
        self.pump_trims();
    }

    /// Who cuts the file past `size`: the heads of the chains that may have bytes there.
    fn heads_past(&self, ino: Ino, size: u64) -> BTreeMap<ChainId, Option<VolumeId>> {
        let file = self.state.file(ino).expect("a trimmed inode is a file");
        let first = self.first_cut_chunk(size);
        let chunks = match file.tail_unknown {
            true => CHAINS_PER_GROUP,
            false => file.chunks.saturating_sub(first).min(CHAINS_PER_GROUP),
        };
        let layout = file.layout();
        let chains = (0..chunks).map(|step| layout.chain(first.wrapping_add(step)));
        let known = chains.filter_map(|id| Some((id, self.live.table.chain(id)?)));
        known.map(|(id, chain)| (id, head_of(chain))).collect()
    }

    /// Some chains have other heads now: these cut what the others may have left.
    pub(crate) fn follow_heads(&mut self) {
        let table = self.live.table.clone();
        for work in self.live.works.values_mut() {
            let Phase::Trimming(trimming) = &mut work.phase else {
                continue;
            };
            for (volume, slot) in trimming.follow(&table) {
                if let Some(live) = self.live.volumes.get_mut(&volume) {
                    live.free_slots.insert(slot);
                }
            }
        }
        self.pump_trims();
    }

    /// The chunk in which `size` bytes end; the last one if they fill all that a file can have.
    fn first_cut_chunk(&self, size: u64) -> u32 {
        let index = size / u64::from(self.state.config.chunk_size.bytes());
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// Sends trims as far as there are slots.
    fn pump_trims(&mut self) {
        let mut sent = Vec::new();
        for (ino, work) in &mut self.live.works {
            let Phase::Trimming(trimming) = &mut work.phase else {
                continue;
            };
            for volume in trimming.unsent.clone() {
                let live = self.live.volumes.get_mut(&volume);
                if let Some(op) = live.and_then(LiveVolume::take_slot) {
                    trimming.unsent.remove(&volume);
                    trimming.under_way.insert(volume, Cut { op, failed: false });
                    sent.push((*ino, volume, op));
                }
            }
        }
        for (ino, volume, op) in sent {
            self.send_trim(ino, volume, op);
        }
    }

    fn send_trim(&mut self, ino: Ino, volume: VolumeId, op: OpId) {
        let Some(trim) = self.state.trims.get(ino) else {
            return;
        };
        let file = self.state.file(ino).expect("a trimmed inode is a file");
        let index = self.first_cut_chunk(trim.size);
        let command = Command::Trim {
            op,
            layout: file.layout(),
            index,
            len: self.state.config.chunk_size.chunk_len(trim.size, index),
        };
        self.live.send(volume, command, Sent::Trim(ino));
    }

    pub(crate) fn trim_answered(&mut self, ino: Ino, volume: VolumeId, result: Result<(), Status>) {
        let work = self.live.works.get_mut(&ino);
        let Some(Phase::Trimming(trimming)) = work.map(|work| &mut work.phase) else {
            return;
        };
        let Some(cut) = trimming.under_way.get_mut(&volume) else {
            return;
        };
        if result.is_err() {
            cut.failed = true;
            return;
        }
        let slot = cut.op.slot;
        trimming.under_way.remove(&volume);
        if let Some(live) = self.live.volumes.get_mut(&volume) {
            live.free_slots.insert(slot);
        }
        self.pump_trims();
    }

    /// Sends trims again. A new op in the same slot each time: a refusal was an answer, and a volume
    /// that was restarted in the middle takes the op for done.
    fn resend_trims(&mut self, which: impl Fn(VolumeId, &Cut) -> bool) {
        let mut again = Vec::new();
        for (ino, work) in &mut self.live.works {
            let Phase::Trimming(trimming) = &mut work.phase else {
                continue;
            };
            for (volume, cut) in &mut trimming.under_way {
                if which(*volume, cut) {
                    let live = self.live.volumes.get_mut(volume);
                    cut.op.seq = live.expect("its slot is taken").take_seq();
                    cut.failed = false;
                    again.push((*ino, *volume, cut.op));
                }
            }
        }
        for (ino, volume, op) in again {
            self.send_trim(ino, volume, op);
        }
    }

    /// Tries again what volumes refused.
    pub(crate) fn retry_trims(&mut self) {
        self.resend_trims(|_, cut| cut.failed);
    }

    /// The volume has registered again, and may have missed any of them.
    pub(crate) fn resend_trims_to(&mut self, volume: VolumeId) {
        self.resend_trims(|of, _| of == volume);
    }

    /// Logs trims whose last chunk is cut, and answers those who wait for them.
    pub(crate) fn finish_trims(&mut self) {
        let is_done = |work: &Work| match &work.phase {
            Phase::Trimming(trimming) => trimming.is_done(),
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
