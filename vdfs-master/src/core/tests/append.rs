//! The append token.

use vdfs_proto::meta::{AcquireAppend, Answer, ReturnAppend};
use vdfs_proto::session::{OpenHandle, RecallOutcome, ResumeSession};
use vdfs_proto::{HandleId, Ino, SessionId, Status};

use super::world::{WRITE, World, open_session, resume};

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

#[test]
fn commit_of_another_session_that_grows_the_file_waits_for_the_append_token() {
    let (mut world, [a, b], ino) = two_appenders();
    world.commit(a, ino, 10).expect("commits");
    world.ask(a, acquire(ino)).expect("free");
    world
        .commit(b, ino, 10)
        .expect("what does not grow the file does not wait");
    let growing = world.send_commit(b, ino, 100);
    assert_eq!(world.reply(growing), None);
    world.commit(a, ino, 20).expect("the holder's own goes on");
    world.answer_recall(a, RecallOutcome::Done);
    assert!(world.mutated(growing).is_ok());
    assert_eq!(world.ask(a, acquire(ino)).expect("free").layout.size, 100);
}

#[test]
fn commit_goes_on_when_the_holder_of_the_token_truncates() {
    let (mut world, [a, b], ino) = two_appenders();
    world.ask(a, acquire(ino)).expect("free");
    let before = world.send_commit(b, ino, 100);
    assert_eq!(world.reply(before), None);
    let cut = world.send_truncate(a, ino, 5);
    assert!(world.mutated(before).is_ok(), "the truncation waits for it");
    world.commit(b, ino, 200).expect("flushes what it has");
    assert_eq!(world.reply(cut), None);
    world.answer_recall(b, RecallOutcome::Done);
    assert!(world.mutated(cut).is_ok());
}

#[test]
fn commit_waits_for_the_token_of_a_third_session_while_another_truncates() {
    let (mut world, [a, b], ino) = two_appenders();
    world.ask(a, acquire(ino)).expect("free");
    let growing = world.send_commit(b, ino, 100);
    let c = world.open_session("c");
    let cut = world.send_truncate(c, ino, 5);
    assert_eq!(world.reply(growing), None);
    world.answer_recall(a, RecallOutcome::Done);
    assert!(
        world.mutated(growing).is_ok(),
        "the token went with the layout"
    );
    world.answer_recall(b, RecallOutcome::Done);
    assert!(world.mutated(cut).is_ok());
}

#[test]
fn growing_commit_after_a_restart_waits_for_writers_that_may_hold_the_token() {
    let (mut world, [a, b], ino) = two_appenders();
    world.commit(a, ino, 10).expect("commits");
    world.ask(a, acquire(ino)).expect("free");
    let other = world.create_file(b, "g");
    world.restart(true);
    world.session(resume(b, Vec::new())).expect("lives on");
    let growing = world.send_commit(b, ino, 100);
    assert_eq!(world.reply(growing), None);
    world.commit(b, other, 5).expect("nobody else writes to it");
    let open = OpenHandle {
        handle: HandleId(1),
        ino,
        access: WRITE,
        is_shared: false,
    };
    let holder = ResumeSession {
        append_tokens: vec![ino],
        ..resume(a, vec![open])
    };
    world.session(holder).expect("lives on");
    assert_eq!(world.reply(growing), None, "the token is recalled first");
    world.answer_recall(a, RecallOutcome::Done);
    assert!(world.mutated(growing).is_ok());
}
