//! Chunks go when, and only when, the log says so on the disk.

use vdfs_proto::meta::{AdminReply, AdminRequest, DropOrphans};
use vdfs_proto::volume::Command;
use vdfs_proto::{DataId, Status};

use super::world::{WRITE, World, registration};
use crate::core::limits::{LINGER_MS, TICK_MS};
use crate::core::{CoreReply, CoreRequest};

fn reaped(commands: &[Command]) -> Vec<DataId> {
    let ids = commands.iter().filter_map(|command| match command {
        Command::Reap { ids } => Some(ids.clone()),
        _ => None,
    });
    ids.flatten().collect()
}

#[test]
fn reap_leaves_only_after_its_record_is_durable_and_only_once() {
    let mut world = World::new();
    let volume = world.register("n", registration(1, 1)).volume;
    let session = world.open_session("a");
    world.create_file(session, "f");
    world.obey(volume, 1);
    world.syncs_at_once = false;
    world.unlink(session, "f").expect("unlinks");
    assert!(world.obey(volume, 1).is_empty());
    world.sync();
    assert_eq!(reaped(&world.obey(volume, 1)), [DataId(1)]);
    world.restart(true);
    world.sync();
    world.register("n", registration(1, 2));
    assert!(
        reaped(&world.obey(volume, 2)).is_empty(),
        "it was acknowledged"
    );
}

#[test]
fn reap_is_repeated_after_a_restart_until_it_is_acknowledged() {
    let mut world = World::new();
    let volume = world.register("n", registration(1, 1)).volume;
    let session = world.open_session("a");
    world.create_file(session, "f");
    world.unlink(session, "f").expect("unlinks");
    world.sync();
    assert!(!world.commands(volume, 1, 0, vec![]).is_empty());
    world.restart(true);
    world.sync();
    world.register("n", registration(1, 2));
    assert_eq!(reaped(&world.obey(volume, 2)), [DataId(1)]);
}

#[test]
fn replaced_truncated_and_released_files_are_reaped() {
    let mut world = World::new();
    let volume = world.register("n", registration(1, 1)).volume;
    let session = world.open_session("a");
    let first = world.create_file(session, "a");
    world.create_file(session, "b");
    world.rename(session, "b", "a").expect("renames");
    let open = world.create_file(session, "c");
    world.open(session, open, 1, WRITE);
    let cut = world.send_truncate(session, open, 0);
    world.mutated(cut).expect("truncates");
    world.unlink(session, "c").expect("unlinks");
    world.pass(LINGER_MS + TICK_MS);
    world.sync();
    assert_eq!(reaped(&world.obey(volume, 1)), [DataId(3), DataId(1)]);
    assert!(world.has_ended(first));
    world.release(session, 1, false);
    world.sync();
    assert_eq!(reaped(&world.obey(volume, 1)), [DataId(4)]);
}

#[test]
fn volume_that_knows_more_ids_than_the_log_loses_nothing() {
    let mut world = World::new();
    let mut known = registration(1, 1);
    known.data_id_max = DataId(500);
    let volume = world.register("n", known).volume;
    let session = world.open_session("a");
    world.create_file(session, "f");
    world.unlink(session, "f").expect("unlinks");
    world.sync();
    assert!(reaped(&world.obey(volume, 1)).is_empty());
}

fn drop_orphans(world: &mut World, ids: &[u64]) -> Result<(), Status> {
    let ids = ids.iter().copied().map(DataId).collect();
    let ticket = world.send(CoreRequest::Admin(AdminRequest::DropOrphans(DropOrphans {
        ids,
    })));
    world.sync();
    let reply = world.reply(ticket).expect("durable");
    reply.map(|reply| {
        assert!(matches!(
            reply,
            CoreReply::Admin(AdminReply::DropOrphans(()))
        ))
    })
}

#[test]
fn orphans_are_dropped_by_all_volumes_unless_a_lost_log_may_have_given_their_ids_out() {
    let mut world = World::new();
    let volume = world.register("n", registration(1, 1)).volume;
    let session = world.open_session("a");
    world.create_file(session, "f");
    world.create_file(session, "g");
    let other = world.register("m", registration(2, 1)).volume;
    for name in ["f", "g"] {
        world.unlink(session, name).expect("unlinks");
    }
    world.sync();
    for of in [volume, other] {
        assert_eq!(reaped(&world.obey(of, 1)).len(), 2);
    }
    assert_eq!(
        drop_orphans(&mut world, &[3]),
        Err(Status::Invalid),
        "not yet"
    );
    world.syncs_at_once = false;
    assert_eq!(drop_orphans(&mut world, &[1, 2]), Ok(()));
    for of in [volume, other] {
        assert_eq!(reaped(&world.obey(of, 1)), [DataId(1), DataId(2)]);
    }
    let mut knows_more = registration(1, 2);
    knows_more.data_id_max = DataId(500);
    world.register("n", knows_more);
    world.sync();
    world.restart(true);
    for (id, expected) in [
        (2, Ok(())),
        (3, Err(Status::Invalid)),
        (500, Err(Status::Invalid)),
    ] {
        assert_eq!(drop_orphans(&mut world, &[id]), expected, "{id}");
    }
}
