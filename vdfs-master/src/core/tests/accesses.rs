//! Access times: as `relatime` wants them.

use vdfs_proto::meta::{NewKind, ReadDir, Release};
use vdfs_proto::{HandleId, Ino, SessionId, Timestamp};

use super::world::{READ, World, create_in};

fn list(world: &mut World, session: SessionId, ino: Ino, marks_access: bool) -> Timestamp {
    let read = ReadDir {
        ino,
        cookie: 0,
        entries_max: 10,
        with_attrs: false,
        marks_access,
    };
    world.ask(session, read).expect("a directory");
    world.attr(session, ino).expect("there").atime
}

#[test]
fn listing_marks_a_directory_once_after_each_change_and_once_a_day() {
    let mut world = World::new();
    let session = world.open_session("a");
    let dir = world.create(session, create_in(Ino::ROOT, "d", NewKind::Directory));
    let (dir, made) = (dir.attr.ino, dir.attr.atime);
    world.pass(1000);
    assert_eq!(list(&mut world, session, dir, false), made, "noatime");
    let first = list(&mut world, session, dir, true);
    assert!(first > made);
    let records = world.log.len();
    world.pass(1000);
    assert_eq!(list(&mut world, session, dir, true), first);
    assert_eq!(world.log.len(), records, "nothing to log");
    world.create(session, create_in(dir, "f", NewKind::Regular));
    world.pass(1000);
    let second = list(&mut world, session, dir, true);
    assert!(second > first);
    world.now_ms += 24 * 3600 * 1000;
    let session = world.open_session("b");
    assert!(list(&mut world, session, dir, true) > second);
}

#[test]
fn release_says_when_a_file_was_read_and_never_takes_it_back() {
    let mut world = World::new();
    let session = world.open_session("a");
    let ino = world.create_file(session, "f");
    let at = |secs: i64| Timestamp {
        secs: 1_700_000_000 + secs,
        nanos: 5,
    };
    for (read_at, shown) in [(at(90), at(90)), (at(80), at(90)), (at(95), at(95))] {
        world.open(session, ino, 1, READ);
        let release = Release {
            handle: HandleId(1),
            tail_unknown: false,
            read_at: Some(read_at),
        };
        world.ask(session, release.clone()).expect("releases");
        world
            .ask(session, release)
            .expect("a repetition is harmless");
        assert_eq!(world.attr(session, ino).expect("there").atime, shown);
    }
    let before = world.attr(session, ino);
    world.restart(true);
    assert_eq!(world.attr(session, ino), before);
}
