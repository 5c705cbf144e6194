//! Replay and images give the same state.

use proptest::prelude::*;
use vdfs_proto::meta::{Lock, LockAsked, NewKind, SetXattr, SyncLog, XattrMode};
use vdfs_proto::volume::Command;
use vdfs_proto::{Ino, LockKind, LockOwner, LockRange, SymlinkTarget, XattrName};

use super::copies::ask_for_copies;
use super::world::{CHUNK_BYTES, WRITE, World, config, create_in, now, registration};
use crate::core::{Core, RestoreError};

/// A state with something of everything, and a log behind it.
fn busy_world() -> World {
    let mut world = World::new();
    world.register("n", registration(1, 1));
    let session = world.open_session("a");
    for number in 0..300 {
        world.create_file(session, &format!("f{number}"));
    }
    let target = SymlinkTarget::new(b"x").expect("a target");
    world.create(session, create_in(Ino::ROOT, "s", NewKind::Symlink(target)));
    let dir = world
        .create(session, create_in(Ino::ROOT, "d", NewKind::Directory))
        .attr
        .ino;
    world.create(session, create_in(dir, "fifo", NewKind::Fifo));
    ask_for_copies(&mut world, session, dir, "2").expect("sets");
    world.create(session, create_in(dir, "twice", NewKind::Regular));
    let ino = world.lookup(session, "f7").expect("there").ino;
    let set = SetXattr {
        ino,
        name: XattrName::new(b"user.x").expect("a name"),
        value: vec![1, 2],
        mode: XattrMode::Set,
    };
    world.mutate(session, set).expect("sets");
    world.open(session, ino, 1, WRITE);
    for owner in 1..=3 {
        let lock = LockAsked {
            owner: LockOwner(owner),
            pid: 7,
            kind: LockKind::Read,
            range: LockRange::new(5, 9 + owner).expect("ascends"),
        };
        let queued = None;
        world
            .mutate(session, Lock { ino, lock, queued })
            .expect("locks");
    }
    world
        .commit(session, ino, 3 * CHUNK_BYTES)
        .expect("commits");
    world.send_truncate(session, ino, 5);
    world.unlink(session, "f7").expect("unlinks");
    world.unlink(session, "f8").expect("unlinks");
    world
}

fn assert_same(found: &str, expected: &str) {
    let at = found
        .bytes()
        .zip(expected.bytes())
        .position(|(a, b)| a != b);
    let Some(at) = at else {
        return assert_eq!(found.len(), expected.len(), "one is longer");
    };
    let around = at.saturating_sub(200)..(at + 100).min(found.len()).min(expected.len());
    panic!(
        "{}\n  differs from\n{}",
        &found[around.clone()],
        &expected[around]
    );
}

fn restored(core: &Core) -> Core {
    let image = core.image();
    assert_eq!(image.records(), core.records());
    let sections = image
        .sections()
        .map(|(name, bytes)| (name.to_owned(), bytes));
    Core::from_image(sections).expect("a whole image")
}

#[test]
fn image_restores_the_same_state_and_the_log_goes_on_from_it() {
    let mut world = busy_world();
    let core = restored(&world.core);
    assert_same(&core.dump(), &world.core.dump());
    let at = world.log.len();
    let mut core = core;
    let session = world.open_session("b");
    world.create_file(session, "later");
    for record in &world.log[at..] {
        core.replay(record).expect("fits");
    }
    assert_same(&core.dump(), &world.core.dump());
    core.check();
}

#[test]
fn image_is_one_instant_while_the_state_goes_on() {
    let mut world = busy_world();
    let (image, then) = (world.core.image(), world.core.dump());
    let session = world.open_session("b");
    for number in 0..200 {
        world
            .unlink(session, &format!("f{}", number + 50))
            .expect("unlinks");
        world.create_file(session, &format!("g{number}"));
    }
    let sections = image
        .sections()
        .map(|(name, bytes)| (name.to_owned(), bytes));
    let core = Core::from_image(sections).expect("a whole image");
    assert_same(&core.dump(), &then);
}

#[test]
fn log_replays_from_the_first_record_and_what_was_pending_goes_on() {
    let mut world = busy_world();
    world.restart(true);
    let volume = world.register("n", registration(1, 2)).volume;
    world.sync();
    let commands = world.obey(volume, 2);
    let has = |wanted: fn(&Command) -> bool| commands.iter().any(wanted);
    assert!(
        has(|command| matches!(command, Command::Trim { .. }))
            && has(|command| matches!(command, Command::Reap { .. })),
        "{commands:?}"
    );
    world.restart(true);
}

#[test]
fn damaged_images_and_records_are_refused() {
    let world = busy_world();
    let all: Vec<_> = world.core.image().sections().collect();
    let without = |name: &str| {
        let kept = all.iter().filter(|(of, _)| *of != name);
        Core::from_image(kept.map(|(of, bytes)| (of.to_string(), bytes.clone()))).map(drop)
    };
    assert_eq!(without("base"), Err(RestoreError::MissingSection));
    assert_eq!(without("inodes"), Err(RestoreError::BadSection));
    let cut = all
        .iter()
        .map(|(of, bytes)| (of.to_string(), bytes[..bytes.len() / 2].to_vec()));
    assert!(Core::from_image(cut).is_err());
    assert!(Core::from_first_record(&world.log[1]).is_err());
    let (mut core, _) = Core::format(config(), now(0));
    assert_eq!(
        core.replay(&[255]),
        Err(RestoreError::Undecodable { number: 2 })
    );
}

#[test]
fn sync_log_is_answered_when_everything_so_far_is_durable() {
    let mut world = World::new();
    let session = world.open_session("a");
    world.syncs_at_once = false;
    world.create_file(session, "f");
    let ticket = world.send_query(session, SyncLog {});
    assert!(world.sync_wanted && world.reply(ticket).is_none());
    world.sync();
    assert!(world.answered(ticket).is_ok());
    let again = world.send_query(session, SyncLog {});
    assert!(world.answered(again).is_ok(), "nothing is left to sync");
}

proptest! {
    #[test]
    fn replay_of_garbage_is_an_error_never_a_panic(
        record in proptest::collection::vec(any::<u8>(), 0..3),
    ) {
        prop_assert!(Core::from_first_record(&record).is_err());
    }
}
