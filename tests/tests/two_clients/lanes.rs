//! Writers on two clients share the chunks and the blocks of one file, each with bytes of its own:
//! none may lose a byte to another, whatever returns meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt;
use vdfs_client::{Fs, WriteFlags};
use vdfs_proto::{HandleId, Ino};

use crate::cluster::{Cluster, Rng, read_write, regular, rng};
use crate::seeds::run_seeds;

const WRITERS: usize = 4;
/// Bytes of one lane's piece: not a divisor of blocks, so that borders lie in their middle.
const PIECE_BYTES: usize = 1_700;
const PIECES: usize = 150;
const TIME: Duration = Duration::from_secs(2);
/// An operation that takes longer is stuck: servers are never away for a second.
const STUCK: Duration = Duration::from_secs(30);

#[test]
fn writers_of_neighbouring_bytes_lose_none() {
    run_seeds("lanes", |seed| async move {
        run(seed, Cluster::start().await, false).await;
    });
}

#[test]
fn writers_of_neighbouring_bytes_lose_none_while_servers_return() {
    run_seeds("lanes, servers return", |seed| async move {
        run(seed, Cluster::start().await, true).await;
    });
}

#[test]
fn writers_of_neighbouring_bytes_lose_none_with_two_copies_while_servers_return() {
    run_seeds("lanes, two copies, servers return", |seed| async move {
        run(seed, Cluster::start_with_copies().await, true).await;
    });
}

async fn run(seed: u64, mut cluster: Cluster, with_faults: bool) {
    let clients = [cluster.client("a").await, cluster.client("b").await];
    let ino = clients[0].create(regular("file")).await.expect("made").ino;
    let stop = Arc::new(AtomicBool::new(false));
    let writers = (0..WRITERS).map(|lane| {
        let fs = clients[lane % clients.len()].clone();
        tokio::spawn(Lane::run(seed, lane, fs, ino, stop.clone()))
    });
    let writers: Vec<_> = writers.collect();
    let mut faults = rng(seed);
    let begun = Instant::now();
    while begun.elapsed() < TIME && !writers.iter().any(|writer| writer.is_finished()) {
        let pause = Duration::from_millis(faults.random_range(20..300));
        tokio::time::sleep(pause).await;
        if with_faults {
            cluster.restart_one(&mut faults).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut lanes = Vec::new();
    for writer in writers {
        lanes.push(writer.await.expect("a writer does not fail"));
    }
    for lane in &mut lanes {
        for fs in &clients {
            lane.check_all_on(fs).await;
        }
    }
}

/// The pieces of one writer and what is in them; 0 is never written.
struct Lane {
    seed: u64,
    number: usize,
    rng: Rng,
    fs: Fs,
    ino: Ino,
    handle: HandleId,
    pieces: Vec<u8>,
}

impl Lane {
    async fn run(seed: u64, number: usize, fs: Fs, ino: Ino, stop: Arc<AtomicBool>) -> Lane {
        let handle = fs.open(ino, read_write()).await.expect("opens").handle;
        let mut lane = Lane {
            seed,
            number,
            rng: rng(seed.wrapping_mul(1000) + number as u64),
            fs,
            ino,
            handle,
            pieces: vec![0; PIECES],
        };
        while !stop.load(Ordering::Relaxed) {
            let step = tokio::time::timeout(STUCK, lane.step());
            step.await
                .unwrap_or_else(|_| panic!("seed {seed} lane {number} is stuck"));
        }
        lane.fs.fsync(lane.handle).await.expect("flushed");
        lane
    }

    async fn step(&mut self) {
        let piece = self.rng.random_range(0..PIECES);
        match self.rng.random_range(0..10u32) {
            0..=5 => self.write(piece).await,
            6 => self.fs.flush(self.handle).await.expect("flushed"),
            7 => self.reopen().await,
            _ => self.check(&self.fs, self.handle, piece).await,
        }
    }

    async fn write(&mut self, piece: usize) {
        let fill = self.rng.random_range(1..=255u8);
        let bytes = vec![fill; PIECE_BYTES].into();
        let at = self.offset(piece);
        let written = self.fs.write(self.handle, at, bytes, WriteFlags::default());
        written.await.expect("written");
        self.pieces[piece] = fill;
    }

    async fn reopen(&mut self) {
        let opened = self.fs.open(self.ino, read_write()).await.expect("opens");
        self.fs.flush(self.handle).await.expect("flushed");
        self.fs.release(self.handle).await.expect("released");
        self.handle = opened.handle;
    }

    async fn check_all_on(&mut self, fs: &Fs) {
        let opened = fs.open(self.ino, read_write()).await.expect("opens");
        for piece in 0..PIECES {
            self.check(fs, opened.handle, piece).await;
        }
        fs.release(opened.handle).await.expect("released");
    }

    async fn check(&self, fs: &Fs, handle: HandleId, piece: usize) {
        let place = format!("seed {} lane {} piece {piece}", self.seed, self.number);
        let bytes = fs.read(handle, self.offset(piece), PIECE_BYTES as u32);
        let bytes = bytes
            .await
            .unwrap_or_else(|status| panic!("{place}: {status}"));
        let fill = self.pieces[piece];
        let wrong = bytes.iter().position(|&byte| byte != fill);
        assert_eq!(wrong, None, "{place} of {fill}: {bytes:?}");
        // A piece that nobody has written may lie beyond the end.
        assert!(fill == 0 || bytes.len() == PIECE_BYTES, "{place} is short");
    }

    fn offset(&self, piece: usize) -> u64 {
        ((piece * WRITERS + self.number) * PIECE_BYTES) as u64
    }
}
