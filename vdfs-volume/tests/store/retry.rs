//! A write is executed once, however often it is sent.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use vdfs_proto::data::SpaceKind;
use vdfs_proto::{ChunkId, SessionId, Status};
use vdfs_volume::store::steps::{Step, Steps};

use crate::fixture::{
    Client, Place, TERMS, chunk, pattern, read_all, space_message, write_message,
};

#[test]
fn store_retry_after_another_write_gets_the_first_answer_and_changes_nothing() {
    let place = Place::new();
    let store = place.open();
    let first = pattern(1, 8000);
    let message = write_message(Client::new(1).next_op(), chunk(5, 0), 0, &first);
    let written = store.write(&message, &first, TERMS).expect("written");
    Client::new(2)
        .write(&store, chunk(5, 0), 0, &pattern(2, 8000))
        .expect("written");
    assert_eq!(store.write(&message, &first, TERMS), Ok(written));
    drop(store);
    let store = place.open();
    assert_eq!(store.write(&message, &first, TERMS), Ok(written));
    assert_eq!(
        read_all(&store, chunk(5, 0), place.chunk_size),
        pattern(2, 8000)
    );
}

#[derive(Debug)]
struct StopBeforeReply;

impl Steps for StopBeforeReply {
    fn passed(&self, step: Step, _chunk: ChunkId) {
        if step == Step::CleanRecorded {
            resume_unwind(Box::new(()));
        }
    }
}

#[test]
fn store_killed_before_the_reply_was_recorded_knows_the_op_from_the_chunk() {
    let place = Place::new();
    drop(place.open());
    let first = pattern(1, 8000);
    let message = write_message(Client::new(1).next_op(), chunk(5, 0), 0, &first);
    let (store, _) = place.open_with(Arc::new(StopBeforeReply));
    let stopped = catch_unwind(AssertUnwindSafe(|| store.write(&message, &first, TERMS)));
    assert!(stopped.is_err());
    drop(store);
    let store = place.open();
    store.keep_sessions(|session| session == SessionId(1));
    Client::new(2)
        .write(&store, chunk(5, 0), 0, &pattern(2, 8000))
        .expect("written");
    drop(store);
    let store = place.open();
    store
        .write(&message, &first, TERMS)
        .expect("its first answer");
    assert_eq!(
        read_all(&store, chunk(5, 0), place.chunk_size),
        pattern(2, 8000)
    );
}

#[test]
fn store_duplicate_of_an_op_whose_slot_has_moved_on_is_stale() {
    let place = Place::new();
    let store = place.open();
    let mut client = Client::new(1);
    let message = write_message(client.next_op(), chunk(5, 0), 0, b"old");
    store.write(&message, b"old", TERMS).expect("written");
    client
        .write(&store, chunk(5, 0), 0, b"new")
        .expect("written");
    let late = store.write(&message, b"old", TERMS).map(drop);
    assert_eq!(late, Err(Status::StaleRequest));
    assert_eq!(read_all(&store, chunk(5, 0), place.chunk_size), b"new");
}

#[test]
fn store_refusal_for_want_of_room_stays_the_answer_of_its_op() {
    let place = Place::new();
    let store = place.open();
    let mut client = Client::new(1);
    let megabyte = pattern(1, 1 << 20);
    let mut data = 1;
    while client.write(&store, chunk(data, 0), 0, &megabyte).is_ok() {
        data += 1;
    }
    let refused = write_message(client.op(), chunk(data, 0), 0, &megabyte);
    for id in 1..data {
        store.reap(&[chunk(id, 0).data]);
    }
    let again = store.write(&refused, &megabyte, TERMS).map(drop);
    assert_eq!(again, Err(Status::NoSpace));
    client
        .write(&store, chunk(data, 0), 0, &megabyte)
        .expect("a new op has room");
}

#[test]
fn store_punch_that_is_sent_again_late_spares_what_was_written_since() {
    let place = Place::new();
    let store = place.open();
    let mut writer = Client::new(2);
    let bytes = pattern(1, 8192);
    writer
        .write(&store, chunk(5, 0), 0, &bytes)
        .expect("written");
    let op = Client::new(1).next_op();
    let punch = space_message(op, chunk(5, 0), SpaceKind::Punch, (0, 8192));
    let punched = store.change_space(&punch, TERMS).expect("punched");
    writer
        .write(&store, chunk(5, 0), 0, &bytes)
        .expect("written");
    assert_eq!(store.change_space(&punch, TERMS), Ok(punched));
    drop(store);
    let store = place.open();
    assert_eq!(store.change_space(&punch, TERMS), Ok(punched));
    assert_eq!(read_all(&store, chunk(5, 0), place.chunk_size), bytes);
}

#[test]
fn store_concurrent_copies_of_one_op_are_executed_once() {
    let place = Place::new();
    let store = place.open();
    let payload = pattern(1, 1 << 20);
    for round in 1..=20 {
        let client = Client {
            session: 1,
            seq: round,
        };
        let message = write_message(client.op(), chunk(5, 0), 0, &payload);
        let versions: Vec<_> = std::thread::scope(|scope| {
            let copies: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| store.write(&message, &payload, TERMS)))
                .collect();
            copies
                .into_iter()
                .map(|copy| copy.join().expect("no panic"))
                .collect()
        });
        for written in versions {
            assert_eq!(written.expect("written").version.counter, round);
        }
    }
}

/// Tries another write of the chunk at the moment when the first one's reply is recorded.
#[derive(Debug)]
struct OvertakenAtReply {
    try_other: SyncSender<()>,
    other_done: Mutex<Receiver<()>>,
}

impl Steps for OvertakenAtReply {
    fn passed(&self, step: Step, _chunk: ChunkId) {
        if step == Step::Replied && self.try_other.try_send(()).is_ok() {
            let other_done = self.other_done.lock().expect("not poisoned");
            let done = other_done.recv_timeout(Duration::from_millis(200));
            assert!(done.is_err(), "the chunk was open before its reply");
        }
    }
}

/// A kill between the two would leave a record that names the second op alone, and a retry of the first
/// would overwrite what the second was answered for.
#[test]
fn store_chunk_is_closed_to_others_until_the_reply_is_recorded() {
    let place = Place::new();
    drop(place.open());
    let (try_other, tried) = sync_channel(1);
    let (done, other_done) = sync_channel(1);
    let (store, _) = place.open_with(Arc::new(OvertakenAtReply {
        try_other,
        other_done: Mutex::new(other_done),
    }));
    let store = &store;
    thread::scope(|scope| {
        scope.spawn(move || {
            tried.recv().expect("the first write");
            let written = Client::new(2).write(store, chunk(5, 0), 0, &pattern(2, 8000));
            written.expect("written");
            done.send(()).expect("somebody listens");
        });
        let written = Client::new(1).write(store, chunk(5, 0), 0, &pattern(1, 8000));
        written.expect("written");
    });
    let last = read_all(store, chunk(5, 0), place.chunk_size);
    assert_eq!(last, pattern(2, 8000));
}
