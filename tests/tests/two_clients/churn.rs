//! Everything at once on a few files from two clients: nothing fails, nothing is stuck, and in the
//! end both see the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt;
use vdfs_client::{AttrChanges, Fs, WriteFlags};
use vdfs_proto::{HandleId, Ino, Status};

use crate::cluster::{Cluster, Rng, read_write, regular, rng};
use crate::seeds::run_seeds;

const FILES: usize = 3;
const WORKERS: u64 = 6;
const FILE_BYTES: u64 = 3_000_000;
const TIME: Duration = Duration::from_secs(2);
/// An operation that takes longer is stuck: servers are never away for a second.
const STUCK: Duration = Duration::from_secs(30);

#[test]
fn clients_agree_after_churn() {
    run_seeds("churn", |seed| async move {
        run(seed, Cluster::start().await, false).await;
    });
}

#[test]
fn clients_agree_after_churn_while_servers_return() {
    run_seeds("churn, servers return", |seed| async move {
        run(seed, Cluster::start().await, true).await;
    });
}

#[test]
fn clients_agree_after_churn_with_two_copies_while_servers_return() {
    run_seeds("churn, two copies, servers return", |seed| async move {
        run(seed, Cluster::start_with_copies().await, true).await;
    });
}

async fn run(seed: u64, mut cluster: Cluster, with_faults: bool) {
    let clients = [cluster.client("a").await, cluster.client("b").await];
    let mut inos = Vec::new();
    for index in 0..FILES {
        let new = regular(&format!("file-{index}"));
        inos.push(clients[0].create(new).await.expect("made").ino);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let workers = (0..WORKERS).map(|number| {
        let fs = clients[number as usize % clients.len()].clone();
        tokio::spawn(Worker::run(seed, number, fs, inos.clone(), stop.clone()))
    });
    let workers: Vec<_> = workers.collect();
    let mut faults = rng(seed);
    let begun = Instant::now();
    while begun.elapsed() < TIME && !workers.iter().any(|worker| worker.is_finished()) {
        let pause = Duration::from_millis(faults.random_range(50..300));
        tokio::time::sleep(pause).await;
        if with_faults {
            cluster.restart_one(&mut faults).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.expect("a worker does not fail");
    }
    for ino in inos {
        assert_same(seed, &clients, ino).await;
    }
}

async fn assert_same(seed: u64, clients: &[Fs], ino: Ino) {
    let mut seen = Vec::new();
    for fs in clients {
        let opened = fs.open(ino, read_write()).await.expect("opens");
        let bytes = fs.read(opened.handle, 0, 1 << 26).await.expect("reads");
        assert_eq!(opened.attr.size, bytes.len() as u64, "seed {seed}");
        seen.push(bytes);
    }
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "seed {seed}");
}

struct Worker {
    rng: Rng,
    fs: Fs,
    inos: Vec<Ino>,
    handles: Vec<HandleId>,
}

impl Worker {
    async fn run(seed: u64, number: u64, fs: Fs, inos: Vec<Ino>, stop: Arc<AtomicBool>) {
        let mut handles = Vec::new();
        for &ino in &inos {
            handles.push(fs.open(ino, read_write()).await.expect("opens").handle);
        }
        let mut worker = Worker {
            rng: rng(seed.wrapping_mul(1000) + number),
            fs,
            inos,
            handles,
        };
        while !stop.load(Ordering::Relaxed) {
            let (operation, file) = (
                worker.rng.random_range(0..12u32),
                worker.rng.random_range(0..FILES),
            );
            let place = format!("seed {seed} worker {number} operation {operation} file {file}");
            let done = tokio::time::timeout(STUCK, worker.act(operation, file)).await;
            let done = done.unwrap_or_else(|_| panic!("{place} is stuck"));
            done.unwrap_or_else(|status| panic!("{place}: {status}"));
        }
        for handle in worker.handles {
            worker.fs.flush(handle).await.expect("flushed");
            worker.fs.release(handle).await.expect("released");
        }
    }

    async fn act(&mut self, operation: u32, file: usize) -> Result<(), Status> {
        let at = self.rng.random_range(0..FILE_BYTES);
        let handle = self.handles[file];
        match operation {
            0..=3 => self.write(handle, at).await,
            4 => self.fs.flush(handle).await,
            5 => self.set_size(file, at).await,
            6 => self.append(handle).await,
            7 => self.fs.fsync(handle).await,
            8 => self.reopen(file).await,
            9 => self.fs.getattr(self.inos[file]).await.map(drop),
            _ => self.fs.read(handle, at, 400_000).await.map(drop),
        }
    }

    async fn write(&mut self, handle: HandleId, at: u64) -> Result<(), Status> {
        let bytes = vec![1; self.rng.random_range(1..100_000)].into();
        let written = self.fs.write(handle, at, bytes, WriteFlags::default());
        written.await.map(drop)
    }

    async fn append(&self, handle: HandleId) -> Result<(), Status> {
        let flags = WriteFlags {
            append: true,
            ..WriteFlags::default()
        };
        let written = self.fs.write(handle, 0, vec![2; 100].into(), flags).await;
        written.map(drop)
    }

    async fn set_size(&mut self, file: usize, size: u64) -> Result<(), Status> {
        let to_zero = self.rng.random_bool(0.5);
        let changes = AttrChanges {
            size: Some(if to_zero { 0 } else { size }),
            ..AttrChanges::default()
        };
        let changed = self.fs.set_attr(self.inos[file], changes).await;
        changed.map(drop)
    }

    async fn reopen(&mut self, file: usize) -> Result<(), Status> {
        let opened = self.fs.open(self.inos[file], read_write()).await?;
        let before = std::mem::replace(&mut self.handles[file], opened.handle);
        self.fs.release(before).await
    }
}
