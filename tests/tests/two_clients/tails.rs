//! A writer dies with bytes at the volumes that it has not committed, while others write the same
//! file: no gap that they make shows them, and none of theirs is cut with them.

use std::time::{Duration, Instant};

use vdfs_client::{AttrChanges, Fs, SpaceChange, WriteFlags};
use vdfs_proto::data::SpaceKind;
use vdfs_proto::handshake::Role;
use vdfs_proto::{HandleId, Ino};

use crate::cluster::{Cluster, read_write, regular};
use crate::seeds::runtime;
use crate::wires::Wires;

/// Committed before anybody dies; not a multiple of blocks.
const HEAD: u64 = 10_000;
/// What the dead writer leaves: some chunks, and runs that fly at once.
const DEAD: usize = 3 << 20;
const FAR: u64 = 5 << 20;

/// A file of `HEAD` bytes of 1 behind which a writer has left bytes of 2; `b` has it open.
struct Scene {
    cluster: Cluster,
    ino: Ino,
    b: Fs,
    of_b: HandleId,
}

async fn scene() -> Scene {
    let cluster = Cluster::start().await;
    let wires = Wires::through(cluster.connector(Role::Client, "a"));
    let a = cluster
        .client_through("a", std::sync::Arc::new(wires.clone()))
        .await;
    let b = cluster.client("b").await;
    let ino = a.create(regular("file")).await.expect("made").ino;
    let of_a = a.open(ino, read_write()).await.expect("opens").handle;
    let of_b = b.open(ino, read_write()).await.expect("opens").handle;
    write(&a, of_a, 0, vec![1; HEAD as usize]).await;
    a.flush(of_a).await.expect("flushed");
    wires.cut_mutations();
    let used = used_bytes(&b).await;
    write(&a, of_a, HEAD, vec![2; DEAD]).await;
    until_used(&b, used + DEAD as u64).await;
    wires.cut_all();
    // Its successor ends it at once.
    cluster.client("a").await;
    Scene {
        cluster,
        ino,
        b,
        of_b,
    }
}

async fn write(fs: &Fs, handle: HandleId, offset: u64, bytes: Vec<u8>) {
    let written = fs.write(handle, offset, bytes.into(), WriteFlags::default());
    written.await.expect("taken");
}

async fn used_bytes(fs: &Fs) -> u64 {
    let stats = fs.stat_fs().await.expect("the master answers");
    stats.capacity_bytes - stats.free_bytes
}

async fn until_used(fs: &Fs, bytes: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while used_bytes(fs).await < bytes {
        assert!(
            Instant::now() < deadline,
            "the bytes never reach the volumes"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Scene {
    /// The whole file as a fresh client sees it.
    async fn content(&self) -> Vec<u8> {
        let reader = self.cluster.client("reader").await;
        let opened = reader.open(self.ino, read_write()).await.expect("opens");
        let bytes = reader
            .read(opened.handle, 0, 16 << 20)
            .await
            .expect("reads");
        assert_eq!(bytes.len() as u64, opened.attr.size);
        bytes.to_vec()
    }
}

/// `HEAD` bytes of 1, zeros, and then `tail`.
fn with_gap(end_of_gap: u64, tail: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1; HEAD as usize];
    bytes.resize(end_of_gap as usize, 0);
    bytes.extend_from_slice(tail);
    bytes
}

fn assert_same(seen: &[u8], expected: &[u8]) {
    assert_eq!(seen.len(), expected.len());
    let differs = seen.iter().zip(expected).position(|(a, b)| a != b);
    let around = differs.map(|at| (at, seen[at], expected[at]));
    assert_eq!(around, None, "(offset, seen, expected)");
}

#[test]
fn write_far_beyond_the_end_shows_nothing_of_a_dead_writer() {
    runtime().block_on(async {
        let scene = scene().await;
        write(&scene.b, scene.of_b, FAR, vec![3; 100]).await;
        scene.b.flush(scene.of_b).await.expect("flushed");
        assert_same(&scene.content().await, &with_gap(FAR, &[3; 100]));
    });
}

#[test]
fn growing_without_a_write_shows_nothing_of_a_dead_writer() {
    runtime().block_on(async {
        let scene = scene().await;
        let changes = AttrChanges {
            size: Some(FAR),
            ..AttrChanges::default()
        };
        scene.b.set_attr(scene.ino, changes).await.expect("grown");
        assert_same(&scene.content().await, &with_gap(FAR, &[]));
    });
}

#[test]
fn allocation_shows_nothing_of_a_dead_writer() {
    runtime().block_on(async {
        let scene = scene().await;
        let wanted = SpaceChange {
            kind: SpaceKind::Allocate,
            offset: 0,
            len: FAR,
            keep_size: false,
            kill_privileges: false,
        };
        let grown = scene.b.change_space(scene.of_b, wanted).await;
        grown.expect("grown");
        assert_same(&scene.content().await, &with_gap(FAR, &[]));
    });
}

#[test]
fn bytes_of_the_living_are_not_cut_with_those_of_the_dead() {
    runtime().block_on(async {
        let scene = scene().await;
        let c = scene.cluster.client("c").await;
        let of_c = c.open(scene.ino, read_write()).await.expect("opens").handle;
        // Taken, and perhaps at the volumes, but not committed when `b` makes its gap.
        write(&c, of_c, HEAD, vec![4; 1 << 20]).await;
        write(&scene.b, scene.of_b, FAR, vec![3; 100]).await;
        scene.b.flush(scene.of_b).await.expect("flushed");
        c.flush(of_c).await.expect("flushed");
        let mut expected = with_gap(FAR, &[3; 100]);
        let of_c = HEAD as usize..HEAD as usize + (1 << 20);
        expected[of_c].fill(4);
        assert_same(&scene.content().await, &expected);
    });
}

#[test]
fn writing_on_from_the_end_needs_no_cut_and_shows_only_own_bytes() {
    runtime().block_on(async {
        let scene = scene().await;
        write(&scene.b, scene.of_b, HEAD, vec![5; 1000]).await;
        scene.b.flush(scene.of_b).await.expect("flushed");
        assert_same(&scene.content().await, &with_gap(HEAD, &[5; 1000]));
    });
}
