//! Leases, fences, resumption.

use vdfs_proto::limits::{EVENTS_PARK_MS, SESSION_LEASE_MS, VOLUME_LEASE_MS};
use vdfs_proto::meta::NewKind;
use vdfs_proto::operation::Operation;
use vdfs_proto::session::{CloseSession, Event, NextEvents, OpenHandle, OpenSession};
use vdfs_proto::volume::Command;
use vdfs_proto::{HandleId, Ino, SessionId, Status};

use super::world::{
    READ, WRITE, World, create_in, next_events, open_session, peer, registration, resume,
};

fn open_for_reading(ino: Ino) -> OpenHandle {
    OpenHandle {
        handle: HandleId(1),
        ino,
        access: READ,
        is_shared: false,
    }
}

#[test]
fn silent_session_is_fenced_at_volumes_before_its_handles_are_released() {
    let mut world = World::new();
    let volume = world.register("n", registration(1, 1)).volume;
    let (dying, other) = (world.open_session("a"), world.open_session("b"));
    let ino = world.create_file(dying, "f");
    world.open(dying, ino, 1, WRITE);
    world.unlink(other, "f").expect("unlinks");
    for _ in 0..SESSION_LEASE_MS / 250 + 2 {
        world.pass_with_heartbeats(250, volume, 1);
        world.attr(other, Ino::ROOT).expect("stays alive");
    }
    assert_eq!(world.attr(dying, ino), Err(Status::SessionExpired));
    assert!(world.attr(other, ino).is_ok(), "held until the fence is up");
    let commands = world.obey(volume, 1);
    let fenced = |command: &Command| matches!(command, Command::Fence(f) if f.session == dying);
    let fence_at = commands.iter().position(fenced).expect("was fenced");
    let forgotten = commands
        .iter()
        .position(|c| *c == Command::ForgetSession(dying));
    assert!(forgotten.is_none_or(|at| at > fence_at));
    assert!(world.has_ended(ino));
}

#[test]
fn fence_does_not_leave_before_its_record_is_durable() {
    let mut world = World::new();
    let volume = world.register("n", registration(1, 1)).volume;
    world.open_session("a");
    world.obey(volume, 1);
    world.syncs_at_once = false;
    world.send_session(open_session("a"));
    assert!(world.sync_wanted);
    assert!(world.commands(volume, 1, 0, vec![]).is_empty());
    world.sync();
    let commands = world.commands(volume, 1, 0, vec![]);
    assert!(
        matches!(commands[..], [(_, Command::Fence(_))]),
        "{commands:?}"
    );
}

#[test]
fn same_identity_ends_the_old_session_before_it_is_answered() {
    let mut world = World::new();
    let volume = world.register("n", registration(1, 1)).volume;
    let old = world.open_session("a");
    let ticket = world.send_session(open_session("a"));
    assert_eq!(world.reply(ticket), None);
    assert_eq!(world.attr(old, Ino::ROOT), Err(Status::SessionExpired));
    world.obey(volume, 1);
    let opened = world.session_replied::<OpenSession>(ticket).expect("opens");
    assert!(opened.session > old);
}

/// Goes on after a session of its own, as a client does that was told that it has ended.
fn reopen(world: &mut World, identity: &str, after: SessionId) -> Result<SessionId, Status> {
    let open = OpenSession {
        after: Some(after),
        ..open_session(identity)
    };
    Ok(world.session(open)?.session)
}

#[test]
fn session_that_was_replaced_does_not_end_its_successor() {
    let mut world = World::new();
    let first = world.open_session("a");
    let second = world.open_session("a");
    assert_eq!(reopen(&mut world, "a", first), Err(Status::Replaced));
    assert!(world.attr(second, Ino::ROOT).is_ok(), "lives on");
    let third = world.open_session("a");
    assert!(third > second, "a new mount takes over at once");
    assert_eq!(reopen(&mut world, "a", second), Err(Status::Replaced));
}

#[test]
fn session_that_has_expired_goes_on_as_another() {
    let mut world = World::new();
    let first = world.open_session("a");
    world.pass(SESSION_LEASE_MS + 500);
    let second = reopen(&mut world, "a", first).expect("nobody is there");
    world.pass(SESSION_LEASE_MS + 500);
    assert_eq!(
        world.attr(second, Ino::ROOT),
        Err(Status::SessionExpired),
        "silent again"
    );
    assert!(
        reopen(&mut world, "a", first).is_ok(),
        "nor is its successor"
    );
}

#[test]
fn fence_waits_no_longer_than_the_lease_of_a_dead_volume() {
    let mut world = World::new();
    world.register("n", registration(1, 1));
    world.open_session("a");
    let ticket = world.send_session(open_session("a"));
    world.pass(2_500);
    assert_eq!(world.reply(ticket), None);
    world.pass(500);
    assert!(world.session_replied::<OpenSession>(ticket).is_ok());
}

#[test]
fn closed_session_is_gone_at_once() {
    let mut world = World::new();
    let session = world.open_session("a");
    world.session(CloseSession { session }).expect("closes");
    assert_eq!(world.attr(session, Ino::ROOT), Err(Status::SessionExpired));
    assert_eq!(
        world.session(CloseSession { session }),
        Err(Status::SessionExpired)
    );
    world.open_session("a");
}

#[test]
fn poll_is_answered_with_nothing_after_its_time() {
    let mut world = World::new();
    let session = world.open_session("a");
    let ticket = world.send_session(next_events(session, 0));
    world.pass(EVENTS_PARK_MS - 250);
    assert_eq!(world.reply(ticket), None);
    world.pass(500);
    let events = world
        .session_replied::<NextEvents>(ticket)
        .expect("answered");
    assert!(events.events.is_empty());
}

#[test]
fn table_change_is_told_to_sessions() {
    let mut world = World::new();
    let session = world.open_session("a");
    let ticket = world.send_session(next_events(session, 0));
    world.register("n", registration(1, 1));
    let events = world
        .session_replied::<NextEvents>(ticket)
        .expect("answered");
    assert!(matches!(
        events.events[..],
        [(_, Event::TableChanged { .. })]
    ));
}

#[test]
fn stalled_master_declares_nobody_gone() {
    let mut world = World::new();
    let volume = world.register("n", registration(1, 1)).volume;
    let session = world.open_session("a");
    world.now_ms += 60_000;
    world.step(crate::core::Input::Tick);
    assert_eq!(world.heartbeat(volume, 1), Ok(()));
    assert!(world.attr(session, Ino::ROOT).is_ok());
}

#[test]
fn restart_gives_fresh_leases_and_keeps_what_is_open() {
    let mut world = World::new();
    let (session, other) = (world.open_session("a"), world.open_session("b"));
    let ino = world.create_file(session, "f");
    world.open(session, ino, 1, READ);
    world.unlink(session, "f").expect("unlinks");
    world.now_ms += 60_000;
    world.restart(true);
    world.session(resume(other, vec![])).expect("lives on");
    world.pass(1_000);
    assert_eq!(world.attr(other, ino).expect("not reaped").nlink, 0);
    let next = next_events(session, 0);
    assert_eq!(
        world.session(next),
        Err(Status::Disconnected),
        "must resume first"
    );
    let open = open_for_reading(ino);
    world
        .session(resume(session, vec![open]))
        .expect("lives on");
    assert!(world.attr(other, ino).is_ok());
    world.release(session, 1, false);
    assert!(world.has_ended(ino));
}

#[test]
fn session_that_never_says_what_it_holds_ends_though_it_lives() {
    let mut world = World::new();
    let (session, other) = (world.open_session("a"), world.open_session("b"));
    let ino = world.create_file(session, "f");
    world.open(session, ino, 1, READ);
    world.unlink(session, "f").expect("unlinks");
    world.restart(true);
    world.session(resume(other, vec![])).expect("lives on");
    for _ in 0..2 * SESSION_LEASE_MS / 1_000 {
        world.pass(1_000);
        world.attr(other, Ino::ROOT).expect("lives");
        world.attr(session, Ino::ROOT).expect("has still time");
    }
    world.pass(1_000);
    world.pass(1_000);
    assert_eq!(world.attr(session, Ino::ROOT), Err(Status::SessionExpired));
    assert!(world.has_ended(ino), "nobody holds it");
}

#[test]
fn handle_that_this_life_of_the_master_does_not_know_is_not_resumed_later() {
    let mut world = World::new();
    let (session, other) = (world.open_session("a"), world.open_session("b"));
    let ino = world.create_file(other, "f");
    let open = open_for_reading(ino);
    world
        .session(resume(session, vec![open]))
        .expect("lives on");
    world.unlink(other, "f").expect("unlinks");
    world.pass(2_000);
    assert!(world.has_ended(ino), "nobody holds it");
}

#[test]
fn orphan_whose_opener_does_not_come_back_goes_with_its_session() {
    let mut world = World::new();
    let (session, other) = (world.open_session("a"), world.open_session("b"));
    let ino = world.create_file(session, "f");
    world.open(session, ino, 1, READ);
    world.unlink(session, "f").expect("unlinks");
    world.restart(true);
    world.session(resume(other, vec![])).expect("lives on");
    for _ in 0..6 {
        world.pass(2_000);
        world.attr(other, Ino::ROOT).expect("lives");
    }
    assert!(world.has_ended(ino));
}

#[test]
fn reboot_ends_all_sessions_and_skips_ids() {
    let mut world = World::new();
    let session = world.open_session("a");
    let before = world.create(
        session,
        super::world::create_in(Ino::ROOT, "f", vdfs_proto::meta::NewKind::Regular),
    );
    world.restart(false);
    assert_eq!(world.attr(session, Ino::ROOT), Err(Status::SessionExpired));
    let later = world.open_session("b");
    assert!(later.0 > session.0 + (1 << 20));
    let after = world.create_file(later, "g");
    assert_eq!(after.generation(), before.attr.ino.generation() + 4096);
}

#[test]
fn closing_goes_on_after_a_restart() {
    let mut world = World::new();
    world.register("n", registration(1, 1));
    let session = world.open_session("a");
    world.send_session(open_session("a"));
    world.restart(true);
    assert_eq!(world.attr(session, Ino::ROOT), Err(Status::SessionExpired));
    let ticket = world.send_session(open_session("a"));
    assert_eq!(world.reply(ticket), None);
    let registered = world.register("n", registration(1, 1));
    assert_eq!(registered.fences.len(), 1);
    assert_eq!(world.reply(ticket), None, "some may be under way there");
    world.obey(registered.volume, 1);
    assert!(world.session_replied::<OpenSession>(ticket).is_ok());
}

/// The other one may have a lease of before, and changes of the session under way.
#[test]
fn closing_after_a_restart_waits_for_volumes_that_have_not_come_back() {
    let mut world = World::new();
    world.register("m", registration(1, 1));
    world.register("n", registration(2, 2));
    world.open_session("a");
    world.send_session(open_session("a"));
    world.restart(true);
    let ticket = world.send_session(open_session("a"));
    let first = world.register("m", registration(1, 1));
    world.obey(first.volume, 1);
    assert_eq!(world.reply(ticket), None, "nobody has heard the other one");
    world.pass_with_heartbeats(VOLUME_LEASE_MS + 500, first.volume, 1);
    assert!(world.session_replied::<OpenSession>(ticket).is_ok());
}

#[test]
fn session_is_only_spoken_for_under_the_certificate_that_opened_it() {
    let mut world = World::new();
    let session = world.open_session("a");
    world.peer = peer("another");
    assert_eq!(world.attr(session, Ino::ROOT), Err(Status::WrongRole));
    let op = world.op(session, 0);
    let mkdir = create_in(Ino::ROOT, "d", NewKind::Directory);
    let ticket = world.send_mutation(op, mkdir.wrap());
    assert_eq!(world.mutated(ticket).map(drop), Err(Status::WrongRole));
    let close = CloseSession { session };
    assert_eq!(world.session(close.clone()), Err(Status::WrongRole));
    world.open_session("a");
    world.restart(true);
    assert_eq!(world.session(close), Err(Status::WrongRole));
    world.peer = peer("c");
    assert!(
        world.attr(session, Ino::ROOT).is_ok(),
        "the same identity of another node has not ended it"
    );
}
