//! What the status tells of files that wait or are lost.

use vdfs_proto::limits::VOLUME_LEASE_MS;
use vdfs_proto::meta::{Link, NewKind, StatusReport};
use vdfs_proto::{Ino, SessionId, VolumeId};

use super::volume_life::status;
use super::world::{CHUNK_BYTES, WRITE, World, create_in, name, registration};
use crate::core::limits::{SURVEY_GOOD_MS, SURVEY_PIECE};

/// A committed file of so many chunks.
fn file_in(world: &mut World, session: SessionId, parent: Ino, text: &str, chunks: u64) -> Ino {
    let created = world.create(session, create_in(parent, text, NewKind::Regular));
    let ino = created.attr.ino;
    world.open(session, ino, 1, WRITE);
    world
        .commit(session, ino, chunks * CHUNK_BYTES)
        .expect("commits");
    world.release(session, 1, false);
    ino
}

/// A volume, and `/d/one` of one chunk, `/d/two` of two, of which `/link` is another name, and an
/// empty file.
fn with_files() -> (World, SessionId) {
    let mut world = World::new();
    world.register("n", registration(1, 1));
    let session = world.open_session("a");
    let directory = create_in(Ino::ROOT, "d", NewKind::Directory);
    let d = world.create(session, directory).attr.ino;
    file_in(&mut world, session, d, "one", 1);
    let two = file_in(&mut world, session, d, "two", 2);
    world.create_file(session, "empty");
    let link = Link {
        ino: two,
        parent: Ino::ROOT,
        name: name("link"),
    };
    world.mutate(session, link).expect("links");
    (world, session)
}

fn waiting(report: &StatusReport) -> (u64, usize) {
    let volume = &report.volumes[0];
    (volume.waiting_files, volume.waiting_names.len())
}

#[test]
fn status_names_the_files_that_wait_for_a_volume_while_it_is_away() {
    let (mut world, _) = with_files();
    let report = status(&mut world);
    assert_eq!((waiting(&report), report.is_counted), ((0, 0), true));
    world.pass(VOLUME_LEASE_MS + 500);
    let report = status(&mut world);
    assert_eq!((waiting(&report), report.is_counted), ((2, 2), true));
    let names = &report.volumes[0].waiting_names;
    assert!(names.contains(&"/d/one".to_owned()), "{names:?}");
    assert!(report.volumes[0].silent_ms > VOLUME_LEASE_MS);
    world.register("n", registration(1, 2));
    assert_eq!(waiting(&status(&mut world)), (0, 0));
}

#[test]
fn status_counts_lost_bytes_of_each_file_once() {
    let (mut world, session) = with_files();
    world.register_without_store("n", registration(9, 2));
    let report = status(&mut world);
    assert_eq!((report.lost_files, report.lost_bytes), (2, 3 * CHUNK_BYTES));
    assert_eq!(report.volumes[0].info.id, VolumeId(1));
    world.unlink(session, "link").expect("unlinks");
    assert_eq!(status(&mut world).lost_files, 2, "it has another name");
}

#[test]
fn survey_of_a_large_tree_takes_many_pieces_and_is_told_to_be_incomplete() {
    let mut world = World::new();
    world.checks = false;
    world.register("n", registration(1, 1));
    let session = world.open_session("a");
    let files = 2 * SURVEY_PIECE as u64;
    for number in 0..files {
        world.create_file(session, &number.to_string());
    }
    file_in(&mut world, session, Ino::ROOT, "full", 1);
    world.register_without_store("n", registration(9, 2));
    let report = status(&mut world);
    assert!(!report.is_counted, "one piece of three");
    world.pass(1_000);
    let report = status(&mut world);
    assert_eq!((report.lost_files, report.is_counted), (1, true));
    world.unlink(session, "full").expect("unlinks");
    assert_eq!(status(&mut world).lost_files, 1, "the count is still good");
    world.pass(SURVEY_GOOD_MS + 1_500);
    assert_eq!(status(&mut world).lost_files, 0);
}
