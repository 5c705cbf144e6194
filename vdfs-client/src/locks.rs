//! Which locks the programs of this client hold, as far as the master has granted them.
//!
//! Invariants: an owner is in the table before the master is asked to lock for it, so its end finds
//! it; the locks of one owner on one inode change one after the other ([`Turn`]), so what is noted
//! here is what the master has, in the session in which it was granted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use vdfs_proto::{HandleId, Ino, LockKind, LockOwner, LockRange, LockRanges, SessionId};

use crate::client::Client;

#[derive(Debug, Default)]
pub(crate) struct Locks(Mutex<HashMap<Ino, HashMap<LockOwner, Arc<Entry>>>>);

/// One owner's locks of one inode.
#[derive(Debug, Default)]
struct Entry {
    turn: Arc<tokio::sync::Mutex<()>>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// With its end they are gone.
    session: SessionId,
    ranges: LockRanges,
    /// The open files that it has locked through. The kernel says when a program closes one of them,
    /// but not when the last user of an open file is gone that has locks itself (`F_OFD_SETLK`).
    handles: BTreeSet<HandleId>,
}

impl Locks {
    /// The owner may have locks of the inode.
    pub(crate) fn knows(&self, ino: Ino, owner: LockOwner) -> bool {
        let owners = self.0.lock();
        owners
            .get(&ino)
            .is_some_and(|owners| owners.contains_key(&owner))
    }

    fn enter(&self, ino: Ino, owner: LockOwner) -> Arc<Entry> {
        let mut owners = self.0.lock();
        let entry = owners.entry(ino).or_default().entry(owner).or_default();
        entry.clone()
    }

    /// The entry goes if nothing is held and nobody waits for its turn.
    fn tidy(&self, ino: Ino, owner: LockOwner, entry: &Arc<Entry>) {
        let mut owners = self.0.lock();
        // One is the table's, one the caller's.
        if Arc::strong_count(entry) > 2 || !entry.held.lock().ranges.is_empty() {
            return;
        }
        let of_inode = owners.get_mut(&ino).expect("entered before");
        of_inode.remove(&owner);
        if of_inode.is_empty() {
            owners.remove(&ino);
        }
    }

    /// The open file is closed by all. Gives the owners that have locked through no other one.
    pub(crate) fn close(&self, ino: Ino, handle: HandleId) -> Vec<LockOwner> {
        let owners = self.0.lock();
        let of_inode = owners.get(&ino).into_iter().flatten();
        let left = of_inode.filter(|(_, entry)| {
            let mut held = entry.held.lock();
            held.handles.remove(&handle) && held.handles.is_empty()
        });
        left.map(|(owner, _)| *owner).collect()
    }

    /// The session has ended, and its locks with it. Gives the open files they were taken through.
    pub(crate) fn end_session(&self, session: SessionId) -> Vec<HandleId> {
        let owners = self.0.lock();
        let mut through = Vec::new();
        for entry in owners.values().flat_map(HashMap::values) {
            let mut held = entry.held.lock();
            if held.session == session && !held.ranges.is_empty() {
                through.extend(&held.handles);
                *held = Held::default();
            }
        }
        through
    }
}

/// The right to change the locks of one owner on one inode.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) client: Arc<Client>,
    pub(crate) ino: Ino,
    pub(crate) owner: LockOwner,
    entry: Arc<Entry>,
    _guard: OwnedMutexGuard<()>,
}

impl Turn {
    /// Waits for those before; to be run to its end.
    pub(crate) async fn take(client: &Arc<Client>, ino: Ino, owner: LockOwner) -> Turn {
        let entry = client.locks.enter(ino, owner);
        let guard = entry.turn.clone().lock_owned().await;
        Turn {
            client: client.clone(),
            ino,
            owner,
            entry,
            _guard: guard,
        }
    }

    /// Notes what the master has granted in `session`: a lock through `handle`.
    pub(crate) fn note_lock(
        &self,
        session: SessionId,
        handle: HandleId,
        (range, kind): (LockRange, LockKind),
    ) {
        let mut held = self.entry.held.lock();
        if held.session != session {
            *held = Held::default();
        }
        held.session = session;
        held.ranges.set(range, Some(kind));
        held.handles.insert(handle);
    }

    pub(crate) fn note_unlock(&self, range: LockRange) {
        let mut held = self.entry.held.lock();
        held.ranges.set(range, None);
        if held.ranges.is_empty() {
            held.handles.clear();
        }
    }

    pub(crate) fn touches(&self, range: LockRange) -> bool {
        self.entry.held.lock().ranges.touches(range)
    }

    pub(crate) fn holds(&self, range: LockRange, kind: LockKind) -> bool {
        self.entry.held.lock().ranges.holds(range, kind)
    }

    /// All of `range` in pieces, each with what is held of it.
    pub(crate) fn cut(&self, range: LockRange) -> Vec<(LockRange, Option<LockKind>)> {
        self.entry.held.lock().ranges.cut(range)
    }

    /// Every open file that it has locked through is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.entry.held.lock().handles.is_empty()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.client.locks.tidy(self.ino, self.owner, &self.entry);
    }
}
