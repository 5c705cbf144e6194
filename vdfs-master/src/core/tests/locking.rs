//! Locks across sessions: who holds, who waits, in which order, and what ends both.

use vdfs_proto::limits::{LOCK_PARK_MS, LOCKS_PER_INODE_MAX};
use vdfs_proto::meta::{
    AdminReply, AdminRequest, Answer, Conflict, ListLocks, Lock, LockAsked, LockNews, LockPlace,
    LockReport, TestLock, Unlock, WaitLock,
};
use vdfs_proto::operation::Operation;
use vdfs_proto::{Ino, LockKind, LockOwner, LockRange, SessionId, Status, VolumeId};

use super::world::{WRITE, World, open_session, registration};
use crate::core::limits::{LOCK_TURN_MS, LOCK_YIELD_MS};
use crate::core::{CoreReply, CoreRequest, Input, Ticket};

const READ: LockKind = LockKind::Read;
const LOCK: LockKind = LockKind::Write;

/// Three sessions with one file, which all have open.
struct Scene {
    world: World,
    sessions: [SessionId; 3],
    ino: Ino,
}

fn bytes(first: u64, last: u64) -> LockRange {
    LockRange::new(first, last).expect("ascends")
}

fn asked(kind: LockKind, range: LockRange) -> LockAsked {
    LockAsked {
        owner: LockOwner(1),
        pid: 42,
        kind,
        range,
    }
}

impl Scene {
    fn new() -> Self {
        let mut world = World::new();
        let sessions = ["a", "b", "c"].map(|identity| world.open_session(identity));
        let ino = world.create_file(sessions[0], "f");
        for session in sessions {
            world.open(session, ino, 1, WRITE);
        }
        Scene {
            world,
            sessions,
            ino,
        }
    }

    fn lock(&mut self, by: usize, kind: LockKind, range: LockRange) -> Result<(), Status> {
        let lock = asked(kind, range);
        self.lock_in(by, self.ino, lock, None)
    }

    fn lock_in(
        &mut self,
        by: usize,
        ino: Ino,
        lock: LockAsked,
        queued: Option<LockPlace>,
    ) -> Result<(), Status> {
        let lock = Lock { ino, lock, queued };
        self.world.mutate(self.sessions[by], lock).map(drop)
    }

    fn unlock(&mut self, by: usize, range: LockRange) {
        let unlock = Unlock {
            ino: self.ino,
            owner: LockOwner(1),
            range,
        };
        self.world
            .mutate(self.sessions[by], unlock)
            .expect("unlocks");
    }

    fn wait(&mut self, by: usize, kind: LockKind, place: LockPlace) -> Ticket {
        self.wait_in(by, self.ino, kind, place)
    }

    fn wait_in(&mut self, by: usize, ino: Ino, kind: LockKind, place: LockPlace) -> Ticket {
        let lock = asked(kind, LockRange::WHOLE);
        self.world
            .send_query(self.sessions[by], WaitLock { ino, lock, place })
    }

    fn news(&mut self, ticket: Ticket) -> LockNews {
        match self.world.answered(ticket) {
            Ok(Answer::WaitLock(news)) => news,
            other => panic!("{other:?}"),
        }
    }

    fn is_parked(&mut self, ticket: Ticket) -> bool {
        match self.world.reply(ticket) {
            None => true,
            Some(outcome) => panic!("{outcome:?}"),
        }
    }

    /// Lets time pass; all sessions live.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 250 {
            self.world.pass(250);
            for session in self.sessions {
                self.world.attr(session, self.ino).expect("lives");
            }
        }
    }

    fn report(&mut self) -> LockReport {
        let ask = AdminRequest::ListLocks(ListLocks { ino: self.ino });
        let ticket = self.world.send(CoreRequest::Admin(ask));
        match self.world.reply(ticket) {
            Some(Ok(CoreReply::Admin(AdminReply::ListLocks(report)))) => report,
            other => panic!("{other:?}"),
        }
    }

    fn held(&mut self) -> Vec<(SessionId, LockKind, LockRange)> {
        let held = self.report().held;
        held.into_iter()
            .map(|listed| (listed.session, listed.lock.kind, listed.lock.range))
            .collect()
    }
}

#[test]
fn locks_of_sessions_exclude_one_another_by_range_and_kind() {
    let mut scene = Scene::new();
    let [a, b, _] = scene.sessions;
    assert_eq!(scene.lock(0, READ, bytes(0, 9)), Ok(()));
    assert_eq!(scene.lock(1, READ, bytes(5, 14)), Ok(()), "readers share");
    assert_eq!(scene.lock(1, LOCK, bytes(9, 9)), Err(Status::WouldBlock));
    assert_eq!(scene.lock(1, LOCK, bytes(10, 20)), Ok(()), "upgraded");
    assert_eq!(scene.lock(0, READ, bytes(0, 10)), Err(Status::WouldBlock));
    scene.unlock(1, bytes(0, 11));
    assert_eq!(
        scene.held(),
        [(a, READ, bytes(0, 9)), (b, LOCK, bytes(12, 20))]
    );
    let lock = asked(READ, LockRange::WHOLE);
    let test = TestLock {
        ino: scene.ino,
        lock,
    };
    let conflict = Conflict {
        session: b,
        pid: 42,
        kind: LOCK,
        range: bytes(12, 20),
    };
    assert_eq!(scene.world.ask(a, test), Ok(Some(conflict)));
    assert_eq!(scene.world.ask(b, test), Ok(None), "its own do not count");
}

#[test]
fn lock_survives_a_restart_and_its_retry_gets_the_first_answer() {
    let mut scene = Scene::new();
    let op = scene.world.op(scene.sessions[0], 4);
    let lock = Lock {
        ino: scene.ino,
        lock: asked(LOCK, LockRange::WHOLE),
        queued: None,
    };
    let first = scene.world.send_mutation(op, lock.wrap());
    let first = scene.world.mutated(first).expect("free");
    let refused = scene.world.op(scene.sessions[1], 4);
    let ticket = scene.world.send_mutation(refused, lock.wrap());
    assert_eq!(scene.world.mutated(ticket), Err(Status::WouldBlock));
    scene.world.restart(true);
    assert_eq!(scene.lock(1, READ, bytes(7, 7)), Err(Status::WouldBlock));
    scene.unlock(0, LockRange::WHOLE);
    let records = scene.world.log.len();
    let again = scene.world.send_mutation(op, lock.wrap());
    assert_eq!(scene.world.mutated(again), Ok(first));
    let again = scene.world.send_mutation(refused, lock.wrap());
    assert_eq!(scene.world.mutated(again), Err(Status::WouldBlock));
    assert_eq!(scene.world.log.len(), records, "nothing is done twice");
    assert_eq!(scene.held(), []);
}

#[test]
fn locks_of_a_dead_session_go_when_it_is_fenced_and_not_before() {
    let mut scene = Scene::new();
    let volume = scene.world.register("n", registration(1, 1)).volume;
    assert_eq!(scene.lock(0, LOCK, LockRange::WHOLE), Ok(()));
    let waiter = scene.wait(1, LOCK, LockPlace::LAST);
    scene.world.send_session(open_session("a"));
    assert!(scene.is_parked(waiter), "writes may be on their way");
    assert_eq!(scene.lock(2, LOCK, bytes(0, 0)), Err(Status::WouldBlock));
    fence(&mut scene, volume);
    assert!(scene.news(waiter).is_free);
    assert_eq!(scene.held(), []);
}

fn fence(scene: &mut Scene, volume: VolumeId) {
    scene.world.heartbeat(volume, 1).expect("registered");
    scene.world.obey(volume, 1);
}

#[test]
fn waits_of_a_dead_session_go_at_once() {
    let mut scene = Scene::new();
    scene.world.register("n", registration(1, 1));
    assert_eq!(scene.lock(0, READ, LockRange::WHOLE), Ok(()));
    let writer = scene.wait(1, LOCK, LockPlace::LAST);
    let reader = scene.wait(2, READ, LockPlace::LAST);
    assert!(scene.is_parked(reader), "behind the writer");
    scene.world.send_session(open_session("b"));
    assert_eq!(
        scene.world.answered(writer),
        Err(Status::SessionExpired),
        "its mount has begun again"
    );
    assert!(scene.news(reader).is_free);
}

#[test]
fn locks_end_with_their_inode() {
    let mut scene = Scene::new();
    assert_eq!(scene.lock(0, LOCK, bytes(0, 0)), Ok(()));
    let [a, ..] = scene.sessions;
    scene.world.unlink(a, "f").expect("unlinks");
    for session in scene.sessions {
        scene.world.release(session, 1, false);
    }
    assert!(scene.world.has_ended(scene.ino));
    assert_eq!(scene.lock(1, LOCK, bytes(0, 0)), Err(Status::StaleInode));
}

#[test]
fn circle_of_two_sessions_is_a_deadlock_for_the_last_of_them() {
    let mut scene = Scene::new();
    let other = scene.world.create_file(scene.sessions[0], "g");
    let whole = asked(LOCK, LockRange::WHOLE);
    assert_eq!(scene.lock(0, LOCK, LockRange::WHOLE), Ok(()));
    assert_eq!(scene.lock_in(1, other, whole, None), Ok(()));
    let first = scene.wait_in(0, other, LOCK, LockPlace::LAST);
    assert!(scene.is_parked(first));
    let last = scene.wait(1, LOCK, LockPlace::LAST);
    assert_eq!(scene.world.answered(last), Err(Status::Deadlock));
    assert!(scene.is_parked(first), "it may still get its lock");
}

#[test]
fn circle_of_three_sessions_is_a_deadlock_and_a_line_of_three_is_none() {
    let mut scene = Scene::new();
    let files = [
        scene.ino,
        scene.world.create_file(scene.sessions[0], "g"),
        scene.world.create_file(scene.sessions[0], "h"),
    ];
    for (by, ino) in files.into_iter().enumerate() {
        let lock = asked(LOCK, bytes(3, 4));
        assert_eq!(scene.lock_in(by, ino, lock, None), Ok(()));
    }
    let first = scene.wait_in(0, files[1], READ, LockPlace::LAST);
    let second = scene.wait_in(1, files[2], READ, LockPlace::LAST);
    assert!(scene.is_parked(first) && scene.is_parked(second));
    let last = scene.wait_in(2, files[0], READ, LockPlace::LAST);
    assert_eq!(scene.world.answered(last), Err(Status::Deadlock));
    scene.world.step(Input::Abandoned(second));
    let last = scene.wait_in(2, files[0], READ, LockPlace::LAST);
    assert!(scene.is_parked(last), "one of them has gone");
}

#[test]
fn waiter_that_has_gone_away_is_not_told_and_holds_nobody_up() {
    let mut scene = Scene::new();
    assert_eq!(scene.lock(0, LOCK, LockRange::WHOLE), Ok(()));
    let gone = scene.wait(1, LOCK, LockPlace::LAST);
    let next = scene.wait(2, LOCK, LockPlace::LAST);
    scene.world.step(Input::Abandoned(gone));
    scene.unlock(0, LockRange::WHOLE);
    assert!(scene.news(next).is_free);
    assert_eq!(scene.world.reply(gone), None);
    assert_eq!(scene.held(), [], "nothing is granted to who did not come");
}

#[test]
fn turn_that_is_not_taken_goes_to_the_next() {
    let mut scene = Scene::new();
    assert_eq!(scene.lock(0, LOCK, LockRange::WHOLE), Ok(()));
    let first = scene.wait(1, LOCK, LockPlace::LAST);
    let second = scene.wait(2, LOCK, LockPlace::LAST);
    scene.unlock(0, LockRange::WHOLE);
    assert!(scene.news(first).is_free);
    assert!(scene.is_parked(second), "one at a time");
    scene.pass(LOCK_TURN_MS + 250);
    assert!(scene.news(second).is_free);
}

#[test]
fn writer_that_waits_goes_before_readers_that_come_later() {
    let mut scene = Scene::new();
    assert_eq!(scene.lock(0, READ, LockRange::WHOLE), Ok(()));
    let writer = scene.wait(1, LOCK, LockPlace::LAST);
    let lock = asked(READ, LockRange::WHOLE);
    let late = scene.lock_in(2, scene.ino, lock, Some(LockPlace::LAST));
    assert_eq!(late, Err(Status::WouldBlock));
    let reader = scene.wait(2, READ, LockPlace::LAST);
    assert!(scene.is_parked(reader));
    scene.unlock(0, LockRange::WHOLE);
    let place = scene.news(writer).place;
    assert!(scene.is_parked(reader));
    let lock = asked(LOCK, LockRange::WHOLE);
    assert_eq!(scene.lock_in(1, scene.ino, lock, Some(place)), Ok(()));
    scene.unlock(1, LockRange::WHOLE);
    assert!(scene.news(reader).is_free);
}

#[test]
fn locks_that_do_not_wait_and_those_of_holders_yield_to_nobody() {
    let mut scene = Scene::new();
    assert_eq!(scene.lock(0, READ, bytes(0, 9)), Ok(()));
    let writer = scene.wait(1, LOCK, LockPlace::LAST);
    assert!(scene.is_parked(writer));
    assert_eq!(scene.lock(2, READ, bytes(5, 5)), Ok(()), "F_SETLK");
    let more = asked(READ, bytes(20, 29));
    let held_already = scene.lock_in(0, scene.ino, more, Some(LockPlace::LAST));
    assert_eq!(held_already, Ok(()));
}

#[test]
fn yielding_ends_after_a_while() {
    let mut scene = Scene::new();
    assert_eq!(scene.lock(0, READ, LockRange::WHOLE), Ok(()));
    let writer = scene.wait(1, LOCK, LockPlace::LAST);
    let reader = scene.wait(2, READ, LockPlace::LAST);
    scene.pass(LOCK_YIELD_MS - 250);
    assert!(scene.is_parked(reader));
    scene.pass(500);
    assert!(scene.news(reader).is_free);
    assert!(scene.is_parked(writer));
}

#[test]
fn wait_is_answered_in_time_to_ask_again_and_keeps_its_place() {
    let mut scene = Scene::new();
    assert_eq!(scene.lock(0, LOCK, LockRange::WHOLE), Ok(()));
    let first = scene.wait(1, LOCK, LockPlace::LAST);
    scene.pass(1000);
    let second = scene.wait(2, LOCK, LockPlace::LAST);
    scene.pass(LOCK_PARK_MS - 1000);
    let news = scene.news(first);
    assert!(!news.is_free);
    let first = scene.wait(1, LOCK, news.place);
    scene.unlock(0, LockRange::WHOLE);
    assert!(scene.news(first).is_free);
    assert!(scene.is_parked(second));
}

#[test]
fn places_outlive_a_restart() {
    let mut scene = Scene::new();
    assert_eq!(scene.lock(0, LOCK, LockRange::WHOLE), Ok(()));
    let before = scene.wait(1, LOCK, LockPlace::LAST);
    scene.pass(LOCK_PARK_MS);
    let place = scene.news(before).place;
    scene.world.restart(true);
    let late = scene.wait(2, LOCK, LockPlace::LAST);
    let early = scene.wait(1, LOCK, place);
    scene.unlock(0, LockRange::WHOLE);
    assert!(scene.news(early).is_free);
    assert!(scene.is_parked(late));
}

#[test]
fn place_of_somebody_else_or_of_nobody_is_not_taken() {
    let mut scene = Scene::new();
    assert_eq!(scene.lock(0, LOCK, LockRange::WHOLE), Ok(()));
    let first = scene.wait(1, LOCK, LockPlace::LAST);
    scene.pass(LOCK_PARK_MS);
    let place = scene.news(first).place;
    let thief = scene.wait(2, LOCK, place);
    let ahead = scene.wait(2, LOCK, LockPlace(u64::MAX - 1));
    assert!(scene.is_parked(thief) && scene.is_parked(ahead));
    let first = scene.wait(1, LOCK, place);
    scene.unlock(0, LockRange::WHOLE);
    assert!(scene.news(first).is_free);
    assert!(scene.is_parked(thief) && scene.is_parked(ahead));
}

#[test]
fn locks_of_an_inode_are_bounded_and_go_on_below_the_bound() {
    let mut scene = Scene::new();
    scene.world.checks = false;
    for at in 0..LOCKS_PER_INODE_MAX as u64 {
        assert_eq!(scene.lock(0, READ, bytes(2 * at, 2 * at)), Ok(()));
    }
    let behind = bytes(1 << 40, 1 << 40);
    assert_eq!(scene.lock(0, READ, behind), Err(Status::NoLocks));
    assert_eq!(scene.lock(1, READ, behind), Err(Status::NoLocks));
    let joining = bytes(0, 2);
    assert_eq!(scene.lock(0, READ, joining), Ok(()), "that makes it fewer");
    assert_eq!(scene.lock(1, READ, behind), Ok(()));
    let report = scene.report();
    assert!(report.is_cut && report.sessions.len() == 1);
    scene.unlock(0, LockRange::WHOLE);
    scene.world.core.check();
    assert_eq!(scene.held().len(), 1);
}

#[test]
fn report_names_who_holds_and_who_waits() {
    let mut scene = Scene::new();
    let [a, b, _] = scene.sessions;
    assert_eq!(scene.lock(0, READ, bytes(3, 5)), Ok(()));
    scene.wait(1, LOCK, LockPlace::LAST);
    let report = scene.report();
    let sessions: Vec<_> = report.sessions.iter().map(|of| of.id).collect();
    assert_eq!(sessions, [a, b]);
    assert_eq!(report.held[0].lock, asked(READ, bytes(3, 5)));
    assert_eq!(report.waiting[0].lock, asked(LOCK, LockRange::WHOLE));
    assert!(!report.is_cut);
}

#[test]
fn retried_wait_takes_over_from_the_one_before() {
    let mut scene = Scene::new();
    assert_eq!(scene.lock(0, LOCK, LockRange::WHOLE), Ok(()));
    let first = scene.wait(1, LOCK, LockPlace::LAST);
    scene.pass(LOCK_PARK_MS);
    let place = scene.news(first).place;
    let second = scene.wait(1, LOCK, place);
    let third = scene.wait(1, LOCK, place);
    assert_eq!(scene.world.answered(second), Err(Status::Busy));
    scene.world.step(Input::Abandoned(second));
    scene.unlock(0, LockRange::WHOLE);
    assert!(scene.news(third).is_free);
}

#[test]
fn lock_while_the_log_is_full_is_refused_and_not_held() {
    let mut scene = Scene::new();
    scene.world.step(Input::LogFull { why: "full".into() });
    assert_eq!(scene.lock(0, LOCK, bytes(0, 0)), Err(Status::NoSpace));
    scene.world.step(Input::LogHasRoom);
    assert_eq!(scene.lock(1, LOCK, bytes(0, 0)), Ok(()));
}
