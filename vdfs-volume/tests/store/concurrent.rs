//! Many threads at once: readers never see a mixture, reaping never loses room.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::fixture::Store;
use vdfs_proto::Status;
use vdfs_proto::sums::piece_sums;

use crate::fixture::{Client, Place, chunk, pattern, read};

const LEN: usize = 20_000;

/// Reads until told to stop; every read is one write's bytes, or nothing yet.
fn read_until(store: &Store, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match read(store, chunk(5, 0), 0, 32 << 10) {
            Ok((_, bytes)) if bytes.is_empty() => {}
            Ok((done, bytes)) => {
                assert_eq!(done.sums, piece_sums(0, &bytes));
                assert!(bytes.iter().all(|byte| *byte == bytes[0]), "torn");
            }
            Err(status) => assert_eq!(status, Status::Gone),
        }
    }
}

#[test]
fn store_reader_beside_writers_sees_whole_writes() {
    let place = Place::new();
    let store = place.open();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| read_until(&store, &stop));
        let writers = [1u64, 2].map(|session| {
            let store = &store;
            scope.spawn(move || {
                let mut client = Client::new(session);
                for round in 0..300u64 {
                    let fill = (session * 100 + round) as u8;
                    client
                        .write(store, chunk(5, 0), 0, &[fill; LEN])
                        .expect("written");
                }
            })
        });
        for writer in writers {
            writer.join().expect("no panic");
        }
        store.reap(&[chunk(5, 0).data]);
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn store_reaped_beside_writers_has_its_room_back() {
    let place = Place::new();
    let store = place.open();
    let payload = pattern(1, LEN);
    Client::new(9)
        .write(&store, chunk(1_000_000, 0), 0, &payload)
        .expect("written");
    std::thread::scope(|scope| {
        for session in 1..=3u64 {
            let (store, payload) = (&store, &payload);
            scope.spawn(move || write_and_reap(store, session, payload));
        }
    });
    assert_eq!(store.usage().chunks, 1);
    let used = store.usage().used_bytes;
    drop(store);
    let (store, recovery) =
        place.open_with(std::sync::Arc::new(vdfs_volume::store::steps::NoFaults));
    assert_eq!((recovery.chunks, recovery.bad_copies), (1, 0));
    assert_eq!(store.usage().used_bytes, used);
}

/// Writes chunks that others reap at the same time, and reaps theirs.
fn write_and_reap(store: &Store, session: u64, payload: &[u8]) {
    let mut client = Client::new(session);
    for data in 1..200 {
        for index in 0..3 {
            match client
                .write(store, chunk(data, index), 0, payload)
                .map(drop)
            {
                Ok(()) | Err(Status::Gone) => {}
                Err(status) => panic!("{status}"),
            }
        }
        store.reap(&[chunk(data, 0).data]);
    }
}

/// Nobody holds two chunks at once.
#[test]
fn store_copies_in_opposite_directions_wait_for_nobody() {
    let place = Place::new();
    let store = place.open();
    let (one, other) = (chunk(1, 0), chunk(2, 0));
    for (session, chunk) in [(1, one), (2, other)] {
        let payload = [session as u8; LEN];
        Client::new(session)
            .write(&store, chunk, 0, &payload)
            .expect("written");
    }
    let (store, (done, all_done)) = (Arc::new(store), mpsc::channel());
    for (session, from, to) in [(3, one, other), (4, other, one)] {
        let (store, done) = (store.clone(), done.clone());
        std::thread::spawn(move || {
            let mut client = Client::new(session);
            for _ in 0..200 {
                let copied = client.copy(&store, (from, 0), (to, 0), LEN as u32);
                copied.expect("copied");
            }
            done.send(()).expect("somebody waits");
        });
    }
    for _ in 0..2 {
        let ended = all_done.recv_timeout(Duration::from_secs(30));
        assert!(ended.is_ok(), "they wait for one another");
    }
}
