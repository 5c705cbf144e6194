//! A filesystem that is up, whichever way: a suite written for it runs on each.

use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cgroup::MemoryCgroup;
use crate::cluster::{Cluster, Network};
use crate::mount::{Mount, unmount_lazily};
use crate::part::Part;
use crate::up::Up;

/// The ways in which VDFS is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One process: `vdfs up`.
    Up,
    /// A process for each part, and QUIC between them.
    Cluster,
}

/// What a filesystem is made with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Of all volumes together.
    pub ram_mib: u64,
    pub volumes: u32,
    pub chunk_size: &'static str,
    /// Copies of each chunk, on a cluster.
    pub replicas: Option<u32>,
    /// Of each volume of a cluster, a second.
    pub copy_rate: Option<&'static str>,
}

/// A filesystem with one mount that belongs to it.
#[derive(Debug)]
pub struct Filesystem {
    parts: Parts,
    mounts: AtomicU32,
    /// How long the last start took, from the first command to the last ready line.
    pub started_in: Duration,
}

#[derive(Debug)]
enum Parts {
    Up(Up),
    Cluster(Cluster),
}

impl Default for Options {
    fn default() -> Self {
        // Small chunks, so that ordinary files have several and every border is crossed.
        Options {
            ram_mib: 256,
            volumes: 2,
            chunk_size: "256KiB",
            replicas: Some(1),
            copy_rate: None,
        }
    }
}

impl Options {
    pub(crate) fn ram_text(&self) -> String {
        format!("{}MiB", self.ram_mib)
    }
}

impl Way {
    /// Runs a test this way, unless mount tests are skipped.
    pub fn run(self, test: fn(Way)) {
        if !crate::mount_tests_skipped() {
            test(self);
        }
    }

    /// How much of a long test is worth running this way: what is the same on a cluster has been
    /// tested with `up`.
    pub fn share(self, whole: u32) -> u32 {
        match self {
            Way::Up => whole,
            Way::Cluster => whole.div_ceil(4),
        }
    }

    pub fn start(self, options: Options) -> Filesystem {
        let begin = Instant::now();
        let parts = match self {
            Way::Up => Parts::Up(Up::start(options)),
            Way::Cluster => Parts::Cluster(Cluster::start(options, Network::Loopback, 1)),
        };
        Filesystem {
            parts,
            mounts: AtomicU32::new(0),
            started_in: begin.elapsed(),
        }
    }
}

impl Filesystem {
    /// Where its own mount is.
    pub fn dir(&self) -> PathBuf {
        match &self.parts {
            Parts::Up(up) => up.mount(),
            Parts::Cluster(cluster) => cluster.dir(),
        }
    }

    /// A directory on the disk beside the mount.
    pub fn outside(&self) -> PathBuf {
        match &self.parts {
            Parts::Up(up) => up.outside(),
            Parts::Cluster(cluster) => cluster.outside(),
        }
    }

    /// The directory with the log of names.
    pub fn log_dir(&self) -> PathBuf {
        let state = match &self.parts {
            Parts::Up(up) => up.state(),
            Parts::Cluster(cluster) => cluster.master_state(),
        };
        state.join("log")
    }

    /// Where volumes keep bytes.
    pub fn ram_dirs(&self) -> Vec<PathBuf> {
        match &self.parts {
            Parts::Up(up) => vec![up.state().join("ram")],
            Parts::Cluster(cluster) => (0..cluster.volumes.len())
                .map(|index| cluster.volume_state(index).join("ram"))
                .collect(),
        }
    }

    /// Another mount, in a process of its own.
    pub fn second_mount(&self) -> Mount {
        self.second_mount_with("")
    }

    /// The same with options, as after `-o`.
    pub fn second_mount_with(&self, options: &str) -> Mount {
        let number = self.mounts.fetch_add(1, Ordering::Relaxed);
        match &self.parts {
            Parts::Up(up) => up.second_mount_with(options),
            Parts::Cluster(cluster) => cluster.another_mount(&format!("second-{number}"), options),
        }
    }

    /// `kill -9` of every process, but for second mounts.
    pub fn kill9(&mut self) {
        self.each(Part::kill9);
    }

    /// Starts all again after a stop or a kill.
    pub fn run_again(&mut self) {
        let begin = Instant::now();
        self.each(|part| {
            part.start();
        });
        self.started_in = begin.elapsed();
    }

    /// Ends every process in an orderly way, the mount first.
    pub fn stop(&mut self) {
        let stop = |part: &mut Part| {
            let (status, stderr) = part.stop();
            assert!(status.success(), "{stderr}");
        };
        match &mut self.parts {
            Parts::Up(up) => stop(&mut up.part),
            Parts::Cluster(cluster) => cluster.parts().rev().for_each(stop),
        }
    }

    /// What a reboot does to a stopped filesystem: the bytes are gone.
    pub fn lose_ram(&mut self) {
        for dir in self.ram_dirs() {
            unmount_lazily(&dir);
        }
    }

    /// SIGSTOP for master and volumes; in `up` that includes the mount.
    pub fn freeze_servers(&mut self) {
        self.each_server(|part| part.signal(Signal::STOP));
    }

    pub fn thaw_servers(&mut self) {
        self.each_server(|part| part.signal(Signal::CONT));
    }

    /// From the next start on, the volumes are in `cgroup` from their first instruction.
    pub fn confine_volumes(&mut self, cgroup: &MemoryCgroup) {
        match &mut self.parts {
            Parts::Up(up) => up.part.wrap(cgroup.wrapper()),
            Parts::Cluster(cluster) => {
                let volumes = cluster.volumes.iter_mut();
                volumes.for_each(|volume| volume.wrap(cgroup.wrapper()));
            }
        }
    }

    /// Starts the part that keeps the names, which refuses to; gives what it said.
    pub fn refused_start(&self) -> Output {
        match &self.parts {
            Parts::Up(up) => up.part.run(),
            Parts::Cluster(cluster) => cluster.master.run(),
        }
    }

    /// Runs `vdfs ARGS` on this filesystem to its end.
    pub fn cli(&self, args: &[&str]) -> Output {
        match &self.parts {
            Parts::Up(up) => up.vdfs(args),
            Parts::Cluster(cluster) => cluster.vdfs(args),
        }
    }

    /// The options with which `vdfs` finds this filesystem.
    pub fn access(&self) -> [String; 2] {
        let state = match &self.parts {
            Parts::Up(up) => up.state(),
            Parts::Cluster(cluster) => cluster.master_state(),
        };
        ["--state".into(), crate::mount::path_text(&state)]
    }

    fn each(&mut self, act: impl FnMut(&mut Part)) {
        match &mut self.parts {
            Parts::Up(up) => std::iter::once(&mut up.part).for_each(act),
            Parts::Cluster(cluster) => cluster.parts().for_each(act),
        }
    }

    fn each_server(&mut self, act: impl FnMut(&Part)) {
        match &self.parts {
            Parts::Up(up) => std::iter::once(&up.part).for_each(act),
            Parts::Cluster(cluster) => {
                let servers = std::iter::once(&cluster.master).chain(&cluster.volumes);
                servers.for_each(act);
            }
        }
    }
}

/// Makes each function named a test twice: on `vdfs up`, and on separate processes over QUIC. The
/// function takes the [`Way`].
#[macro_export]
macro_rules! on_up_and_on_a_cluster {
    ($($(#[$attribute:meta])* $test:ident),+ $(,)?) => {
        mod on_up {
            $(#[test] $(#[$attribute])* fn $test() { $crate::Way::Up.run(super::$test); })+
        }
        mod on_cluster {
            $(#[test] $(#[$attribute])* fn $test() { $crate::Way::Cluster.run(super::$test); })+
        }
    };
}
