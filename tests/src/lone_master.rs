//! A master alone: a process with no volume and no mount, for what is asked of it over QUIC.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::cgroup::MemoryCgroup;
use crate::mount::path_text;
use crate::part::Part;
use crate::programs;
use crate::scratch::Scratch;

/// Whatever happens, dropping it leaves no process and no file.
#[derive(Debug)]
pub struct LoneMaster {
    pub part: Part,
    scratch: Scratch,
}

impl LoneMaster {
    /// A new filesystem, with further arguments of `vdfs-master`; in `cgroup` from the first
    /// instruction on, if one is given.
    pub fn start(extra: &[&str], cgroup: Option<&MemoryCgroup>) -> LoneMaster {
        let scratch = Scratch::new();
        let state = path_text(&scratch.path().join("state"));
        let fixed = ["--state", &state, "--listen", "127.0.0.1:0"];
        let arguments = [&fixed[..], extra].concat();
        let arguments = arguments.into_iter().map(str::to_owned).collect();
        let log = scratch.path().join("master.log");
        let mut part = Part::new(programs::vdfs_master(), arguments, log);
        if let Some(cgroup) = cgroup {
            part.wrap(cgroup.wrapper());
        }
        part.start();
        LoneMaster { part, scratch }
    }

    pub fn state(&self) -> PathBuf {
        self.scratch.path().join("state")
    }

    /// A directory beside the state, for what a test writes.
    pub fn outside(&self) -> PathBuf {
        self.scratch.path().to_owned()
    }

    pub fn addr(&self) -> SocketAddr {
        let text = fs::read_to_string(self.state().join("addr")).expect("it wrote its address");
        text.trim().parse().expect("an address")
    }

    /// Who a mount would be.
    pub fn identity(&self) -> PathBuf {
        self.state().join("identity-client")
    }

    /// Memory that is resident, in bytes (`VmRSS`, proc(5)).
    pub fn rss_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.part.pid().as_raw_nonzero());
        let status = fs::read_to_string(path).expect("the process is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib: u64 = kib.and_then(|kib| kib.parse().ok()).expect("kibibytes");
        kib << 10
    }

    /// How many records each whole checkpoint holds, the newest first.
    pub fn checkpoints(&self) -> Vec<u64> {
        let names = fs::read_dir(self.state().join("log")).expect("the log's directory");
        let names = names.map(|entry| entry.expect("a name").file_name());
        let mut records: Vec<u64> = names
            .filter_map(|name| name.to_str()?.strip_prefix("checkpoint-")?.parse().ok())
            .collect();
        records.sort_unstable_by(|a, b| b.cmp(a));
        records
    }

    /// There while a checkpoint is being written.
    pub fn unfinished_checkpoint(&self) -> PathBuf {
        self.state().join("log/checkpoint.tmp")
    }

    /// Runs `vdfs ARGS --state STATE` to its end.
    pub fn vdfs(&self, args: &[&str]) -> Output {
        self.vdfs_at(&self.state(), args)
    }

    /// The same with another state directory.
    pub fn vdfs_at(&self, state: &Path, args: &[&str]) -> Output {
        let mut command = Command::new(programs::vdfs());
        command.args(args).arg("--state").arg(state);
        command.stdin(Stdio::null()).output().expect("vdfs runs")
    }
}
