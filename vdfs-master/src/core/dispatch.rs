//! Requests: who may ask, whether it was asked before, who has to be waited for.

use std::collections::VecDeque;

use vdfs_proto::limits::META_SLOTS_PER_SESSION;
use vdfs_proto::meta::{
    AdminReply, AdminRequest, Commit, Create, MutateRequest, Mutated, Mutation, NewKind,
};
use vdfs_proto::session::{OpenHandle, Right};
use vdfs_proto::{Ino, OpId, SessionId, Status};

use super::limits::WAITERS_MAX;
use super::live::{AfterDurable, InProgress, Parked, Seat};
use super::namespace::Facts;
use super::record::Record;
use super::replies::{Novelty, Outcome};
use super::{Core, CoreReply, CoreRequest, Ticket};

impl Core {
    pub(crate) fn take_request(&mut self, ticket: Ticket, request: CoreRequest) {
        if let Err(status) = self.check_owner(&request) {
            self.live.reply(ticket, Err(status));
            return;
        }
        match request {
            CoreRequest::Mutate(_, request) => self.take_mutation(ticket, request),
            CoreRequest::Query(_, request) => self.take_query(ticket, request),
            CoreRequest::Session(peer, request) => {
                self.take_session_request(ticket, peer, request);
            }
            CoreRequest::Admin(request) => self.take_admin_request(ticket, request),
            CoreRequest::Volume { node, request } => {
                self.take_volume_request(ticket, &node, request);
            }
        }
    }

    fn take_admin_request(&mut self, ticket: Ticket, request: AdminRequest) {
        if request.is_order() && self.live.log_full.is_some() {
            return self.live.reply(ticket, Err(Status::Busy));
        }
        match request {
            AdminRequest::SetReplicas(set) => self.set_replicas(ticket, set.replicas),
            AdminRequest::DrainVolume(drain) => self.drain_volume(ticket, drain),
            AdminRequest::RemoveVolume(remove) => self.remove_volume(ticket, remove),
            AdminRequest::PauseBalance(pause) => self.pause_balance(ticket, pause),
            AdminRequest::DropOrphans(drop) => self.drop_orphans(ticket, drop),
            question => {
                let answer = self.answer_admin(&question);
                self.live.reply(ticket, answer.map(CoreReply::Admin));
            }
        }
    }

    /// Answered when it is on the disk.
    pub(crate) fn log_order(&mut self, ticket: Ticket, order: Record, reply: AdminReply) {
        self.log(order);
        self.after_sync(AfterDurable::Reply(ticket, CoreReply::Admin(reply)));
    }

    /// `WrongRole` if the request speaks for a session that another certificate has opened.
    fn check_owner(&self, request: &CoreRequest) -> Result<(), Status> {
        let (peer, session) = match request {
            CoreRequest::Mutate(peer, request) => (peer, request.op.session),
            CoreRequest::Query(peer, request) => (peer, request.session),
            CoreRequest::Session(peer, request) => match request.session() {
                Some(session) => (peer, session),
                None => return Ok(()),
            },
            CoreRequest::Admin(_) | CoreRequest::Volume { .. } => return Ok(()),
        };
        match self.state.sessions.get(session) {
            Some(stored) if stored.owner != *peer => Err(Status::WrongRole),
            Some(_) | None => Ok(()),
        }
    }

    /// The session is live; it is heard by this.
    pub(crate) fn hear(&mut self, session: SessionId) -> Result<(), Status> {
        let stored = self.state.sessions.get(session);
        let is_live = stored.is_some_and(|stored| stored.closing.is_none());
        match self.live.sessions.get_mut(&session) {
            Some(live) if is_live => {
                live.heard_ms = live.heard_ms.max(self.live.now.boot_ms);
                Ok(())
            }
            _ => Err(Status::SessionExpired),
        }
    }

    fn take_mutation(&mut self, ticket: Ticket, request: MutateRequest) {
        if let Err(status) = self.admit(ticket, request) {
            self.live.reply(ticket, Err(status));
        }
    }

    /// Answers a retry, joins one that is in progress, or begins the mutation.
    fn admit(&mut self, ticket: Ticket, request: MutateRequest) -> Result<(), Status> {
        let op = request.op;
        self.hear(op.session)?;
        if op.slot >= META_SLOTS_PER_SESSION || op.seq == 0 {
            return Err(Status::Invalid);
        }
        let session = self.state.sessions.get(op.session);
        let slots = &session.ok_or(Status::SessionExpired)?.slots;
        match slots.novelty(op.slot, op.seq) {
            Novelty::Stale => return Err(Status::StaleRequest),
            Novelty::Repeated(outcome) => {
                self.repeat(ticket, &request, outcome);
                return Ok(());
            }
            Novelty::New => {}
        }
        if self.join(ticket, op)? {
            return Ok(());
        }
        if self.live.log_full.is_some() {
            return Err(Status::NoSpace);
        }
        if self.live.in_progress.len() >= WAITERS_MAX {
            return Err(Status::Busy);
        }
        let waiting = InProgress {
            seq: op.seq,
            ticket: Some(ticket),
        };
        self.live.in_progress.insert((op.session, op.slot), waiting);
        self.live
            .seats
            .insert(ticket, Seat::Op(op.session, op.slot));
        self.execute(request);
        Ok(())
    }

    /// True if the op is in progress: its answer now goes to `ticket`.
    fn join(&mut self, ticket: Ticket, op: OpId) -> Result<bool, Status> {
        let Some(waiting) = self.live.in_progress.get_mut(&(op.session, op.slot)) else {
            return Ok(false);
        };
        if waiting.seq != op.seq {
            // A slot is used again only after its answer.
            return Err(Status::StaleRequest);
        }
        let before = waiting.ticket.replace(ticket);
        self.live
            .seats
            .insert(ticket, Seat::Op(op.session, op.slot));
        if let Some(before) = before {
            self.live.reply(before, Err(Status::Busy));
        }
        Ok(true)
    }

    /// The first answer again; the handle of a create is registered again.
    fn repeat(&mut self, ticket: Ticket, request: &MutateRequest, mut outcome: Outcome) {
        if let (Mutation::Create(create), Ok(mutated)) = (&request.mutation, &mut outcome) {
            self.open_created(request.op.session, create, mutated);
        }
        self.live.reply(ticket, outcome.map(CoreReply::Mutate));
    }

    /// Does a mutation that is in `in_progress`, or parks it.
    fn execute(&mut self, request: MutateRequest) {
        if let Some(wait) = self.must_wait_for(&request) {
            self.park(wait, Parked::Mutation(request));
            return;
        }
        match request.mutation {
            Mutation::Truncate(truncate) => self.begin_truncate(request.op, truncate),
            Mutation::TakeOver(take) => self.begin_take_over(request.op, take),
            Mutation::Lock(lock) => self.do_lock(request.op, lock),
            Mutation::Unlock(unlock) => self.do_unlock(request.op, unlock),
            mutation => self.do_mutation(request.op, mutation),
        }
    }

    /// What is in the way: a truncation, or the right of another session.
    fn must_wait_for(&mut self, request: &MutateRequest) -> Option<WaitFor> {
        match &request.mutation {
            Mutation::Truncate(truncate) => self.work_on(truncate.ino).map(WaitFor::Work),
            Mutation::TakeOver(take) => self.work_on(take.ino).map(WaitFor::Work),
            Mutation::Commit(commit) => self.wait_before_commit(request.op.session, commit),
            Mutation::Extend(extend) => self.wait_before_gap(request.op, &extend.commit),
            Mutation::Create(create) => {
                let (_, access) = create.open?;
                // What is refused anyway has nothing cut and nothing renewed.
                self.check_create_handle(request.op, create).ok()?;
                let ino = self.state.find(create.parent, &create.name).ok()??;
                let opens = !create.exclusive && create.kind == NewKind::Regular;
                if !opens || self.state.file(ino).is_err() {
                    return None;
                }
                self.wait_before_open(ino, access)
            }
            _ => None,
        }
    }

    /// A file grows only when its chunks are trimmed, and under a token by its holder alone: the
    /// others' bytes would lie where the holder appends. A writer that has not resumed may hold one.
    pub(crate) fn wait_before_commit(
        &mut self,
        session: SessionId,
        commit: &Commit,
    ) -> Option<WaitFor> {
        let ino = commit.ino;
        if self.state.trims.contains(ino) {
            return Some(WaitFor::Work(ino));
        }
        if commit.end <= self.state.file(ino).ok()?.size {
            return None;
        }
        let may_hold =
            |other: &SessionId| *other != session && self.state.writers.contains((*other, ino));
        if self.live.unresumed.iter().any(may_hold) {
            return Some(WaitFor::Resumes);
        }
        let holder = self.live.opens.appender(ino)?;
        if holder == session || self.is_truncating(ino, holder) {
            return None;
        }
        self.recall(holder, ino, Right::Append);
        Some(WaitFor::Append(ino))
    }

    /// Plans, logs, applies, answers.
    pub(crate) fn do_mutation(&mut self, op: OpId, mutation: Mutation) {
        let create = match &mutation {
            Mutation::Create(create) if create.open.is_some() => Some(create.clone()),
            _ => None,
        };
        let checked = create.as_ref();
        let planned = match checked.map(|create| self.check_create_handle(op, create)) {
            Some(Err(status)) => Err(status),
            Some(Ok(())) | None => {
                self.prepare_group(&mutation);
                self.plan(op.session, mutation)
            }
        };
        let record = match planned {
            Ok(change) => Record::Change {
                op,
                at: self.live.now.wall,
                change,
            },
            Err(status) => Record::Refused { op, status },
        };
        let applied = self.log(record);
        let Some((op, mut outcome)) = applied.answer else {
            return;
        };
        if let (Some(create), Ok(mutated)) = (create, &mut outcome) {
            self.open_created(op.session, &create, mutated);
        }
        self.settle(op, outcome);
    }

    fn plan(
        &self,
        session: SessionId,
        mutation: Mutation,
    ) -> Result<super::record::Change, Status> {
        let facts = Facts {
            session,
            is_pinned: &|ino| self.live.is_pinned(ino),
            may_linger: &|ino| self.may_linger(ino),
            place: &|copies, data| self.place(copies, data),
            at: self.live.now.wall,
            growth: self.check_growth(),
        };
        self.state.plan(mutation, &facts)
    }

    fn check_create_handle(&self, op: OpId, create: &Create) -> Result<(), Status> {
        let (handle, _) = create.open.ok_or(Status::BadHandle)?;
        let existing = self.state.find(create.parent, &create.name)?;
        self.live.check_handle(op.session, handle, existing)
    }

    /// Opens what a create has made or found, and says so in the answer. How it is opened depends
    /// on what others have open now, so the stored answer does not say it.
    fn open_created(&mut self, session: SessionId, create: &Create, mutated: &mut Mutated) {
        let (Some((handle, access)), Mutated::Create(created)) = (create.open, mutated) else {
            return;
        };
        let ino = created.attr.ino;
        let still_there = self.state.file(ino).is_ok();
        if still_there && self.live.check_handle(session, handle, Some(ino)).is_ok() {
            created.is_shared = self.is_shared(session, (handle, access), ino);
            let open = OpenHandle {
                handle,
                ino,
                access,
                is_shared: created.is_shared,
            };
            self.open_handle(session, open);
        }
    }

    /// The answer to an op: to whoever waits for it now.
    pub(crate) fn settle(&mut self, op: OpId, outcome: Outcome) {
        let waiting = self.live.in_progress.remove(&(op.session, op.slot));
        if let Some(ticket) = waiting.and_then(|waiting| waiting.ticket) {
            self.live.reply(ticket, outcome.map(CoreReply::Mutate));
        }
    }

    /// Refuses an op for good.
    pub(crate) fn refuse(&mut self, op: OpId, status: Status) {
        let applied = self.log(Record::Refused { op, status });
        if let Some((op, outcome)) = applied.answer {
            self.settle(op, outcome);
        }
    }

    /// Takes parked requests up again, in their order.
    pub(crate) fn redispatch(&mut self, parked: VecDeque<Parked>) {
        for request in parked {
            match request {
                Parked::Query(ticket, request) => {
                    self.live.seats.remove(&ticket);
                    self.take_query(ticket, request);
                }
                Parked::Mutation(request) => self.resume_mutation(request),
            }
        }
    }

    fn resume_mutation(&mut self, request: MutateRequest) {
        let key = (request.op.session, request.op.slot);
        if !self.live.in_progress.contains_key(&key) {
            return;
        }
        let session = self.state.sessions.get(request.op.session);
        match session.is_some_and(|session| session.closing.is_none()) {
            true if self.live.log_full.is_some() => self.give_up(key, Status::NoSpace),
            true => self.execute(request),
            false => self.give_up(key, Status::SessionExpired),
        }
    }

    /// Ends the wait for an op without a stored answer.
    pub(crate) fn give_up(&mut self, key: (SessionId, u16), status: Status) {
        let waiting = self.live.in_progress.remove(&key);
        if let Some(ticket) = waiting.and_then(|waiting| waiting.ticket) {
            self.live.reply(ticket, Err(status));
        }
    }

    /// Takes `parked` up again later, or answers `Busy` if too many wait for the same.
    pub(crate) fn park(&mut self, wait: WaitFor, parked: Parked) {
        let waiters = match wait {
            WaitFor::Work(ino) => &mut self.live.works.entry(ino).or_default().waiters,
            WaitFor::Append(ino) => self.live.append_waiters.entry(ino).or_default(),
            WaitFor::Resumes => &mut self.live.resume_waiters,
        };
        if waiters.len() < WAITERS_MAX {
            if let Parked::Query(ticket, _) = parked {
                self.live.seats.insert(ticket, Seat::Query(wait));
            }
            waiters.push_back(parked);
            return;
        }
        match parked {
            Parked::Query(ticket, _) => self.live.reply(ticket, Err(Status::Busy)),
            Parked::Mutation(request) => {
                self.give_up((request.op.session, request.op.slot), Status::Busy);
            }
        }
    }

    /// The caller waits no more. Looks only where it sat.
    pub(crate) fn abandon(&mut self, ticket: Ticket) {
        match self.live.seats.remove(&ticket) {
            Some(Seat::Op(session, slot)) => {
                let waiting = self.live.in_progress.get_mut(&(session, slot));
                if let Some(waiting) = waiting.filter(|waiting| waiting.ticket == Some(ticket)) {
                    waiting.ticket = None;
                }
            }
            Some(Seat::Query(wait)) => self.leave_queue(ticket, wait),
            Some(Seat::Opening) => self.live.opening.retain(|opening| opening.ticket != ticket),
            Some(Seat::Events(session)) => {
                if let Some(live) = self.live.sessions.get_mut(&session) {
                    live.outbox.abandon(ticket);
                }
            }
            Some(Seat::Commands(volume)) => {
                if let Some(live) = self.live.volumes.get_mut(&volume) {
                    live.outbox.abandon(ticket);
                }
            }
            // It has none while it waits for a lock, of which each file has a queue of its own.
            None => self.abandon_lock_wait(ticket),
        }
    }

    fn leave_queue(&mut self, ticket: Ticket, wait: WaitFor) {
        let waiters = match wait {
            WaitFor::Work(ino) => self.live.works.get_mut(&ino).map(|work| &mut work.waiters),
            WaitFor::Append(ino) => self.live.append_waiters.get_mut(&ino),
            WaitFor::Resumes => Some(&mut self.live.resume_waiters),
        };
        let is_it = |parked: &Parked| matches!(parked, Parked::Query(of, _) if *of == ticket);
        if let Some(waiters) = waiters
            && let Some(index) = waiters.iter().position(is_it)
        {
            waiters.remove(index);
        }
    }
}

/// What a parked request waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WaitFor {
    /// The end of the truncation of an inode.
    Work(Ino),
    /// The append token of an inode.
    Append(Ino),
    /// All live sessions have said what they hold open.
    Resumes,
}
