//! Bits that flip in the store's files: never zeros, never wrong bytes with right sums.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use vdfs_proto::data::{Seek, SeekTarget, SpaceKind};
use vdfs_proto::sums::piece_sums;
use vdfs_proto::{DataId, Status};

use crate::fixture::{Client, Place, Store, chunk, data_runs, pattern, read, read_all, whole_file};

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("exists");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    byte[0] ^= 0x10;
    file.write_all_at(&byte, at).expect("written");
}

fn two_writes(place: &Place) -> Vec<u8> {
    let store = place.open();
    let mut client = Client::new(1);
    client
        .write(&store, chunk(5, 0), 0, &pattern(1, 9000))
        .expect("written");
    client
        .write(&store, chunk(5, 0), 5000, &pattern(2, 6000))
        .expect("written");
    read_all(&store, chunk(5, 0), place.chunk_size)
}

#[test]
fn store_with_either_record_torn_still_has_the_chunk() {
    for record in [0, 64] {
        let place = Place::new();
        let expected = two_writes(&place);
        flip(&place.path().join("index"), record + 20);
        let store = place.open();
        assert_eq!(
            read_all(&store, chunk(5, 0), place.chunk_size),
            expected,
            "{record}"
        );
    }
}

#[test]
fn store_with_both_records_damaged_answers_data_lost() {
    let place = Place::new();
    two_writes(&place);
    flip(&place.path().join("index"), 20);
    flip(&place.path().join("index"), 84);
    let (store, recovery) =
        place.open_with(std::sync::Arc::new(vdfs_volume::store::steps::NoFaults));
    assert_eq!(recovery.bad_copies, 1);
    check_lost_until_reaped(&store);
}

#[test]
fn store_with_a_record_but_no_file_answers_data_lost() {
    let place = Place::new();
    two_writes(&place);
    std::fs::remove_file(place.file_of(chunk(5, 0))).expect("removed");
    let (store, recovery) =
        place.open_with(std::sync::Arc::new(vdfs_volume::store::steps::NoFaults));
    assert_eq!(recovery.bad_copies, 1);
    check_lost_until_reaped(&store);
}

fn check_lost_until_reaped(store: &Store) {
    let lost = Err(Status::DataLost);
    assert_eq!(read(store, chunk(5, 0), 0, 4096).map(drop), lost);
    let written = Client::new(2).write(store, chunk(5, 0), 0, b"x").map(drop);
    assert_eq!(written, lost);
    store.reap(&[chunk(5, 0).data]);
    let gone = read(store, chunk(5, 0), 0, 4096).map(drop);
    assert_eq!(gone, Err(Status::Gone));
}

/// Reads as a client does; false if a block does not match its sum.
fn reads_well(store: &Store) -> bool {
    match read(store, chunk(5, 0), 0, 16 << 10) {
        Ok((done, bytes)) => done.sums == piece_sums(0, &bytes),
        Err(status) => {
            assert_eq!(status, Status::Corrupt);
            false
        }
    }
}

#[test]
fn store_with_a_flipped_bit_in_the_data_shows_it_and_a_partial_write_does_not_certify_it() {
    for at in [0, 4095, 4096, 10_999] {
        let place = Place::new();
        two_writes(&place);
        flip(&place.file_of(chunk(5, 0)), at);
        let store = place.open();
        assert!(!reads_well(&store), "flip at {at}");
        let block = (at / 4096 * 4096) as u32;
        let mut client = Client::new(2);
        let partial = client.write(&store, chunk(5, 0), block + 9, b"x").map(drop);
        assert_eq!(partial, Err(Status::Corrupt), "flip at {at}");
        assert!(!reads_well(&store), "flip at {at}");
        client
            .write(&store, chunk(5, 0), block, &[7; 4096])
            .expect("a whole block needs no old bytes");
        assert!(reads_well(&store), "flip at {at}");
    }
}

#[test]
fn store_with_a_damaged_leaf_of_sums_shows_it() {
    for at in [0, 4, 6, 8, 12] {
        let place = Place::new();
        two_writes(&place);
        flip(&place.path().join("sums"), at);
        let store = place.open();
        assert!(!reads_well(&store), "flip at {at}");
    }
}

#[test]
fn store_trim_through_a_flipped_block_keeps_it_bad() {
    let place = Place::new();
    two_writes(&place);
    flip(&place.file_of(chunk(5, 0)), 10);
    let store = place.open();
    Client::new(2).trim(&store, chunk(5, 0), 100).expect("cut");
    assert!(!reads_well(&store));
}

#[test]
fn store_change_of_space_certifies_no_flipped_bit_that_it_leaves() {
    for kind in [SpaceKind::Punch, SpaceKind::Zero, SpaceKind::Allocate] {
        let place = Place::new();
        two_writes(&place);
        flip(&place.file_of(chunk(5, 0)), 10);
        let store = place.open();
        let mut client = Client::new(2);
        let mut change = |range| {
            let changed = client.change_space(&store, chunk(5, 0), kind, range);
            changed.map(drop)
        };
        let within = change((100, 20_000));
        match kind {
            SpaceKind::Allocate => assert_eq!(within, Ok(())),
            SpaceKind::Punch | SpaceKind::Zero => assert_eq!(within, Err(Status::Corrupt)),
        }
        assert!(!reads_well(&store), "{kind:?}");
        if kind != SpaceKind::Allocate {
            assert_eq!(
                change((0, 4096)),
                Ok(()),
                "a whole block needs no old bytes"
            );
            assert!(reads_well(&store), "{kind:?}");
        }
    }
}

#[test]
fn store_copy_of_a_flipped_block_is_refused() {
    let place = Place::new();
    two_writes(&place);
    flip(&place.file_of(chunk(5, 0)), 10);
    let store = place.open();
    let mut client = Client::new(2);
    let mut copy = |from| client.copy(&store, (chunk(5, 0), from), (chunk(7, 0), 0), 100);
    assert_eq!(copy(4000).map(drop), Err(Status::Corrupt));
    assert_eq!(copy(4096).map(drop), Ok(()));
}

#[test]
fn store_seek_takes_what_was_lost_for_data() {
    let place = Place::new();
    two_writes(&place);
    std::fs::remove_file(place.file_of(chunk(5, 0))).expect("removed");
    let store = place.open();
    let chunk_bytes = u64::from(place.chunk_size.bytes());
    let runs = data_runs(&store, DataId(5), (100, 2 * chunk_bytes));
    assert_eq!(
        runs,
        [(100, chunk_bytes)],
        "its chunk, and a hole behind it"
    );
    let part = whole_file(DataId(5));
    assert_eq!(store.count_blocks(&part, DataId(0)), Err(Status::DataLost));
    let seek = |target| Seek {
        part: whole_file(DataId(4)),
        target,
        from: 100,
        to: 200,
    };
    let lost_below = DataId(5);
    assert_eq!(
        store.seek(&seek(SeekTarget::Data), lost_below),
        Ok(Some(100))
    );
    assert_eq!(store.seek(&seek(SeekTarget::Hole), lost_below), Ok(None));
}

#[test]
fn store_with_a_damaged_header_is_refused_by_name() {
    let place = Place::new();
    two_writes(&place);
    flip(&place.path().join("store"), 17);
    let config = vdfs_volume::store::StoreConfig {
        budget_bytes: place.budget_bytes,
        is_shared: false,
        steps: std::sync::Arc::new(vdfs_volume::store::steps::NoFaults),
    };
    let refused = vdfs_volume::store::Store::open(place.path(), config);
    let line = refused.expect_err("refused").to_string();
    assert!(
        line.contains("store") && line.contains("checksum"),
        "{line}"
    );
}

/// All blocks of the chunk that are damaged, made good with what the other store has.
fn heal(store: &Store, other: &Store) -> Result<u32, Status> {
    let mut damaged = 0;
    let mut first = 0;
    while let Some(looked) = store.look_at(chunk(5, 0), first) {
        let theirs = other.difference(&looked.copy, first, &looked.sums)?;
        store.heal(&looked, &theirs)?;
        damaged += looked.damaged;
        first += looked.sums.len() as u32;
    }
    Ok(damaged)
}

#[test]
fn store_with_damaged_blocks_is_made_good_from_another_of_the_same_version() {
    let (place, sound) = (Place::new(), Place::new());
    let expected = two_writes(&place);
    two_writes(&sound);
    let (store, other) = (place.open(), sound.open());
    flip(&place.file_of(chunk(5, 0)), 5000);
    flip(&place.path().join("sums"), 12);
    assert_eq!(heal(&store, &other), Ok(2), "a block, and the sum of one");
    assert_eq!(read_all(&store, chunk(5, 0), place.chunk_size), expected);
    assert_eq!(heal(&store, &other), Ok(0));

    flip(&place.file_of(chunk(5, 0)), 100);
    flip(&sound.file_of(chunk(5, 0)), 101);
    assert_eq!(heal(&store, &other), Ok(1));
    assert!(!reads_well(&store), "the same block is bad in both");

    let looked = store.look_at(chunk(5, 0), 0).expect("it is here");
    flip(&sound.file_of(chunk(5, 0)), 101);
    let theirs = other.difference(&looked.copy, 0, &looked.sums);
    let mut client = Client::new(2);
    client
        .write(&store, chunk(5, 0), 8192, &[7; 4096])
        .expect("written");
    let late = store.heal(&looked, &theirs.expect("it has it"));
    assert_eq!(late, Err(Status::NotInSync), "it has changed");
    assert_eq!(
        heal(&store, &other),
        Err(Status::NotInSync),
        "another version"
    );
}
