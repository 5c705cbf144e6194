//! One `vdfs up`, as a user runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::filesystem::Options;
use crate::mount::{Access, Mount, path_text};
use crate::part::Part;
use crate::programs;
use crate::scratch::Scratch;

/// A running or stopped `vdfs up`; whatever happens, dropping it leaves no process, no mount, no
/// RAM and no file.
#[derive(Debug)]
pub struct Up {
    pub part: Part,
    mounts: AtomicU32,
    scratch: Scratch,
}

impl Up {
    pub fn start(options: Options) -> Up {
        Up::start_with(options, &[])
    }

    /// As [`Up::start`], with further arguments.
    pub fn start_with(options: Options, extra: &[&str]) -> Up {
        let scratch = Scratch::new();
        let mut arguments = arguments(scratch.path(), &options);
        arguments.extend(extra.iter().map(|&word| word.to_owned()));
        let log = scratch.path().join("up.log");
        let mut up = Up {
            part: Part::new(programs::vdfs(), arguments, log),
            mounts: AtomicU32::new(0),
            scratch,
        };
        up.run_again();
        up
    }

    /// Starts it again after a stop or a kill, with the same arguments; panics unless it is ready
    /// in time.
    pub fn run_again(&mut self) {
        self.part.start();
    }

    /// One more argument for the starts to come.
    pub fn add_argument(&mut self, argument: &str) {
        self.part.add_argument(argument);
    }

    pub fn mount(&self) -> PathBuf {
        self.scratch.path().join("mnt")
    }

    pub fn state(&self) -> PathBuf {
        self.scratch.path().join("state")
    }

    /// A directory on the disk beside the mount.
    pub fn outside(&self) -> PathBuf {
        let dir = self.scratch.path().join("outside");
        std::fs::create_dir_all(&dir).expect("a directory on the disk");
        dir
    }

    /// Another mount, in a process of its own, over QUIC.
    pub fn second_mount(&self) -> Mount {
        self.second_mount_with("")
    }

    /// The same with options, as after `-o`.
    pub fn second_mount_with(&self, options: &str) -> Mount {
        let addr = std::fs::read_to_string(self.state().join("addr")).expect("its address");
        let access = Access {
            master: addr.trim().to_owned(),
            identity: self.state().join("identity-client"),
            host: None,
            options: options.to_owned(),
        };
        let number = self.mounts.fetch_add(1, Ordering::Relaxed);
        Mount::start(self.scratch.path(), &format!("second-{number}"), access)
    }

    pub fn pid(&self) -> Pid {
        self.part.pid()
    }

    pub fn signal(&self, signal: Signal) {
        self.part.signal(signal);
    }

    /// `kill -9`, and waits for the process to be gone.
    pub fn kill9(&mut self) {
        self.part.kill9();
    }

    /// SIGTERM; gives the exit status and standard error.
    pub fn stop(&mut self) -> (ExitStatus, String) {
        self.part.stop()
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self, limit: Duration) -> (ExitStatus, String) {
        self.part.wait(limit)
    }

    /// Runs `vdfs ARGS --state STATE` to its end.
    pub fn vdfs(&self, args: &[&str]) -> Output {
        let mut command = Command::new(programs::vdfs());
        command
            .args(args)
            .arg("--state")
            .arg(self.state())
            .stdin(Stdio::null());
        command.output().expect("vdfs runs")
    }
}

fn arguments(scratch: &Path, options: &Options) -> Vec<String> {
    let mut arguments: Vec<String> = vec!["up".into(), path_text(&scratch.join("mnt"))];
    arguments.extend(["--state".into(), path_text(&scratch.join("state"))]);
    arguments.extend(["--ram".into(), options.ram_text()]);
    arguments.extend(["--volumes".into(), options.volumes.to_string()]);
    arguments.extend(["--chunk-size".into(), options.chunk_size.into()]);
    arguments
}
