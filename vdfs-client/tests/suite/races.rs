//! Answers that overtake one another: rights asked back while others are on their way.

use std::time::Duration;

use bytes::Bytes;
use vdfs_client::{AttrChanges, Fs, OpenOptions, WriteFlags};
use vdfs_proto::session::Right;
use vdfs_proto::{HandleId, Ino};

use crate::fake::{Fake, Fault, regular};
use crate::writing::WRITER;

const APPEND: WriteFlags = WriteFlags {
    sync: false,
    append: true,
    kill_privileges: false,
    from_page_cache: false,
};

const SLOW: Duration = Duration::from_millis(100);

async fn write(fs: &Fs, handle: HandleId, offset: u64, text: &'static str) {
    let bytes = Bytes::from_static(text.as_bytes());
    let flags = WriteFlags::default();
    fs.write(handle, offset, bytes, flags).await.unwrap();
}

fn truncate(fs: &Fs, ino: Ino, size: u64) -> tokio::task::JoinHandle<()> {
    let fs = fs.clone();
    tokio::spawn(async move {
        let changes = AttrChanges {
            size: Some(size),
            ..AttrChanges::default()
        };
        fs.set_attr(ino, changes).await.unwrap();
    })
}

#[tokio::test]
async fn layout_granted_under_an_unanswered_recall_is_not_used_after_it() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    write(&fs, open.handle, 0, "old").await;
    fs.flush(open.handle).await.unwrap();
    fake.fail("Recalled", Fault::Slow(SLOW));
    let recall = fake.recall(attr.ino, Right::Layout);
    fake.until(|_| fake.kernel.dropped.lock().contains(&(attr.ino, 0, 0)))
        .await;
    // The layout is given up here, and the master does not know it yet: it grants the old one.
    let reading = tokio::spawn({
        let fs = fs.clone();
        async move { fs.read(open.handle, 0, 10).await }
    });
    fake.state.lock().truncate_when_recalled = Some(attr.ino);
    fake.until_recalled(recall).await;
    reading.await.unwrap().unwrap();
    write(&fs, open.handle, 0, "new bytes").await;
    fs.flush(open.handle).await.unwrap();
    assert_eq!(fake.bytes(attr.ino), b"new bytes");
}

#[tokio::test]
async fn size_asked_for_before_a_truncation_does_not_hide_a_hole() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    write(&fs, open.handle, 0, "0123456789").await;
    fs.flush(open.handle).await.unwrap();
    fake.fail("GetAttr", Fault::AnswerSlow(SLOW));
    fake.fail("Truncate", Fault::AnswerSlow(2 * SLOW));
    let stat = tokio::spawn({
        let fs = fs.clone();
        async move { fs.getattr(attr.ino).await }
    });
    fake.until(|state| state.done.contains(&"GetAttr")).await;
    let truncation = truncate(&fs, attr.ino, 0);
    fake.until(|state| state.done.contains(&"Truncate")).await;
    // This brings the new layout before the truncation is answered.
    fs.open(attr.ino, WRITER).await.unwrap();
    stat.await.unwrap().unwrap();
    truncation.await.unwrap();
    write(&fs, open.handle, 10, "x").await;
    fs.flush(open.handle).await.unwrap();
    assert!(fake.state.lock().files[&attr.ino].layout.holes);
}

#[tokio::test]
async fn write_during_a_truncation_is_not_committed_by_a_recall_under_the_old_layout() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    write(&fs, open.handle, 0, "0123456789").await;
    fake.fail("Truncate", Fault::AnswerSlow(SLOW));
    let truncation = truncate(&fs, attr.ino, 0);
    fake.until(|state| state.done.contains(&"Truncate")).await;
    write(&fs, open.handle, 0, "later").await;
    let recall = fake.recall(attr.ino, Right::Layout);
    fake.until_recalled(recall).await;
    truncation.await.unwrap();
    assert_eq!(fs.flush(open.handle).await, Ok(()));
    assert_eq!(fake.bytes(attr.ino), b"later");
}

#[tokio::test]
async fn held_back_write_does_not_hold_back_the_commit_of_earlier_ones() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    fake.fail("Write", Fault::AnswerSlow(SLOW));
    write(&fs, open.handle, 100, "earlier").await;
    let recall = fake.recall(attr.ino, Right::Layout);
    fake.until(|state| state.done.contains(&"Write")).await;
    write(&fs, open.handle, 0, "later").await;
    fake.until_recalled(recall).await;
    assert_eq!(fake.state.lock().files[&attr.ino].attr.size, 107);
    assert_eq!(fs.flush(open.handle).await, Ok(()));
    assert_eq!(&fake.bytes(attr.ino)[..5], b"later");
}

#[tokio::test]
async fn read_that_meets_a_truncation_ends_at_the_new_end() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    write(&fs, open.handle, 0, "gone soon").await;
    fs.flush(open.handle).await.unwrap();
    fake.fail("Read", Fault::Slow(SLOW));
    let reading = tokio::spawn({
        let fs = fs.clone();
        async move { fs.read(open.handle, 0, 9).await }
    });
    let recall = fake.recall(attr.ino, Right::Layout);
    fake.until_recalled(recall).await;
    fake.truncate_by_another(attr.ino);
    fake.state.lock().chunks.clear();
    assert_eq!(reading.await.unwrap().unwrap(), "");
}

#[tokio::test]
async fn recalls_of_both_rights_under_appends_are_answered() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let options = OpenOptions {
        append: true,
        ..WRITER
    };
    let (attr, open) = fs.create_open(regular("f"), options, true).await.unwrap();
    fs.write(open.handle, 0, Bytes::from("0"), APPEND)
        .await
        .unwrap();
    fake.fail("Commit", Fault::Slow(SLOW));
    let appends: Vec<_> = ["1", "2", "3"]
        .map(|text| {
            let fs = fs.clone();
            tokio::spawn(async move { fs.write(open.handle, 0, Bytes::from(text), APPEND).await })
        })
        .into();
    fake.until(|state| state.done.iter().filter(|name| **name == "Write").count() == 2)
        .await;
    let recalls = [Right::Append, Right::Layout].map(|right| fake.recall(attr.ino, right));
    for recall in recalls {
        fake.until_recalled(recall).await;
    }
    for append in appends {
        assert_eq!(append.await.unwrap(), Ok(1));
    }
    let mut bytes = fake.bytes(attr.ino);
    bytes.sort_unstable();
    assert_eq!(bytes, b"0123");
}
