//! Sizes: commits, truncations, recalls, trims, unknown tails.

use vdfs_proto::limits::SESSION_LEASE_MS;
use vdfs_proto::meta::{
    Commit, Create, Extend, GetLayout, Mutated, Mutation, NewKind, Open, Truncated,
};
use vdfs_proto::session::RecallOutcome;
use vdfs_proto::volume::Command;
use vdfs_proto::{ChainId, HandleId, Ino, SessionId, Status, Timestamp, VolumeId};

use super::world::{
    CHUNK_BYTES, READ, WRITE, World, create_in, open_session, registration, truncate,
};
use crate::core::Ticket;

const MIB: u64 = 1 << 20;

fn truncated(world: &mut World, ticket: Ticket) -> Truncated {
    match world.mutated(ticket) {
        Ok(Mutated::Truncate(truncated)) => truncated,
        other => panic!("{other:?}"),
    }
}

/// A world with a volume, a writer, and a file of `size` committed bytes.
fn with_file(size: u64) -> (World, VolumeId, SessionId, Ino) {
    let mut world = World::new();
    let volume = world.register("n", registration(1, 1)).volume;
    let session = world.open_session("a");
    let ino = world.create_file(session, "f");
    world.open(session, ino, 1, WRITE);
    world.commit(session, ino, size).expect("commits");
    (world, volume, session, ino)
}

fn trims(commands: &[Command]) -> Vec<(u32, u32)> {
    let lens = commands.iter().filter_map(|command| match command {
        Command::Trim { index, len, .. } => Some((*index, *len)),
        _ => None,
    });
    lens.collect()
}

#[test]
fn commit_takes_the_larger_end_and_refuses_stale_layouts() {
    let (mut world, _, session, ino) = with_file(200);
    let attr = world.commit(session, ino, 100).expect("commits");
    assert_eq!((attr.size, attr.data_version), (200, 2));
    assert_eq!(attr.mtime, Timestamp { secs: 5, nanos: 0 });
    let old = world.ask(session, GetLayout { ino }).expect("a file");
    let ticket = world.send_truncate(session, ino, 0);
    let new = truncated(&mut world, ticket).layout;
    assert!(new.data > old.data && new.size == 0);
    let late = Commit {
        ino,
        data: old.data,
        truncations: old.truncations,
        end: 300,
        holes: false,
        mtime: Timestamp::default(),
        kill_privileges: false,
    };
    assert_eq!(
        world.mutate(session, late).map(drop),
        Err(Status::StaleLayout)
    );
}

#[test]
fn truncate_to_zero_recalls_layouts_from_other_openers_first() {
    let (mut world, _, writer, ino) = with_file(100);
    let other = world.open_session("b");
    let ticket = world.send_truncate(other, ino, 0);
    assert_eq!(world.reply(ticket), None);
    let waits_for = Some(ChainId(3));
    world.answer_recall(writer, RecallOutcome::Held { waits_for });
    assert_eq!(world.reply(ticket), None, "blocked is still held");
    world
        .commit(writer, ino, 5_000)
        .expect("flushes what it has");
    let third = world.open_session("c");
    let waits = world.send_query(third, GetLayout { ino });
    assert_eq!(world.reply(waits), None, "layouts wait for the truncation");
    world.answer_recall(writer, RecallOutcome::Done);
    assert_eq!(truncated(&mut world, ticket).attr.size, 0);
    assert!(world.answered(waits).is_ok());
}

#[test]
fn layout_of_a_create_that_is_repeated_during_a_truncation_is_recalled_too() {
    let (mut world, _, writer, ino) = with_file(100);
    let (repeats, other) = (world.open_session("b"), world.open_session("c"));
    let op = world.op(repeats, 0);
    let create = Mutation::Create(Create {
        open: Some((HandleId(1), WRITE)),
        exclusive: false,
        ..create_in(Ino::ROOT, "f", NewKind::Regular)
    });
    let first = world.send_mutation(op, create.clone());
    assert!(world.mutated(first).is_ok());
    let ticket = world.send_truncate(other, ino, 0);
    world.answer_recall(repeats, RecallOutcome::Done);
    let again = world.send_mutation(op, create);
    assert!(world.mutated(again).is_ok(), "the first answer");
    world.answer_recall(writer, RecallOutcome::Done);
    assert_eq!(world.reply(ticket), None, "it holds the layout again");
    world.answer_recall(repeats, RecallOutcome::Done);
    assert_eq!(truncated(&mut world, ticket).attr.size, 0);
}

#[test]
fn session_that_says_nothing_of_a_recall_is_ended_though_it_lives() {
    let (mut world, volume, writer, ino) = with_file(100);
    let other = world.open_session("b");
    let ticket = world.send_truncate(other, ino, 0);
    let live_on = |world: &mut World, ms: u64| {
        for _ in 0..ms / 250 {
            world.pass_with_heartbeats(250, volume, 1);
            world.obey(volume, 1);
            for session in [writer, other] {
                world.attr(session, Ino::ROOT).ok();
            }
        }
    };
    live_on(&mut world, SESSION_LEASE_MS);
    world.answer_recall(writer, RecallOutcome::Held { waits_for: None });
    live_on(&mut world, SESSION_LEASE_MS);
    assert_eq!(world.reply(ticket), None, "it said that it is about it");
    live_on(&mut world, 2_000);
    assert_eq!(truncated(&mut world, ticket).attr.size, 0);
    assert_eq!(world.attr(writer, Ino::ROOT), Err(Status::SessionExpired));
}

#[test]
fn truncate_down_trims_before_it_is_answered() {
    let (mut world, volume, session, ino) = with_file(3 * CHUNK_BYTES + 10);
    world.obey(volume, 1);
    world.syncs_at_once = false;
    let ticket = world.send_truncate(session, ino, CHUNK_BYTES + 7);
    assert!(world.sync_wanted && world.commands(volume, 1, 0, vec![]).is_empty());
    world.sync();
    assert_eq!(world.reply(ticket), None);
    let waits = world.send_query(session, GetLayout { ino });
    assert_eq!(world.reply(waits), None);
    let commands = world.obey(volume, 1);
    assert_eq!(trims(&commands), [(1, 7)]);
    let done = truncated(&mut world, ticket);
    assert_eq!(
        (done.attr.size, done.layout.truncations),
        (CHUNK_BYTES + 7, 1)
    );
    assert!(world.answered(waits).is_ok());
}

#[test]
fn truncate_down_goes_on_after_a_restart_and_its_retry_joins() {
    let (mut world, _, session, ino) = with_file(3 * CHUNK_BYTES);
    let op = world.op(session, 9);
    let cut = Mutation::Truncate(truncate(ino, 5));
    let first = world.send_mutation(op, cut.clone());
    assert_eq!(world.reply(first), None);
    world.restart(true);
    let again = world.send_mutation(op, cut.clone());
    assert_eq!(world.reply(again), None);
    let volume = world.register("n", registration(1, 2)).volume;
    assert_eq!(trims(&world.obey(volume, 2)), [(0, 5)]);
    let done = truncated(&mut world, again);
    assert_eq!((done.attr.size, done.layout.truncations), (5, 1));
    let repeated = world.send_mutation(op, cut);
    assert_eq!(truncated(&mut world, repeated), done);
}

#[test]
fn trims_are_sent_again_with_new_op_ids_when_the_volume_comes_back() {
    let (mut world, volume, session, ino) = with_file(2 * CHUNK_BYTES);
    world.obey(volume, 1);
    let ticket = world.send_truncate(session, ino, 5);
    let before = world.commands(volume, 1, 0, vec![]);
    world.pass(3_000);
    assert_eq!(world.heartbeat(volume, 1), Err(Status::NotFound), "away");
    world.register("n", registration(1, 2));
    let op = |commands: &[(u64, Command)]| match commands {
        [(_, Command::Trim { op, .. })] => *op,
        other => panic!("{other:?}"),
    };
    let again = world.commands(volume, 2, 0, vec![]);
    assert_ne!(op(&again), op(&before), "it may be half done");
    world.obey(volume, 2);
    assert_eq!(truncated(&mut world, ticket).attr.size, 5);
}

#[test]
fn trim_that_fails_is_tried_again() {
    let (mut world, volume, session, ino) = with_file(CHUNK_BYTES);
    world.obey(volume, 1);
    let ticket = world.send_truncate(session, ino, 5);
    let commands = world.commands(volume, 1, 0, vec![]);
    let (number, _) = commands[0].clone();
    world.commands(volume, 1, number, vec![(number, Err(Status::Busy))]);
    assert_eq!(world.reply(ticket), None);
    world.pass(250);
    let again = world.obey(volume, 1);
    assert_eq!(trims(&again), [(0, 5)]);
    assert_ne!(
        again[0], commands[0].1,
        "the refusal was an answer: a new op"
    );
    assert_eq!(truncated(&mut world, ticket).attr.size, 5);
}

#[test]
fn truncate_up_makes_a_hole_and_trims_nothing() {
    let (mut world, volume, session, ino) = with_file(10);
    world.obey(volume, 1);
    let ticket = world.send_truncate(session, ino, MIB);
    let done = truncated(&mut world, ticket);
    assert_eq!(
        (done.attr.size, done.layout.holes, done.layout.truncations),
        (MIB, true, 0)
    );
    assert!(world.obey(volume, 1).is_empty());
    let ticket = world.send_truncate(session, ino, u64::MAX);
    assert_eq!(world.mutated(ticket), Err(Status::FileTooLarge));
    let ticket = world.send_truncate(session, Ino::ROOT, 1);
    assert_eq!(world.mutated(ticket), Err(Status::IsDirectory));
}

#[test]
fn tail_of_a_dead_writer_is_cut_before_the_next_writer_opens() {
    let (mut world, volume, writer, ino) = with_file(10);
    let other = world.open_session("b");
    world.obey(volume, 1);
    let ticket = world.send_session(open_session("a"));
    world.obey(volume, 1);
    assert!(world.reply(ticket).is_some(), "{writer} has ended");
    world.open(other, ino, 1, READ);
    let open = Open {
        ino,
        handle: HandleId(2),
        access: WRITE,
    };
    let ticket = world.send_query(other, open.clone());
    assert_eq!(world.reply(ticket), None);
    let cut = trims(&world.obey(volume, 1));
    assert_eq!(cut, [(0, 10)]);
    assert!(world.answered(ticket).is_ok());
    let again = Open {
        handle: HandleId(3),
        ..open
    };
    assert!(world.ask(other, again).is_ok());
}

/// Session `a` and the master die together; the next `a` ends the first.
fn replace_session_after_a_restart(world: &mut World) -> VolumeId {
    world.restart(true);
    let volume = world.register("n", registration(1, 2)).volume;
    let ticket = world.send_session(open_session("a"));
    world.obey(volume, 2);
    assert!(world.reply(ticket).is_some(), "its successor is here");
    volume
}

#[test]
fn tail_of_a_writer_that_never_resumes_is_cut_too() {
    let (mut world, _, _, ino) = with_file(10);
    let volume = replace_session_after_a_restart(&mut world);
    let next = world.open_session("b");
    let ticket = world.send_truncate(next, ino, MIB);
    assert_eq!(trims(&world.obey(volume, 2))[0], (0, 10));
    assert_eq!(truncated(&mut world, ticket).attr.size, MIB);
}

#[test]
fn tail_of_a_file_that_was_closed_before_is_known() {
    let (mut world, _, session, ino) = with_file(10);
    world.release(session, 1, false);
    world.pass(250);
    replace_session_after_a_restart(&mut world);
    let next = world.open_session("b");
    let ticket = world.send_truncate(next, ino, MIB);
    assert!(world.mutated(ticket).is_ok(), "nothing is to be cut");
}

#[test]
fn unknown_tail_is_cut_before_a_truncation_makes_a_gap() {
    let (mut world, volume, session, ino) = with_file(10);
    world.obey(volume, 1);
    world.release(session, 1, true);
    let ticket = world.send_truncate(session, ino, MIB);
    assert_eq!(world.reply(ticket), None);
    assert_eq!(trims(&world.obey(volume, 1))[0], (0, 10));
    assert_eq!(truncated(&mut world, ticket).attr.size, MIB);
}

/// A file of 10 bytes that two sessions write, of which the first has died.
fn with_a_dead_writer() -> (World, VolumeId, SessionId, Ino) {
    let (mut world, volume, _, ino) = with_file(10);
    let other = world.open_session("b");
    world.open(other, ino, 1, WRITE);
    let ticket = world.send_session(open_session("a"));
    world.obey(volume, 1);
    assert!(world.reply(ticket).is_some(), "the writer has ended");
    (world, volume, other, ino)
}

fn extended(world: &mut World, ticket: Ticket) -> (u64, bool) {
    let committed = match world.mutated(ticket) {
        Ok(Mutated::Extend(committed)) => committed,
        other => panic!("{other:?}"),
    };
    let file = world.core.state.file(committed.attr.ino).expect("a file");
    (committed.attr.size, file.holes)
}

#[test]
fn tail_of_a_dead_writer_is_cut_before_another_makes_a_gap() {
    let (mut world, volume, other, ino) = with_a_dead_writer();
    let ticket = world.send_extend(other, ino, MIB);
    assert_eq!(world.reply(ticket), None, "not before the cut");
    assert_eq!(world.attr(other, ino).expect("there").size, 10);
    assert_eq!(trims(&world.obey(volume, 1)), [(0, 10)]);
    assert_eq!(extended(&mut world, ticket), (MIB, true));
    let ticket = world.send_extend(other, ino, 2 * MIB);
    assert_eq!(extended(&mut world, ticket), (2 * MIB, true), "cut once");
}

#[test]
fn gap_waits_until_the_other_writers_have_committed_what_they_have() {
    let (mut world, volume, other, ino) = with_a_dead_writer();
    let third = world.open_session("c");
    world.open(third, ino, 1, WRITE);
    let ticket = world.send_extend(other, ino, MIB);
    assert!(trims(&world.obey(volume, 1)).is_empty(), "not yet");
    world.commit(third, ino, 5_000).expect("may still commit");
    world.answer_recall(third, RecallOutcome::Done);
    assert_eq!(trims(&world.obey(volume, 1)), [(0, 5_000)]);
    assert_eq!(extended(&mut world, ticket), (MIB, true));
}

#[test]
fn gap_over_a_cut_tail_is_made_by_the_retry_after_a_restart() {
    let (mut world, _, other, ino) = with_a_dead_writer();
    let commit = world.commit_of(other, ino, MIB).expect("a live file");
    let op = world.op(other, 9);
    let first = world.send_mutation(
        op,
        Mutation::Extend(Extend {
            commit: commit.clone(),
        }),
    );
    assert_eq!(world.reply(first), None);
    world.restart(true);
    let volume = world.register("n", registration(1, 2)).volume;
    let again = world.send_mutation(op, Mutation::Extend(Extend { commit }));
    assert_eq!(trims(&world.obey(volume, 2)), [(0, 10)]);
    assert_eq!(extended(&mut world, again), (MIB, true));
}

#[test]
fn gap_without_a_dead_writer_is_made_at_once_and_a_smaller_end_changes_nothing() {
    let (mut world, _, session, ino) = with_file(10);
    let ticket = world.send_extend(session, ino, MIB);
    assert_eq!(extended(&mut world, ticket), (MIB, true));
    let ticket = world.send_extend(session, ino, 5);
    assert_eq!(extended(&mut world, ticket), (MIB, true));
}

#[test]
fn truncation_of_an_ended_session_is_given_up_and_frees_the_file() {
    let (mut world, volume, writer, ino) = with_file(100);
    let other = world.open_session("b");
    let ticket = world.send_truncate(other, ino, 0);
    let third = world.open_session("c");
    let waits = world.send_query(third, GetLayout { ino });
    world.send_session(open_session("b"));
    world.obey(volume, 1);
    assert_eq!(world.mutated(ticket), Err(Status::SessionExpired));
    let layout = world.answered(waits);
    assert!(layout.is_ok(), "{layout:?}");
    assert_eq!(world.attr(writer, ino).expect("there").size, 100);
}

#[test]
fn file_unlinked_while_it_is_trimmed_goes_when_that_is_done() {
    let (mut world, volume, session, ino) = with_file(CHUNK_BYTES);
    world.release(session, 1, false);
    let ticket = world.send_truncate(session, ino, 5);
    world.unlink(session, "f").expect("unlinks");
    assert_eq!(world.attr(session, ino).expect("being trimmed").nlink, 0);
    world.obey(volume, 1);
    assert_eq!(truncated(&mut world, ticket).attr.size, 5);
    assert!(world.has_ended(ino));
}
