//! The budget of RAM.

use vdfs_proto::meta::{Link, NewKind, SetXattr, StatFs, XattrMode};
use vdfs_proto::{Ino, Status, SymlinkTarget, XattrName};

use super::world::{READ, World, create_in, name};
use crate::core::RamLimits;

fn limited(metadata_bytes: u64) -> World {
    let mut world = World::new();
    world.checks = false;
    world.core.limit_ram(RamLimits {
        metadata_bytes,
        total_bytes: metadata_bytes + metadata_bytes / 8,
    });
    world
}

/// Creates until there is no room; gives how many names there are.
fn fill(world: &mut World, session: vdfs_proto::SessionId) -> u32 {
    for number in 0.. {
        let create = create_in(Ino::ROOT, &format!("file-{number:015}"), NewKind::Regular);
        match world.mutate(session, create) {
            Ok(_) => {}
            Err(status) => {
                assert_eq!(status, Status::NoSpace);
                return number;
            }
        }
    }
    unreachable!("the loop ends with the room")
}

#[test]
fn full_memory_refuses_whatever_grows_and_lets_everything_be_removed() {
    let mut world = limited(4 << 20);
    let session = world.open_session("a");
    let files = fill(&mut world, session);
    assert!(files > 10_000, "only {files} fit");
    let first = world
        .lookup(session, "file-000000000000000")
        .expect("there")
        .ino;
    let grow = [
        world
            .mutate(session, create_in(Ino::ROOT, "d", NewKind::Directory))
            .map(drop),
        world
            .mutate(
                session,
                create_in(Ino::ROOT, "l", NewKind::Symlink(target())),
            )
            .map(drop),
        world
            .mutate(
                session,
                Link {
                    ino: first,
                    parent: Ino::ROOT,
                    name: name("link"),
                },
            )
            .map(drop),
        world.mutate(session, xattr(first)),
        world.rename(
            session,
            "file-000000000000001",
            "a-name-that-is-longer-than-it",
        ),
    ];
    assert_eq!(grow, [Err(Status::NoSpace); 5]);
    let stats = world.ask(session, StatFs {}).expect("answers");
    assert_eq!(
        stats.files_max, stats.files,
        "df -i shows that nothing fits"
    );
    world.open(session, first, 1, READ);
    world
        .rename(session, "file-000000000000001", "short")
        .expect("a shorter name fits");
    world.open_session("someone who cleans up");
    for number in 2..files {
        let text = format!("file-{number:015}");
        world.unlink(session, &text).expect("can be removed");
    }
    let stats = world.ask(session, StatFs {}).expect("answers");
    assert!(stats.files_max > stats.files + 1000, "{stats:?}");
    let again = fill_again(&mut world, session);
    assert!(again * 10 > files * 9, "only {again} of {files} fit again");
    world.core.check();
}

fn fill_again(world: &mut World, session: vdfs_proto::SessionId) -> u32 {
    let mut made = 0;
    loop {
        let create = create_in(Ino::ROOT, &format!("mile-{made:015}"), NewKind::Regular);
        if world.mutate(session, create).is_err() {
            return made;
        }
        made += 1;
    }
}

fn target() -> SymlinkTarget {
    SymlinkTarget::new(b"target").expect("good")
}

fn xattr(ino: Ino) -> SetXattr {
    SetXattr {
        ino,
        name: XattrName::new(b"user.a").expect("good"),
        value: vec![0; 100],
        mode: XattrMode::Set,
    }
}

#[test]
fn image_is_recalled_when_what_it_keeps_does_not_fit_and_the_count_begins_anew_without_it() {
    let mut world = limited(4 << 20);
    let session = world.open_session("a");
    let files = fill(&mut world, session);
    let image = world.core.image();
    let recall = image.recall();
    let mut sections = image.sections();
    assert!(sections.next().is_some());
    for number in 0..files {
        let text = format!("file-{number:015}");
        world.unlink(session, &text).expect("can be removed");
    }
    assert!(recall.is_made(), "everything was copied");
    assert!(world.core.ram().copied_bytes > 1 << 20);
    drop(sections);
    drop(recall);
    world.unlink(session, "nothing").expect_err("not there");
    assert_eq!(world.core.ram().copied_bytes, 0);
    let next = world.core.image();
    assert!(!next.recall().is_made());
}
