//! A volume that does not answer holds up nobody who writes elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use vdfs_client::{Fs, WriteFlags};
use vdfs_proto::HandleId;
use vdfs_proto::limits::WRITE_BEHIND_BYTES_MAX;

use crate::cluster::{CHUNK_BYTES, Cluster, VOLUMES, read_write, regular, volume_name};
use crate::seeds::runtime;

/// More than the write buffer of a client, and more runs than it has slots.
const FLOOD_FILES: usize = WRITE_BEHIND_BYTES_MAX / CHUNK_BYTES as usize * 5 / 4;
/// A flood that takes nothing for so long takes nothing any more.
const STILL: Duration = Duration::from_millis(500);
const ROUNDS: u32 = 100;
/// A round takes a millisecond; one that waits for the volume takes for ever.
const ROUND_MAX: Duration = Duration::from_secs(10);

/// A new open file whose first chunk is on the volume.
async fn file_on(fs: &Fs, index: usize, name: &str) -> HandleId {
    for attempt in 0..1000 {
        let attr = fs.create(regular(&format!("{name}-{attempt}"))).await;
        let ino = attr.expect("made").ino;
        let (_, layout, table) = fs.locate(ino).await.expect("located");
        let chain = table.chain(layout.chain(0)).expect("in the table");
        let volume = table.volume(chain.members[0].volume).expect("a member");
        if volume.name == volume_name(index) {
            return fs.open(ino, read_write()).await.expect("opens").handle;
        }
    }
    panic!("no file lies on volume {index}");
}

#[test]
fn writer_to_a_living_volume_keeps_its_pace_while_another_is_away() {
    runtime().block_on(async {
        let mut cluster = Cluster::start().await;
        let fs = cluster.client("a").await;
        let living = file_on(&fs, 0, "living").await;
        let mut dead = Vec::new();
        for number in 0..FLOOD_FILES {
            dead.push(file_on(&fs, VOLUMES - 1, &format!("dead-{number}")).await);
        }
        cluster.stop_volume(VOLUMES - 1);
        let taken = Arc::new(AtomicU64::new(0));
        let flood = flood(fs.clone(), dead, taken.clone());
        until_stuck(&taken).await;
        let begun = Instant::now();
        for round in 0..ROUNDS {
            let write = write_and_flush(&fs, living, round as u8);
            let done = tokio::time::timeout(ROUND_MAX, write).await;
            done.unwrap_or_else(|_| panic!("round {round} waits for the volume that is away"));
        }
        let per_round = begun.elapsed() / ROUNDS;
        eprintln!("{per_round:?} a round beside a volume that is away");
        assert!(!flood.is_finished(), "the volume is away");
        cluster.start_volume(VOLUMES - 1);
        let flooded = tokio::time::timeout(Duration::from_secs(60), flood).await;
        flooded
            .expect("goes on when the volume is back")
            .expect("no failure");
    });
}

/// Fills the first chunk of every file; counts the bytes taken.
fn flood(fs: Fs, handles: Vec<HandleId>, taken: Arc<AtomicU64>) -> JoinHandle<()> {
    tokio::spawn(async move {
        for handle in &handles {
            let bytes = vec![7; CHUNK_BYTES as usize].into();
            let written = fs.write(*handle, 0, bytes, WriteFlags::default()).await;
            written.expect("taken");
            taken.fetch_add(CHUNK_BYTES, Ordering::Relaxed);
        }
        for handle in handles {
            fs.flush(handle).await.expect("flushed");
        }
    })
}

/// What waits for the volume fills all that it may, and is on its way.
async fn until_stuck(taken: &AtomicU64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut before = 0;
    loop {
        tokio::time::sleep(STILL).await;
        let now = taken.load(Ordering::Relaxed);
        if now == before && now >= WRITE_BEHIND_BYTES_MAX as u64 / 2 {
            return;
        }
        before = now;
        assert!(Instant::now() < deadline, "the flood goes on and on");
    }
}

async fn write_and_flush(fs: &Fs, handle: HandleId, fill: u8) {
    let bytes = vec![fill; CHUNK_BYTES as usize].into();
    let written = fs.write(handle, 0, bytes, WriteFlags::default()).await;
    written.expect("taken");
    fs.flush(handle).await.expect("flushed");
}
