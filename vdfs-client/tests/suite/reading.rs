//! Reads: verification, read-ahead, freshness.

use std::time::Duration;

use bytes::Bytes;
use vdfs_client::{Fs, OpenOptions, WriteFlags};
use vdfs_proto::session::Right;
use vdfs_proto::{Ino, Status};

use crate::fake::{CHUNK, Fake, Fault, name, regular};
use crate::writing::WRITER;

const READER: OpenOptions = OpenOptions {
    read: true,
    write: false,
    append: false,
    truncate: false,
    sync: false,
    no_atime: false,
    kill_privileges: false,
};

async fn file_of(fs: &Fs, len: usize) -> (Ino, Vec<u8>) {
    let bytes: Vec<u8> = (0..len).map(|at| (at / 7) as u8).collect();
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let all = Bytes::from(bytes.clone());
    fs.write(open.handle, 0, all, WriteFlags::default())
        .await
        .unwrap();
    fs.flush(open.handle).await.unwrap();
    fs.release(open.handle).await.unwrap();
    (attr.ino, bytes)
}

#[tokio::test]
async fn read_across_chunks_gives_the_bytes_and_stops_at_the_end() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (ino, bytes) = file_of(&fs, 200_001).await;
    let open = fs.open(ino, READER).await.unwrap();
    for (offset, len) in [
        (0, 10),
        (CHUNK - 1, 2),
        (100, 150_000),
        (199_999, 100),
        (200_001, 5),
    ] {
        let read = fs.read(open.handle, offset, len).await.unwrap();
        let end = bytes.len().min(offset as usize + len as usize);
        assert_eq!(read, bytes[offset as usize..end], "{len} at {offset}");
    }
}

#[tokio::test]
async fn sequential_reads_are_fetched_ahead() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (ino, bytes) = file_of(&fs, 40 * CHUNK as usize).await;
    let open = fs.open(ino, READER).await.unwrap();
    let first = fs.read(open.handle, 0, 4096).await.unwrap();
    assert_eq!(first, bytes[..4096]);
    fake.until(|state| state.done.iter().filter(|name| **name == "Read").count() > 10)
        .await;
    let before = fake.count("Read");
    let read = fs.read(open.handle, CHUNK, 4096).await.unwrap();
    assert_eq!(read, bytes[CHUNK as usize..CHUNK as usize + 4096]);
    let whole = fs.read(open.handle, 4096, 3 * CHUNK as u32).await.unwrap();
    assert_eq!(whole, bytes[4096..4096 + 3 * CHUNK as usize]);
    assert!(fake.count("Read") > before);
}

/// A file of which the second chunk was read ahead, and then written by another client.
async fn overwritten_behind_the_back(fake: &Fake, fs: &Fs) -> (Ino, vdfs_proto::HandleId) {
    let (ino, _) = file_of(fs, 4 * CHUNK as usize).await;
    let open = fs.open(ino, READER).await.unwrap();
    fs.read(open.handle, 0, 4096).await.unwrap();
    fake.until(|state| state.done.iter().filter(|name| **name == "Read").count() >= 4)
        .await;
    let mut state = fake.state.lock();
    let file = state.files.get_mut(&ino).unwrap();
    file.attr.data_version += 1;
    let chunk = vdfs_proto::ChunkId {
        data: file.layout.data,
        index: 1,
    };
    state.chunks.get_mut(&chunk).unwrap().fill(0xee);
    (ino, open.handle)
}

#[tokio::test]
async fn direct_read_sees_what_was_written_since_it_was_read_ahead() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (_, handle) = overwritten_behind_the_back(&fake, &fs).await;
    let read = fs.read_direct(handle, CHUNK, 4096).await.unwrap();
    assert_eq!(read, vec![0xee; 4096]);
}

#[tokio::test]
async fn open_at_another_version_drops_what_older_handles_have_read_ahead() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (ino, handle) = overwritten_behind_the_back(&fake, &fs).await;
    let open = fs.open(ino, READER).await.unwrap();
    assert!(!open.keep_cache);
    assert_eq!(
        fs.read(handle, CHUNK, 4096).await.unwrap(),
        vec![0xee; 4096]
    );
}

#[tokio::test]
async fn read_after_a_write_shows_it_although_it_was_read_ahead() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (ino, bytes) = file_of(&fs, 10 * CHUNK as usize).await;
    let open = fs.open(ino, WRITER).await.unwrap();
    fs.read(open.handle, 0, 4096).await.unwrap();
    let at = 2 * CHUNK + 5;
    fs.write(
        open.handle,
        at,
        Bytes::from_static(b"NEW"),
        WriteFlags::default(),
    )
    .await
    .unwrap();
    let read = fs.read(open.handle, 4096, 4 * CHUNK as u32).await.unwrap();
    let mut expected = bytes;
    expected[at as usize..at as usize + 3].copy_from_slice(b"NEW");
    assert_eq!(read, expected[4096..4096 + 4 * CHUNK as usize]);
}

#[tokio::test]
async fn corrupt_answer_is_asked_for_once_more() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (ino, bytes) = file_of(&fs, 100).await;
    let open = fs.open(ino, READER).await.unwrap();
    fake.fail("Read", Fault::Refused(Status::Corrupt));
    assert_eq!(fs.read(open.handle, 0, 100).await.unwrap(), bytes);
    fake.break_all("Read", Status::Corrupt);
    assert_eq!(fs.read(open.handle, 0, 100).await, Err(Status::Corrupt));
}

#[tokio::test]
async fn damaged_bytes_that_are_looked_into_are_waited_for_until_that_has_ended() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (ino, bytes) = file_of(&fs, 100).await;
    let open = fs.open(ino, READER).await.unwrap();
    let set = |rotten_reads, open_doubts| {
        let mut state = fake.state.lock();
        state.rotten_reads = rotten_reads;
        state.open_doubts = open_doubts;
    };
    set(4, 4);
    assert_eq!(fs.read(open.handle, 0, 100).await.unwrap(), bytes);
    assert_eq!(fake.asked("Doubt").len(), 4);
    set(u32::MAX, 4);
    assert_eq!(fs.read(open.handle, 0, 100).await, Err(Status::Corrupt));
    assert!(fake.asked("Doubt").len() >= 9, "each is told of");
}

#[tokio::test]
async fn missing_bytes_are_a_loss_and_never_zeros() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (ino, _) = file_of(&fs, 100).await;
    fake.state.lock().chunks.clear();
    let open = fs.open(ino, READER).await.unwrap();
    assert_eq!(fs.read(open.handle, 0, 100).await, Err(Status::DataLost));
}

#[tokio::test]
async fn read_beyond_the_known_end_asks_whether_the_file_has_grown() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (ino, _) = file_of(&fs, 100).await;
    let open = fs.open(ino, READER).await.unwrap();
    {
        let mut state = fake.state.lock();
        let file = state.files.get_mut(&ino).unwrap();
        file.attr.size = 103;
        file.layout.size = 103;
        let data = file.layout.data;
        let chunk = state.chunks.iter_mut().find(|(id, _)| id.data == data);
        chunk.unwrap().1.extend(b"abc");
    }
    assert_eq!(fs.read(open.handle, 100, 50).await.unwrap(), "abc");
}

#[tokio::test]
async fn cache_is_kept_over_own_writes_and_dropped_after_those_of_others() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (ino, _) = file_of(&fs, 100).await;
    let open = fs.open(ino, WRITER).await.unwrap();
    assert!(open.keep_cache);
    fs.write(
        open.handle,
        0,
        Bytes::from_static(b"x"),
        WriteFlags::default(),
    )
    .await
    .unwrap();
    fs.flush(open.handle).await.unwrap();
    fs.release(open.handle).await.unwrap();
    assert!(fs.open(ino, READER).await.unwrap().keep_cache);
    fake.state
        .lock()
        .files
        .get_mut(&ino)
        .unwrap()
        .attr
        .data_version += 1;
    assert!(!fs.open(ino, READER).await.unwrap().keep_cache);
    assert!(fs.open(ino, READER).await.unwrap().keep_cache);
}

#[tokio::test]
async fn read_goes_as_far_as_the_size_that_the_caller_was_told() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (ino, _) = file_of(&fs, 10).await;
    let open = fs.open(ino, READER).await.unwrap();
    assert_eq!(fs.read(open.handle, 0, 100).await.unwrap().len(), 10);
    fake.extend_by_another(ino, b"and more");
    // Short of what the kernel knows it would be filled up with zeros.
    let attr = fs.lookup(Ino::ROOT, &name("f")).await.unwrap();
    assert_eq!(attr.size, 18);
    let bytes = fs.read(open.handle, 0, 100).await.unwrap();
    assert_eq!(bytes[10..], *b"and more");
}

#[tokio::test]
async fn read_goes_as_far_as_the_size_that_the_caller_was_told_meanwhile() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (ino, _) = file_of(&fs, 10).await;
    let open = fs.open(ino, READER).await.unwrap();
    let before = fake.count("Read");
    fake.fail("Read", Fault::AnswerSlow(Duration::from_millis(200)));
    let reading = tokio::spawn({
        let fs = fs.clone();
        async move { fs.read_direct(open.handle, 0, 100).await }
    });
    fake.until(|state| state.done.iter().filter(|name| **name == "Read").count() > before)
        .await;
    fake.extend_by_another(ino, b"and more");
    let attr = fs.lookup(Ino::ROOT, &name("f")).await.unwrap();
    assert_eq!(attr.size, 18);
    let bytes = reading.await.unwrap().unwrap();
    assert_eq!(bytes[10..], *b"and more");
}

#[tokio::test]
async fn read_after_an_open_that_met_a_recall_goes_to_the_end() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (ino, _) = file_of(&fs, 10).await;
    let held = fs.open(ino, READER).await.unwrap();
    fake.extend_by_another(ino, b"and more");
    fake.fail("Open", Fault::AnswerSlow(Duration::from_millis(200)));
    let opening = tokio::spawn({
        let fs = fs.clone();
        async move { fs.open(ino, READER).await }
    });
    fake.until(|state| state.done.iter().filter(|name| **name == "Open").count() == 2)
        .await;
    let recall = fake.recall(ino, Right::Append);
    fake.until_recalled(recall).await;
    let open = opening.await.unwrap().unwrap();
    assert_eq!(open.attr.size, 18);
    for handle in [open.handle, held.handle] {
        assert_eq!(fs.read(handle, 0, 100).await.unwrap().len(), 18);
    }
}
