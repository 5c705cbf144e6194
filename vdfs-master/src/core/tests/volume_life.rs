//! Registration, leases, chains.

use std::collections::BTreeMap;

use vdfs_proto::limits::VOLUME_LEASE_MS;
use vdfs_proto::meta::{AdminReply, GetChainTable, GetStatus, NewKind, StatFs, StatusReport};
use vdfs_proto::volume::{Command, NextCommands, VolumeRequest};
use vdfs_proto::{DataId, Ino, Status, Timestamp, VolumeId};

use super::world::{CHUNK_BYTES, WRITE, World, create_in, registration};
use crate::core::{CoreReply, CoreRequest};

pub(super) fn status(world: &mut World) -> StatusReport {
    let request = vdfs_proto::meta::AdminRequest::GetStatus(GetStatus {});
    let ticket = world.send(CoreRequest::Admin(request));
    match world.reply(ticket) {
        Some(Ok(CoreReply::Admin(AdminReply::GetStatus(report)))) => *report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn first_volume_gets_all_chains_once_that_is_durable() {
    let mut world = World::new();
    let session = world.open_session("a");
    world.syncs_at_once = false;
    let node = "n".to_owned();
    let request = VolumeRequest::Register(registration(1, 1));
    let ticket = world.send(CoreRequest::Volume { node, request });
    assert!(world.reply(ticket).is_none() && world.sync_wanted);
    let too_early = world.open_session_outcome("b");
    assert_eq!(too_early, Err(Status::Busy), "its table would be old");
    let early = world.ask(session, GetChainTable {}).expect("a table");
    assert!(early.chains.is_empty(), "not shown before it is durable");
    world.sync();
    assert!(world.reply(ticket).is_some());
    let table = world.ask(session, GetChainTable {}).expect("a table");
    assert_eq!(table.chains.len(), 256);
    assert!(
        table
            .chains
            .iter()
            .all(|chain| chain.members[0].volume == VolumeId(1))
    );
}

#[test]
fn volume_that_registers_again_unchanged_logs_nothing() {
    let mut world = World::new();
    let first = world.register("n", registration(1, 1));
    let records = world.log.len();
    let again = world.register("n", registration(1, 1));
    assert_eq!(
        (again.volume, again.table),
        (first.volume, first.table.clone())
    );
    assert_eq!(world.log.len(), records);
    let second = world.register("n", registration(1, 2));
    assert_eq!((second.volume, second.table), (first.volume, first.table));
    assert_eq!(world.log.len(), records + 1, "another life is remembered");
    assert_eq!(world.heartbeat(first.volume, 1), Err(Status::NotFound));
    assert_eq!(world.heartbeat(first.volume, 2), Ok(()));
}

#[test]
fn second_volume_shares_chains_without_data_and_others_stay_where_they_are() {
    let mut world = World::new();
    world.register("n", registration(1, 1));
    let table = world.register("m", registration(2, 1)).table;
    let mut counts = BTreeMap::new();
    for chain in &table.chains {
        *counts.entry(chain.members[0].volume).or_insert(0) += 1;
    }
    assert_eq!(
        counts,
        BTreeMap::from([(VolumeId(1), 128), (VolumeId(2), 128)])
    );
    let session = world.open_session("a");
    world.create_file(session, "f");
    let later = world.register("o", registration(3, 1)).table;
    assert_eq!(later.chains, table.chains, "they move by and by");
}

#[test]
fn second_process_of_a_name_is_refused_while_the_first_may_be_alive() {
    let mut world = World::new();
    let first = world.register("n", registration(1, 1));
    let second = |world: &mut World| {
        let request = VolumeRequest::Register(registration(9, 2));
        world.volume("n", request).map(drop)
    };
    world.pass_with_heartbeats(2 * VOLUME_LEASE_MS, first.volume, 1);
    assert_eq!(second(&mut world), Err(Status::NameInUse));
    assert_eq!(world.heartbeat(first.volume, 1), Ok(()));
    world.restart(true);
    let refused = second(&mut world);
    assert_eq!(refused, Err(Status::NameInUse), "the first may come back");
    let again = world.register("n", registration(1, 1));
    assert_eq!(again.table, first.table, "nothing is lost");
    world.pass(VOLUME_LEASE_MS + 500);
    assert_eq!(second(&mut world), Ok(()));
}

#[test]
fn another_store_loses_what_its_chains_held() {
    let mut world = World::new();
    let volume = world.register("n", registration(1, 1)).volume;
    let session = world.open_session("a");
    let ino = world.create_file(session, "f");
    world.create_file(session, "empty");
    world.open(session, ino, 1, WRITE);
    world
        .commit(session, ino, 2 * CHUNK_BYTES + 5)
        .expect("commits");
    assert_eq!(status(&mut world).lost_files, 0);
    let table = world.register_without_store("n", registration(9, 2)).table;
    let chain = &table.chains[0];
    assert_eq!((chain.epoch.0, chain.lost_below), (2, DataId(3)));
    let report = status(&mut world);
    assert_eq!(
        (report.lost_files, report.lost_bytes),
        (1, 2 * CHUNK_BYTES + 5)
    );
    assert_eq!(report.lost_names, ["/f"]);
    assert_eq!(report.chains.lost, 3, "on which a file misses bytes");
    world.release(session, 1, false);
    world.unlink(session, "f").expect("unlinks");
    let report = status(&mut world);
    assert_eq!((report.lost_files, report.chains.lost), (0, 0));
    assert_eq!(report.volumes[0].info.id, volume);
}

#[test]
fn new_files_avoid_volumes_that_are_full_or_away() {
    let mut world = World::new();
    let mut full = registration(1, 1);
    full.used_bytes = full.capacity_bytes;
    world.register("n", full);
    let table = world.register("m", registration(2, 1)).table;
    let session = world.open_session("a");
    for number in 0..20 {
        let create = create_in(Ino::ROOT, &format!("f{number}"), NewKind::Regular);
        let layout = world.create(session, create).layout.expect("a file");
        let chain = table.chain(layout.chain(0)).expect("has chains");
        assert_eq!(chain.members[0].volume, VolumeId(2));
    }
    world.pass(VOLUME_LEASE_MS + 500);
    world.create_file(session, "all are away");
}

#[test]
fn silent_volume_is_away_and_must_register_again() {
    let mut world = World::new();
    let volume = world.register("n", registration(1, 1)).volume;
    let session = world.open_session("a");
    assert_eq!(
        world.ask(session, StatFs {}).expect("stats").capacity_bytes,
        10 * CHUNK_BYTES
    );
    world.pass_with_heartbeats(4_000, volume, 1);
    world.pass(VOLUME_LEASE_MS + 500);
    assert_eq!(
        world.ask(session, StatFs {}).expect("stats").capacity_bytes,
        0
    );
    assert_eq!(world.heartbeat(volume, 1), Err(Status::NotFound));
    assert_eq!(status(&mut world).chains.short, 256);
    world.register("n", registration(1, 1));
    assert_eq!(world.heartbeat(volume, 1), Ok(()));
    let next = VolumeRequest::NextCommands(NextCommands {
        volume,
        incarnation: 1,
        registration: 1,
        seen: 0,
        wall: Timestamp::default(),
        net: vdfs_proto::NetTotals::default(),
        news: Vec::new(),
        results: Vec::new(),
    });
    let outcome = world.volume("n", next.clone());
    assert_eq!(outcome.map(drop), Err(Status::NotFound), "of before");
    let outcome = world.volume("another", next);
    assert_eq!(outcome.map(drop), Err(Status::WrongRole));
    assert_eq!(status(&mut world).chains.whole, 256);
}

#[test]
fn table_change_is_pushed_to_other_volumes() {
    let mut world = World::new();
    let volume = world.register("n", registration(1, 1)).volume;
    world.register("m", registration(2, 1));
    let commands = world.obey(volume, 1);
    assert!(matches!(commands[..], [Command::Table(_)]), "{commands:?}");
}

#[test]
fn term_grows_with_each_life_of_the_master() {
    let mut world = World::new();
    let first = world.register("n", registration(1, 1)).term;
    world.restart(true);
    assert_eq!(world.register("n", registration(1, 2)).term, first + 1);
}

#[test]
fn empty_file_gets_another_data_id_after_the_loss_of_a_store() {
    let mut world = World::new();
    world.register("n", registration(1, 1));
    let session = world.open_session("a");
    let (empty, full) = (
        world.create_file(session, "empty"),
        world.create_file(session, "full"),
    );
    let before = world.open(session, empty, 1, WRITE).layout;
    world.release(session, 1, false);
    let full_before = world.open(session, full, 1, WRITE).layout;
    world.commit(session, full, 10).expect("commits");
    world.release(session, 1, false);
    let table = world.register_without_store("n", registration(2, 2)).table;
    let mark = table.chains[0].lost_below;
    assert!(before.data < mark);
    let after = world.open(session, empty, 1, WRITE).layout;
    assert!(after.data >= mark, "{} < {mark}", after.data);
    assert_eq!(world.open(session, empty, 2, WRITE).layout, after);
    assert_eq!(
        world.open(session, full, 3, WRITE).layout.data,
        full_before.data,
        "what had bytes has lost them"
    );
    world.restart(true);
}

#[test]
fn chains_that_a_session_knows_are_not_formed_anew_though_they_are_unused() {
    let mut world = World::new();
    let before = world.register("n", registration(1, 1)).table;
    world.open_session("a");
    let after = world.register("m", registration(2, 1)).table;
    assert_eq!(after.chains, before.chains, "not at once");
}

#[test]
fn volume_that_has_seen_ids_that_nobody_was_given_is_refused() {
    let mut world = World::new();
    let session = world.open_session("a");
    for seen in [u64::MAX, u64::MAX - 1, 1 << 60] {
        let register = vdfs_proto::volume::Register {
            data_id_max: DataId(seen),
            ..registration(1, 1)
        };
        let outcome = world.volume("n", VolumeRequest::Register(register));
        assert_eq!(outcome, Err(Status::Invalid), "{seen}");
    }
    world.register("n", registration(1, 1));
    world.create_file(session, "f");
}
