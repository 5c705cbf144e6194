//! Every mutation is done once, whatever is lost on the way.

use vdfs_proto::meta::{Create, Mutated, Mutation, NewKind, Release, Rename, RenameMode};
use vdfs_proto::{HandleId, Ino, OpId, SessionId, Status};

use super::world::{WRITE, World, create_in, name, truncate};
use crate::core::Input;

fn create_f() -> Mutation {
    Mutation::Create(Create {
        open: Some((HandleId(1), WRITE)),
        ..create_in(Ino::ROOT, "f", NewKind::Regular)
    })
}

#[test]
fn retry_of_an_exclusive_create_gets_the_first_answer_also_after_a_restart() {
    let mut world = World::new();
    let session = world.open_session("a");
    let op = world.op(session, 4);
    let first = world.send_mutation(op, create_f());
    let first = world.mutated(first).expect("creates");
    let records = world.log.len();
    let again = world.send_mutation(op, create_f());
    assert_eq!(world.mutated(again), Ok(first.clone()));
    assert_eq!(world.log.len(), records, "nothing is done twice");
    world.restart(true);
    let again = world.send_mutation(op, create_f());
    assert_eq!(world.mutated(again), Ok(first));
}

#[test]
fn retry_of_a_rename_is_not_done_again() {
    let mut world = World::new();
    let session = world.open_session("a");
    world.create_file(session, "a");
    let rename = Mutation::Rename(Rename {
        parent: Ino::ROOT,
        name: name("a"),
        new_parent: Ino::ROOT,
        new_name: name("b"),
        mode: RenameMode::Replace,
        found: None,
    });
    let op = world.op(session, 4);
    let first = world.send_mutation(op, rename.clone());
    assert_eq!(world.mutated(first), Ok(Mutated::Rename(())));
    let newer = world.create_file(session, "a");
    let again = world.send_mutation(op, rename);
    assert_eq!(world.mutated(again), Ok(Mutated::Rename(())));
    assert_eq!(world.lookup(session, "a").expect("stays").ino, newer);
}

#[test]
fn retry_of_a_refusal_is_refused_though_it_could_be_done_by_now() {
    let mut world = World::new();
    let session = world.open_session("a");
    world.create_file(session, "f");
    let op = world.op(session, 4);
    let first = world.send_mutation(op, create_f());
    assert_eq!(world.mutated(first), Err(Status::Exists));
    world.unlink(session, "f").expect("unlinks");
    world.restart(true);
    let again = world.send_mutation(op, create_f());
    assert_eq!(world.mutated(again), Err(Status::Exists));
}

#[test]
fn delayed_duplicate_of_an_older_op_is_stale() {
    let mut world = World::new();
    let session = world.open_session("a");
    let old = world.op(session, 4);
    let first = world.send_mutation(old, create_f());
    world.mutated(first).expect("creates");
    let next = world.op(session, 4);
    let second = world.send_mutation(next, create_f());
    assert_eq!(world.mutated(second), Err(Status::Exists));
    let late = world.send_mutation(old, create_f());
    assert_eq!(world.mutated(late), Err(Status::StaleRequest));
}

#[test]
fn retried_create_registers_its_handle_again() {
    let mut world = World::new();
    let session = world.open_session("a");
    let op = world.op(session, 4);
    let first = world.send_mutation(op, create_f());
    world.mutated(first).expect("creates");
    let release = Release {
        handle: HandleId(1),
        tail_unknown: false,
        read_at: None,
    };
    world.ask(session, release).expect("releases");
    let again = world.send_mutation(op, create_f());
    world.mutated(again).expect("the first answer");
    let ino = world.lookup(session, "f").expect("there").ino;
    world.unlink(session, "f").expect("unlinks");
    assert_eq!(world.attr(session, ino).expect("open").nlink, 0);
}

#[test]
fn retry_of_a_parked_op_takes_over_the_wait() {
    let mut world = World::new();
    let (writer, other) = (world.open_session("a"), world.open_session("b"));
    let ino = world.create_file(writer, "f");
    world.open(writer, ino, 1, WRITE);
    let op = world.op(other, 4);
    let cut = Mutation::Truncate(truncate(ino, 0));
    let first = world.send_mutation(op, cut.clone());
    assert_eq!(world.reply(first), None);
    let second = world.send_mutation(op, cut);
    assert_eq!(world.reply(first), Some(Err(Status::Busy)));
    world.release(writer, 1, false);
    assert!(world.mutated(second).is_ok());
}

#[test]
fn op_goes_on_when_nobody_waits_for_it_any_more() {
    let mut world = World::new();
    let (writer, other) = (world.open_session("a"), world.open_session("b"));
    let ino = world.create_file(writer, "f");
    world.open(writer, ino, 1, WRITE);
    world.commit(writer, ino, 100).expect("commits");
    let op = world.op(other, 4);
    let cut = Mutation::Truncate(truncate(ino, 0));
    let ticket = world.send_mutation(op, cut.clone());
    world.step(Input::Abandoned(ticket));
    world.release(writer, 1, false);
    assert_eq!(world.attr(other, ino).expect("there").size, 0);
    let again = world.send_mutation(op, cut);
    assert!(world.mutated(again).is_ok());
}

#[test]
fn ops_of_unknown_sessions_and_slots_are_refused() {
    let mut world = World::new();
    let session = world.open_session("a");
    let op = |session, slot, seq| OpId { session, slot, seq };
    let unknown = world.send_mutation(op(SessionId(99), 0, 1), create_f());
    assert_eq!(world.mutated(unknown), Err(Status::SessionExpired));
    let slot = world.send_mutation(op(session, 256, 1), create_f());
    assert_eq!(world.mutated(slot), Err(Status::Invalid));
}

#[test]
fn full_log_refuses_mutations_serves_questions_and_goes_on_with_room() {
    let mut world = World::new();
    let session = world.open_session("a");
    world.step(Input::LogFull {
        why: "no room".into(),
    });
    let records = world.log.len();
    let op = world.op(session, 4);
    let refused = world.send_mutation(op, create_f());
    assert_eq!(world.mutated(refused), Err(Status::NoSpace));
    assert!(world.attr(session, Ino::ROOT).is_ok());
    let silent = world.open_session_outcome("b");
    assert_eq!(silent, Err(Status::Busy));
    for _ in 0..15 {
        world.pass(2_000);
        world.attr(session, Ino::ROOT).expect("lives");
    }
    assert_eq!(world.log.len(), records, "nothing is logged");
    world.step(Input::LogHasRoom);
    let op = world.op(session, 4);
    let done = world.send_mutation(op, create_f());
    assert!(world.mutated(done).is_ok());
}
