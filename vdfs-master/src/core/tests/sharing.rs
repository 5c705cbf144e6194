//! Which opens of a file may use the page cache of their mount.

use vdfs_proto::meta::{Access, Create, Mutated, Mutation, NewKind};
use vdfs_proto::session::OpenHandle;
use vdfs_proto::{HandleId, Ino, SessionId};

use crate::core::limits::SETTLED_WRITER_MS;

use super::world::{READ, WRITE, World, create_in, resume};

fn two_sessions() -> (World, [SessionId; 2], Ino) {
    let mut world = World::new();
    let sessions = [world.open_session("a"), world.open_session("b")];
    let ino = world.create_file(sessions[0], "f");
    (world, sessions, ino)
}

fn is_shared(world: &mut World, session: SessionId, ino: Ino, handle: u64, access: Access) -> bool {
    world.open(session, ino, handle, access).is_shared
}

fn open_by_name(name: &str, handle: u64) -> Mutation {
    Mutation::Create(Create {
        open: Some((HandleId(handle), WRITE)),
        exclusive: false,
        ..create_in(Ino::ROOT, name, NewKind::Regular)
    })
}

#[test]
fn open_is_shared_while_another_session_writes() {
    let (mut world, [a, b], ino) = two_sessions();
    assert!(!is_shared(&mut world, a, ino, 1, READ));
    assert!(!is_shared(&mut world, b, ino, 1, WRITE), "a only reads");
    assert!(is_shared(&mut world, a, ino, 3, WRITE));
    assert!(
        !is_shared(&mut world, a, ino, 4, READ),
        "b may close it soon"
    );
    world.release(a, 3, false);
    world.pass(SETTLED_WRITER_MS);
    assert!(is_shared(&mut world, a, ino, 2, READ));
    assert!(is_shared(&mut world, a, ino, 3, WRITE));
    world.release(b, 1, false);
    world.release(a, 3, false);
    assert!(!is_shared(&mut world, b, ino, 2, WRITE));
}

#[test]
fn writer_that_came_first_keeps_its_cache() {
    let (mut world, [a, b], ino) = two_sessions();
    assert!(!is_shared(&mut world, a, ino, 1, WRITE));
    assert!(is_shared(&mut world, b, ino, 1, WRITE));
    assert!(!is_shared(&mut world, a, ino, 2, WRITE), "its next process");
    world.release(a, 1, false);
    assert!(is_shared(&mut world, b, ino, 2, WRITE));
    world.release(a, 2, false);
    assert!(!is_shared(&mut world, b, ino, 3, WRITE), "it is alone");
    assert!(is_shared(&mut world, a, ino, 3, WRITE));
}

#[test]
fn open_that_is_repeated_is_told_the_same() {
    let (mut world, [a, b], ino) = two_sessions();
    assert!(!is_shared(&mut world, a, ino, 1, WRITE));
    assert!(is_shared(&mut world, b, ino, 1, WRITE));
    world.release(a, 1, false);
    assert!(is_shared(&mut world, b, ino, 1, WRITE));
}

#[test]
fn retry_of_an_open_by_name_is_told_what_holds_now() {
    let (mut world, [a, b], ino) = two_sessions();
    let op = world.op(a, 1);
    let ask = |world: &mut World| {
        let ticket = world.send_mutation(op, open_by_name("f", 1));
        match world.mutated(ticket) {
            Ok(Mutated::Create(created)) => created.is_shared,
            other => panic!("{other:?}"),
        }
    };
    assert!(!ask(&mut world));
    assert!(!ask(&mut world), "it is open");
    // The answer was lost, and the handle with the master's memory.
    world.restart(true);
    world.session(resume(a, vec![])).expect("lives on");
    world.session(resume(b, vec![])).expect("lives on");
    assert!(!is_shared(&mut world, b, ino, 1, WRITE));
    assert!(ask(&mut world), "somebody else has come first");
}

#[test]
fn writer_that_has_not_resumed_counts() {
    let (mut world, [a, b], ino) = two_sessions();
    let other = world.create_file(a, "g");
    assert!(!is_shared(&mut world, a, ino, 1, WRITE));
    world.restart(true);
    world.session(resume(b, vec![])).expect("lives on");
    assert!(is_shared(&mut world, b, ino, 1, WRITE));
    assert!(!is_shared(&mut world, b, other, 2, WRITE));
    let open = OpenHandle {
        handle: HandleId(1),
        ino,
        access: WRITE,
        is_shared: false,
    };
    world.session(resume(a, vec![open])).expect("lives on");
    assert!(!is_shared(&mut world, a, ino, 2, WRITE), "it came first");
}
