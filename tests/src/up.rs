//! One `vdfs up`, as a user runs it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cgroup::MemoryCgroup;
use crate::deadline::eventually;
use crate::programs;

/// How long a first start may take on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct UpOptions {
    pub ram: &'static str,
    pub volumes: u32,
    pub chunk_size: &'static str,
    /// Further arguments of `vdfs up`.
    pub extra: Vec<String>,
}

impl Default for UpOptions {
    fn default() -> Self {
        // Small chunks, so that ordinary files have several and every border is crossed.
        UpOptions {
            ram: "256MiB",
            volumes: 2,
            chunk_size: "256KiB",
            extra: Vec::new(),
        }
    }
}

/// A running or stopped `vdfs up`; whatever happens, dropping it leaves no process, no mount, no
/// RAM and no file.
#[derive(Debug)]
pub struct Up {
    options: UpOptions,
    scratch: TempDir,
    child: Option<Child>,
    stderr: Option<thread::JoinHandle<String>>,
    /// From the command to the ready line of the last start.
    pub started_in: Duration,
}

impl Up {
    pub fn start(options: UpOptions) -> Up {
        let scratch = tempfile::Builder::new().prefix("vdfs-test-").tempdir();
        let mut up = Up {
            options,
            scratch: scratch.expect("a scratch directory"),
            child: None,
            stderr: None,
            started_in: Duration::ZERO,
        };
        up.run_again();
        up
    }

    /// Starts it again after a stop or a kill, with the same arguments; panics unless it is ready
    /// in time.
    pub fn run_again(&mut self) {
        self.launch(None);
    }

    /// As [`Up::run_again`], with the process in a cgroup from its first instruction.
    pub fn run_again_in(&mut self, cgroup: &MemoryCgroup) {
        self.launch(Some(cgroup));
    }

    fn launch(&mut self, cgroup: Option<&MemoryCgroup>) {
        assert!(self.child.is_none(), "still running");
        let start = Instant::now();
        let mut command = self.command(cgroup);
        let mut child = command.spawn().expect("vdfs starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut stderr = child.stderr.take().expect("stderr is piped");
        self.stderr = Some(thread::spawn(move || {
            let mut text = String::new();
            drop(stderr.read_to_string(&mut text));
            text
        }));
        self.child = Some(child);
        match first_line(stdout).recv_timeout(START_LIMIT) {
            Ok(line) if line.starts_with("ready ") => {}
            other => panic!(
                "no ready line but {other:?}: {}",
                self.kill_and_read_stderr()
            ),
        }
        self.started_in = start.elapsed();
    }

    fn command(&self, cgroup: Option<&MemoryCgroup>) -> Command {
        // A test runner that is killed must not leave a mount behind.
        let mut command = match cgroup {
            Some(cgroup) => cgroup.command("setpriv"),
            None => Command::new("setpriv"),
        };
        command
            .args(["--pdeathsig", "TERM", "--"])
            .arg(programs::vdfs());
        command
            .args(self.arguments())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The arguments of `vdfs` for this `up`.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = ["up".into(), path_text(&self.mount())].into();
        arguments.extend(["--state".into(), path_text(&self.state())]);
        arguments.extend(["--ram".into(), self.options.ram.into()]);
        arguments.extend(["--volumes".into(), self.options.volumes.to_string()]);
        arguments.extend(["--chunk-size".into(), self.options.chunk_size.into()]);
        arguments.extend(self.options.extra.iter().cloned());
        arguments
    }

    pub fn options_mut(&mut self) -> &mut UpOptions {
        &mut self.options
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

    pub fn pid(&self) -> Pid {
        let child = self.child.as_ref().expect("running");
        Pid::from_child(child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process is there");
    }

    /// `kill -9`, and waits for the process to be gone.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().expect("the process is there");
        child.wait().expect("a child can be waited for");
        self.stderr = None;
    }

    /// SIGTERM; gives the exit status and standard error.
    pub fn stop(&mut self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        self.wait(Duration::from_secs(15))
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self, limit: Duration) -> (ExitStatus, String) {
        let mut child = self.child.take().expect("running");
        let mut status = None;
        eventually("vdfs up ends", limit, || {
            status = child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        let stderr = self.stderr.take().expect("read since the start");
        let text = stderr.join().expect("a reader does not panic");
        (status.expect("just seen"), text)
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

    fn kill_and_read_stderr(&mut self) -> String {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        self.stderr
            .take()
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let stderr = self.kill_and_read_stderr();
        if thread::panicking() && !stderr.is_empty() {
            eprintln!("--- standard error of vdfs up ---\n{stderr}");
        }
        unmount_lazily(&self.mount());
        unmount_lazily(&self.state().join("ram"));
    }
}

/// Detaches what is mounted at `dir`, if anything is.
pub fn unmount_lazily(dir: &Path) {
    let quiet = Command::new("umount")
        .arg("-l")
        .arg(dir)
        .stderr(Stdio::null())
        .status();
    drop(quiet);
}

pub(crate) fn path_text(path: &Path) -> String {
    path.to_str().expect("scratch paths are plain").to_owned()
}

/// Gives the first line of a program's standard output, and reads the rest away.
pub(crate) fn first_line(stdout: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            drop(sender.send(line));
        }
    });
    receiver
}
