//! The same op id on every try; what is not tried again.

use std::time::Duration;

use bytes::Bytes;
use vdfs_client::{Fs, WriteFlags};
use vdfs_proto::data::{SeekTarget, SpaceKind};
use vdfs_proto::handshake::Role;
use vdfs_proto::{Ino, Status};

use crate::fake::{Fake, Fault, name, regular};
use crate::writing::WRITER;

#[tokio::test]
async fn mutation_whose_answer_is_lost_is_done_once() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    fake.fail("Create", Fault::AnswerLost);
    fake.fail("Create", Fault::Lost);
    fs.create(regular("f")).await.unwrap();
    assert_eq!(fake.count("Create"), 1);
    let ops = fake.state.lock().ops.clone();
    assert_eq!(ops.len(), 2);
    assert_eq!(ops[0], ops[1]);
}

#[tokio::test]
async fn refusal_frees_the_slot_for_the_next_seq() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    fs.create(regular("f")).await.unwrap();
    assert_eq!(fs.create(regular("f")).await, Err(Status::Exists));
    fs.unlink(Ino::ROOT, name("f")).await.unwrap();
    let seqs: Vec<_> = fake
        .state
        .lock()
        .ops
        .iter()
        .map(|(op, _)| (op.slot, op.seq))
        .collect();
    assert_eq!(seqs, [(0, 1), (0, 2), (0, 3)]);
}

#[tokio::test]
async fn write_whose_answer_is_lost_is_done_once() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    fake.fail("Write", Fault::AnswerLost);
    fake.fail("Write", Fault::Lost);
    let bytes = Bytes::from_static(b"once");
    fs.write(open.handle, 0, bytes, WriteFlags::default())
        .await
        .unwrap();
    fs.flush(open.handle).await.unwrap();
    assert_eq!(fake.count("Write"), 1);
    assert_eq!(fake.bytes(attr.ino), b"once");
}

#[tokio::test]
async fn stale_epoch_fetches_the_table_and_goes_on() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    fake.bump_epoch();
    let bytes = Bytes::from_static(b"new");
    fs.write(open.handle, 0, bytes, WriteFlags::default())
        .await
        .unwrap();
    fs.flush(open.handle).await.unwrap();
    fake.bump_epoch();
    assert_eq!(fs.read(open.handle, 0, 10).await.unwrap(), "new");
    assert_eq!(fake.count("GetChainTable"), 2);
    assert_eq!(fake.bytes(attr.ino), b"new");
}

#[tokio::test]
async fn operation_waits_for_a_master_that_is_away() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    fake.switchboard.detach(Role::Master, "m");
    let waiting = tokio::spawn({
        let fs = fs.clone();
        async move { fs.create(regular("f")).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    fake.attach_master();
    assert!(waiting.await.unwrap().is_ok());
    fake.until(|state| state.done.contains(&"ResumeSession"))
        .await;
}

#[tokio::test]
async fn operation_with_a_timeout_gives_up() {
    let fake = Fake::start();
    let mut config = fake.config();
    config.timeout = Some(Duration::from_millis(100));
    let fs = Fs::connect(config).await.unwrap();
    fake.switchboard.detach(Role::Master, "m");
    assert_eq!(fs.getattr(Ino::ROOT).await, Err(Status::DeadlineExceeded));
    assert_eq!(fs.create(regular("f")).await, Err(Status::DeadlineExceeded));
}

#[tokio::test]
async fn open_whose_caller_goes_away_is_closed_again() {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let attr = fs.create(regular("f")).await.unwrap();
    fake.fail("Open", Fault::Slow(Duration::from_millis(50)));
    let open = fs.open(attr.ino, WRITER);
    drop(tokio::time::timeout(Duration::from_millis(10), open).await);
    fake.until(|state| state.released.len() == 1).await;
    assert!(fake.state.lock().handles.is_empty());
}

#[tokio::test]
async fn read_only_client_changes_nothing() {
    let fake = Fake::start();
    let mut config = fake.config();
    config.read_only = true;
    let fs = Fs::connect(config).await.unwrap();
    assert_eq!(fs.create(regular("f")).await, Err(Status::ReadOnly));
    assert!(fs.getattr(Ino::ROOT).await.is_ok());
}

#[test]
fn futures_can_be_moved_between_threads() {
    fn check<F: Future + Send>(_future: F) {}
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (fake, fs) = runtime.block_on(async {
        let fake = Fake::start();
        let fs = fake.connect().await;
        (fake, fs)
    });
    let (handle, ino) = (vdfs_proto::HandleId(1), Ino::ROOT);
    check(fs.open(ino, WRITER));
    check(fs.create_open(regular("f"), WRITER, true));
    check(fs.read(handle, 0, 1));
    check(fs.write(handle, 0, Bytes::new(), WriteFlags::default()));
    check(fs.flush(handle));
    check(fs.fsync(handle));
    check(fs.release(handle));
    let change = vdfs_client::SpaceChange {
        kind: SpaceKind::Punch,
        offset: 0,
        len: 1,
        keep_size: true,
        kill_privileges: false,
    };
    check(fs.change_space(handle, change));
    let copy = vdfs_client::CopyRange {
        source: handle,
        source_offset: 0,
        target: handle,
        target_offset: 0,
        len: 1,
        kill_privileges: false,
    };
    check(fs.copy_range(copy));
    check(fs.seek(handle, 0, SeekTarget::Data));
    check(fs.set_attr(ino, vdfs_client::AttrChanges::default()));
    check(fs.locate(ino));
    check(fs.status());
    check(fs.readdir(ino, 0, 1, true, true));
    check(fs.shutdown(Duration::ZERO));
    check(Fs::connect(fake.config()));
}
