//! What a lock and an unlock do to bytes, and what the end of a session does to locks.

use bytes::Bytes;
use vdfs_client::{Contended, Fs, WriteFlags};
use vdfs_proto::meta::LockAsked;
use vdfs_proto::{HandleId, LockKind, LockOwner, LockRange, Status};

use crate::fake::{Fake, regular};
use crate::writing::WRITER;

const OWNER: LockOwner = LockOwner(7);

async fn lock(fs: &Fs, handle: HandleId, kind: LockKind) -> Result<(), Status> {
    let lock = LockAsked {
        owner: OWNER,
        pid: 1,
        kind,
        range: LockRange::WHOLE,
    };
    fs.lock(handle, lock, Contended::Refuse).await
}

async fn write(fs: &Fs, handle: HandleId) {
    let bytes = Bytes::from_static(b"bytes");
    let written = fs.write(handle, 0, bytes, WriteFlags::default()).await;
    written.expect("taken");
}

/// What was done last, of writes, commits and locks.
fn last_done(fake: &Fake, count: usize) -> Vec<&'static str> {
    let state = fake.state.lock();
    let of_interest = ["Write", "Commit", "Lock", "Unlock"];
    let mut done: Vec<_> = state.done.iter().rev().copied().collect();
    done.retain(|name| of_interest.contains(name));
    done.truncate(count);
    done.reverse();
    done
}

#[tokio::test]
async fn unlock_in_every_form_commits_first() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (_, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let handle = open.handle;
    let begin = async || {
        lock(&fs, handle, LockKind::Write).await.unwrap();
        write(&fs, handle).await;
    };
    begin().await;
    fs.unlock(handle, OWNER, LockRange::WHOLE).await.unwrap();
    assert_eq!(last_done(&fake, 3), ["Write", "Commit", "Unlock"]);
    begin().await;
    lock(&fs, handle, LockKind::Read).await.unwrap();
    assert_eq!(last_done(&fake, 3), ["Write", "Commit", "Lock"]);
    begin().await;
    fs.flush_and_unlock(handle, OWNER).await.unwrap();
    assert_eq!(last_done(&fake, 3), ["Write", "Commit", "Unlock"]);
    begin().await;
    fs.release(handle).await.unwrap();
    assert_eq!(last_done(&fake, 3), ["Write", "Commit", "Unlock"]);
}

#[tokio::test]
async fn close_by_somebody_else_unlocks_nothing() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let other = fs.open(attr.ino, WRITER).await.unwrap();
    lock(&fs, open.handle, LockKind::Write).await.unwrap();
    fs.flush_and_unlock(open.handle, LockOwner(8))
        .await
        .unwrap();
    fs.release(other.handle).await.unwrap();
    assert_eq!(fake.count("Unlock"), 0);
}

#[tokio::test]
async fn lock_drops_pages_if_others_have_changed_the_file_and_keeps_them_if_not() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let handle = open.handle;
    let dropped = || fake.kernel.dropped.lock().len();
    lock(&fs, handle, LockKind::Write).await.unwrap();
    let before = dropped();
    write(&fs, handle).await;
    fs.flush(handle).await.unwrap();
    lock(&fs, handle, LockKind::Write).await.unwrap();
    assert_eq!(dropped(), before, "its own change");
    fake.extend_by_another(attr.ino, b" more");
    lock(&fs, handle, LockKind::Write).await.unwrap();
    assert_eq!(dropped(), before + 1);
    let read = fs.read(handle, 0, 20).await.unwrap();
    assert_eq!(read, "bytes more", "and sees the new end");
    lock(&fs, handle, LockKind::Write).await.unwrap();
    assert_eq!(dropped(), before + 1, "seen");
}

#[tokio::test]
async fn handle_whose_locks_went_with_the_session_is_lost_and_others_are_not() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let other = fs.open(attr.ino, WRITER).await.unwrap();
    write(&fs, open.handle).await;
    fs.flush(open.handle).await.unwrap();
    lock(&fs, open.handle, LockKind::Write).await.unwrap();
    fake.end_sessions();
    let two_sessions = |done: &[&str]| done.iter().filter(|of| **of == "OpenSession").count() == 2;
    fake.until(|state| two_sessions(&state.done)).await;
    let lost = fs.read(open.handle, 0, 20).await;
    assert_eq!(lost, Err(Status::SessionExpired));
    assert_eq!(fs.read(other.handle, 0, 20).await.unwrap(), "bytes");
    lock(&fs, other.handle, LockKind::Write).await.unwrap();
}
