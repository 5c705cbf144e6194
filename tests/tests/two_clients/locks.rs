//! Waits for locks that end at any moment leave nothing behind: no lock, and nothing less of what was
//! held before.

use std::time::Duration;

use rand::RngExt;
use vdfs_client::{Contended, Fs};
use vdfs_proto::meta::LockAsked;
use vdfs_proto::{HandleId, Ino, LockKind, LockOwner, LockRange, Status};

use crate::cluster::{Cluster, Rng, read_write, regular, rng};
use crate::seeds::run_seeds;

/// How long a wait is left waiting, in microseconds: as long as a lock takes, more or less.
const PATIENCE_US: std::ops::Range<u64> = 0..1500;
const ROUNDS: usize = 200;

#[derive(Clone)]
struct Locker {
    fs: Fs,
    handle: HandleId,
    owner: LockOwner,
}

impl Locker {
    async fn new(cluster: &Cluster, name: &str, ino: Ino) -> Locker {
        let fs = cluster.client(name).await;
        let open = fs.open(ino, read_write()).await.expect("opens");
        Locker {
            fs,
            handle: open.handle,
            owner: LockOwner(1),
        }
    }

    async fn lock(&self, kind: LockKind, range: LockRange, how: Contended) -> Result<(), Status> {
        let lock = LockAsked {
            owner: self.owner,
            pid: 1,
            kind,
            range,
        };
        self.fs.lock(self.handle, lock, how).await
    }

    async fn unlock(&self, range: LockRange) {
        let unlocked = self.fs.unlock(self.handle, self.owner, range).await;
        unlocked.expect("unlocks");
    }
}

fn bytes(first: u64, last: u64) -> LockRange {
    LockRange::new(first, last).expect("ascends")
}

#[test]
fn waits_that_are_dropped_at_any_moment_leave_what_was_held_before() {
    run_seeds("locks", run);
}

async fn run(seed: u64) {
    let mut rng = rng(seed);
    let cluster = Cluster::start().await;
    let first = cluster.client("first").await;
    let ino = first.create(regular("f")).await.expect("made").ino;
    let holder = Locker::new(&cluster, "holder", ino).await;
    let waiter = Locker::new(&cluster, "waiter", ino).await;
    let kept = waiter.lock(LockKind::Read, bytes(10, 19), Contended::Refuse);
    kept.await.expect("free");
    let (mut taken, mut dropped) = (0, 0);
    for _ in 0..ROUNDS {
        match round(&mut rng, &holder, &waiter).await {
            true => taken += 1,
            false => dropped += 1,
        }
        only_what_was_held(&first, ino).await;
    }
    eprintln!("seed {seed}: {taken} taken, {dropped} dropped");
    assert!(taken > 0 && dropped > 0, "both happen");
}

/// True if the wait ended with the lock, which is given back.
async fn round(rng: &mut Rng, holder: &Locker, waiter: &Locker) -> bool {
    let theirs = bytes(0, 4);
    let free = holder.lock(LockKind::Write, theirs, Contended::Wait);
    free.await.expect("free by now");
    let owner = holder.clone();
    let after = Duration::from_micros(rng.random_range(PATIENCE_US));
    let unlocking = tokio::spawn(async move {
        tokio::time::sleep(after).await;
        owner.unlock(theirs).await;
    });
    let waiting = waiter.lock(LockKind::Write, bytes(0, 14), Contended::Wait);
    let patience = Duration::from_micros(rng.random_range(PATIENCE_US));
    let outcome = tokio::time::timeout(patience, waiting).await;
    unlocking.await.expect("unlocks");
    let Ok(locked) = outcome else {
        return false;
    };
    locked.expect("not refused");
    waiter.unlock(bytes(0, 9)).await;
    let loosened = waiter.lock(LockKind::Read, bytes(10, 14), Contended::Refuse);
    loosened.await.expect("it is the holder");
    true
}

async fn only_what_was_held(fs: &Fs, ino: Ino) {
    let expected = [(LockKind::Read, bytes(10, 19))];
    let mut held = Vec::new();
    for _ in 0..2000 {
        let report = fs.list_locks(ino).await.expect("listed");
        let locks = report.held.iter().map(|of| (of.lock.kind, of.lock.range));
        held = locks.collect();
        if held == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{held:?}");
}
