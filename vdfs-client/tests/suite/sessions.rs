//! The end of a session and the next one.

use bytes::Bytes;
use vdfs_client::WriteFlags;
use vdfs_proto::{Ino, Status};

use crate::fake::{Fake, Fault, regular};
use crate::writing::WRITER;

#[tokio::test]
async fn clean_handle_goes_on_under_the_next_session() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let write = async |text: &'static str| {
        let bytes = Bytes::from_static(text.as_bytes());
        fs.write(open.handle, 0, bytes, WriteFlags::default())
            .await?;
        fs.flush(open.handle).await
    };
    write("one").await.unwrap();
    fake.end_sessions();
    fake.until(|state| {
        state
            .done
            .iter()
            .filter(|name| **name == "OpenSession")
            .count()
            == 2
    })
    .await;
    fake.until(|state| state.done.contains(&"Open")).await;
    fs.getattr(Ino::ROOT).await.unwrap();
    write("two").await.unwrap();
    assert_eq!(fake.bytes(attr.ino), b"two");
    assert_eq!(fs.read(open.handle, 0, 10).await.unwrap(), "two");
}

#[tokio::test]
async fn dirty_handle_is_told_once_that_its_bytes_are_lost() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    fake.break_all("Write", Status::Disconnected);
    let bytes = Bytes::from_static(b"lost");
    fs.write(open.handle, 0, bytes, WriteFlags::default())
        .await
        .unwrap();
    fake.end_sessions();
    assert_eq!(fs.flush(open.handle).await, Err(Status::SessionExpired));
    fake.mend("Write");
    let bytes = Bytes::from_static(b"kept");
    fs.write(open.handle, 0, bytes, WriteFlags::default())
        .await
        .unwrap();
    assert_eq!(fs.flush(open.handle).await, Ok(()));
    assert_eq!(fake.bytes(attr.ino), b"kept");
}

#[tokio::test]
async fn mutation_in_doubt_is_not_sent_under_the_next_session() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    fake.fail("Create", Fault::AnswerLost);
    fake.fail("Create", Fault::Refused(Status::SessionExpired));
    assert_eq!(fs.create(regular("f")).await, Err(Status::SessionExpired));
    assert_eq!(fake.count("Create"), 1);
}

#[tokio::test]
async fn mutation_that_was_refused_unseen_is_sent_under_the_next_session() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    fake.end_sessions();
    fs.create(regular("f")).await.unwrap();
    let sessions: Vec<_> = fake
        .state
        .lock()
        .ops
        .iter()
        .map(|(op, _)| op.session.0)
        .collect();
    assert_eq!(sessions.last(), Some(&2));
}

#[tokio::test]
async fn session_is_resumed_with_its_handles_after_a_break() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (_, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    // A restarted master knows no handles.
    fake.state.lock().handles.clear();
    fake.fail("NextEvents", Fault::Lost);
    fake.until(|state| state.handles.contains(&open.handle))
        .await;
    assert_eq!(fake.count("OpenSession"), 1);
}
