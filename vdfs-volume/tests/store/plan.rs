//! A change that a member of several has planned, and holds until its successor has made it.

use std::sync::Arc;

use bytes::Bytes;
use vdfs_proto::{ChunkId, DataId, OpId, Status};
use vdfs_volume::chain::{Prepared, Rule, Terms};
use vdfs_volume::store::Job;
use vdfs_volume::store::steps::NoFaults;

use crate::fixture::{
    Client, EPOCH, MIB, Place, Store, chunk, pattern, read, read_all, write_message,
};

const TERMS: Terms = Terms {
    lost_below: DataId(0),
    admission: Ok(()),
};

fn prepare(store: &Store, op: OpId, chunk: ChunkId, bytes: &[u8]) {
    let job = Arc::new(Job::Write {
        write: write_message(op, chunk, 0, bytes),
        payload: Bytes::copy_from_slice(bytes),
    });
    let prepared = store.prepare(&job, Rule::Next(EPOCH), TERMS);
    assert!(matches!(prepared, Ok(Prepared::Ready { .. })));
}

/// The successor shows it: it cannot fail any more.
#[test]
fn plan_has_its_room_whatever_is_written_before_it_is_made() {
    let place = Place::new();
    let (store, mut client, mut others) = (place.open(), Client::new(1), Client::new(2));
    let (held, bytes) = (chunk(1, 0), pattern(1, MIB as usize));
    let op = client.next_op();
    prepare(&store, op, held, &bytes);
    let other = pattern(2, 256 << 10);
    let full = (2..).find_map(|data| others.write(&store, chunk(data, 0), 0, &other).err());
    assert_eq!(full, Some(Status::NoSpace));
    store.apply(op, held);
    assert_eq!(read_all(&store, held, place.chunk_size), bytes);
    let usage = store.usage();
    assert!(usage.used_bytes <= usage.capacity_bytes, "{usage:?}");
}

#[test]
fn plan_that_is_dropped_leaves_what_was_there_and_gives_its_room_back() {
    let place = Place::new();
    let (store, mut client) = (place.open(), Client::new(1));
    let (old, bytes) = (chunk(1, 0), pattern(1, 5000));
    client.write(&store, old, 0, &bytes).expect("written");
    let before = store.usage();
    for chunk in [old, chunk(2, 0)] {
        let op = client.next_op();
        prepare(&store, op, chunk, &pattern(2, MIB as usize));
        assert!(store.usage().used_bytes > before.used_bytes, "it is taken");
        store.discard(op, chunk);
        assert_eq!(store.usage(), before);
    }
    assert_eq!(read_all(&store, old, place.chunk_size), bytes);
}

#[test]
fn plan_of_a_file_that_is_reaped_meanwhile_makes_nothing() {
    let place = Place::new();
    let (store, mut client) = (place.open(), Client::new(1));
    // The tables have grown as far as they will.
    let first = pattern(1, MIB as usize);
    client
        .write(&store, chunk(9, 0), 0, &first)
        .expect("written");
    store.reap(&[DataId(9)]);
    let before = store.usage();
    for (data, is_made) in [(1, true), (2, false)] {
        let (chunk, op) = (chunk(data, 0), client.next_op());
        prepare(&store, op, chunk, &pattern(1, MIB as usize));
        store.reap(&[DataId(data)]);
        match is_made {
            true => store.apply(op, chunk),
            false => store.discard(op, chunk),
        }
        assert_eq!(read(&store, chunk, 0, 4096).map(drop), Err(Status::Gone));
        assert_eq!(store.usage(), before);
    }
}

#[test]
fn plan_ends_with_its_process() {
    let place = Place::new();
    let (store, mut client) = (place.open(), Client::new(1));
    let (old, bytes) = (chunk(1, 0), pattern(1, 5000));
    client.write(&store, old, 0, &bytes).expect("written");
    for chunk in [old, chunk(2, 0)] {
        let op = client.next_op();
        prepare(&store, op, chunk, &pattern(2, 9000));
    }
    drop(store);
    let (store, recovery) = place.open_with(Arc::new(NoFaults));
    assert_eq!((recovery.chunks, recovery.bad_copies), (1, 0));
    assert_eq!(read_all(&store, old, place.chunk_size), bytes);
}
