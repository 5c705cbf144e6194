//! `O_APPEND`.

use std::time::Duration;

use bytes::Bytes;
use vdfs_client::{OpenOptions, WriteFlags};
use vdfs_proto::session::Right;

use crate::fake::{Fake, Fault, regular};
use crate::writing::WRITER;

const APPENDER: OpenOptions = OpenOptions {
    append: true,
    ..WRITER
};

const APPEND: WriteFlags = WriteFlags {
    sync: false,
    append: true,
    kill_privileges: false,
    from_page_cache: false,
};

#[tokio::test]
async fn append_is_safe_when_answered_and_keeps_its_token() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs
        .create_open(regular("log"), APPENDER, true)
        .await
        .unwrap();
    for record in ["one ", "two ", "three"] {
        // The offset is what the kernel believes; it does not count.
        fs.write(open.handle, 0, Bytes::from(record), APPEND)
            .await
            .unwrap();
    }
    assert_eq!(fake.bytes(attr.ino), b"one two three");
    assert_eq!((fake.count("AcquireAppend"), fake.count("Commit")), (1, 3));
    assert!(!fake.state.lock().files[&attr.ino].layout.holes);
}

#[tokio::test]
async fn append_after_a_recall_asks_for_the_end_again() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs
        .create_open(regular("log"), APPENDER, true)
        .await
        .unwrap();
    fs.write(open.handle, 0, Bytes::from("ours "), APPEND)
        .await
        .unwrap();
    let recall = fake.recall(attr.ino, Right::Append);
    fake.until_recalled(recall).await;
    fs.write(open.handle, 0, Bytes::from("again"), APPEND)
        .await
        .unwrap();
    assert_eq!(fake.bytes(attr.ino), b"ours again");
    assert_eq!(fake.count("AcquireAppend"), 2);
}

#[tokio::test]
async fn append_after_a_truncation_by_another_begins_at_its_end() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs
        .create_open(regular("log"), APPENDER, true)
        .await
        .unwrap();
    fs.write(open.handle, 0, Bytes::from("rotated away"), APPEND)
        .await
        .unwrap();
    let recall = fake.recall(attr.ino, Right::Layout);
    fake.until_recalled(recall).await;
    fake.truncate_by_another(attr.ino);
    fs.write(open.handle, 0, Bytes::from("new"), APPEND)
        .await
        .unwrap();
    assert_eq!(fake.bytes(attr.ino), b"new");
}

#[tokio::test]
async fn records_of_many_tasks_do_not_overlap() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs
        .create_open(regular("log"), APPENDER, true)
        .await
        .unwrap();
    let tasks: Vec<_> = (0..20u8)
        .map(|task| {
            let fs = fs.clone();
            tokio::spawn(async move {
                let record = Bytes::from(vec![task; 100]);
                fs.write(open.handle, 0, record, APPEND).await
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(100));
    }
    let bytes = fake.bytes(attr.ino);
    let mut records: Vec<_> = bytes.chunks(100).collect();
    records.sort_unstable();
    assert!(
        records
            .iter()
            .enumerate()
            .all(|(task, record)| **record == [task as u8; 100])
    );
}

#[tokio::test]
async fn append_whose_caller_goes_away_lands_once() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs
        .create_open(regular("log"), APPENDER, true)
        .await
        .unwrap();
    fake.fail("AcquireAppend", Fault::Slow(Duration::from_millis(50)));
    let write = fs.write(open.handle, 0, Bytes::from("first "), APPEND);
    drop(tokio::time::timeout(Duration::from_millis(10), write).await);
    fs.write(open.handle, 0, Bytes::from("second"), APPEND)
        .await
        .unwrap();
    assert_eq!(fake.bytes(attr.ino), b"first second");
}

#[tokio::test]
async fn last_close_gives_the_token_back() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (_, open) = fs
        .create_open(regular("log"), APPENDER, true)
        .await
        .unwrap();
    fs.write(open.handle, 0, Bytes::from("x"), APPEND)
        .await
        .unwrap();
    fs.release(open.handle).await.unwrap();
    assert_eq!(fake.count("ReturnAppend"), 1);
}

#[tokio::test]
async fn append_goes_behind_what_others_have_written_meanwhile() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs
        .create_open(regular("log"), APPENDER, true)
        .await
        .unwrap();
    fs.write(open.handle, 0, Bytes::from("ours "), APPEND)
        .await
        .unwrap();
    {
        let mut state = fake.state.lock();
        let file = state.files.get_mut(&attr.ino).unwrap();
        file.attr.size = 12;
        file.layout.size = 12;
        state.chunks.values_mut().next().unwrap().extend(b"theirs ");
    }
    fs.write(open.handle, 0, Bytes::from("last"), APPEND)
        .await
        .unwrap();
    assert_eq!(fake.bytes(attr.ino), b"ours theirs last");
}
