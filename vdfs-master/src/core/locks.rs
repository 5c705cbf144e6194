//! Locks of bytes of files, across all sessions (fcntl(2), flock(2)).
//!
//! They are logged, so a retry gets the first answer and a restart of the master takes nobody's lock
//! away. A session's locks go when it has ended behind its fences, an inode's when it ends. Who waits
//! for one is not logged: see [`lock_queues`](super::lock_queues).
//!
//! Invariants: no two owners hold locks of one byte that conflict; every lock is of a live inode and
//! a live session; the counts by session are those of the locks.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vdfs_proto::limits::{LOCKS_MAX, LOCKS_PER_INODE_MAX, LOCKS_PER_SESSION_MAX};
use vdfs_proto::meta::{Conflict, Lock, LockAsked, TestLock, Unlock};
use vdfs_proto::{Attr, Ino, LockKind, LockOwner, LockRange, LockRanges, SessionId, Status};

use super::cow::CowMap;
use super::record::Change;
use super::state::State;

/// Who holds or wants a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) session: SessionId,
    pub(crate) owner: LockOwner,
}

/// What a holder has of one inode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// Of the last one who locked.
    pub(crate) pid: u32,
    pub(crate) ranges: LockRanges,
}

pub(crate) type InodeLocks = BTreeMap<Holder, Held>;

#[derive(Clone, Debug, Default)]
pub(crate) struct LockTable {
    inodes: CowMap<Ino, Arc<InodeLocks>>,
    /// Pieces that a session holds of an inode.
    by_both: CowMap<(SessionId, Ino), usize>,
    /// Pieces that a session holds.
    by_session: CowMap<SessionId, usize>,
    /// Pieces of all.
    pieces: usize,
}

impl LockTable {
    pub(crate) fn of(&self, ino: Ino) -> impl Iterator<Item = (Holder, &Held)> {
        let locks = self.inodes.get(ino).into_iter();
        locks.flat_map(|locks| locks.iter().map(|(holder, held)| (*holder, held)))
    }

    pub(crate) fn by_inode(&self) -> &CowMap<Ino, Arc<InodeLocks>> {
        &self.inodes
    }

    /// The holder has some lock of the inode.
    pub(crate) fn has(&self, ino: Ino, holder: Holder) -> bool {
        let locks = self.inodes.get(ino);
        locks.is_some_and(|locks| locks.contains_key(&holder))
    }

    /// Of all sessions.
    pub(crate) fn pieces(&self) -> usize {
        self.pieces
    }

    pub(crate) fn pieces_of(&self, session: SessionId) -> usize {
        self.by_session.get(session).copied().unwrap_or(0)
    }

    pub(crate) fn inodes_of(&self, session: SessionId) -> Vec<Ino> {
        let entries = self.by_both.iter_from((session, Ino(0)));
        entries
            .take_while(|((of, _), _)| *of == session)
            .map(|((_, ino), _)| ino)
            .collect()
    }

    /// Who is in the way of a lock for `holder`.
    pub(crate) fn blockers(
        &self,
        ino: Ino,
        holder: Holder,
        lock: LockAsked,
    ) -> impl Iterator<Item = Holder> {
        let others = self.of(ino).filter(move |(other, _)| *other != holder);
        let in_the_way = others.filter(move |(_, held)| held.blocks(lock).is_some());
        in_the_way.map(|(other, _)| other)
    }

    /// The first lock, by offset, that is in the way of one for `holder`.
    pub(crate) fn conflict(&self, ino: Ino, holder: Holder, lock: LockAsked) -> Option<Conflict> {
        let others = self.of(ino).filter(|(other, _)| *other != holder);
        let conflicts = others.filter_map(|(other, held)| {
            let (range, kind) = held.blocks(lock)?;
            Some(Conflict {
                session: other.session,
                pid: held.pid,
                kind,
                range,
            })
        });
        conflicts.min_by_key(|conflict| conflict.range)
    }

    /// `NoLocks` if there would be too many pieces.
    fn check_room(
        &self,
        ino: Ino,
        holder: Holder,
        (range, kind): (LockRange, Option<LockKind>),
    ) -> Result<(), Status> {
        let held = self.inodes.get(ino).and_then(|locks| locks.get(&holder));
        let mut ranges = held.map_or_else(LockRanges::default, |held| held.ranges.clone());
        let before = ranges.len();
        ranges.set(range, kind);
        let more = ranges.len().saturating_sub(before);
        let of_inode: usize = self.of(ino).map(|(_, held)| held.ranges.len()).sum();
        let of_session = self.pieces_of(holder.session);
        let fits = of_inode + more <= LOCKS_PER_INODE_MAX
            && of_session + more <= LOCKS_PER_SESSION_MAX
            && self.pieces + more <= LOCKS_MAX;
        match more == 0 || fits {
            true => Ok(()),
            false => Err(Status::NoLocks),
        }
    }

    /// Locks for `pid`, or unlocks with `None`.
    fn set(&mut self, ino: Ino, holder: Holder, range: LockRange, to: Option<(LockKind, u32)>) {
        let mut locks = self.inodes.remove(ino).unwrap_or_default();
        let of_inode = Arc::make_mut(&mut locks);
        let held = of_inode.entry(holder).or_default();
        let before = held.ranges.len();
        held.ranges.set(range, to.map(|(kind, _)| kind));
        held.pid = to.map_or(held.pid, |(_, pid)| pid);
        let after = held.ranges.len();
        if after == 0 {
            of_inode.remove(&holder);
        }
        if !of_inode.is_empty() {
            self.inodes.insert(ino, locks);
        }
        self.count(holder.session, ino, before, after);
    }

    fn count(&mut self, session: SessionId, ino: Ino, before: usize, after: usize) {
        let change = |count: usize| count + after - before;
        self.pieces = change(self.pieces);
        let of_inode = change(self.by_both.remove((session, ino)).unwrap_or(0));
        if of_inode > 0 {
            self.by_both.insert((session, ino), of_inode);
        }
        let of_session = change(self.by_session.remove(session).unwrap_or(0));
        if of_session > 0 {
            self.by_session.insert(session, of_session);
        }
    }

    pub(crate) fn end_inode(&mut self, ino: Ino) {
        let Some(locks) = self.inodes.remove(ino) else {
            return;
        };
        for (holder, held) in locks.iter() {
            self.count(holder.session, ino, held.ranges.len(), 0);
        }
    }

    pub(crate) fn end_session(&mut self, session: SessionId) {
        for ino in self.inodes_of(session) {
            let holders: Vec<Holder> = self.of(ino).map(|(holder, _)| holder).collect();
            let own = holders
                .into_iter()
                .filter(|holder| holder.session == session);
            own.for_each(|holder| self.set(ino, holder, LockRange::WHOLE, None));
        }
        assert!(
            !self.by_session.contains(session),
            "{session} holds no lock any more"
        );
    }

    /// Puts back what [`LockTable::by_inode`] gave.
    pub(crate) fn restore(&mut self, ino: Ino, locks: Arc<InodeLocks>) {
        for (holder, held) in locks.iter() {
            self.count(holder.session, ino, 0, held.ranges.len());
        }
        self.inodes.insert(ino, locks);
    }
}

impl Held {
    fn blocks(&self, lock: LockAsked) -> Option<(LockRange, LockKind)> {
        self.ranges.conflict(lock.range, lock.kind)
    }
}

impl State {
    pub(crate) fn plan_lock(&self, session: SessionId, lock: &Lock) -> Result<Change, Status> {
        let Lock { ino, lock, .. } = *lock;
        self.file(ino)?;
        let owner = lock.owner;
        let holder = Holder { session, owner };
        if self.locks.blockers(ino, holder, lock).next().is_some() {
            return Err(Status::WouldBlock);
        }
        let set = (lock.range, Some(lock.kind));
        self.locks.check_room(ino, holder, set)?;
        Ok(Change::Lock { ino, lock })
    }

    /// In the middle of a lock it makes two of one, for which there may be no room.
    pub(crate) fn plan_unlock(
        &self,
        session: SessionId,
        unlock: &Unlock,
    ) -> Result<Change, Status> {
        let Unlock { ino, owner, range } = *unlock;
        self.file(ino)?;
        let holder = Holder { session, owner };
        self.locks.check_room(ino, holder, (range, None))?;
        Ok(Change::Unlock { ino, owner, range })
    }

    pub(crate) fn test_lock(
        &self,
        session: SessionId,
        test: &TestLock,
    ) -> Result<Option<Conflict>, Status> {
        self.file(test.ino)?;
        let owner = test.lock.owner;
        let holder = Holder { session, owner };
        Ok(self.locks.conflict(test.ino, holder, test.lock))
    }

    pub(crate) fn apply_lock(&mut self, session: SessionId, ino: Ino, lock: LockAsked) -> Attr {
        let owner = lock.owner;
        let holder = Holder { session, owner };
        let to = Some((lock.kind, lock.pid));
        self.locks.set(ino, holder, lock.range, to);
        self.attr(ino).expect("planned for a live file")
    }

    pub(crate) fn apply_unlock(
        &mut self,
        session: SessionId,
        (ino, owner): (Ino, LockOwner),
        range: LockRange,
    ) {
        let holder = Holder { session, owner };
        self.locks.set(ino, holder, range, None);
    }
}

/// Asserts the invariants.
/// Says what does not hold of the invariants above.
pub(crate) fn check_locks(state: &State, say: &mut dyn FnMut(String)) {
    let mut counted: BTreeMap<(SessionId, Ino), usize> = BTreeMap::new();
    for (ino, locks) in state.locks.by_inode().iter() {
        if state.file(ino).is_err() || locks.is_empty() {
            say(format!(
                "{ino} is locked and dead, or has an empty set of locks"
            ));
        }
        for (holder, held) in locks.iter() {
            let session = holder.session;
            if !state.sessions.contains(session) || held.ranges.is_empty() {
                say(format!(
                    "{holder:?} has ended and locks {ino}, or holds nothing of it"
                ));
            }
            *counted.entry((session, ino)).or_default() += held.ranges.len();
            check_alone(locks, *holder, held, say);
        }
    }
    let by_both = state.locks.by_both.iter();
    let mut by_session: BTreeMap<SessionId, usize> = BTreeMap::new();
    for ((session, _), count) in &counted {
        *by_session.entry(*session).or_default() += count;
    }
    let is_counted = by_both.eq(counted.iter().map(|(key, count)| (*key, count)))
        && state
            .locks
            .by_session
            .iter()
            .eq(by_session.iter().map(|(key, count)| (*key, count)))
        && counted.values().sum::<usize>() == state.locks.pieces;
    if !is_counted {
        say("locks are counted by session and inode, and the counts are wrong".to_owned());
    }
}

fn check_alone(locks: &InodeLocks, holder: Holder, held: &Held, say: &mut dyn FnMut(String)) {
    for (other, others) in locks.iter().filter(|(other, _)| **other != holder) {
        let clash = held
            .ranges
            .iter()
            .find(|(range, kind)| others.ranges.conflict(*range, *kind).is_some());
        if clash.is_some() {
            say(format!("{holder:?} and {other:?} hold the same byte"));
        }
    }
}
