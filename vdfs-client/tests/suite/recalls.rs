//! Rights that the master asks back.

use std::time::Duration;

use bytes::Bytes;
use vdfs_client::{AttrChanges, WriteFlags};
use vdfs_proto::Status;
use vdfs_proto::session::{RecallOutcome, Right};

use crate::fake::{Fake, Fault, regular};
use crate::writing::WRITER;

#[tokio::test]
async fn layout_recall_flushes_and_commits_before_it_is_answered() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let bytes = Bytes::from_static(b"before");
    fs.write(open.handle, 0, bytes, WriteFlags::default())
        .await
        .unwrap();
    let recall = fake.recall(attr.ino, Right::Layout);
    assert_eq!(fake.until_recalled(recall).await, RecallOutcome::Done);
    assert_eq!(fake.bytes(attr.ino), b"before");
    assert!(fake.kernel.dropped.lock().contains(&(attr.ino, 0, 0)));
}

/// A read that the kernel has under way when it is told to forget the file must not fall short: what
/// is missing would be zeros.
#[tokio::test]
async fn reads_are_answered_under_the_layout_until_the_kernel_has_forgotten_the_file() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let bytes = Bytes::from_static(b"before");
    fs.write(open.handle, 0, bytes, WriteFlags::default())
        .await
        .unwrap();
    let in_use = fake.kernel.pages.clone().lock_owned().await;
    fake.state.lock().truncate_when_recalled = Some(attr.ino);
    let recall = fake.recall(attr.ino, Right::Layout);
    fake.until(|_| fake.kernel.dropped.lock().contains(&(attr.ino, 0, 0)))
        .await;
    assert_eq!(fs.read(open.handle, 0, 10).await.unwrap(), "before");
    drop(in_use);
    fake.until_recalled(recall).await;
    assert_eq!(fs.read(open.handle, 0, 10).await.unwrap(), "");
}

#[tokio::test]
async fn write_after_a_layout_recall_goes_to_the_new_data_id() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let bytes = Bytes::from_static(b"old bytes");
    fs.write(open.handle, 0, bytes, WriteFlags::default())
        .await
        .unwrap();
    let recall = fake.recall(attr.ino, Right::Layout);
    fake.until_recalled(recall).await;
    fake.truncate_by_another(attr.ino);
    let bytes = Bytes::from_static(b"new");
    fs.write(open.handle, 0, bytes, WriteFlags::default())
        .await
        .unwrap();
    assert_eq!(fs.flush(open.handle).await, Ok(()));
    assert_eq!(fake.bytes(attr.ino), b"new");
    assert_eq!(fs.read(open.handle, 0, 100).await.unwrap(), "new");
}

/// Bytes that are taken without a layout would be out only after a truncation that came later.
#[tokio::test]
async fn write_after_a_layout_recall_holds_a_layout_when_it_returns() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let recall = fake.recall(attr.ino, Right::Layout);
    fake.until_recalled(recall).await;
    assert_eq!(fake.count("GetLayout"), 0);
    let bytes = Bytes::from_static(b"taken");
    fs.write(open.handle, 0, bytes, WriteFlags::default())
        .await
        .unwrap();
    assert_eq!(fake.count("GetLayout"), 1);
    let recall = fake.recall(attr.ino, Right::Layout);
    fake.until_recalled(recall).await;
    assert_eq!(fake.bytes(attr.ino), b"taken");
}

#[tokio::test]
async fn recall_of_what_is_not_held_is_answered_at_once() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let attr = fs.create(regular("f")).await.unwrap();
    for right in [Right::Layout, Right::Append] {
        let recall = fake.recall(attr.ino, right);
        assert_eq!(fake.until_recalled(recall).await, RecallOutcome::Done);
    }
}

#[tokio::test]
async fn recall_that_waits_for_a_volume_says_so_and_then_that_it_is_done() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    fake.break_all("Write", Status::Disconnected);
    let bytes = Bytes::from_static(b"late");
    fs.write(open.handle, 0, bytes, WriteFlags::default())
        .await
        .unwrap();
    let recall = fake.recall(attr.ino, Right::Layout);
    fake.until(|state| {
        matches!(
            state.recalled[..],
            [(_, RecallOutcome::Held { waits_for: Some(_) }), ..]
        )
    })
    .await;
    fake.mend("Write");
    assert_eq!(fake.until_recalled(recall).await, RecallOutcome::Done);
    assert_eq!(fake.bytes(attr.ino), b"late");
}

#[tokio::test]
async fn recall_after_a_failed_flush_says_that_the_tail_is_unknown() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    fake.fail("Write", Fault::Refused(Status::Internal));
    let bytes = Bytes::from_static(b"lost");
    fs.write(open.handle, 0, bytes, WriteFlags::default())
        .await
        .unwrap();
    let recall = fake.recall(attr.ino, Right::Layout);
    assert_eq!(
        fake.until_recalled(recall).await,
        RecallOutcome::TailUnknown
    );
    assert_eq!(fs.flush(open.handle).await, Err(Status::Internal));
}

#[tokio::test]
async fn recalls_do_not_wait_for_each_other() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (slow, open) = fs.create_open(regular("slow"), WRITER, true).await.unwrap();
    let (fast, _) = fs.create_open(regular("fast"), WRITER, true).await.unwrap();
    fake.fail("Write", Fault::Slow(Duration::from_millis(300)));
    let bytes = Bytes::from_static(b"slow");
    fs.write(open.handle, 0, bytes, WriteFlags::default())
        .await
        .unwrap();
    let first = fake.recall(slow.ino, Right::Layout);
    let second = fake.recall(fast.ino, Right::Layout);
    fake.until_recalled(second).await;
    assert!(
        fake.state
            .lock()
            .recalled
            .iter()
            .all(|(number, _)| *number != first)
    );
    fake.until_recalled(first).await;
}

#[tokio::test]
async fn reply_of_a_truncation_does_not_grant_a_layout() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let recall = fake.recall(attr.ino, Right::Layout);
    fake.until_recalled(recall).await;
    let changes = AttrChanges {
        size: Some(100),
        ..AttrChanges::default()
    };
    fs.set_attr(attr.ino, changes).await.unwrap();
    // The master knows of no layout here, so it asks for none back.
    fake.truncate_by_another(attr.ino);
    let bytes = Bytes::from_static(b"new");
    fs.write(open.handle, 0, bytes, WriteFlags::default())
        .await
        .unwrap();
    assert_eq!(fs.flush(open.handle).await, Ok(()));
    assert_eq!(fake.bytes(attr.ino), b"new");
}
