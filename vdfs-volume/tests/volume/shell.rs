//! A volume's life with its master.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use vdfs_net::carrier::Outcome;
use vdfs_proto::codec::decode;
use vdfs_proto::data::{
    CopyBytes, CopySource, DataReply, DataRequest, FilePart, Scrub, Seek, SeekTarget,
};
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::Role;
use vdfs_proto::limits::VOLUME_LEASE_MS;
use vdfs_proto::volume::{Command, Fence};
use vdfs_proto::{
    ChainId, ChainSet, ChainTable, ChunkSize, DataId, Epoch, Layout, MemberState, OpId, SessionId,
    Status,
};
use vdfs_volume::store::StoreError;
use vdfs_volume::{Volume, VolumeError};

use crate::master::{Master, MasterCarrier, another, table, wait};
use crate::requests::{
    Home, begin, begin_read, begin_write, call, data_request, no_peers, send_read, send_write,
    write_message,
};

fn write(volume: &vdfs_volume::Volume, session: u64, seq: u64) -> Result<(), Status> {
    send_write(volume, write_message(session, seq, b"bytes"), b"bytes").map(drop)
}

fn fence(session: u64) -> Fence {
    Fence {
        number: session,
        session: SessionId(session),
    }
}

fn layout() -> Layout {
    Layout {
        data: DataId(5),
        truncations: 0,
        group: 0,
        seed: 0,
        size: 5,
        holes: false,
    }
}

/// Of the chunk, to so many bytes.
fn trim(len: u32) -> Command {
    Command::Trim {
        op: OpId {
            session: SessionId(0),
            slot: 0,
            seq: 1,
        },
        layout: layout(),
        index: 0,
        len,
    }
}

#[test]
fn volume_serves_once_its_master_has_taken_it_in() {
    let (home, master) = (Home::new(), Master::new());
    master.set_away(true);
    let volume = home.start(&master);
    assert_eq!(write(&volume, 1, 1), Err(Status::NotServing));
    master.set_away(false);
    master.wait_registered(1);
    assert_eq!(write(&volume, 1, 1), Ok(()));
    assert_eq!(send_read(&volume, Epoch(1)).expect("reads"), b"bytes"[..]);
    assert_eq!(
        send_read(&volume, Epoch(0)),
        Err(Status::StaleEpoch(Epoch(1)))
    );
    volume.stop();
}

#[test]
fn volume_refuses_what_would_hold_up_its_master_or_others() {
    let (home, master) = (Home::new(), Master::new());
    let volume = home.start(&master);
    master.wait_registered(1);
    assert_eq!(write(&volume, SessionId::MASTER.0, 1), Err(Status::Invalid));
    for ahead in [u64::MAX, u64::MAX - 1, 1 << 50] {
        let mut far = write_message(1, 1, b"bytes");
        far.chunk.data = DataId(ahead);
        let refused = send_write(&volume, far, b"bytes").map(drop);
        assert_eq!(refused, Err(Status::NotServing), "{ahead}");
    }
    let seek = DataRequest::Seek(Seek {
        part: FilePart {
            layout: layout(),
            chains: ChainSet::default(),
            table_version: 0,
        },
        target: SeekTarget::Hole,
        from: 0,
        to: ChunkSize::MIN.file_bytes_max(),
    });
    let refused = call(&volume, Role::Client, data_request(&seek, &[])).map(drop);
    assert_eq!(refused, Err(Status::Invalid));
    let scrub = data_request(&DataRequest::Scrub(Scrub::Report), &[]);
    let refused = call(&volume, Role::Client, scrub).map(drop);
    assert_eq!(refused, Err(Status::WrongRole));
    assert_eq!(write(&volume, 1, 1), Ok(()), "all else goes on");
}

#[test]
fn volume_started_again_has_its_chunks_under_the_same_store_id() {
    let (home, master) = (Home::new(), Master::new());
    let volume = home.start(&master);
    master.wait_registered(1);
    write(&volume, 1, 1).expect("written");
    volume.stop();
    let volume = home.start(&master);
    master.wait_registered(2);
    assert_eq!(send_read(&volume, Epoch(1)).expect("reads"), b"bytes"[..]);
    let registrations = master.registrations();
    let [first, second] = &registrations[..] else {
        panic!("{registrations:?}");
    };
    assert_eq!(first.store, second.store);
    assert_ne!(first.incarnation, second.incarnation);
    assert_eq!(second.data_id_max, DataId(5));
    assert!(second.used_bytes > first.used_bytes);
}

#[test]
fn volume_of_a_store_in_use_does_not_start() {
    let (home, master) = (Home::new(), Master::new());
    let _running = home.start(&master);
    let carrier = std::sync::Arc::new(MasterCarrier(master));
    let second = vdfs_volume::Volume::start(home.config(), carrier, no_peers());
    let refused = matches!(second, Err(VolumeError::Store(StoreError::InUse { .. })));
    assert!(refused);
}

#[test]
fn volume_executes_orders_and_reports_them() {
    let (home, master) = (Home::new(), Master::new());
    let volume = home.start(&master);
    master.wait_registered(1);
    write(&volume, 1, 1).expect("written");
    assert_eq!(master.order_done(trim(2)), Ok(()));
    assert_eq!(send_read(&volume, Epoch(1)).expect("reads"), b"by"[..]);
    assert_eq!(master.order_done(Command::Fence(fence(1))), Ok(()));
    assert_eq!(write(&volume, 1, 2), Err(Status::Fenced));
    assert_eq!(
        write(&volume, 1, 1),
        Ok(()),
        "a retry of what was done is answered"
    );
    assert_eq!(write(&volume, 2, 1), Ok(()));
    let forget = Command::ForgetSession(SessionId(1));
    assert_eq!(master.order_done(forget), Ok(()));
    assert_eq!(
        write(&volume, 1, 1),
        Err(Status::SessionExpired),
        "its records are gone"
    );
    let register = &master.registrations()[0];
    let newer = Command::Table(table(2, Epoch(2), register));
    assert_eq!(master.order_done(newer), Ok(()));
    assert_eq!(write(&volume, 2, 2), Err(Status::StaleEpoch(Epoch(2))));
    let reap = Command::Reap {
        ids: vec![DataId(5)],
    };
    assert_eq!(master.order_done(reap), Ok(()));
    assert_eq!(send_read(&volume, Epoch(2)), Err(Status::Gone));
    assert_eq!(volume.usage().chunks, 0);
}

#[test]
fn volume_registers_again_with_a_master_that_does_not_know_it() {
    let (home, master) = (Home::new(), Master::new());
    let volume = home.start(&master);
    master.wait_registered(1);
    master.restart(2);
    master.wait_registered(2);
    let registrations = master.registrations();
    assert_eq!(registrations[0].incarnation, registrations[1].incarnation);
    assert_eq!(write(&volume, 1, 1), Ok(()));
    assert_eq!(master.order_done(Command::Fence(fence(1))), Ok(()));
}

/// A chain that the volume has to itself in all tables.
const ALONE: ChainId = ChainId(1);

/// A volume of which a change waits for a successor that nobody reaches, in epoch 2.
struct Waiting {
    volume: Volume,
    answer: BoxFuture<'static, Outcome>,
    both: ChainTable,
    /// The same chain without the successor.
    alone: ChainTable,
}

fn with_a_change_under_way(home: &Home, master: &Arc<Master>) -> Waiting {
    let volume = home.start(master);
    master.wait_registered(1);
    let register = master.registrations().remove(0);
    let with_another = |mut table: ChainTable| {
        let mut another = table.chains[0].clone();
        another.epoch = Epoch(1);
        table.chains.push(another);
        table
    };
    let mut both = with_another(table(2, Epoch(2), &register));
    let successor = another(MemberState::Serving);
    both.chains[0].members.push(successor);
    assert_eq!(master.order_done(Command::Table(both.clone())), Ok(()));
    let mut passed_on = write_message(1, 1, b"bytes");
    passed_on.epoch = Epoch(2);
    let mut answer = begin_write(&volume, passed_on, b"bytes");
    assert!((&mut answer).now_or_never().is_none(), "nobody answers");
    Waiting {
        volume,
        answer,
        both,
        alone: with_another(table(3, Epoch(3), &register)),
    }
}

/// A change of a session that is fenced waits for a member which has lost its place: only a newer table
/// ends it.
#[test]
fn volume_with_changes_of_fenced_sessions_under_way_goes_on_with_its_master() {
    let (home, master) = (Home::new(), Master::new());
    let waiting = with_a_change_under_way(&home, &master);
    master.set_registered(waiting.both, vec![fence(1)]);
    master.restart(2);
    master.wait_registered(2);
    let fenced = master.order(Command::Fence(fence(1)));
    let other = Command::ForgetSession(SessionId(9));
    assert_eq!(master.order_done(other), Ok(()));
    assert!(!master.has_result(fenced), "a change is under way");
    assert_eq!(master.order_done(Command::Table(waiting.alone)), Ok(()));
    wait(|| master.has_result(fenced));
    let ended = waiting.answer.now_or_never().expect("it has ended");
    assert_eq!(ended.map(drop), Ok(()));
}

/// Others may show it already.
#[test]
fn volume_answers_questions_about_a_file_behind_what_it_has_passed_on() {
    let (home, master) = (Home::new(), Master::new());
    let waiting = with_a_change_under_way(&home, &master);
    let mut answer = begin_seek(&waiting.volume);
    assert!((&mut answer).now_or_never().is_none(), "it waits");
    assert_eq!(master.order_done(Command::Table(waiting.alone)), Ok(()));
    wait(|| found(&mut answer).is_some_and(|found| found == Ok(Some(0))));
}

#[test]
fn volume_that_has_lost_its_place_answers_no_question_that_waited() {
    let (home, master) = (Home::new(), Master::new());
    let waiting = with_a_change_under_way(&home, &master);
    let mut answer = begin_seek(&waiting.volume);
    assert!((&mut answer).now_or_never().is_none(), "it waits");
    let mut without = waiting.both;
    without.version = 3;
    without.chains[0].epoch = Epoch(3);
    without.chains[0].members.remove(0);
    assert_eq!(master.order_done(Command::Table(without)), Ok(()));
    let mut ended = None;
    wait(|| {
        ended = found(&mut answer);
        ended.is_some()
    });
    assert_eq!(ended, Some(Err(Status::NotServing)));
}

/// Nothing of the chunk is in the store yet.
#[test]
fn volume_cuts_a_chunk_behind_its_first_change() {
    let (home, master) = (Home::new(), Master::new());
    let waiting = with_a_change_under_way(&home, &master);
    let cut = master.order(trim(2));
    let other = Command::ForgetSession(SessionId(9));
    assert_eq!(master.order_done(other), Ok(()));
    assert!(!master.has_result(cut), "the change is under way");
    assert_eq!(master.order_done(Command::Table(waiting.alone)), Ok(()));
    wait(|| master.has_result(cut));
    // It was for the chain as it was before, and is asked for again.
    assert_eq!(master.order_done(trim(2)), Ok(()));
    let read = send_read(&waiting.volume, Epoch(3));
    assert_eq!(read.expect("reads"), b"by"[..]);
}

/// Whoever asked for it may have seen what a member below shows.
#[test]
fn volume_copies_a_chunk_behind_what_it_has_passed_on() {
    let (home, master) = (Home::new(), Master::new());
    let waiting = with_a_change_under_way(&home, &master);
    let source = write_message(1, 1, b"bytes");
    let mut target = write_message(2, 1, b"bytes");
    (target.chain, target.chunk.data) = (ALONE, DataId(6));
    let copy = CopyBytes {
        chain: target.chain,
        epoch: target.epoch,
        chunk: target.chunk,
        op: target.op,
        offset: 0,
        len: 5,
        len_expected: 0,
        source: CopySource {
            chain: source.chain,
            epoch: Epoch(2),
            chunk: source.chunk,
            offset: 0,
            len_expected: 0,
        },
    };
    let copy = data_request(&DataRequest::CopyBytes(copy), &[]);
    let mut answer = begin(&waiting.volume, Role::Client, copy);
    assert!((&mut answer).now_or_never().is_none(), "it waits");
    assert_eq!(master.order_done(Command::Table(waiting.alone)), Ok(()));
    let mut ended = None;
    wait(|| {
        ended = (&mut answer).now_or_never();
        ended.is_some()
    });
    let stale = Status::StaleEpoch(Epoch(3));
    assert_eq!(ended.expect("waited for").map(drop), Err(stale));
}

/// Whoever has asked for a change and gone away ends nothing.
#[test]
fn volume_goes_on_with_a_change_whose_caller_has_gone() {
    let (home, master) = (Home::new(), Master::new());
    let waiting = with_a_change_under_way(&home, &master);
    drop(waiting.answer);
    let read = begin_read(&waiting.volume, Epoch(2)).now_or_never();
    assert!(read.is_none(), "others may show it");
    assert_eq!(master.order_done(Command::Table(waiting.alone)), Ok(()));
    wait(|| send_read(&waiting.volume, Epoch(3)).is_ok_and(|read| read == b"bytes"[..]));
    let mut again = write_message(1, 1, b"bytes");
    again.epoch = Epoch(3);
    let again = send_write(&waiting.volume, again, b"bytes").expect("it is done");
    assert_eq!(again.version.counter, 1, "by the first one");
}

/// Where the file's data begins.
fn begin_seek(volume: &Volume) -> BoxFuture<'static, Outcome> {
    let mut chains = ChainSet::default();
    chains.insert(0);
    let seek = DataRequest::Seek(Seek {
        part: FilePart {
            layout: layout(),
            chains,
            table_version: 0,
        },
        target: SeekTarget::Data,
        from: 0,
        to: 4096,
    });
    begin(volume, Role::Client, data_request(&seek, &[]))
}

fn found(answer: &mut BoxFuture<'static, Outcome>) -> Option<Result<Option<u64>, Status>> {
    let outcome = answer.now_or_never()?;
    Some(outcome.map(|response| match decode(&response.body) {
        Ok(DataReply::Seek(sought)) => sought.at,
        other => panic!("another reply: {other:?}"),
    }))
}

#[test]
fn volume_ignores_orders_of_a_lower_term() {
    let (home, master) = (Home::new(), Master::new());
    master.set_term(5);
    let volume = home.start(&master);
    master.wait_registered(1);
    master.set_term(4);
    let number = master.order(Command::Fence(fence(1)));
    assert_eq!(write(&volume, 1, 1), Ok(()));
    master.set_term(5);
    wait(|| master.has_result(number));
    assert_eq!(write(&volume, 1, 2), Err(Status::Fenced));
}

#[test]
fn volume_without_a_lease_reads_but_does_not_write() {
    let (home, master) = (Home::new(), Master::new());
    let volume = home.start(&master);
    master.wait_registered(1);
    write(&volume, 1, 1).expect("written");
    master.stop_leases();
    let mut seq = 1;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        seq += 1;
        match write(&volume, 1, seq) {
            Ok(()) => assert!(std::time::Instant::now() < deadline, "it needs a lease"),
            Err(status) => {
                assert_eq!(status, Status::NotServing);
                break;
            }
        }
    }
    assert!(send_read(&volume, Epoch(1)).is_ok());
}

/// The master counts it from when the heartbeat came.
#[test]
fn volume_counts_its_lease_from_when_the_heartbeat_was_sent() {
    let (home, master) = (Home::new(), Master::new());
    let volume = home.start(&master);
    master.wait_registered(1);
    let sent = master.stop_leases_late(Duration::from_millis(900));
    let lease = Duration::from_millis(VOLUME_LEASE_MS);
    assert_eq!(write(&volume, 1, 1), Ok(()), "it has one");
    std::thread::sleep(lease.saturating_sub(sent.elapsed()));
    assert_eq!(write(&volume, 1, 2), Err(Status::NotServing));
}

#[test]
fn volume_makes_no_order_twice_that_it_has_taken() {
    let (home, master) = (Home::new(), Master::new());
    let volume = home.start(&master);
    master.wait_registered(1);
    write(&volume, 1, 1).expect("written");
    assert_eq!(master.order_done(trim(2)), Ok(()));
    write(&volume, 1, 2).expect("written again");
    master.repeat_commands();
    let other = Command::ForgetSession(SessionId(9));
    assert_eq!(master.order_done(other), Ok(()));
    assert_eq!(send_read(&volume, Epoch(1)).expect("reads"), b"bytes"[..]);
}

#[test]
fn volume_refuses_what_is_not_a_clients() {
    let (home, master) = (Home::new(), Master::new());
    let volume = home.start(&master);
    master.wait_registered(1);
    let good = data_request(&DataRequest::Write(write_message(1, 1, b"bytes")), b"bytes");
    for role in [Role::Master, Role::Volume] {
        let answer = call(&volume, role, good.clone()).map(drop);
        assert_eq!(answer, Err(Status::WrongRole), "{role:?}");
    }
    let mut garbage = good.clone();
    garbage.body = bytes::Bytes::from_static(&[0xff; 40]);
    assert_eq!(
        call(&volume, Role::Client, garbage).map(drop),
        Err(Status::Malformed)
    );
    let mut other_method = good.clone();
    other_method.method = Method::Mutate;
    let answer = call(&volume, Role::Client, other_method).map(drop);
    assert_eq!(answer, Err(Status::NotSupported));
    assert_eq!(call(&volume, Role::Client, good).map(drop), Ok(()));
}

#[test]
fn volume_that_stops_refuses_requests() {
    let (home, master) = (Home::new(), Master::new());
    let volume = home.start(&master);
    master.wait_registered(1);
    let service = volume.service();
    volume.stop();
    let request = data_request(&DataRequest::Write(write_message(1, 1, b"bytes")), b"bytes");
    let peer = std::sync::Arc::new(vdfs_net::PeerIdentity {
        cluster: vdfs_proto::ClusterId(1),
        role: Role::Client,
        node: "test".to_owned(),
        addr: None,
        same_host: true,
        certificate_ends: None,
    });
    let answer = futures::FutureExt::now_or_never(service.handle(peer, request));
    let refused = answer.expect("at once").map(drop);
    assert_eq!(refused, Err(Status::ShuttingDown));
}
