//! A cluster that keeps copies: a master, three volumes and two mounts, each on a host of its own.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::cluster::{Cluster, Network};
use crate::deadline::eventually;
use crate::filesystem::Options;

/// From the last fault to chains that are whole.
pub const WHOLE_WITHIN: Duration = Duration::from_secs(60);

/// One cluster at a time in a process: there are deadlines, and what one test starts while another
/// one's mount is cut off would wait for that mount, as it inherits its open files.
#[derive(Debug)]
pub struct Replicated {
    cluster: Cluster,
    _turn: MutexGuard<'static, ()>,
}

impl Replicated {
    /// Two copies of everything, 2 GiB of RAM; returns when all chains are whole.
    pub fn start() -> Replicated {
        Replicated::with(Options {
            volumes: 3,
            ram_mib: 2048,
            replicas: Some(2),
            ..Options::default()
        })
    }

    pub fn with(options: Options) -> Replicated {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let replicated = Replicated {
            cluster: Cluster::start(options, Network::Hosts { mtu: 1500 }, 2),
            _turn: turn,
        };
        replicated.wait_until_whole();
        replicated
    }

    /// What `vdfs ARGS` prints as JSON; `null` if it cannot.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.vdfs(args);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    pub fn wait_until_whole(&self) {
        eventually("all chains are whole", WHOLE_WITHIN, || {
            let chains = self.chains();
            chains["total"].as_u64() > Some(0) && chains["whole"] == chains["total"]
        });
    }

    /// Waits until a volume is missed.
    pub fn wait_until_short(&self, within: Duration) {
        eventually("the chains are short", within, || {
            self.chains()["short"].as_u64() > Some(0)
        });
    }

    pub fn status(&self) -> Value {
        self.json(&["status", "--json"])
    }

    /// How many there are, and in which states.
    fn chains(&self) -> Value {
        self.status()["chains"].take()
    }

    /// Where the chunks of a file lie; its path is as `vdfs` knows it.
    fn chunks(&self, path: &str) -> Vec<Value> {
        let location = self.json(&["locate", path, "--json"]);
        let chunks = location["chunks"].as_array().cloned();
        chunks.expect("a list of chunks")
    }

    /// Names of the volumes that each chunk is on, head first.
    pub fn members(&self, path: &str) -> Vec<Vec<String>> {
        let name = |member: &Value| member["volume"].as_str().expect("a name").to_owned();
        let of_chunk = |chunk: &Value| {
            let members = chunk["members"].as_array().expect("a list of members");
            members.iter().map(name).collect()
        };
        self.chunks(path).iter().map(of_chunk).collect()
    }

    /// Epochs of the chains of a file.
    pub fn epochs(&self, path: &str) -> BTreeMap<u64, u64> {
        let chunks = self.chunks(path);
        let number = |chunk: &Value, key: &str| chunk[key].as_u64().expect("a number");
        chunks
            .iter()
            .map(|chunk| (number(chunk, "chain"), number(chunk, "epoch")))
            .collect()
    }
}

impl Deref for Replicated {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl DerefMut for Replicated {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}
