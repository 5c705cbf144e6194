//! A file gets a copy of its bytes that lies elsewhere: nothing that others have written is missed.

use vdfs_proto::meta::{Mutation, NewKind, TakeOver};
use vdfs_proto::session::RecallOutcome;
use vdfs_proto::{Ino, SessionId, Status};

use super::copies::ask_for_copies;
use super::world::{CHUNK_BYTES, READ, WRITE, World, create_in, registration};
use crate::core::Ticket;

/// A file that a session writes, and a copy of it that another one has made.
struct Scene {
    world: World,
    writer: SessionId,
    mover: SessionId,
    take: TakeOver,
}

impl Scene {
    fn new() -> Self {
        let mut world = World::new();
        world.register("n", registration(1, 1));
        let (writer, mover) = (world.open_session("writer"), world.open_session("mover"));
        let ino = world.create_file(writer, "f");
        world.open(writer, ino, 1, WRITE);
        world.commit(writer, ino, CHUNK_BYTES).expect("commits");
        let create = create_in(Ino::ROOT, "d", NewKind::Directory);
        let dir = world.create(mover, create).attr.ino;
        ask_for_copies(&mut world, mover, dir, "2").expect("sets");
        let create = create_in(dir, "copy", NewKind::Regular);
        let from = world.create(mover, create).attr.ino;
        world.open(mover, from, 1, WRITE);
        world.commit(mover, from, CHUNK_BYTES).expect("commits");
        let unlink = vdfs_proto::meta::Unlink {
            parent: dir,
            name: super::world::name("copy"),
        };
        world.mutate(mover, unlink).expect("unlinks");
        let file = *world.core.state.file(ino).expect("a file");
        let take = TakeOver {
            ino,
            data: file.data,
            truncations: file.truncations,
            version: file.version,
            from,
        };
        Scene {
            world,
            writer,
            mover,
            take,
        }
    }

    fn send(&mut self) -> Ticket {
        let op = self.world.op(self.mover, 3);
        self.world.send_mutation(op, Mutation::TakeOver(self.take))
    }

    fn outcome(&mut self, ticket: Ticket) -> Result<(), Status> {
        self.world.mutated(ticket).map(drop)
    }

    fn group(&self) -> u16 {
        let file = self.world.core.state.file(self.take.ino);
        file.expect("a file").group
    }
}

#[test]
fn bytes_move_when_all_others_have_given_the_layout_up() {
    let mut scene = Scene::new();
    let before = scene.world.attr(scene.mover, scene.take.ino);
    let ticket = scene.send();
    assert!(
        scene.world.reply(ticket).is_none(),
        "the writer has it open"
    );
    assert_eq!(scene.group(), 0);
    let writer = scene.writer;
    scene.world.answer_recall(writer, RecallOutcome::Done);
    assert_eq!(scene.outcome(ticket), Ok(()));
    assert_eq!(scene.group(), 1);
    let after = scene.world.attr(scene.mover, scene.take.ino);
    assert_eq!(after, before, "nobody can see it");
    let late = scene.world.commit(writer, scene.take.ino, 2 * CHUNK_BYTES);
    assert!(late.is_ok(), "of the new data id");
    let old = scene.world.core.state.file(scene.take.from);
    assert_eq!(old.expect("open").data, scene.take.data);
    scene.world.release(scene.mover, 1, false);
    scene.world.sync();
    assert!(
        scene.world.has_ended(scene.take.from),
        "and its bytes are reaped"
    );
    scene.world.restart(true);
    assert_eq!(scene.group(), 1);
}

#[test]
fn bytes_stay_when_something_is_committed_before_the_layout_is_given_up() {
    let mut scene = Scene::new();
    let ticket = scene.send();
    let (writer, ino) = (scene.writer, scene.take.ino);
    scene
        .world
        .commit(writer, ino, CHUNK_BYTES)
        .expect("commits");
    scene.world.answer_recall(writer, RecallOutcome::Done);
    assert_eq!(scene.outcome(ticket), Err(Status::StaleLayout));
    assert_eq!(scene.group(), 0);
    let opened = scene.world.open(writer, ino, 2, READ);
    assert_eq!(opened.layout.data, scene.take.data, "the work is over");
    let ticket = scene.send();
    assert_eq!(scene.outcome(ticket), Err(Status::StaleLayout), "at once");
}

#[test]
fn bytes_stay_when_a_writer_dies_meanwhile() {
    let mut scene = Scene::new();
    scene.world.core.state.mark_tail_unknown(scene.take.ino);
    let ticket = scene.send();
    assert_eq!(scene.outcome(ticket), Err(Status::StaleLayout));
}

#[test]
fn only_a_copy_that_nobody_else_sees_is_taken_over() {
    let mut scene = Scene::new();
    let named = scene.world.create_file(scene.mover, "named");
    let writer = scene.writer;
    scene.world.release(writer, 1, false);
    for from in [named, scene.take.ino] {
        let good = scene.take.from;
        scene.take.from = from;
        let ticket = scene.send();
        assert_eq!(scene.outcome(ticket), Err(Status::Invalid));
        scene.take.from = good;
    }
    scene.world.open(writer, scene.take.from, 9, READ);
    let ticket = scene.send();
    assert_eq!(
        scene.outcome(ticket),
        Err(Status::Invalid),
        "it is open elsewhere"
    );
    scene.world.release(writer, 9, false);
    let (mover, from) = (scene.mover, scene.take.from);
    scene
        .world
        .commit(mover, from, CHUNK_BYTES + 1)
        .expect("commits");
    let ticket = scene.send();
    assert_eq!(scene.outcome(ticket), Err(Status::Invalid), "it is longer");
}

#[test]
fn copy_of_a_mover_that_dies_is_reaped() {
    let mut scene = Scene::new();
    let mover = scene.mover;
    let close = vdfs_proto::session::CloseSession { session: mover };
    scene.world.session(close).ok();
    scene.world.sync();
    for _ in 0..60 {
        scene.world.obey(vdfs_proto::VolumeId(1), 1);
        scene.world.pass(250);
        scene.world.heartbeat(vdfs_proto::VolumeId(1), 1).ok();
        scene.world.sync();
    }
    assert!(scene.world.has_ended(scene.take.from));
    assert_eq!(scene.group(), 0);
}
