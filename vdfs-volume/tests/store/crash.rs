//! The store stops after each step of each kind of change, and is opened again.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use crate::fixture::Store;
use vdfs_proto::data::SpaceKind;
use vdfs_proto::{ChunkId, DataId, Status};
use vdfs_volume::store::Recovery;
use vdfs_volume::store::steps::{Step, Steps};

use crate::fixture::{
    Client, Place, TERMS, chunk, copy_message, data_runs, pattern, read, read_all, space_message,
    write_message,
};

/// Unwinds after the given step, as if the process had been killed there.
#[derive(Debug)]
struct StopAt {
    step: Step,
    /// Written into a file before: part of what the next step would have done.
    half_done: Option<(PathBuf, u32, Vec<u8>)>,
}

struct Killed;

impl Steps for StopAt {
    fn passed(&self, step: Step, _chunk: ChunkId) {
        if step != self.step {
            return;
        }
        if let Some((path, offset, bytes)) = &self.half_done {
            let file = OpenOptions::new().write(true).open(path).expect("exists");
            file.write_all_at(bytes, u64::from(*offset))
                .expect("written");
        }
        resume_unwind(Box::new(Killed));
    }
}

fn stop_at(step: Step) -> StopAt {
    StopAt {
        step,
        half_done: None,
    }
}

/// Runs `work` on the store until it stops, and opens the store again.
fn interrupted(
    place: &Place,
    stop: StopAt,
    work: impl FnOnce(&Store) -> Result<(), Status>,
) -> (Store, Recovery) {
    let (store, _) = place.open_with(Arc::new(stop));
    let outcome = catch_unwind(AssertUnwindSafe(|| work(&store)));
    assert!(outcome.is_err_and(|cause| cause.is::<Killed>()), "it stops");
    drop(store);
    place.open_with(Arc::new(vdfs_volume::store::steps::NoFaults))
}

/// Ranges that meet a chunk of 10,000 bytes in different ways: (offset, length).
const RANGES: [(u32, usize); 7] = [
    (0, 4096),
    (100, 50),
    (3000, 5000),
    (9_000, 3_000),
    (10_000, 100),
    (20_000, 9_000),
    (0, 40_000),
];
const LEN_BEFORE: usize = 10_000;

const WRITE_STEPS: [Step; 5] = [
    Step::ChangeRecorded,
    Step::BytesChanged,
    Step::SumsChanged,
    Step::CleanRecorded,
    Step::Replied,
];

fn prepare(place: &Place, target: ChunkId, neighbour: ChunkId) -> Vec<u8> {
    let store = place.open();
    let before = pattern(1, LEN_BEFORE);
    let mut client = Client::new(1);
    client.write(&store, target, 0, &before).expect("written");
    client
        .write(&store, neighbour, 0, &pattern(2, 70_000))
        .expect("written");
    before
}

fn overlay(before: &[u8], offset: u32, payload: &[u8]) -> Vec<u8> {
    let end = offset as usize + payload.len();
    let mut after = before.to_vec();
    after.resize(before.len().max(end), 0);
    after[offset as usize..end].copy_from_slice(payload);
    after
}

fn check_write_stopped(offset: u32, payload: &[u8], step: Step, half: bool) {
    let place = Place::new();
    let (target, neighbour) = (chunk(5, 0), chunk(6, 3));
    let before = prepare(&place, target, neighbour);
    let mut writer = Client::new(2);
    let message = write_message(writer.next_op(), target, offset, payload);
    let half_bytes = payload[..payload.len() / 2].to_vec();
    let stop = StopAt {
        step,
        half_done: half.then(|| (place.file_of(target), offset, half_bytes)),
    };
    let (store, recovery) = interrupted(&place, stop, |store| {
        store.write(&message, payload, TERMS).map(drop)
    });
    let label = format!("{offset}+{} after {step:?}, half {half}", payload.len());
    assert_eq!(recovery.bad_copies, 0, "{label}");
    let whole = overlay(&before, offset, payload);
    let found = read_all(&store, target, place.chunk_size);
    let range = offset as usize..offset as usize + payload.len();
    for (at, byte) in found
        .iter()
        .enumerate()
        .filter(|(at, _)| !range.contains(at))
    {
        assert_eq!(*byte, whole[at], "{label}: a byte beside the range at {at}");
    }
    let bytes_were_there = !half && step != Step::ChangeRecorded;
    if bytes_were_there {
        assert_eq!(found, whole, "{label}: rolled forward");
    } else {
        assert_eq!(recovery.taken_back, 1, "{label}");
        assert_eq!(found.len(), before.len(), "{label}: the length stays");
    }
    let version_found = read(&store, target, 0, 4096).expect("reads").0.version;
    let written = store.write(&message, payload, TERMS).expect("the retry");
    assert_eq!(read_all(&store, target, place.chunk_size), whole, "{label}");
    let executed_again = written.version != version_found;
    assert_eq!(executed_again, !bytes_were_there, "{label}");
    assert_eq!(
        read_all(&store, neighbour, place.chunk_size),
        pattern(2, 70_000)
    );
}

#[test]
fn store_killed_at_each_step_of_a_write_keeps_neighbours_and_knows_the_retry() {
    for (offset, len) in RANGES {
        for step in WRITE_STEPS {
            check_write_stopped(offset, &pattern(3, len), step, false);
        }
        check_write_stopped(offset, &pattern(3, len), Step::ChangeRecorded, true);
    }
}

#[test]
fn store_killed_at_each_step_of_a_first_write_has_it_whole_or_not_at_all() {
    let steps = [Step::FileCreated].into_iter().chain(WRITE_STEPS);
    for step in steps {
        let place = Place::new();
        let mut writer = Client::new(2);
        let payload = pattern(3, 5000);
        let message = write_message(writer.next_op(), chunk(5, 0), 300, &payload);
        drop(place.open());
        let (store, recovery) = interrupted(&place, stop_at(step), |store| {
            store.write(&message, &payload, TERMS).map(drop)
        });
        assert_eq!(recovery.bad_copies, 0, "{step:?}");
        let found = read_all(&store, chunk(5, 0), place.chunk_size);
        assert!(
            found.is_empty() || found == overlay(&[], 300, &payload),
            "{step:?}"
        );
        store.write(&message, &payload, TERMS).expect("the retry");
        let after = read_all(&store, chunk(5, 0), place.chunk_size);
        assert_eq!(after, overlay(&[], 300, &payload), "{step:?}");
    }
}

#[test]
fn store_killed_at_each_step_of_a_trim_has_cut_or_not_and_never_shows_old_bytes() {
    let steps = [
        Step::ChangeRecorded,
        Step::BytesChanged,
        Step::SumsChanged,
        Step::CleanRecorded,
    ];
    for step in steps {
        for len in [0u32, 100, 4096, 9_999] {
            let place = Place::new();
            let before = prepare(&place, chunk(5, 0), chunk(6, 3));
            let (store, _) = interrupted(&place, stop_at(step), |store| {
                Client::new(2).trim(store, chunk(5, 0), len)
            });
            let found = read_all(&store, chunk(5, 0), place.chunk_size);
            assert_eq!(found, before[..len as usize], "{step:?} to {len}");
            Client::new(2)
                .trim(&store, chunk(5, 0), len)
                .expect("again");
            let mut client = Client::new(3);
            client
                .write(&store, chunk(5, 0), 12_000, b"end")
                .expect("grows");
            let grown = read_all(&store, chunk(5, 0), place.chunk_size);
            let expected = overlay(&before[..len as usize], 12_000, b"end");
            assert_eq!(grown, expected, "{step:?} to {len}");
        }
    }
}

/// What the chunk of [`prepare`] is after a change of space.
fn after_space(before: &[u8], kind: SpaceKind, (offset, len): (u32, u32)) -> Vec<u8> {
    let zeros = vec![0; len as usize];
    let whole = overlay(before, offset, &zeros);
    match kind {
        SpaceKind::Zero => whole,
        SpaceKind::Punch => whole[..before.len()].to_vec(),
        SpaceKind::Allocate => {
            let mut grown = before.to_vec();
            grown.resize(whole.len(), 0);
            grown
        }
    }
}

fn check_space_stopped(kind: SpaceKind, range: (u32, u32), step: Step) {
    let label = format!("{kind:?} {range:?} after {step:?}");
    let place = Place::new();
    let target = chunk(5, 0);
    let before = prepare(&place, target, chunk(6, 3));
    let undisturbed = {
        let twin = Place::new();
        prepare(&twin, target, chunk(6, 3));
        let store = twin.open();
        let changed = Client::new(2).change_space(&store, target, kind, range);
        changed.expect("changed");
        let runs = data_runs(&store, target.data, (0, 1 << 20));
        (runs, store.usage().used_bytes)
    };
    let message = space_message(Client::new(2).next_op(), target, kind, range);
    let (store, recovery) = interrupted(&place, stop_at(step), |store| {
        store.change_space(&message, TERMS).map(drop)
    });
    let expected = after_space(&before, kind, range);
    assert_eq!(
        (recovery.bad_copies, recovery.taken_back),
        (0, 0),
        "{label}"
    );
    let found = read_all(&store, target, place.chunk_size);
    assert!(found == expected, "{label}");
    let runs = data_runs(&store, target.data, (0, 1 << 20));
    assert_eq!((runs, store.usage().used_bytes), undisturbed, "{label}");
    let mut other = Client::new(3);
    other.write(&store, target, 0, b"later").expect("written");
    store
        .change_space(&message, TERMS)
        .expect("its first answer");
    let expected = overlay(&expected, 0, b"later");
    let found = read_all(&store, target, place.chunk_size);
    assert!(found == expected, "{label}");
    let found = read_all(&store, chunk(6, 3), place.chunk_size);
    assert!(found == pattern(2, 70_000));
}

#[test]
fn store_killed_at_each_step_of_a_change_of_space_finishes_it_once() {
    let ranges = [
        (0, 4096),
        (100, 50),
        (3000, 5000),
        (0, 10_000),
        (4096, 100_000),
        (9_990, 10),
    ];
    for kind in [SpaceKind::Punch, SpaceKind::Zero, SpaceKind::Allocate] {
        let changes =
            |range: &&(u32, u32)| kind != SpaceKind::Allocate || range.0 + range.1 > 12_288;
        for range in ranges.iter().filter(changes) {
            for step in WRITE_STEPS {
                check_space_stopped(kind, *range, step);
            }
        }
    }
}

#[test]
fn store_killed_at_each_step_of_a_first_allocation_has_it_whole_or_not_at_all() {
    for step in [Step::FileCreated].into_iter().chain(WRITE_STEPS) {
        let place = Place::new();
        drop(place.open());
        let op = Client::new(2).next_op();
        let message = space_message(op, chunk(5, 0), SpaceKind::Allocate, (5000, 9000));
        let (store, recovery) = interrupted(&place, stop_at(step), |store| {
            store.change_space(&message, TERMS).map(drop)
        });
        assert_eq!(recovery.bad_copies, 0, "{step:?}");
        store.change_space(&message, TERMS).expect("the retry");
        let found = read_all(&store, chunk(5, 0), place.chunk_size);
        assert!(found == vec![0; 14_000], "{step:?}");
        let runs = data_runs(&store, DataId(5), (0, 1 << 20));
        assert_eq!(runs, [(4096, 16_384)], "{step:?}");
    }
}

#[test]
fn store_killed_at_each_step_of_a_copy_knows_the_retry() {
    for step in WRITE_STEPS {
        let place = Place::new();
        let before = prepare(&place, chunk(5, 0), chunk(6, 3));
        let op = Client::new(2).next_op();
        let copy = copy_message(op, (chunk(6, 3), 50_001), (chunk(5, 0), 3001), 30_000);
        let (store, _) = interrupted(&place, stop_at(step), |store| {
            store.copy(&copy, DataId(0), TERMS).map(drop)
        });
        store.copy(&copy, DataId(0), TERMS).expect("the retry");
        let mut copied = pattern(2, 70_000)[50_001..].to_vec();
        copied.resize(30_000, 0);
        let expected = overlay(&before, 3001, &copied);
        let found = read_all(&store, chunk(5, 0), place.chunk_size);
        assert!(found == expected, "{step:?}");
    }
}

#[test]
fn store_killed_at_each_step_of_a_reap_finishes_it_and_frees_the_room() {
    let steps = [
        Step::ReapRecorded,
        Step::Punched,
        Step::Unlinked,
        Step::SumsCleared,
    ];
    for step in steps {
        let place = Place::new();
        prepare(&place, chunk(5, 0), chunk(6, 3));
        let used_by_neighbour = {
            let twin = Place::new();
            prepare(&twin, chunk(5, 0), chunk(6, 3));
            let store = twin.open();
            store.reap(&[chunk(5, 0).data]);
            store.usage().used_bytes
        };
        let (store, recovery) = interrupted(&place, stop_at(step), |store| {
            store.reap(&[chunk(5, 0).data]);
            Ok(())
        });
        assert_eq!((recovery.removed, recovery.bad_copies), (1, 0), "{step:?}");
        assert_eq!(store.usage().used_bytes, used_by_neighbour, "{step:?}");
        assert!(!place.file_of(chunk(5, 0)).exists(), "{step:?}");
        let gone = read(&store, chunk(5, 0), 0, 4096).map(drop);
        assert_eq!(gone, Err(Status::Gone), "{step:?}");
        assert_eq!(
            read_all(&store, chunk(6, 3), place.chunk_size),
            pattern(2, 70_000)
        );
    }
}
