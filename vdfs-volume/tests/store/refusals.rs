//! What the store refuses, and what it answers instead of zeros.

use crate::fixture::Terms;
use vdfs_proto::limits::{DATA_SLOTS_PER_SESSION, PAYLOAD_BYTES_MAX};
use vdfs_proto::{ChunkSize, DataId, Epoch, Status};
use vdfs_volume::store::steps::NoFaults;
use vdfs_volume::store::{StoreConfig, StoreError};

use crate::fixture::{
    Client, Place, TERMS, chunk, pattern, read, read_all, read_message, write_message,
};

#[test]
fn store_write_that_no_client_sends_is_refused() {
    let place = Place::new();
    let store = place.open();
    let good = write_message(Client::new(1).next_op(), chunk(5, 0), 0, b"four");
    let refuse = |message, payload: &[u8]| store.write(&message, payload, TERMS).map(drop);
    let chunk_bytes = place.chunk_size.bytes();
    let mut past_the_end = good.clone();
    past_the_end.offset = chunk_bytes - 3;
    assert_eq!(refuse(past_the_end, b"four"), Err(Status::Invalid));
    let mut wraps = good.clone();
    wraps.offset = u32::MAX;
    assert_eq!(refuse(wraps, b"four"), Err(Status::Invalid));
    assert_eq!(refuse(good.clone(), b""), Err(Status::Invalid));
    let long = vec![0; PAYLOAD_BYTES_MAX + 1];
    assert_eq!(refuse(good.clone(), &long), Err(Status::Invalid));
    let mut large_slot = good.clone();
    large_slot.op.slot = DATA_SLOTS_PER_SESSION;
    assert_eq!(refuse(large_slot, b"four"), Err(Status::Invalid));
    let mut large_epoch = good.clone();
    large_epoch.epoch = Epoch(u64::MAX);
    assert_eq!(refuse(large_epoch, b"four"), Err(Status::Invalid));
    assert_eq!(refuse(good.clone(), b"fuor"), Err(Status::Corrupt));
    let mut too_many_sums = good.clone();
    too_many_sums.sums.push(0);
    assert_eq!(refuse(too_many_sums, b"four"), Err(Status::Corrupt));
    assert_eq!(
        refuse(good, b"four"),
        Ok(()),
        "nothing of this was recorded"
    );
}

#[test]
fn store_read_of_a_part_of_a_block_is_refused() {
    let place = Place::new();
    let store = place.open();
    let bytes = place.chunk_size.bytes();
    for (offset, len) in [(1, 4096), (0, 4095), (0, 0), (bytes, 4096), (0, 8 << 20)] {
        let answer = read(&store, chunk(5, 0), offset, len).map(drop);
        assert_eq!(answer, Err(Status::Invalid), "{offset}+{len}");
    }
}

#[test]
fn store_missing_or_short_chunk_is_a_hole_only_where_nothing_is_expected() {
    let place = Place::new();
    let store = place.open();
    Client::new(1)
        .write(&store, chunk(5, 0), 0, &[1; 100])
        .expect("written");
    let answer = |index, expected, lost_below| {
        let mut message = read_message(chunk(5, index), 0, 4096);
        message.len_expected = expected;
        store
            .read(&message, DataId(lost_below))
            .map(|(_, bytes)| bytes.len())
    };
    assert_eq!(answer(0, 100, 0), Ok(100));
    assert_eq!(answer(0, 101, 0), Err(Status::DataLost));
    assert_eq!(answer(1, 0, 0), Ok(0));
    assert_eq!(answer(1, 1, 0), Err(Status::DataLost));
    assert_eq!(answer(1, 0, 5), Ok(0));
    assert_eq!(answer(1, 0, 6), Err(Status::DataLost));
    let lost = answer(0, 100, 6);
    assert_eq!(lost, Err(Status::DataLost), "what is here is older");
}

#[test]
fn store_write_into_a_lost_chunk_is_refused() {
    let place = Place::new();
    let store = place.open();
    let terms = Terms {
        lost_below: DataId(6),
        ..TERMS
    };
    let mut client = Client::new(1);
    let message = write_message(client.next_op(), chunk(5, 0), 0, b"x");
    assert_eq!(
        store.write(&message, b"x", terms).map(drop),
        Err(Status::DataLost)
    );
    let mut expecting = write_message(client.next_op(), chunk(7, 0), 0, b"x");
    expecting.len_expected = 1;
    assert_eq!(
        store.write(&expecting, b"x", terms).map(drop),
        Err(Status::DataLost)
    );
    assert_eq!(store.usage().chunks, 0, "a refused write leaves nothing");
    let message = write_message(client.next_op(), chunk(7, 0), 0, b"x");
    assert!(store.write(&message, b"x", terms).is_ok());
}

#[test]
fn store_reaped_id_is_gone_also_after_a_restart() {
    let place = Place::new();
    let store = place.open();
    let mut client = Client::new(1);
    for index in 0..3 {
        client
            .write(&store, chunk(5, index), 0, &[1; 9000])
            .expect("written");
    }
    store.reap(&[DataId(5), DataId(6)]);
    store.reap(&[DataId(5)]);
    drop(store);
    let store = place.open();
    for id in [chunk(5, 0), chunk(5, 9), chunk(6, 0)] {
        assert_eq!(
            read(&store, id, 0, 4096).map(drop),
            Err(Status::Gone),
            "{id}"
        );
        let written = client.write(&store, id, 0, b"x").map(drop);
        assert_eq!(written, Err(Status::Gone), "{id}");
    }
    assert_eq!(store.usage().chunks, 0);
    assert_eq!(client.trim(&store, chunk(5, 0), 0), Ok(()));
}

#[test]
fn store_fenced_write_is_refused_but_its_retry_is_answered() {
    let place = Place::new();
    let store = place.open();
    let fenced = Terms {
        is_fenced: true,
        ..TERMS
    };
    let mut client = Client::new(1);
    let message = write_message(client.next_op(), chunk(5, 0), 0, b"x");
    let written = store.write(&message, b"x", TERMS);
    assert_eq!(store.write(&message, b"x", fenced), written);
    let later = write_message(client.next_op(), chunk(5, 0), 0, b"y");
    assert_eq!(
        store.write(&later, b"y", fenced).map(drop),
        Err(Status::Fenced)
    );
    assert!(
        store.write(&later, b"y", TERMS).is_ok(),
        "a fence is not an answer"
    );
}

#[test]
fn store_chunk_trimmed_to_nothing_keeps_its_record() {
    let place = Place::new();
    let store = place.open();
    let mut client = Client::new(1);
    client
        .write(&store, chunk(5, 0), 0, &pattern(1, 9000))
        .expect("written");
    client.trim(&store, chunk(5, 0), 0).expect("cut");
    drop(store);
    let store = place.open();
    assert_eq!(store.usage().chunks, 1);
    let (done, bytes) = read(&store, chunk(5, 0), 0, 4096).expect("reads");
    assert_eq!((done.version.counter, bytes.len()), (2, 0));
    client
        .write(&store, chunk(5, 0), 5000, b"x")
        .expect("grows");
    let mut expected = vec![0; 5000];
    expected.push(b'x');
    assert_eq!(read_all(&store, chunk(5, 0), place.chunk_size), expected);
}

#[test]
fn store_is_opened_by_one_at_a_time() {
    let place = Place::new();
    let _open = place.open();
    let config = StoreConfig {
        budget_bytes: place.budget_bytes,
        is_shared: false,
        steps: std::sync::Arc::new(NoFaults),
    };
    let second = vdfs_volume::store::Store::open(place.path(), config);
    assert!(matches!(second, Err(StoreError::InUse { .. })));
}

#[test]
fn store_of_another_chunk_size_is_refused() {
    let place = Place::new();
    let id = place.open().id();
    let store = place.open();
    assert_eq!(store.id(), id, "the store is the same");
    let refused = store.adopt_chunk_size(ChunkSize::MIN);
    assert!(matches!(refused, Err(StoreError::OtherChunkSize { .. })));
}

#[test]
fn store_trim_cuts_every_later_chunk_of_the_file_and_no_other() {
    let place = Place::new();
    let store = place.open();
    let mut client = Client::new(1);
    for id in [
        chunk(5, 0),
        chunk(5, 1),
        chunk(5, 2),
        chunk(5, 9),
        chunk(6, 3),
    ] {
        client.write(&store, id, 0, &[7; 9000]).expect("written");
    }
    client.trim(&store, chunk(5, 1), 100).expect("cut");
    let lens = [(5, 0), (5, 1), (5, 2), (5, 9), (6, 3)].map(|(data, index)| {
        let id = chunk(data, index);
        read_all(&store, id, place.chunk_size).len()
    });
    assert_eq!(lens, [9000, 100, 0, 0, 9000]);
    let used = store.usage().used_bytes;
    client.trim(&store, chunk(5, 0), 0).expect("cut");
    assert!(store.usage().used_bytes < used);
}
