//! `fcntl(2)` locks and `flock(2)`, which hold between all clients.
//!
//! Locks bring data along: whoever gets one sees what was written under the locks before it. So an
//! unlock writes out and commits first, and a lock drops what is cached here if somebody has changed
//! the file since. A lock that is granted to a caller who has gone away is undone.

use std::sync::Arc;
use std::time::Instant;

use vdfs_proto::meta::{
    AdminReply, AdminRequest, ListLocks, Lock, LockAsked, LockPlace, LockReport, Mutated, Mutation,
    TestLock, Unlock, WaitLock,
};
use vdfs_proto::{Attr, HandleId, Ino, LockKind, LockOwner, LockRange, Status};

use super::Fs;
use crate::client::Client;
use crate::deadline::Deadline;
use crate::files::{File, Handle};
use crate::limits::BACKOFF_MAX;
use crate::locks::Turn;
use crate::retry::Failure;
use crate::session::Life;
use crate::write_behind::flush_here;

/// What to do while somebody else's lock is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contended {
    /// End with `WouldBlock`.
    Refuse,
    /// Wait for it, however long; `Deadlock` if it can never come.
    Wait,
}

/// Somebody's lock that is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockConflict {
    pub kind: LockKind,
    pub range: LockRange,
    /// The process that holds it, if that is a user of this client: elsewhere its number means
    /// another process, or none.
    pub pid: Option<u32>,
}

impl Fs {
    /// Locks a range; what the owner held of it is replaced. Fails with `WouldBlock`, `Deadlock`,
    /// `NoLocks` or `BadHandle`. If the future is dropped the lock is not taken: the owner holds what
    /// it held before. The wait for others is not limited by the timeout of operations.
    pub async fn lock(
        &self,
        handle: HandleId,
        lock: LockAsked,
        contended: Contended,
    ) -> Result<(), Status> {
        self.client.check_running()?;
        let handle = self.client.files.handle(handle)?;
        if contended == Contended::Refuse {
            return self.lock_once(&handle, lock, None).await;
        }
        let mut place = LockPlace::LAST;
        loop {
            match self.lock_once(&handle, lock, Some(place)).await {
                Err(Status::WouldBlock) => {}
                outcome => return outcome,
            }
            place = self.wait_for_turn(handle.file.ino, lock, place).await?;
        }
    }

    async fn lock_once(
        &self,
        handle: &Arc<Handle>,
        lock: LockAsked,
        queued: Option<LockPlace>,
    ) -> Result<(), Status> {
        let (client, locked) = (self.client.clone(), handle.clone());
        let task = async move { take_lock(&client, &locked, lock, queued).await };
        let deadline = self.client.deadline();
        let granted = deadline.limit(self.client.spawn(task)).await??;
        refresh(&self.client, &handle.file, &granted).await;
        granted.claim();
        Ok(())
    }

    /// Waits until the master says that the lock may be free, or for a moment if too many wait; gives
    /// the place in the queue.
    async fn wait_for_turn(
        &self,
        ino: Ino,
        lock: LockAsked,
        mut place: LockPlace,
    ) -> Result<LockPlace, Status> {
        let Ok(_parked) = self.client.lock_waits.try_acquire() else {
            tokio::time::sleep(BACKOFF_MAX).await;
            return Ok(place);
        };
        loop {
            let ask = WaitLock { ino, lock, place };
            let news = self.client.query_until(ask, Deadline::NEVER).await?;
            place = news.place;
            if news.is_free {
                return Ok(place);
            }
        }
    }

    /// Unlocks a range, when everything that was written to the file here is committed. It goes on
    /// if the caller stops waiting.
    pub async fn unlock(
        &self,
        handle: HandleId,
        owner: LockOwner,
        range: LockRange,
    ) -> Result<(), Status> {
        let handle = self.client.files.handle(handle)?;
        if !self.client.locks.knows(handle.file.ino, owner) {
            return Ok(());
        }
        let client = self.client.clone();
        let task = async move {
            let turn = Turn::take(&client, handle.file.ino, owner).await;
            if turn.touches(range) {
                let written = turn.holds(range, LockKind::Write);
                publish(&client, &handle.file, written).await;
                unlock(&turn, range).await?;
            }
            Ok(())
        };
        let deadline = self.client.deadline();
        deadline.limit(self.client.spawn(task)).await?
    }

    /// The lock that is in the way of this one, the first by offset, if there is one (`F_GETLK`).
    pub async fn test_lock(
        &self,
        handle: HandleId,
        lock: LockAsked,
    ) -> Result<Option<LockConflict>, Status> {
        let ino = self.client.files.handle(handle)?.file.ino;
        let conflict = self.client.query(TestLock { ino, lock }).await?;
        let here = self.client.session.current().id;
        Ok(conflict.map(|conflict| LockConflict {
            kind: conflict.kind,
            range: conflict.range,
            pid: (conflict.session == here).then_some(conflict.pid),
        }))
    }

    /// [`Fs::flush`] for a program that closes the file, by which it gives up all its locks of it
    /// (fcntl(2)), also if the flush fails.
    pub async fn flush_and_unlock(&self, handle: HandleId, owner: LockOwner) -> Result<(), Status> {
        let unlocked = self.unlock_all(handle, owner).await;
        self.flush(handle).await.and(unlocked)
    }

    async fn unlock_all(&self, handle: HandleId, owner: LockOwner) -> Result<(), Status> {
        let file = self.client.files.handle(handle)?.file.clone();
        if !self.client.locks.knows(file.ino, owner) {
            return Ok(());
        }
        let client = self.client.clone();
        let task = async move {
            let turn = Turn::take(&client, file.ino, owner).await;
            unlock_whole(&file, &turn).await;
            Ok(())
        };
        let deadline = self.client.deadline();
        deadline.limit(self.client.spawn(task)).await?
    }

    /// Who holds locks of an inode, and who waits.
    pub async fn list_locks(&self, ino: Ino) -> Result<LockReport, Status> {
        match self
            .ask_operator(AdminRequest::ListLocks(ListLocks { ino }))
            .await?
        {
            AdminReply::ListLocks(report) => Ok(report),
            _ => Err(Status::Malformed),
        }
    }
}

/// The last user of an open file has closed it: locks that belong to it go. An owner that has locked
/// again meanwhile, through another one, keeps what it has: kernels give the numbers of owners that
/// are gone to new ones.
pub(super) async fn unlock_closed(client: &Arc<Client>, file: &Arc<File>, handle: HandleId) {
    for owner in client.locks.close(file.ino, handle) {
        let turn = Turn::take(client, file.ino, owner).await;
        if turn.is_closed() {
            unlock_whole(file, &turn).await;
        }
    }
}

/// The kernel has written out by now what was written through mappings.
async fn unlock_whole(file: &Arc<File>, turn: &Turn) {
    if !turn.touches(LockRange::WHOLE) {
        return;
    }
    publish(&turn.client, file, false).await;
    if let Err(status) = unlock(turn, LockRange::WHOLE).await {
        tracing::warn!(ino = %turn.ino, %status, "a lock stays until the session ends");
    }
}

/// Everything that was written to the file here is committed; with `mapped` also what was written
/// through mappings and is still the kernel's. Errors stay with the file for its handles.
async fn publish(client: &Arc<Client>, file: &Arc<File>, mapped: bool) {
    if mapped && file.has_mappers() {
        client.config.kernel_cache.drop_data(file.ino).await;
    }
    if !file.is_clean() {
        flush_here(client, file).await;
    }
}

async fn take_lock(
    client: &Arc<Client>,
    handle: &Handle,
    lock: LockAsked,
    queued: Option<LockPlace>,
) -> Result<Granted, Status> {
    let file = &handle.file;
    let turn = Turn::take(client, file.ino, lock.owner).await;
    if lock.kind == LockKind::Read && turn.holds(lock.range, LockKind::Write) {
        publish(client, file, true).await;
    }
    let recalls = file.recalls();
    let ino = file.ino;
    let mutation = Mutation::Lock(Lock { ino, lock, queued });
    let (life, mutated) = change_lock(client, &mutation).await?;
    let Mutated::Lock(attr) = mutated else {
        return Err(Status::Malformed);
    };
    let before = turn.cut(lock.range);
    turn.note_lock(life.id, handle.id, (lock.range, lock.kind));
    let granted = Granted {
        attr,
        recalls,
        undo: Some(Undo {
            turn,
            handle: handle.id,
            lock,
            before,
        }),
    };
    // Noted first: whoever ends the session sees it, or this does.
    match life.has_ended() {
        true => Err(Status::SessionExpired),
        false => Ok(granted),
    }
}

/// Changes locks in the present session, or the next one if this one ends before it is done.
async fn change_lock(client: &Client, mutation: &Mutation) -> Result<(Arc<Life>, Mutated), Status> {
    let mut life = client.session.current();
    loop {
        match client.mutate_in(&life, mutation).await {
            Ok(mutated) => return Ok((life, mutated)),
            Err(Failure {
                status: Status::SessionExpired,
                in_doubt: false,
            }) => life = client.session.after(&life, Deadline::NEVER).await?,
            Err(failure) => return Err(failure.status),
        }
    }
}

/// Until it is unlocked, for others wait: a log without room is waited for.
async fn unlock(turn: &Turn, range: LockRange) -> Result<(), Status> {
    let unlock = Unlock {
        ino: turn.ino,
        owner: turn.owner,
        range,
    };
    loop {
        match change_lock(&turn.client, &Mutation::Unlock(unlock)).await {
            Ok(_) => break,
            // The locks went with the session, or with the file.
            Err(Status::SessionExpired | Status::StaleInode) => break,
            Err(Status::NoSpace) => tokio::time::sleep(BACKOFF_MAX).await,
            Err(status) => return Err(status),
        }
    }
    turn.note_unlock(range);
    Ok(())
}

/// Drops what is cached of the file, unless nobody else has changed it since it was cached.
async fn refresh(client: &Client, file: &File, granted: &Granted) {
    let version = granted.attr.data_version;
    let cache = &client.config.kernel_cache;
    file.see_size(granted.attr.size, granted.recalls);
    cache.drop_attributes(file.ino).await;
    if file.known_version() != Some(version) || file.is_being_opened_afresh() {
        let begun = Instant::now();
        file.forget_content();
        cache.drop_data(file.ino).await;
        file.show_version(version, begun);
    }
}

/// A lock that its caller does not know of yet: dropped, it is undone.
#[derive(Debug)]
struct Granted {
    attr: Attr,
    /// [`File::recalls`] when it was asked for.
    recalls: u64,
    undo: Option<Undo>,
}

impl Granted {
    fn claim(mut self) {
        self.undo = None;
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if let Some(undo) = self.undo.take() {
            let runtime = undo.turn.client.runtime.clone();
            runtime.spawn(undo.run());
        }
    }
}

#[derive(Debug)]
struct Undo {
    turn: Turn,
    handle: HandleId,
    lock: LockAsked,
    /// What the owner held of the range.
    before: Vec<(LockRange, Option<LockKind>)>,
}

impl Undo {
    /// No piece can be refused: each is no more than what is held.
    async fn run(self) {
        for &(range, kind) in &self.before {
            let undone = match kind {
                Some(kind) if kind == self.lock.kind => Ok(()),
                Some(kind) => self.lock_again(range, kind).await,
                None => unlock(&self.turn, range).await,
            };
            if let Err(status) = undone {
                tracing::warn!(ino = %self.turn.ino, %status, "a lock that nobody waits for stays");
            }
        }
    }

    async fn lock_again(&self, range: LockRange, kind: LockKind) -> Result<(), Status> {
        let lock = Lock {
            ino: self.turn.ino,
            lock: LockAsked {
                range,
                kind,
                ..self.lock
            },
            queued: None,
        };
        let (life, _) = change_lock(&self.turn.client, &Mutation::Lock(lock)).await?;
        self.turn.note_lock(life.id, self.handle, (range, kind));
        Ok(())
    }
}
