//! `--ram` is a contract: filled, freed and refilled, the tmpfs never exceeds it.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use vdfs_proto::data::SpaceKind;

use crate::fixture::Store;
use vdfs_proto::{ChunkSize, DataId, Status};
use vdfs_volume::Ram;
use vdfs_volume::store::steps::NoFaults;

use crate::fixture::{self, Client, MIB, Place, chunk, pattern, read_all};

/// A tmpfs of its own when root, else a directory in `/dev/shm`; freed at the end.
struct OwnRam {
    ram: Ram,
    _directory: tempfile::TempDir,
    path: PathBuf,
    budget_bytes: u64,
}

impl OwnRam {
    fn new(budget_bytes: u64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ram");
        let ram = Ram::open(&path, budget_bytes).expect("RAM");
        OwnRam {
            ram,
            _directory: directory,
            path,
            budget_bytes,
        }
    }

    fn open(&self) -> Store {
        fixture::open(
            &self.path,
            self.budget_bytes,
            ChunkSize::DEFAULT,
            Arc::new(NoFaults),
        )
        .0
    }

    /// What the kernel says is used, for a tmpfs of its own.
    fn check(&self, store: &Store) {
        let used = store.usage().used_bytes;
        assert!(used <= self.budget_bytes, "{used} of {}", self.budget_bytes);
        if self.ram.is_shared() {
            return;
        }
        let stat = rustix::fs::statvfs(&self.path).expect("statvfs");
        let pages = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
        let kernel = (stat.f_files - stat.f_ffree) * 1024;
        assert!(pages <= used, "{pages} bytes of pages, {used} counted");
        assert!(
            pages + kernel <= self.budget_bytes + (128 << 10),
            "{pages} + {kernel}"
        );
    }
}

impl Drop for OwnRam {
    fn drop(&mut self) {
        Ram::destroy(&self.path).expect("freed");
    }
}

/// Fills the store with chunks of `payload`; gives how many fit.
fn fill(store: &Store, client: &mut Client, first: u64, payload: &[u8]) -> u64 {
    for count in 0.. {
        match client.write(store, chunk(first + count, 0), 0, payload) {
            Ok(_) => {}
            Err(Status::NoSpace) => return count,
            Err(status) => panic!("{status}"),
        }
    }
    unreachable!("the budget ends");
}

fn check_ten_rounds(budget_bytes: u64, payload: &[u8], data_bytes_min: u64) {
    let ram = OwnRam::new(budget_bytes);
    let mut store = ram.open();
    let mut client = Client::new(1);
    let mut first = 1;
    for round in 0..10 {
        let count = fill(&store, &mut client, first, payload);
        ram.check(&store);
        let data_bytes = count * payload.len() as u64;
        assert!(
            data_bytes >= data_bytes_min,
            "round {round}: {data_bytes} bytes of data"
        );
        assert_eq!(
            read_all(&store, chunk(first, 0), ChunkSize::DEFAULT),
            payload
        );
        let ids: Vec<DataId> = (first..first + count).map(DataId).collect();
        if round == 4 {
            drop(store);
            store = ram.open();
            ram.check(&store);
        }
        store.reap(&ids);
        ram.check(&store);
        assert_eq!(store.usage().chunks, 0);
        first += count + 1;
    }
}

#[test]
fn budget_filled_ten_times_with_files_of_1_mib_holds_90_percent_data() {
    let budget_bytes = 64 * MIB;
    check_ten_rounds(budget_bytes, &pattern(1, 1 << 20), budget_bytes / 10 * 9);
}

#[test]
fn budget_filled_ten_times_with_files_of_100_bytes_is_kept() {
    let budget_bytes = 16 * MIB;
    // Less a 32nd, which transfers have.
    let files_min = budget_bytes / 32 * 31 / 6 / 1024;
    check_ten_rounds(budget_bytes, &pattern(1, 100), files_min * 100);
}

#[test]
fn budget_of_sparse_writes_is_what_they_touch() {
    let place = Place::new();
    let store = place.open();
    let mut client = Client::new(1);
    client
        .write(&store, chunk(1, 0), 0, b"x")
        .expect("tables exist from here on");
    let before = store.usage().used_bytes;
    for write in 0..8 {
        client
            .write(&store, chunk(2, 0), write * (8 << 20), &[1; 4096])
            .expect("written");
    }
    let cost = store.usage().used_bytes - before;
    assert!((32 << 10..=34 << 10).contains(&cost), "{cost} bytes");
    let blocks = std::fs::metadata(place.file_of(chunk(2, 0)))
        .expect("exists")
        .blocks();
    assert_eq!(blocks * 512, 32 << 10);
}

#[test]
fn budget_of_rewrites_and_trims_stays_what_is_there() {
    let place = Place::new();
    let store = place.open();
    let mut client = Client::new(1);
    let payload = pattern(1, 1 << 20);
    client
        .write(&store, chunk(1, 0), 0, &payload)
        .expect("written");
    let full = store.usage().used_bytes;
    for _ in 0..100 {
        client
            .write(&store, chunk(1, 0), 0, &payload)
            .expect("in place");
    }
    assert_eq!(store.usage().used_bytes, full);
    client.trim(&store, chunk(1, 0), 5000).expect("cut");
    assert_eq!(store.usage().used_bytes, full - (1 << 20) + 8192);
    let used = store.usage().used_bytes;
    drop(store);
    assert_eq!(
        place.open().usage().used_bytes,
        used,
        "counted alike when opened"
    );
}

#[test]
fn budget_of_a_punch_comes_back_and_an_allocation_is_kept_for_its_writes() {
    let ram = OwnRam::new(32 * MIB);
    let store = ram.open();
    let mut client = Client::new(1);
    let payload = pattern(1, 4 << 20);
    client
        .write(&store, chunk(1, 0), 0, &payload)
        .expect("written");
    let full = store.usage().used_bytes;
    let mut space = |kind, range| {
        let changed = client.change_space(&store, chunk(1, 0), kind, range);
        changed.map(|_| store.usage().used_bytes)
    };
    let punched = space(SpaceKind::Punch, (100, (4 << 20) - 100)).expect("punched");
    assert!(
        full - punched >= (4 << 20) - 4096,
        "{full} and then {punched}"
    );
    ram.check(&store);
    let allocated = space(SpaceKind::Allocate, (0, 4 << 20)).expect("allocated");
    assert!(
        (full..full + 4096).contains(&allocated),
        "{full} and then {allocated}"
    );
    let mut other = Client::new(2);
    fill(&store, &mut other, 2, &pattern(2, 100));
    ram.check(&store);
    client
        .write(&store, chunk(1, 0), 0, &payload)
        .expect("its room is kept");
    let refused = client.change_space(&store, chunk(1, 0), SpaceKind::Allocate, (4 << 20, 8192));
    assert_eq!(refused.map(drop), Err(Status::NoSpace));
    assert_eq!(
        read_all(&store, chunk(1, 0), ChunkSize::DEFAULT),
        payload,
        "and nothing else"
    );
    ram.check(&store);
}

#[test]
fn budget_is_low_near_its_end_and_says_so() {
    let place = Place::new();
    let store = place.open();
    let mut client = Client::new(1);
    let payload = pattern(1, 1 << 20);
    let low: Vec<bool> = (1..)
        .map_while(|data| client.write(&store, chunk(data, 0), 0, &payload).ok())
        .map(|written| written.low_space)
        .collect();
    let first_low = low.iter().position(|low| *low).expect("low before full");
    assert!(low.len() - first_low >= 3, "{first_low} of {}", low.len());
    assert!(first_low > low.len() / 10 * 8);
}

#[test]
fn ram_is_kept_for_the_next_process_and_takes_another_size() {
    let ram = OwnRam::new(32 * MIB);
    let store = ram.open();
    let payload = pattern(1, 8 << 20 >> 1);
    Client::new(1)
        .write(&store, chunk(1, 0), 0, &payload)
        .expect("written");
    drop(store);
    Ram::open(&ram.path, 64 * MIB).expect("larger");
    Ram::open(&ram.path, 16 * MIB).expect("smaller, and it still fits");
    let store = ram.open();
    assert_eq!(read_all(&store, chunk(1, 0), ChunkSize::DEFAULT), payload);
    if !ram.ram.is_shared() {
        let refused = Ram::open(&ram.path, 4 * MIB).expect_err("it does not fit");
        assert!(refused.to_string().contains("in use there"), "{refused}");
    }
}

#[test]
fn ram_within_another_place_of_ours_is_a_directory_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ram");
    Ram::open(&path, 32 * MIB).expect("made");
    for name in ["volume-1", "volume-2", "volume-1"] {
        let within = Ram::open(&path.join(name), 16 * MIB).expect("made, or there");
        let (own, above) = (within.path().metadata(), path.metadata());
        assert_eq!(own.expect("is there").dev(), above.expect("is there").dev());
    }
    Ram::destroy(&path).expect("freed with all that lies in it");
    assert!(!path.exists());
}

#[test]
fn ram_larger_than_the_machine_is_refused_with_both_numbers() {
    let directory = tempfile::tempdir().expect("a directory");
    let refused = Ram::open(&directory.path().join("ram"), 1 << 50).expect_err("too large");
    let line = refused.to_string();
    assert!(
        line.contains("1024 TiB of RAM are asked for") && line.contains("available"),
        "{line}"
    );
}

#[test]
fn ram_destroy_of_nothing_is_fine() {
    let directory = tempfile::tempdir().expect("a directory");
    Ram::destroy(&directory.path().join("ram")).expect("nothing to do");
}
