//! The append token.

use vdfs_proto::meta::{AcquireAppend, Answer, ReturnAppend};
use vdfs_proto::session::RecallOutcome;
use vdfs_proto::{HandleId, Ino, SessionId, Status};

use super::world::{WRITE, World, open_session};

fn two_appenders() -> (World, [SessionId; 2], Ino) {
    let mut world = World::new();
    let sessions = [world.open_session("a"), world.open_session("b")];
    let ino = world.create_file(sessions[0], "f");
    for session in sessions {
        world.open(session, ino, 1, WRITE);
    }
    (world, sessions, ino)
}

fn acquire(ino: Ino) -> AcquireAppend {
    AcquireAppend {
        ino,
        handle: HandleId(1),
    }
}

#[test]
fn append_token_goes_from_holder_to_holder_with_the_committed_end() {
    let (mut world, [a, b], ino) = two_appenders();
    assert_eq!(world.ask(a, acquire(ino)).expect("free").layout.size, 0);
    assert!(world.ask(a, acquire(ino)).is_ok(), "again is harmless");
    let ticket = world.send_query(b, acquire(ino));
    assert_eq!(world.reply(ticket), None);
    world.commit(a, ino, 77).expect("commits");
    world.answer_recall(a, RecallOutcome::Done);
    match world.answered(ticket) {
        Ok(Answer::AcquireAppend(token)) => assert_eq!(token.layout.size, 77),
        other => panic!("{other:?}"),
    }
    let ticket = world.send_query(a, acquire(ino));
    assert_eq!(world.reply(ticket), None);
    world.ask(b, ReturnAppend { ino }).expect("returns");
    assert!(world.answered(ticket).is_ok());
}

#[test]
fn append_token_of_a_closed_handle_or_a_dead_session_is_free() {
    let (mut world, [a, b], ino) = two_appenders();
    world.ask(a, acquire(ino)).expect("free");
    let ticket = world.send_query(b, acquire(ino));
    world.release(a, 1, false);
    assert!(world.answered(ticket).is_ok());
    world.open(a, ino, 1, WRITE);
    let ticket = world.send_query(a, acquire(ino));
    assert_eq!(world.reply(ticket), None);
    world.send_session(open_session("b"));
    assert!(world.answered(ticket).is_ok());
}

#[test]
fn append_token_needs_a_handle() {
    let (mut world, [a, _], ino) = two_appenders();
    world.release(a, 1, false);
    assert_eq!(world.ask(a, acquire(ino)).map(drop), Err(Status::BadHandle));
}

#[test]
fn truncation_takes_the_append_token_with_the_layout() {
    let (mut world, [a, b], ino) = two_appenders();
    world.ask(a, acquire(ino)).expect("free");
    let cut = world.send_truncate(b, ino, 0);
    world.answer_recall(a, RecallOutcome::Done);
    assert!(world.mutated(cut).is_ok());
    assert!(world.ask(b, acquire(ino)).is_ok(), "nobody holds it");
}
