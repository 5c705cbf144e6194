//! A store takes a better copy of a chunk from another one, and stops in the middle of it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vdfs_proto::data::SpaceKind;
use vdfs_proto::peer::ChunkCopy;
use vdfs_proto::{ChunkId, Status};
use vdfs_volume::store::Difference;
use vdfs_volume::store::steps::{NoFaults, Step, Steps};

use crate::fixture::{Client, Place, Store, chunk, data_runs, pattern, read, read_all};

const MIB: u32 = 1 << 20;

/// Unwinds after so many steps.
#[derive(Debug)]
struct StopAfter(AtomicU32);

impl Steps for StopAfter {
    fn passed(&self, _step: Step, _chunk: ChunkId) {
        if self.0.fetch_sub(1, Ordering::Relaxed) == 0 {
            resume_unwind(Box::new(Killed));
        }
    }
}

struct Killed;

fn target() -> ChunkId {
    chunk(5, 0)
}

fn take(own: &Store, theirs: &Store, copy: &ChunkCopy) -> Result<(), Status> {
    own.begin_merge(copy)?;
    take_blocks(own, theirs, copy)?;
    own.end_merge(copy)
}

fn take_blocks(own: &Store, theirs: &Store, copy: &ChunkCopy) -> Result<(), Status> {
    let mut first = 0;
    loop {
        let sums = own.sums_beside(copy.chunk, copy.len, first);
        if sums.is_empty() {
            return Ok(());
        }
        let difference = theirs.difference(copy, first, &sums)?;
        first += sums.len() as u32;
        own.merge(copy, &difference)?;
    }
}

/// Both stores have the same, of 3 MiB and a bit with a hole in it.
fn same_in_both(own: &Place, theirs: &Place) {
    for place in [own, theirs] {
        let store = place.open();
        let mut client = Client::new(1);
        for (seed, offset, len) in [(1, 0, MIB + 9_000), (2, 2 * MIB, MIB + 5_000)] {
            let bytes = pattern(seed, len as usize);
            client
                .write(&store, target(), offset, &bytes)
                .expect("written");
        }
    }
}

type Change = fn(&Store);

/// What the other one has made and this one has not.
fn changes() -> [(&'static str, Change); 8] {
    fn write(store: &Store, offset: u32, len: usize) {
        let written = Client::new(2).write(store, target(), offset, &pattern(7, len));
        written.expect("written");
    }
    fn space(store: &Store, kind: SpaceKind, range: (u32, u32)) {
        let changed = Client::new(2).change_space(store, target(), kind, range);
        changed.expect("changed");
    }
    fn trim(store: &Store, len: u32) {
        let trimmed = Client::new(2).trim(store, target(), len);
        trimmed.expect("trimmed");
    }
    [
        ("a write within a block", |store| write(store, 10_000, 50)),
        ("a write over blocks", |store| {
            write(store, 700_001, 900_000)
        }),
        ("a write that makes it longer", |store| {
            write(store, 3 * MIB, 70_000);
        }),
        ("a write into the hole", |store| {
            write(store, MIB + 50_000, 9_000)
        }),
        ("a trim", |store| trim(store, 2 * MIB + 777)),
        ("a trim to nothing", |store| trim(store, 0)),
        ("a punch", |store| {
            space(store, SpaceKind::Punch, (5_000, 2 * MIB + 90_000));
        }),
        ("an allocation", |store| {
            space(store, SpaceKind::Allocate, (MIB, 3 * MIB));
        }),
    ]
}

/// All bytes, and where there is data.
type Content = (Vec<u8>, Vec<(u64, u64)>);

fn content(store: &Store, place: &Place) -> Content {
    let runs = data_runs(store, target().data, (0, 8 * u64::from(MIB)));
    (read_all(store, target(), place.chunk_size), runs)
}

fn copy_of(store: &Store) -> ChunkCopy {
    store.copy_of(target()).expect("it is whole")
}

/// Stops the merge after each of its steps; `false` once it does not come so far.
fn stopped_after(steps: u32, label: &str, change: Change) -> bool {
    let (place, other) = (Place::new(), Place::new());
    same_in_both(&place, &other);
    let theirs = other.open();
    change(&theirs);
    let (copy, wanted) = (copy_of(&theirs), content(&theirs, &other));
    let (own, _) = place.open_with(Arc::new(StopAfter(AtomicU32::new(steps))));
    let before = content(&own, &place);
    let merged = catch_unwind(AssertUnwindSafe(|| take(&own, &theirs, &copy)));
    drop(own);
    let (own, recovery) = place.open_with(Arc::new(NoFaults));
    assert_eq!(recovery.bad_copies, 0, "{label}, {steps} steps");
    if let Ok(merged) = merged {
        assert_eq!(merged, Ok(()), "{label}");
        check_taken(&own, &place, (&copy, &wanted), label);
        return false;
    }
    let mixed = content(&own, &place).0;
    let known = copy_of(&own);
    assert!(known == copy || known.op.is_none(), "{label}: {known:?}");
    let at = |bytes: &[u8], at: usize| bytes.get(at).copied().unwrap_or_default();
    for (offset, byte) in mixed.iter().enumerate() {
        let either = [at(&before.0, offset), at(&wanted.0, offset)];
        assert!(
            either.contains(byte),
            "{label}, {steps} steps: byte {offset}"
        );
    }
    take(&own, &theirs, &copy).expect("taken");
    check_taken(&own, &place, (&copy, &wanted), label);
    drop(own);
    check_taken(&place.open(), &place, (&copy, &wanted), label);
    true
}

fn check_taken(own: &Store, place: &Place, (copy, wanted): (&ChunkCopy, &Content), label: &str) {
    assert_eq!(copy_of(own), *copy, "{label}");
    let found = content(own, place);
    assert!(found == *wanted, "{label}: other bytes, or other holes");
}

#[test]
fn store_takes_each_kind_of_change_and_a_stop_after_any_step_leaves_bytes_of_either_copy() {
    for (label, change) in changes() {
        let mut steps = 0;
        while stopped_after(steps, label, change) {
            steps += 1;
        }
        assert!(
            steps > 0 || label == "a trim to nothing",
            "{label}: {steps}"
        );
    }
}

#[test]
fn store_that_was_cut_off_within_a_change_takes_back_what_the_other_has_not_begun() {
    let (place, other) = (Place::new(), Place::new());
    same_in_both(&place, &other);
    let (own, _) = place.open_with(Arc::new(StopAfter(AtomicU32::new(0))));
    let write = || {
        Client::new(2)
            .write(&own, target(), 3 * MIB - 9_000, &pattern(7, 90_000))
            .map(drop)
    };
    assert!(catch_unwind(AssertUnwindSafe(write)).is_err(), "it stops");
    drop(own);
    let (own, recovery) = place.open_with(Arc::new(NoFaults));
    assert_eq!(recovery.taken_back, 1);
    let theirs = other.open();
    let (copy, wanted) = (copy_of(&theirs), content(&theirs, &other));
    assert!(copy_of(&own).version > copy.version && copy_of(&own).op.is_none());
    take(&own, &theirs, &copy).expect("taken");
    check_taken(&own, &place, (&copy, &wanted), "a torn write");
}

/// Stops within the merge, after it has begun or after the first blocks, and opens the store again.
fn stopped_without_a_copy(
    place: &Place,
    theirs: &Store,
    copy: &ChunkCopy,
    has_blocks: bool,
) -> u64 {
    let own = place.open();
    own.begin_merge(copy).expect("begun");
    if has_blocks {
        let sums = own.sums_beside(copy.chunk, copy.len, 0);
        let first = theirs.difference(copy, 0, &sums).expect("it has it");
        own.merge(copy, &first).expect("merged");
    }
    assert_eq!(own.copy_of(target()), None);
    drop(own);
    place.open_with(Arc::new(NoFaults)).1.bad_copies
}

#[test]
fn store_without_the_chunk_has_it_once_it_is_complete_and_until_then_what_was_lost_is_lost() {
    for has_blocks in [false, true] {
        for lost in ["it was never here", "its file", "its record"] {
            let (place, other) = (Place::new(), Place::new());
            same_in_both(&place, &other);
            let empty_index = || std::fs::write(place.path().join("index"), []).expect("emptied");
            let remove_file = || std::fs::remove_file(place.file_of(target())).expect("removed");
            match lost {
                "its file" => remove_file(),
                "its record" => empty_index(),
                _ => {
                    empty_index();
                    remove_file();
                }
            }
            let theirs = other.open();
            let (copy, wanted) = (copy_of(&theirs), content(&theirs, &other));
            let bad_copies = stopped_without_a_copy(&place, &theirs, &copy, has_blocks);
            let was_lost = lost != "it was never here";
            assert_eq!(bad_copies, u64::from(was_lost), "{lost}, {has_blocks}");
            let own = place.open();
            let used = own.usage().used_bytes;
            let expected = match was_lost {
                true => Err(Status::DataLost),
                false => Ok(()),
            };
            let found = read(&own, target(), 0, 4096).map(drop);
            assert_eq!(found, expected, "{lost}, {has_blocks}");
            take(&own, &theirs, &copy).expect("taken");
            check_taken(&own, &place, (&copy, &wanted), lost);
            own.reap(&[target().data]);
            assert!(
                own.usage().used_bytes <= used + 16 * 4096,
                "{lost}: it is freed"
            );
            drop(own);
        }
    }
}

#[test]
fn store_forgets_what_was_to_come_when_something_else_comes() {
    let (place, other) = (Place::new(), Place::new());
    same_in_both(&place, &other);
    let theirs = other.open();
    let copy = copy_of(&theirs);
    let empty = Place::new();
    let own = empty.open();
    let used = own.usage().used_bytes;
    own.begin_merge(&copy).expect("begun");
    let sums = own.sums_beside(copy.chunk, copy.len, 0);
    let first = theirs.difference(&copy, 0, &sums).expect("it has it");
    own.merge(&copy, &first).expect("merged");
    let written = Client::new(3).write(&own, target(), 0, b"new");
    written.expect("as if there were nothing");
    assert_eq!(read_all(&own, target(), empty.chunk_size), b"new");
    own.reap(&[target().data]);
    assert!(own.usage().used_bytes <= used + 16 * 4096, "it is freed");
    let gone = own.begin_merge(&copy);
    assert_eq!(gone, Err(Status::Gone));
}

#[test]
fn store_takes_no_damaged_blocks_and_no_difference_that_is_malformed() {
    let (place, other) = (Place::new(), Place::new());
    same_in_both(&place, &other);
    let (own, theirs) = (place.open(), other.open());
    (changes()[1].1)(&theirs);
    let copy = copy_of(&theirs);
    let before = content(&own, &place);
    own.begin_merge(&copy).expect("begun");
    let sums = own.sums_beside(copy.chunk, copy.len, 0);
    let sound = theirs.difference(&copy, 0, &sums).expect("it has it");
    let mut flipped = sound.bytes.to_vec();
    flipped[5_000] ^= 1;
    let bad = |bytes: Vec<u8>| Difference {
        bytes: bytes.into(),
        ..sound.clone()
    };
    assert_eq!(own.merge(&copy, &bad(flipped)), Err(Status::Corrupt));
    for bytes in [sound.bytes[1..].to_vec(), [&sound.bytes[..], b"x"].concat()] {
        assert_eq!(own.merge(&copy, &bad(bytes)), Err(Status::Malformed));
    }
    assert!(content(&own, &place) == before, "nothing was changed");
    let stale = ChunkCopy { op: None, ..copy };
    let of_stale = theirs.difference(&stale, 0, &sums).map(drop);
    assert_eq!(of_stale, Err(Status::NotInSync));
    let beyond = theirs.difference(&copy, u32::MAX, &sums).map(drop);
    assert_eq!(beyond, Err(Status::Invalid));
}
