//! Chains of several members: who is asked, and what happens when one of them says nothing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::timeout;
use vdfs_client::{CopyRange, Fs, SpaceChange, WriteFlags};
use vdfs_proto::data::{SeekTarget, SpaceKind};
use vdfs_proto::handshake::Role;
use vdfs_proto::{Attr, HandleId, MemberState, Status, VolumeId};

use crate::fake::{CHUNK, Fake, Fault, VOLUMES, regular};
use crate::writing::WRITER;

use MemberState::{Serving, Syncing, Waiting};

const ONE: VolumeId = VOLUMES[0];
const TWO: VolumeId = VOLUMES[1];
const THREE: VolumeId = VOLUMES[2];
/// Killed, or stopped: neither an answer nor a reset.
const SILENT: Fault = Fault::Slow(Duration::from_secs(3600));
/// Well below the time of one attempt.
const SOON: Duration = Duration::from_secs(4);
const SILENCE: Duration = Duration::from_millis(500);

async fn cluster(members: &[(VolumeId, MemberState)]) -> (Fake, Fs) {
    let fake = Fake::start();
    fake.set_members(members);
    let fs = fake.connect().await;
    (fake, fs)
}

/// An open file of `len` bytes that are safe.
async fn file_of(fs: &Fs, name: &str, len: usize) -> (Attr, HandleId, Vec<u8>) {
    let bytes: Vec<u8> = (0..len).map(|at| (at / 7) as u8).collect();
    let (attr, open) = fs.create_open(regular(name), WRITER, true).await.unwrap();
    write(fs, open.handle, bytes.clone()).await;
    fs.flush(open.handle).await.unwrap();
    let attr = fs.getattr(attr.ino).await.unwrap();
    (attr, open.handle, bytes)
}

async fn write(fs: &Fs, handle: HandleId, bytes: Vec<u8>) {
    let written = fs.write(handle, 0, bytes.into(), WriteFlags::default());
    written.await.unwrap();
}

async fn read(fs: &Fs, handle: HandleId) -> Result<Bytes, Status> {
    fs.read_direct(handle, 0, 100).await
}

/// A file of 100 bytes on two members, and which of them a reader asks first.
async fn on_two() -> (Fake, Fs, HandleId, [VolumeId; 2]) {
    let (fake, fs) = cluster(&[(ONE, Serving), (TWO, Serving)]).await;
    let (_, handle, _) = file_of(&fs, "f", 100).await;
    read(&fs, handle).await.unwrap();
    let order = match fake.asked("Read")[..] {
        [ONE] => [ONE, TWO],
        [TWO] => [TWO, ONE],
        ref asked => panic!("asked {asked:?}"),
    };
    fake.state.lock().asked.clear();
    (fake, fs, handle, order)
}

#[tokio::test]
async fn changes_and_questions_go_to_the_first_serving_member_and_reads_to_no_other_state() {
    let members = [(ONE, Waiting), (TWO, Serving), (THREE, Syncing)];
    let (fake, fs) = cluster(&members).await;
    let (attr, handle, mut bytes) = file_of(&fs, "f", 40 * CHUNK as usize).await;
    let punch = SpaceChange {
        kind: SpaceKind::Punch,
        offset: 0,
        len: 100,
        keep_size: true,
        kill_privileges: false,
    };
    fs.change_space(handle, punch).await.unwrap();
    // The fake does not seek; it is asked all the same.
    let sought = fs.seek(handle, 0, SeekTarget::Data).await;
    assert_eq!(sought, Err(Status::NotSupported));
    let sparse = Attr {
        has_holes: true,
        ..attr
    };
    fs.allocated_bytes(&sparse).await;
    let all = fs.read_direct(handle, 0, bytes.len() as u32).await.unwrap();
    bytes[..100].fill(0);
    assert_eq!(all, bytes);
    for name in ["Write", "ChangeSpace", "Seek", "CountBlocks", "Read"] {
        let asked = fake.asked(name);
        assert!(!asked.is_empty(), "{name}");
        assert!(
            asked.iter().all(|&volume| volume == TWO),
            "{name}: {asked:?}"
        );
    }
}

#[tokio::test]
async fn chain_without_a_serving_member_is_waited_for_and_nobody_is_asked() {
    let (fake, fs) = cluster(&[(ONE, Waiting), (TWO, Waiting)]).await;
    let (_, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    write(&fs, open.handle, vec![7; 100]).await;
    let flushing = tokio::spawn({
        let fs = fs.clone();
        async move { fs.flush(open.handle).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!flushing.is_finished());
    assert_eq!(fake.asked("Write"), []);
    fake.set_members(&[(ONE, Waiting), (TWO, Serving)]);
    timeout(SOON, flushing).await.unwrap().unwrap().unwrap();
    assert_eq!(fake.asked("Write"), [TWO]);
}

#[tokio::test]
async fn write_in_flight_to_a_silent_head_goes_to_the_next_one_with_its_op_id() {
    let (fake, fs) = cluster(&[(ONE, Serving), (TWO, Serving)]).await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    fake.sicken(ONE, "Write", SILENT);
    write(&fs, open.handle, b"safe".to_vec()).await;
    fake.until(|state| state.asked.len() == 1).await;
    // The news of the table is not enough: it has to be fetched until it is there.
    fake.fail("GetChainTable", Fault::Refused(Status::Busy));
    fake.set_members(&[(TWO, Serving)]);
    timeout(SOON, fs.flush(open.handle)).await.unwrap().unwrap();
    assert_eq!(fake.bytes(attr.ino), b"safe");
    let asked = fake.state.lock().asked.clone();
    let volumes: Vec<_> = asked.iter().map(|asked| asked.volume).collect();
    assert_eq!(volumes, [ONE, TWO]);
    assert_eq!(asked[0].op, asked[1].op);
}

#[tokio::test]
async fn write_goes_through_another_member_while_the_head_is_not_reached() {
    let (fake, fs) = cluster(&[(ONE, Serving), (TWO, Serving)]).await;
    let (attr, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    fake.sicken(ONE, "Write", Fault::Refused(Status::Disconnected));
    for bytes in [b"first", b"other"] {
        write(&fs, open.handle, bytes.to_vec()).await;
        timeout(SOON, fs.flush(open.handle)).await.unwrap().unwrap();
        assert_eq!(fake.bytes(attr.ino), bytes);
    }
    assert_eq!(fake.asked("Write"), [ONE, TWO, TWO]);
    let asked = fake.state.lock().asked.clone();
    assert_eq!(asked[0].op, asked[1].op, "it is the same change");
}

#[tokio::test]
async fn read_in_flight_to_a_silent_member_that_is_alone_goes_to_who_follows() {
    let (fake, fs) = cluster(&[(ONE, Serving)]).await;
    let (_, handle, bytes) = file_of(&fs, "f", 100).await;
    fake.sicken(ONE, "Read", SILENT);
    let reading = tokio::spawn({
        let fs = fs.clone();
        async move { read(&fs, handle).await }
    });
    fake.until(|state| state.asked.iter().any(|asked| asked.name == "Read"))
        .await;
    fake.set_members(&[(TWO, Serving)]);
    let read = timeout(SOON, reading).await.unwrap().unwrap();
    assert_eq!(read.unwrap(), bytes);
    assert_eq!(fake.asked("Read"), [ONE, TWO]);
}

#[tokio::test]
async fn question_to_a_silent_head_goes_to_another_member() {
    let (fake, fs) = cluster(&[(ONE, Serving), (TWO, Serving)]).await;
    let (attr, _, _) = file_of(&fs, "f", 8192).await;
    let sparse = Attr {
        has_holes: true,
        ..attr
    };
    fake.state
        .lock()
        .files
        .get_mut(&attr.ino)
        .unwrap()
        .layout
        .holes = true;
    fake.sicken(ONE, "CountBlocks", SILENT);
    let begun = Instant::now();
    assert_eq!(fs.allocated_bytes(&sparse).await, 4096);
    assert!((SILENCE..SOON).contains(&begun.elapsed()));
    assert_eq!(fake.asked("CountBlocks"), [ONE, TWO]);
    let without_lease = Fault::Refused(Status::NotServing);
    fake.sicken(ONE, "CountBlocks", without_lease);
    assert_eq!(fs.allocated_bytes(&sparse).await, 4096);
    assert_eq!(fake.asked("CountBlocks"), [ONE, TWO, ONE, TWO]);
}

#[tokio::test]
async fn read_asks_another_member_after_half_a_second_of_silence() {
    let (fake, fs, handle, [first, second]) = on_two().await;
    fake.sicken(first, "Read", SILENT);
    let begun = Instant::now();
    assert_eq!(read(&fs, handle).await.unwrap().len(), 100);
    assert!((SILENCE..SOON).contains(&begun.elapsed()));
    assert_eq!(fake.asked("Read"), [first, second]);
}

#[tokio::test]
async fn slow_member_may_still_be_the_first_to_answer() {
    let (fake, fs, handle, [first, second]) = on_two().await;
    fake.sicken(first, "Read", Fault::Slow(SILENCE * 2));
    fake.sicken(second, "Read", SILENT);
    let read = timeout(SOON, read(&fs, handle)).await.unwrap();
    assert_eq!(read.unwrap().len(), 100);
    assert_eq!(fake.asked("Read"), [first, second]);
}

#[tokio::test]
async fn read_asks_another_member_at_once_when_one_cannot_answer() {
    let (fake, fs, handle, [first, second]) = on_two().await;
    let statuses = [
        Status::DataLost,
        Status::Corrupt,
        Status::NotServing,
        Status::NotInSync,
        Status::Disconnected,
        Status::Busy,
    ];
    for status in statuses {
        fake.state.lock().asked.clear();
        fake.sicken(first, "Read", Fault::Refused(status));
        let begun = Instant::now();
        assert_eq!(read(&fs, handle).await.unwrap().len(), 100, "{status}");
        assert!(begun.elapsed() < SILENCE, "{status}");
        assert_eq!(fake.asked("Read"), [first, second], "{status}");
    }
}

#[tokio::test]
async fn loss_is_believed_when_all_members_tell_of_one() {
    let (fake, fs, handle, order) = on_two().await;
    for volume in order {
        fake.sicken(volume, "Read", Fault::Refused(Status::DataLost));
    }
    assert_eq!(read(&fs, handle).await, Err(Status::DataLost));
    assert_eq!(fake.asked("Read"), order);
    fake.sicken(order[1], "Read", Fault::Refused(Status::Corrupt));
    let lost = read(&fs, handle).await;
    assert!(matches!(lost, Err(Status::DataLost | Status::Corrupt)));
}

#[tokio::test]
async fn loss_is_not_believed_while_a_member_has_not_said_so() {
    let (fake, fs, handle, [first, second]) = on_two().await;
    fake.sicken(first, "Read", Fault::Refused(Status::DataLost));
    fake.sicken(second, "Read", Fault::Refused(Status::Disconnected));
    let reading = tokio::spawn({
        let fs = fs.clone();
        async move { read(&fs, handle).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!reading.is_finished());
    fake.cure(second, "Read");
    assert_eq!(reading.await.unwrap().unwrap().len(), 100);
}

#[tokio::test]
async fn reads_of_many_chunks_are_spread_over_the_members() {
    let (fake, fs) = cluster(&[(ONE, Serving), (TWO, Serving), (THREE, Serving)]).await;
    let (_, handle, bytes) = file_of(&fs, "f", 60 * CHUNK as usize).await;
    let read = fs.read_direct(handle, 0, bytes.len() as u32).await.unwrap();
    assert_eq!(read, bytes);
    let asked = fake.asked("Read");
    for volume in VOLUMES {
        let share = asked.iter().filter(|&&asked| asked == volume).count();
        assert!(share >= 10, "{volume}: {share} of {}", asked.len());
    }
}

async fn copy(fake: &Fake, fs: &Fs) {
    let (_, source, bytes) = file_of(fs, "from", 3 * CHUNK as usize).await;
    let (attr, target, _) = file_of(fs, "to", 10).await;
    let wanted = CopyRange {
        source,
        source_offset: 0,
        target,
        target_offset: 0,
        len: bytes.len() as u64,
        kill_privileges: false,
    };
    let copied = fs.copy_range(wanted).await.unwrap();
    assert_eq!(copied, bytes.len() as u64);
    assert_eq!(fake.bytes(attr.ino), bytes);
}

#[tokio::test]
async fn copy_to_a_chain_of_several_goes_through_the_client() {
    let (fake, fs) = cluster(&[(ONE, Serving), (TWO, Syncing)]).await;
    copy(&fake, &fs).await;
    assert_eq!(fake.asked("CopyBytes"), []);
}

#[tokio::test]
async fn copy_that_a_volume_does_not_make_goes_through_the_client() {
    let (fake, fs) = cluster(&[(ONE, Serving)]).await;
    // That is what the fake says, as one whose chain has got another member.
    copy(&fake, &fs).await;
    assert!(!fake.asked("CopyBytes").is_empty());
}

#[tokio::test]
async fn nobody_is_asked_often_while_master_and_head_do_not_serve() {
    let (fake, fs) = cluster(&[(ONE, Serving)]).await;
    let (_, open) = fs.create_open(regular("f"), WRITER, true).await.unwrap();
    fake.sicken(ONE, "Write", Fault::Refused(Status::NotServing));
    write(&fs, open.handle, vec![7; 100]).await;
    fake.switchboard.detach(Role::Master, "m");
    tokio::time::sleep(Duration::from_millis(600)).await;
    let asked = fake.asked("Write").len();
    assert!((2..12).contains(&asked), "{asked}");
}
