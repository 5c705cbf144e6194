//! Programs at work on the first mount of a cluster while something fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::deadline::eventually;
use crate::programs::shell;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub struct Scripts {
    /// Run on the disk beforehand.
    pub sources: &'static str,
    /// Each runs in a directory of its own on the mount until there is a file `$OUT/stop`, and leaves
    /// `$OUT/NAME.busy` when it is at work.
    pub programs: &'static [(&'static str, &'static str)],
    /// Run in the other mount when all have ended.
    pub verify: &'static str,
    /// How long a program may take to be at work, or to end when it was told to.
    pub patience: Duration,
}

/// The programs at work; killed when dropped.
#[derive(Debug)]
pub struct Workload {
    scripts: Scripts,
    outside: PathBuf,
    programs: Vec<(&'static str, Child)>,
}

impl Workload {
    /// Starts all; returns when each is at work.
    pub fn start(cluster: &Cluster, scripts: Scripts) -> Workload {
        let mut workload = Workload {
            scripts,
            outside: cluster.outside(),
            programs: Vec::new(),
        };
        shell(scripts.sources, &workload.outside);
        for (name, script) in scripts.programs {
            let child = workload.spawn(name, script, &cluster.dir().join(name));
            workload.programs.push((name, child));
        }
        for (name, _) in scripts.programs {
            let busy = workload.outside.join(format!("{name}.busy"));
            eventually(name, scripts.patience, || busy.exists());
        }
        workload
    }

    fn spawn(&self, name: &str, script: &str, dir: &Path) -> Child {
        fs::create_dir(dir).expect("a directory");
        let log = File::create(self.log(name)).expect("a log");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "sh", "-exc", script]);
        command.current_dir(dir).env("OUT", &self.outside);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(log).spawn().expect("starts")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.outside.join(format!("{name}.log"))
    }

    /// Panics if one has ended: nothing may have failed, and nobody has told it to.
    pub fn assert_running(&mut self) {
        for (name, child) in &mut self.programs {
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none(), "{name}: {ended:?}");
        }
    }

    /// Lets each end; panics unless all succeed, and what they wrote is right on the other mount.
    pub fn finish(mut self, cluster: &Cluster) {
        fs::write(self.outside.join("stop"), b"").expect("writes");
        for (name, child) in &mut self.programs {
            let mut status = None;
            eventually(name, self.scripts.patience, || {
                status = child.try_wait().expect("a child");
                status.is_some()
            });
            assert!(status.is_some_and(|status| status.success()), "{name}");
        }
        let script = format!("OUT={:?}\n{}", self.outside, self.scripts.verify);
        shell(&script, &cluster.mounts[1].dir());
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        for (name, child) in &mut self.programs {
            drop(child.kill());
            drop(child.wait());
            if thread::panicking() {
                let log = self.outside.join(format!("{name}.log"));
                let log = fs::read_to_string(log).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                eprintln!("--- {name}, last line first ---\n{}", tail.join("\n"));
            }
        }
    }
}
