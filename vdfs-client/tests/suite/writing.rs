//! Write-behind, commits, sticky errors.

use std::time::{Duration, Instant};

use bytes::Bytes;
use vdfs_client::{AttrChanges, OpenOptions, SpaceChange, WriteFlags};
use vdfs_proto::data::SpaceKind;
use vdfs_proto::{Status, Timestamp};

use crate::fake::{CHUNK, Fake, Fault, regular};

pub(crate) const WRITER: OpenOptions = OpenOptions {
    read: true,
    write: true,
    append: false,
    truncate: false,
    sync: false,
    no_atime: false,
    kill_privileges: false,
};

fn plain() -> WriteFlags {
    WriteFlags::default()
}

#[tokio::test]
async fn write_is_answered_before_any_volume_has_it_and_flush_waits() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let bytes = Bytes::from_static(b"hello");
    assert_eq!(fs.write(open.handle, 0, bytes, plain()).await, Ok(5));
    assert_eq!(fake.count("Write"), 0);
    assert_eq!(fs.getattr(attr.ino).await.unwrap().size, 5);
    fs.flush(open.handle).await.unwrap();
    assert_eq!(fake.bytes(attr.ino), b"hello");
    assert_eq!((fake.count("Write"), fake.count("Commit")), (1, 1));
}

#[tokio::test]
async fn write_without_a_flush_is_committed_after_a_short_idle() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let bytes = Bytes::from_static(b"hello");
    fs.write(open.handle, 0, bytes, plain()).await.unwrap();
    fake.until(|state| state.files[&attr.ino].attr.size == 5)
        .await;
}

#[tokio::test]
async fn small_writes_become_one_write_a_chunk() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    for at in 0..CHUNK / 512 {
        let bytes = Bytes::from(vec![at as u8; 1024]);
        fs.write(open.handle, at * 1024, bytes, plain())
            .await
            .unwrap();
    }
    fs.flush(open.handle).await.unwrap();
    assert_eq!((fake.count("Write"), fake.count("Commit")), (2, 1));
    let bytes = fs.read(open.handle, 0, 2 * CHUNK as u32).await.unwrap();
    assert_eq!(bytes, fake.bytes(attr.ino));
    assert!(!fake.state.lock().files[&attr.ino].layout.holes);
}

#[tokio::test]
async fn gap_is_committed_as_a_hole_and_reads_as_zeros() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let far = 3 * CHUNK + 10;
    let bytes = Bytes::from_static(b"far");
    fs.write(open.handle, far, bytes, plain()).await.unwrap();
    let read = fs.read(open.handle, 0, 1 << 20).await.unwrap();
    assert_eq!(read.len() as u64, far + 3);
    assert!(read[..far as usize].iter().all(|&byte| byte == 0));
    assert_eq!(&read[far as usize..], b"far");
    assert!(fake.state.lock().files[&attr.ino].layout.holes);
}

#[tokio::test]
async fn no_space_comes_back_once_at_each_writer_and_marks_the_tail() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let second = fs.open(attr.ino, WRITER).await.unwrap();
    fake.break_all("Write", Status::NoSpace);
    let bytes = Bytes::from_static(b"lost");
    fs.write(open.handle, 0, bytes, plain()).await.unwrap();
    let begun = Instant::now();
    assert_eq!(fs.flush(open.handle).await, Err(Status::NoSpace));
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "nothing is being reaped"
    );
    assert_eq!(fs.flush(open.handle).await, Ok(()));
    assert_eq!(fs.flush(second.handle).await, Err(Status::NoSpace));
    fake.mend("Write");
    assert!(fake.kernel.dropped.lock().contains(&(attr.ino, 0, 4)));
    fs.release(open.handle).await.unwrap();
    assert!(fake.state.lock().released[0].tail_unknown);
}

#[tokio::test]
async fn no_space_is_not_final_while_files_are_being_reaped() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    fake.break_all("Write", Status::NoSpace);
    fake.state.lock().is_reaping = true;
    let bytes = Bytes::from_static(b"kept");
    fs.write(open.handle, 0, bytes, plain()).await.unwrap();
    let mending = async {
        let asked = |done: &[&str]| done.iter().filter(|name| **name == "StatFs").count();
        fake.until(|state| asked(&state.done) >= 3).await;
        fake.mend("Write");
    };
    let (flushed, ()) = tokio::join!(fs.flush(open.handle), mending);
    assert_eq!(flushed, Ok(()));
    assert_eq!(fake.bytes(attr.ino), b"kept");
}

#[tokio::test]
async fn no_space_that_passes_is_not_seen() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    fake.fail("Write", Fault::Refused(Status::NoSpace));
    let bytes = Bytes::from_static(b"kept");
    fs.write(open.handle, 0, bytes, plain()).await.unwrap();
    assert_eq!(fs.flush(open.handle).await, Ok(()));
    assert_eq!(fake.bytes(attr.ino), b"kept");
}

#[tokio::test]
async fn run_that_fails_leaves_a_hole_in_what_is_committed() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    fake.fail("Write", Fault::Refused(Status::Internal));
    let bytes = Bytes::from(vec![1; CHUNK as usize + 5]);
    fs.write(open.handle, 0, bytes, plain()).await.unwrap();
    assert_eq!(fs.flush(open.handle).await, Err(Status::Internal));
    let state = fake.state.lock();
    let layout = state.files[&attr.ino].layout;
    assert!(layout.holes || layout.size <= CHUNK, "{layout:?}");
}

#[tokio::test]
async fn sync_write_is_safe_when_it_is_answered() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let options = OpenOptions {
        sync: true,
        ..WRITER
    };
    let (attr, open) = fs.create_open(regular("f"), options, true).await.unwrap();
    let flags = WriteFlags {
        sync: true,
        ..plain()
    };
    let bytes = Bytes::from_static(b"safe");
    fs.write(open.handle, 0, bytes, flags).await.unwrap();
    assert_eq!(fake.bytes(attr.ino), b"safe");
    assert_eq!(fake.count("SyncLog"), 1);
}

#[tokio::test]
async fn set_mtime_is_not_undone_by_an_earlier_write() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let bytes = Bytes::from_static(b"x");
    fs.write(open.handle, 0, bytes, plain()).await.unwrap();
    let then = Timestamp {
        secs: 12345,
        nanos: 6,
    };
    let changes = AttrChanges {
        mtime: Some(vdfs_proto::attr::SetTime::At(then)),
        ..AttrChanges::default()
    };
    assert_eq!(fs.set_attr(attr.ino, changes).await.unwrap().mtime, then);
    fs.flush(open.handle).await.unwrap();
    fs.release(open.handle).await.unwrap();
    assert_eq!(fs.getattr(attr.ino).await.unwrap().mtime, then);
}

#[tokio::test]
async fn truncate_flushes_first_and_later_bytes_follow_it() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let bytes = Bytes::from(vec![7; 1000]);
    fs.write(open.handle, 0, bytes, plain()).await.unwrap();
    let changes = AttrChanges {
        size: Some(10),
        ..AttrChanges::default()
    };
    assert_eq!(fs.set_attr(attr.ino, changes).await.unwrap().size, 10);
    let bytes = Bytes::from_static(b"z");
    fs.write(open.handle, 20, bytes, plain()).await.unwrap();
    let read = fs.read(open.handle, 0, 100).await.unwrap();
    let mut expected = vec![7; 10];
    expected.extend([0; 10]);
    expected.push(b'z');
    assert_eq!(read, expected);
}

/// Room for the first `len` bytes.
fn room(len: u64) -> SpaceChange {
    SpaceChange {
        kind: SpaceKind::Allocate,
        offset: 0,
        len,
        keep_size: false,
        kill_privileges: false,
    }
}

#[tokio::test]
async fn allocate_grows_the_file_unless_told_to_keep_its_size() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let keep_size = SpaceChange {
        keep_size: true,
        ..room(5000)
    };
    fs.change_space(open.handle, keep_size).await.unwrap();
    assert_eq!(fs.getattr(attr.ino).await.unwrap().size, 0);
    fs.change_space(open.handle, room(5000)).await.unwrap();
    assert_eq!(fs.getattr(attr.ino).await.unwrap().size, 5000);
    assert_eq!(fs.read(open.handle, 0, 9000).await.unwrap(), vec![0; 5000]);
    let far = fs.change_space(open.handle, room(2 << 30)).await;
    assert_eq!(far, Err(Status::NoSpace));
}

#[tokio::test]
async fn allocate_within_the_file_marks_it_as_modified() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (_, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let bytes = Bytes::from(vec![7; 1000]);
    fs.write(open.handle, 0, bytes, plain()).await.unwrap();
    let within = SpaceChange {
        kill_privileges: true,
        ..room(10)
    };
    fs.change_space(open.handle, within).await.unwrap();
    let commits = fake.state.lock().commits.clone();
    let last = commits.last().expect("allocation commits");
    assert_eq!(
        (last.end, last.holes, last.kill_privileges),
        (1000, false, true)
    );
    assert_eq!(fs.read(open.handle, 0, 2000).await.unwrap(), vec![7; 1000]);
}

#[tokio::test]
async fn punch_comes_behind_the_writes_and_the_masters_word_and_keeps_the_size() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let bytes = Bytes::from(vec![7; 1000]);
    fs.write(open.handle, 0, bytes, plain()).await.unwrap();
    let punch = SpaceChange {
        kind: SpaceKind::Punch,
        offset: 10,
        ..room(2000)
    };
    fs.change_space(open.handle, punch).await.unwrap();
    assert_eq!(fake.count("ChangeSpace"), 1);
    let mut expected = vec![0; 1000];
    expected[..10].fill(7);
    assert_eq!(fs.read(open.handle, 0, 5000).await.unwrap(), expected);
    assert_eq!(fs.getattr(attr.ino).await.unwrap().size, 1000);
}

#[tokio::test]
async fn write_whose_caller_goes_away_still_lands() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    fake.fail("Write", Fault::Slow(Duration::from_millis(50)));
    let flags = WriteFlags {
        sync: true,
        ..plain()
    };
    let bytes = Bytes::from_static(b"taken");
    let write = fs.write(open.handle, 0, bytes, flags);
    drop(tokio::time::timeout(Duration::from_millis(10), write).await);
    fake.until(|state| state.files[&attr.ino].attr.size == 5)
        .await;
    assert_eq!(fake.bytes(attr.ino), b"taken");
}
