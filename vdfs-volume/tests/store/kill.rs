//! A process that writes is killed with SIGKILL, many times, and every acknowledged byte compared.
//!
//! The writer logs each op before and after. What was acknowledged must be there; of the op that
//! was under way each byte is old or new; its retry makes it whole.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fixture::Store;
use vdfs_proto::ChunkSize;
use vdfs_volume::store::steps::NoFaults;

use crate::fixture::{self, Client, MIB, Place, TERMS, chunk, pattern, read_all, write_message};

/// Names the store to the child process; without it the child's test does nothing.
const VICTIM: &str = "VDFS_STORE_VICTIM";
const LOG: &str = "VDFS_STORE_LOG";
const ROUNDS: u64 = 15;
const AREA_BYTES: u64 = 6 * MIB;

/// What the writer does as its op number `seq`: (offset, bytes).
fn op_of(seq: u64) -> (u32, Vec<u8>) {
    let random = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let len = match seq % 3 {
        0 => 4096 * (1 + random % 255),
        1 => 1 + random % 9000,
        _ => 1 << 20,
    };
    let offset = (random >> 13) % (AREA_BYTES - len);
    (offset as u32, pattern(seq, len as usize))
}

fn write_op(store: &Store, seq: u64) {
    let client = Client { session: 1, seq };
    let (offset, payload) = op_of(seq);
    let message = write_message(client.op(), chunk(5, 0), offset, &payload);
    store.write(&message, &payload, TERMS).expect("written");
}

#[test]
fn victim_writes_until_it_is_killed() {
    let (Ok(directory), Ok(log)) = (std::env::var(VICTIM), std::env::var(LOG)) else {
        return;
    };
    let (store, _) = fixture::open(
        Path::new(&directory),
        64 * MIB,
        ChunkSize::DEFAULT,
        Arc::new(NoFaults),
    );
    let begun = read_log(Path::new(&log)).0;
    let mut log = OpenOptions::new().append(true).open(log).expect("the log");
    for seq in begun + 1.. {
        log.write_all(&[b'b'; 1]).expect("logged");
        write_op(&store, seq);
        log.write_all(&[b'd'; 1]).expect("logged");
    }
}

/// How many ops were begun and how many done.
fn read_log(path: &Path) -> (u64, u64) {
    let log = std::fs::read(path).expect("the log");
    let count = |kind| log.iter().filter(|byte| **byte == kind).count() as u64;
    (count(b'b'), count(b'd'))
}

fn spawn_victim(place: &Place, log: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "kill::victim_writes_until_it_is_killed"])
        .env(VICTIM, place.path())
        .env(LOG, log)
        .stdout(Stdio::null())
        .spawn()
        .expect("spawned")
}

fn wait_for_ops(log: &Path, done: u64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while read_log(log).1 < done {
        assert!(Instant::now() < deadline, "the writer gets nowhere");
        std::thread::yield_now();
    }
}

#[test]
fn store_whose_process_is_killed_keeps_every_acknowledged_byte() {
    let place = Place::new();
    let log_directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let log = log_directory.path().join("log");
    File::create(&log).expect("the log");
    let mut model = vec![0; AREA_BYTES as usize];
    let mut in_model = 0;
    let mut interrupted = 0;
    for round in 1..=ROUNDS {
        let mut victim = spawn_victim(&place, &log);
        wait_for_ops(&log, in_model + 3 + round * 7 % 11);
        victim.kill().expect("killed");
        victim.wait().expect("reaped");
        let (begun, done) = read_log(&log);
        for seq in in_model + 1..=done {
            apply(&mut model, seq);
        }
        let store = place.open();
        if begun > done {
            interrupted += 1;
            check_interrupted(&store, &model, begun);
            write_op(&store, begun);
            apply(&mut model, begun);
            OpenOptions::new()
                .append(true)
                .open(&log)
                .and_then(|mut log| log.write_all(b"d"))
                .expect("logged");
        }
        in_model = begun;
        check_whole(&store, &model);
    }
    assert!(interrupted > 0, "no write was under way in {ROUNDS} kills");
    eprintln!("{in_model} writes, {interrupted} of {ROUNDS} kills within a write");
}

fn apply(model: &mut [u8], seq: u64) {
    let (offset, payload) = op_of(seq);
    model[offset as usize..offset as usize + payload.len()].copy_from_slice(&payload);
}

fn check_interrupted(store: &Store, model: &[u8], seq: u64) {
    let found = read_all(store, chunk(5, 0), ChunkSize::DEFAULT);
    let (offset, payload) = op_of(seq);
    let mut new = model.to_vec();
    new[offset as usize..offset as usize + payload.len()].copy_from_slice(&payload);
    for (at, byte) in found.iter().enumerate() {
        let is_either = *byte == model[at] || *byte == new[at];
        assert!(is_either, "op {seq}: byte {at} is neither old nor new");
    }
    let missing = &model[found.len()..];
    assert!(
        missing.iter().all(|byte| *byte == 0),
        "op {seq}: the end is gone"
    );
}

fn check_whole(store: &Store, model: &[u8]) {
    let found = read_all(store, chunk(5, 0), ChunkSize::DEFAULT);
    assert!(found == model[..found.len()], "acknowledged bytes differ");
    assert!(
        model[found.len()..].iter().all(|byte| *byte == 0),
        "the end is gone"
    );
}
