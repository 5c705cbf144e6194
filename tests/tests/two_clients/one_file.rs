//! Two clients take turns on one file: after each operation a fresh open on either sees exactly the
//! model's bytes.

use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use vdfs_client::{AttrChanges, Fs, WriteFlags};
use vdfs_proto::{HandleId, Ino};

use crate::cluster::{Cluster, Rng, read_write, regular, rng};
use crate::seeds::run_seeds;

const STEPS: u32 = 200;
const FILE_BYTES: usize = 3_000_000;
const CLIENTS: [&str; 2] = ["a", "b"];

#[test]
fn file_of_two_clients_is_the_model() {
    run_seeds("taking turns", |seed| Scenario::run(seed, Faults::None));
}

#[test]
fn file_of_two_clients_is_the_model_while_servers_return() {
    run_seeds("taking turns, servers return", |seed| {
        Scenario::run(seed, Faults::Servers)
    });
}

#[test]
fn file_of_two_clients_is_the_model_with_two_copies_while_servers_return() {
    run_seeds("taking turns, two copies, servers return", |seed| {
        Scenario::run(seed, Faults::ServersOfTwoCopies)
    });
}

#[test]
fn file_of_two_clients_is_the_model_while_clients_die() {
    run_seeds("taking turns, clients die", |seed| {
        Scenario::run(seed, Faults::Clients)
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Faults {
    None,
    Servers,
    ServersOfTwoCopies,
    Clients,
}

impl Faults {
    fn are_of_servers(self) -> bool {
        matches!(self, Faults::Servers | Faults::ServersOfTwoCopies)
    }
}

/// A client with a handle that stays open through everything.
#[derive(Debug)]
struct Peer {
    fs: Fs,
    held: HandleId,
}

#[derive(Debug)]
struct Scenario {
    seed: u64,
    rng: Rng,
    cluster: Cluster,
    peers: Vec<Peer>,
    ino: Ino,
    model: Vec<u8>,
}

impl Scenario {
    async fn run(seed: u64, faults: Faults) {
        let cluster = match faults {
            Faults::ServersOfTwoCopies => Cluster::start_with_copies().await,
            _ => Cluster::start().await,
        };
        let mut scenario = Scenario::start(seed, cluster).await;
        for step in 0..STEPS {
            scenario.step(step, faults).await;
        }
        for peer in &scenario.peers {
            let ended = peer.fs.shutdown(Duration::from_secs(10)).await;
            ended.expect("everything is flushed");
        }
    }

    async fn start(seed: u64, cluster: Cluster) -> Scenario {
        let maker = cluster.client("maker").await;
        let ino = maker.create(regular("file")).await.expect("made").ino;
        let mut peers = Vec::new();
        for name in CLIENTS {
            peers.push(Peer::start(&cluster, name, ino).await);
        }
        Scenario {
            seed,
            rng: rng(seed),
            cluster,
            peers,
            ino,
            model: Vec::new(),
        }
    }

    async fn step(&mut self, step: u32, faults: Faults) {
        let who = self.rng.random_range(0..CLIENTS.len());
        match self.rng.random_range(0..10u32) {
            0..=3 => self.write(who).await,
            4 => self.set_size(who).await,
            5 => self.append(who).await,
            6 if faults.are_of_servers() => self.cluster.restart_one(&mut self.rng).await,
            6 if faults == Faults::Clients => self.kill(who).await,
            _ => self.check(who, step).await,
        }
    }

    /// The handle that stays open, or one of the moment.
    async fn handle(&mut self, who: usize) -> HandleId {
        if self.rng.random_bool(0.5) {
            return self.peers[who].held;
        }
        let opened = self.peers[who].fs.open(self.ino, read_write()).await;
        opened.expect("opens").handle
    }

    async fn done_with(&self, who: usize, handle: HandleId) {
        if handle != self.peers[who].held {
            let released = self.peers[who].fs.release(handle).await;
            released.expect("released");
        }
    }

    async fn write(&mut self, who: usize) {
        let at = self.rng.random_range(0..FILE_BYTES);
        let bytes = self.bytes(200_000);
        let end = at + bytes.len();
        self.model.resize(self.model.len().max(end), 0);
        self.model[at..end].copy_from_slice(&bytes);
        let handle = self.handle(who).await;
        let fs = &self.peers[who].fs;
        let written = fs.write(handle, at as u64, bytes, WriteFlags::default());
        written.await.expect("written");
        fs.flush(handle).await.expect("flushed");
        self.done_with(who, handle).await;
    }

    async fn append(&mut self, who: usize) {
        let bytes = self.bytes(5_000);
        self.model.extend_from_slice(&bytes);
        let handle = self.handle(who).await;
        let flags = WriteFlags {
            append: true,
            ..WriteFlags::default()
        };
        let written = self.peers[who].fs.write(handle, 0, bytes, flags).await;
        written.expect("appended");
        self.done_with(who, handle).await;
    }

    async fn set_size(&mut self, who: usize) {
        let to_zero = self.rng.random_bool(0.3);
        let size = match to_zero {
            true => 0,
            false => self.rng.random_range(0..FILE_BYTES),
        };
        self.model.resize(size, 0);
        let changes = AttrChanges {
            size: Some(size as u64),
            ..AttrChanges::default()
        };
        let attr = self.peers[who].fs.set_attr(self.ino, changes).await;
        assert_eq!(attr.expect("truncated").size, size as u64);
    }

    /// The client goes without a word, with nothing unflushed, and one of its name follows.
    async fn kill(&mut self, who: usize) {
        drop(self.peers.remove(who));
        let next = Peer::start(&self.cluster, CLIENTS[who], self.ino).await;
        self.peers.insert(who, next);
    }

    async fn check(&mut self, who: usize, step: u32) {
        let at = self.rng.random_range(0..FILE_BYTES);
        let len = self.rng.random_range(1..600_000);
        let fs = &self.peers[who].fs;
        let opened = fs.open(self.ino, read_write()).await.expect("opens");
        let place = format!("seed {} step {step} client {who}", self.seed);
        assert_eq!(opened.attr.size, self.model.len() as u64, "{place}");
        let bytes = fs.read(opened.handle, at as u64, len as u32).await;
        let bytes = bytes.unwrap_or_else(|status| panic!("{place}: {status}"));
        let own = self.model.len();
        let expected = &self.model[at.min(own)..(at + len).min(own)];
        let differs = bytes.iter().zip(expected).position(|(a, b)| a != b);
        assert_eq!(bytes.len(), expected.len(), "{place} at {at}");
        assert_eq!(differs, None, "{place} at {at}");
        fs.release(opened.handle).await.expect("released");
    }

    fn bytes(&mut self, len_max: usize) -> Bytes {
        let len = self.rng.random_range(1..len_max);
        let fill = self.rng.random_range(1..=255u8);
        vec![fill; len].into()
    }
}

impl Peer {
    async fn start(cluster: &Cluster, name: &str, ino: Ino) -> Peer {
        let fs = cluster.client(name).await;
        let held = fs.open(ino, read_write()).await.expect("opens").handle;
        Peer { fs, held }
    }
}
