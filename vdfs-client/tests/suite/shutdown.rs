//! The end of the client.

use std::time::Duration;

use bytes::Bytes;
use vdfs_client::{NotFlushed, WriteFlags};
use vdfs_proto::handshake::Role;
use vdfs_proto::{Ino, Status};

use crate::fake::{Fake, regular};
use crate::writing::WRITER;

#[tokio::test]
async fn shutdown_flushes_and_closes_the_session() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    let bytes = Bytes::from_static(b"last");
    fs.write(open.handle, 0, bytes, WriteFlags::default())
        .await
        .unwrap();
    assert_eq!(fs.shutdown(Duration::from_secs(5)).await, Ok(()));
    assert_eq!(fake.bytes(attr.ino), b"last");
    assert_eq!(fake.count("CloseSession"), 1);
    assert_eq!(fs.create(regular("g")).await, Err(Status::ShuttingDown));
    assert!(fs.getattr(Ino::ROOT).await.is_err());
}

#[tokio::test]
async fn shutdown_without_a_volume_names_what_is_not_flushed() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    fake.switchboard.detach(Role::Volume, "v1");
    let bytes = Bytes::from_static(b"stuck");
    fs.write(open.handle, 0, bytes, WriteFlags::default())
        .await
        .unwrap();
    let ended = fs.shutdown(Duration::from_millis(200)).await;
    let inodes = vec![attr.ino];
    assert_eq!(ended, Err(NotFlushed { inodes }));
}
