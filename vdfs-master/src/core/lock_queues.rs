//! Who waits for locks, in which order they are told that it is their turn, and who waits in a
//! circle.
//!
//! A client that is refused a lock asks to be told when it may have it. Its question is parked here;
//! when nothing that is held is in the way any more it is answered, and the client locks. Nothing is
//! granted here, so nothing is held for a caller who has gone away. A turn that is not taken within
//! [`LOCK_TURN_MS`] goes to the next one.
//!
//! Order: whoever waits yields to those who came before it and conflict with it, so readers that
//! come and go do not keep a writer waiting. Who could have the lock and yields goes ahead after
//! [`LOCK_YIELD_MS`]: a program may depend on a reader that came later, in ways that nobody here
//! sees. Who holds a lock of the inode already yields to nobody, since others may wait for that.
//! Locks that do not wait (`F_SETLK`) see only what is held.
//!
//! Not logged: after a restart clients ask again, with the places that they had.

use std::collections::{BTreeMap, BTreeSet};

use vdfs_proto::limits::LOCK_PARK_MS;
use vdfs_proto::meta::{Answer, Lock, LockAsked, LockNews, LockPlace, Mutation, Unlock, WaitLock};
use vdfs_proto::{Ino, OpId, SessionId, Status};

use super::limits::{
    LOCK_CIRCLE_MAX, LOCK_TURN_MS, LOCK_WAITS_PER_INODE_MAX, LOCK_YIELD_MS, WAITERS_MAX,
};
use super::locks::Holder;
use super::{Core, CoreReply, Ticket};

#[derive(Debug)]
pub(crate) struct LockQueues {
    queues: BTreeMap<Ino, Queue>,
    /// Where each holder waits.
    by_holder: BTreeMap<Holder, BTreeSet<(Ino, LockPlace)>>,
    next_place: u64,
    len: usize,
}

type Queue = BTreeMap<LockPlace, LockWait>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct LockWait {
    pub(crate) holder: Holder,
    pub(crate) lock: LockAsked,
    step: Step,
    /// Since when nothing but those who came before keeps it from the lock.
    yields_since_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Parked {
        ticket: Ticket,
        until_ms: u64,
    },
    /// Answered; it locks, or asks again, until then.
    Told {
        until_ms: u64,
    },
}

impl LockWait {
    /// One who came before is in the way.
    fn is_behind(&self, earlier: &LockWait) -> bool {
        let conflicts = self.lock.range.overlaps(earlier.lock.range)
            && self.lock.kind.conflicts_with(earlier.lock.kind);
        earlier.holder != self.holder && conflicts
    }

    /// It could have had the lock for so long that it goes ahead.
    fn has_yielded(&self, now_ms: u64) -> bool {
        let since_ms = self.yields_since_ms;
        since_ms.is_some_and(|since_ms| since_ms + LOCK_YIELD_MS <= now_ms)
    }

    fn ticket(&self) -> Option<Ticket> {
        match self.step {
            Step::Parked { ticket, .. } => Some(ticket),
            Step::Told { .. } => None,
        }
    }

    /// It was told, and has not come.
    fn is_gone(&self, now_ms: u64) -> bool {
        matches!(self.step, Step::Told { until_ms } if until_ms <= now_ms)
    }
}

impl LockQueues {
    /// Places begin behind those of every earlier term.
    pub(crate) fn new(term: u64) -> Self {
        LockQueues {
            queues: BTreeMap::new(),
            by_holder: BTreeMap::new(),
            next_place: (term << 32) + 1,
            len: 0,
        }
    }

    pub(crate) fn of(&self, ino: Ino) -> impl Iterator<Item = &LockWait> {
        self.queues.get(&ino).into_iter().flat_map(Queue::values)
    }

    pub(crate) fn inodes(&self) -> Vec<Ino> {
        self.queues.keys().copied().collect()
    }

    fn get(&self, ino: Ino, place: LockPlace) -> Option<&LockWait> {
        self.queues.get(&ino)?.get(&place)
    }

    fn insert(&mut self, ino: Ino, place: LockPlace, wait: LockWait) {
        let places = self.by_holder.entry(wait.holder).or_default();
        places.insert((ino, place));
        let before = self.queues.entry(ino).or_default().insert(place, wait);
        self.len += usize::from(before.is_none());
    }

    fn remove(&mut self, ino: Ino, place: LockPlace) -> Option<LockWait> {
        let queue = self.queues.get_mut(&ino)?;
        let wait = queue.remove(&place)?;
        if queue.is_empty() {
            self.queues.remove(&ino);
        }
        let places = self.by_holder.get_mut(&wait.holder);
        let places = places.expect("every wait is known by its holder");
        places.remove(&(ino, place));
        if places.is_empty() {
            self.by_holder.remove(&wait.holder);
        }
        self.len -= 1;
        Some(wait)
    }

    /// Takes the wait of `holder` at `place` out, if that is its place.
    fn leave(&mut self, ino: Ino, place: LockPlace, holder: Holder) {
        let owner = self.get(ino, place).map(|wait| wait.holder);
        if owner == Some(holder) {
            self.remove(ino, place);
        }
    }

    /// Takes out the waits for which `goes` holds; gives them with their inodes.
    fn take(&mut self, goes: impl Fn(&LockWait) -> bool) -> Vec<(Ino, LockWait)> {
        let all = self
            .queues
            .iter()
            .flat_map(|(ino, queue)| queue.iter().map(move |(place, wait)| (*ino, *place, wait)));
        let going: Vec<(Ino, LockPlace)> = all
            .filter(|(_, _, wait)| goes(wait))
            .map(|(ino, place, _)| (ino, place))
            .collect();
        going
            .into_iter()
            .filter_map(|(ino, place)| Some((ino, self.remove(ino, place)?)))
            .collect()
    }

    /// The place of a caller: the one that it names, unless somebody else has it.
    fn place_for(&mut self, ino: Ino, holder: Holder, named: LockPlace) -> LockPlace {
        let was_given = named.0 < self.next_place;
        let owner = self.get(ino, named).map(|wait| wait.holder);
        if was_given && owner.is_none_or(|owner| owner == holder) {
            return named;
        }
        let place = LockPlace(self.next_place);
        self.next_place += 1;
        place
    }

    /// Waits that a parked question of `holder` stands for.
    fn parked_waits(&self, holder: Holder) -> impl Iterator<Item = (Ino, LockWait)> {
        let places = self.by_holder.get(&holder).into_iter().flatten();
        places
            .filter_map(|(ino, place)| Some((*ino, *self.get(*ino, *place)?)))
            .filter(|(_, wait)| wait.ticket().is_some())
    }

    /// Asserts the invariants.
    pub(crate) fn check(&self) {
        let waits = self.queues.values().map(Queue::len).sum::<usize>();
        let places = self.by_holder.values().map(BTreeSet::len).sum::<usize>();
        assert_eq!((waits, places), (self.len, self.len), "waits are counted");
        assert!(self.queues.values().all(|queue| !queue.is_empty()));
    }
}

impl Core {
    /// Locks, unless one who waits must let others go first.
    pub(crate) fn do_lock(&mut self, op: OpId, lock: Lock) {
        let ino = lock.ino;
        if lock
            .queued
            .is_some_and(|place| self.must_yield(op.session, &lock, place))
        {
            self.refuse(op, Status::WouldBlock);
            return;
        }
        let holder = holder(op.session, lock.lock);
        let mut blockers = self.state.locks.blockers(ino, holder, lock.lock);
        let waits_on = blockers.next().is_some();
        drop(blockers);
        if let (Some(place), false) = (lock.queued, waits_on) {
            self.live.lock_queues.leave(ino, place, holder);
        }
        self.do_mutation(op, Mutation::Lock(lock));
        self.serve_locks(ino);
    }

    pub(crate) fn do_unlock(&mut self, op: OpId, unlock: Unlock) {
        self.do_mutation(op, Mutation::Unlock(unlock));
        self.serve_locks(unlock.ino);
    }

    fn must_yield(&self, session: SessionId, lock: &Lock, place: LockPlace) -> bool {
        let now_ms = self.live.now.boot_ms;
        let holder = holder(session, lock.lock);
        let own = self.live.lock_queues.get(lock.ino, place);
        let wait = own.copied().unwrap_or(LockWait {
            holder,
            lock: lock.lock,
            step: Step::Told { until_ms: now_ms },
            yields_since_ms: None,
        });
        let queue = self.live.lock_queues.queues.get(&lock.ino);
        let mut earlier = queue.into_iter().flat_map(|queue| queue.range(..place));
        let is_behind = earlier.any(|(_, other)| !other.is_gone(now_ms) && wait.is_behind(other));
        is_behind && !wait.has_yielded(now_ms) && !self.state.locks.has(lock.ino, holder)
    }

    /// Parks the question of one who waits for a lock; answers it if it is free.
    pub(crate) fn wait_for_lock(
        &mut self,
        ticket: Ticket,
        session: SessionId,
        ask: &WaitLock,
    ) -> Result<(), Status> {
        let (ino, now_ms) = (ask.ino, self.live.now.boot_ms);
        self.state.file(ino)?;
        let holder = holder(session, ask.lock);
        if self.waits_in_circle(ino, holder, ask.lock) {
            self.live.lock_queues.leave(ino, ask.place, holder);
            self.serve_locks(ino);
            return Err(Status::Deadlock);
        }
        let queues = &mut self.live.lock_queues;
        let place = queues.place_for(ino, holder, ask.place);
        let before = queues.get(ino, place).copied();
        let is_full =
            queues.len >= WAITERS_MAX || queues.of(ino).count() >= LOCK_WAITS_PER_INODE_MAX;
        if before.is_none() && is_full {
            return Err(Status::Busy);
        }
        let wait = LockWait {
            holder,
            lock: ask.lock,
            step: Step::Parked {
                ticket,
                until_ms: now_ms + LOCK_PARK_MS,
            },
            yields_since_ms: before.and_then(|before| before.yields_since_ms),
        };
        queues.insert(ino, place, wait);
        if let Some(before) = before.and_then(|before| before.ticket()) {
            self.live.reply(before, Err(Status::Busy));
        }
        self.serve_locks(ino);
        Ok(())
    }

    /// Those in the way wait, directly or over others, for `asker`. Only who is parked counts: the
    /// others are about to ask again, and are looked at then.
    fn waits_in_circle(&self, ino: Ino, asker: Holder, lock: LockAsked) -> bool {
        let mut seen = BTreeSet::new();
        let mut waits = vec![(ino, asker, lock)];
        while let Some((ino, holder, lock)) = waits.pop() {
            for blocker in self.state.locks.blockers(ino, holder, lock) {
                if blocker == asker {
                    return true;
                }
                if seen.len() < LOCK_CIRCLE_MAX && seen.insert(blocker) {
                    let of_blocker = self.live.lock_queues.parked_waits(blocker);
                    waits.extend(of_blocker.map(|(ino, wait)| (ino, blocker, wait.lock)));
                }
            }
        }
        false
    }

    /// Tells those whose turn it is, in the order of their places.
    pub(crate) fn serve_locks(&mut self, ino: Ino) {
        let now_ms = self.live.now.boot_ms;
        let (locks, live) = (&self.state.locks, &mut self.live);
        let Some(queue) = live.lock_queues.queues.get_mut(&ino) else {
            return;
        };
        let mut earlier: Vec<LockWait> = Vec::with_capacity(queue.len());
        let mut told = Vec::new();
        for (place, wait) in queue.iter_mut() {
            let is_free = locks.blockers(ino, wait.holder, wait.lock).next().is_none();
            let is_behind = earlier.iter().any(|other| wait.is_behind(other));
            let yields = is_free && is_behind && !locks.has(ino, wait.holder);
            let since_ms = wait.yields_since_ms.unwrap_or(now_ms);
            wait.yields_since_ms = yields.then_some(since_ms);
            let may_lock = is_free && (!yields || wait.has_yielded(now_ms));
            if let (Some(ticket), true) = (wait.ticket(), may_lock) {
                wait.step = Step::Told {
                    until_ms: now_ms + LOCK_TURN_MS,
                };
                told.push((ticket, *place));
            }
            if !wait.is_gone(now_ms) {
                earlier.push(*wait);
            }
        }
        for (ticket, place) in told {
            live.reply(ticket, Ok(news(place, true)));
        }
    }

    /// What follows from time alone: turns that nobody took, questions that were parked long enough,
    /// yielding that is over.
    pub(crate) fn tend_lock_queues(&mut self) {
        let now_ms = self.live.now.boot_ms;
        self.live.lock_queues.take(|wait| wait.is_gone(now_ms));
        for ino in self.live.lock_queues.inodes() {
            match self.state.file(ino) {
                Ok(_) => {
                    self.answer_long_parked(ino);
                    self.serve_locks(ino);
                }
                Err(status) => self.end_lock_waits(ino, status),
            }
        }
    }

    fn answer_long_parked(&mut self, ino: Ino) {
        let now_ms = self.live.now.boot_ms;
        let queue = self.live.lock_queues.queues.get_mut(&ino);
        let mut over = Vec::new();
        for (place, wait) in queue.into_iter().flatten() {
            if let Step::Parked { ticket, until_ms } = wait.step
                && until_ms <= now_ms
            {
                wait.step = Step::Told {
                    until_ms: now_ms + LOCK_TURN_MS,
                };
                over.push((ticket, *place));
            }
        }
        for (ticket, place) in over {
            self.live.reply(ticket, Ok(news(place, false)));
        }
    }

    fn end_lock_waits(&mut self, ino: Ino, status: Status) {
        let queue = self.live.lock_queues.queues.get(&ino);
        let places: Vec<LockPlace> = queue.into_iter().flatten().map(|(at, _)| *at).collect();
        for place in places {
            let wait = self.live.lock_queues.remove(ino, place);
            if let Some(ticket) = wait.and_then(|wait| wait.ticket()) {
                self.live.reply(ticket, Err(status));
            }
        }
    }

    /// The session waits for nothing any more.
    pub(crate) fn end_lock_waits_of(&mut self, session: SessionId) {
        let gone = self
            .live
            .lock_queues
            .take(|wait| wait.holder.session == session);
        for (ino, wait) in gone {
            if let Some(ticket) = wait.ticket() {
                self.live.reply(ticket, Err(Status::SessionExpired));
            }
            self.serve_locks(ino);
        }
    }

    pub(crate) fn abandon_lock_wait(&mut self, ticket: Ticket) {
        let gone = self
            .live
            .lock_queues
            .take(|wait| wait.ticket() == Some(ticket));
        for (ino, _) in gone {
            self.serve_locks(ino);
        }
    }
}

fn holder(session: SessionId, lock: LockAsked) -> Holder {
    let owner = lock.owner;
    Holder { session, owner }
}

fn news(place: LockPlace, is_free: bool) -> CoreReply {
    CoreReply::Query(Answer::WaitLock(LockNews { place, is_free }))
}
