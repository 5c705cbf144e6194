//! One program under test: started, killed, stopped and started again by its handle.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::deadline::eventually;
use crate::hosts::Host;

/// How long a start may take on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(40);
/// How much of its log a part shows when a test fails.
const LOG_SHOWN_BYTES: u64 = 20_000;

/// Killed when dropped; its log is printed if the test fails.
#[derive(Debug)]
pub struct Part {
    program: PathBuf,
    arguments: Vec<String>,
    /// Words of the command before the program.
    wrapper: Vec<String>,
    host: Option<Host>,
    /// Standard error of all its lives.
    log: PathBuf,
    /// Where the log of this life begins.
    log_start: u64,
    child: Option<Child>,
    /// From the command to the ready line of the last start.
    pub started_in: Duration,
}

impl Part {
    pub(crate) fn new(program: PathBuf, arguments: Vec<String>, log: PathBuf) -> Part {
        Part {
            program,
            arguments,
            wrapper: Vec::new(),
            host: None,
            log,
            log_start: 0,
            child: None,
            started_in: Duration::ZERO,
        }
    }

    /// The same, on a host of its own.
    pub(crate) fn on(mut self, host: Option<Host>) -> Part {
        self.wrapper = host.as_ref().map(Host::wrapper).unwrap_or_default();
        self.host = host;
        self
    }

    pub(crate) fn arguments(&self) -> &[String] {
        &self.arguments
    }

    pub(crate) fn add_argument(&mut self, argument: &str) {
        self.arguments.push(argument.to_owned());
    }

    pub(crate) fn wrapper(&self) -> &[String] {
        &self.wrapper
    }

    /// Begins each further life with these words before its command.
    pub(crate) fn wrap(&mut self, wrapper: Vec<String>) {
        self.wrapper = wrapper;
    }

    pub(crate) fn set_arguments(&mut self, arguments: Vec<String>) {
        self.arguments = arguments;
    }

    /// Where it runs; panics if that is simply this machine.
    pub fn host(&self) -> &Host {
        self.host.as_ref().expect("parts have hosts of their own")
    }

    /// Starts it and waits until it serves; gives its ready line.
    ///
    /// It dies with the thread that called this.
    pub fn start(&mut self) -> String {
        let begin = Instant::now();
        let lines = self.launch();
        let line = lines.recv_timeout(START_LIMIT);
        let line = line.ok().filter(|line| line.starts_with("ready "));
        self.started_in = begin.elapsed();
        line.unwrap_or_else(|| panic!("{}: no ready line", self.log.display()))
    }

    fn launch(&mut self) -> mpsc::Receiver<String> {
        assert!(self.child.is_none(), "still running");
        let mut log = OpenOptions::new();
        let log = log.create(true).append(true).open(&self.log);
        let log = log.expect("a log");
        self.log_start = log.metadata().expect("a log has a length").len();
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(log).spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        self.child = Some(child);
        lines_of(stdout)
    }

    /// The command of this part; what it starts dies with the thread that starts it.
    fn command(&self) -> Command {
        let wrapper = self.wrapper.iter().map(String::as_str);
        let mut words = wrapper.chain(["setpriv", "--pdeathsig", "KILL", "--"]);
        let mut command = Command::new(words.next().expect("at least setpriv"));
        command.args(words).arg(&self.program).args(&self.arguments);
        command
    }

    /// Runs the same command to its end, for starts that are refused.
    pub fn run(&self) -> Output {
        self.command().output().expect("the program starts")
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("running"))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process is there");
    }

    /// Stops it where it stands, as a machine that is suspended.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// `kill -9`, and waits for the process to be gone.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().expect("the process is there");
        child.wait().expect("a child can be waited for");
    }

    /// SIGTERM; gives the exit status and what this life said on standard error.
    pub fn stop(&mut self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        self.wait(Duration::from_secs(15))
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self, limit: Duration) -> (ExitStatus, String) {
        let mut child = self.child.take().expect("running");
        let mut status = None;
        eventually("the program ends", limit, || {
            status = child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        (status.expect("just seen"), self.stderr())
    }

    /// What this life has said on standard error.
    pub fn stderr(&self) -> String {
        read_from(&self.log, self.log_start)
    }

    fn show_log(&self) {
        let len = fs::metadata(&self.log).map_or(0, |log| log.len());
        let text = read_from(&self.log, len.saturating_sub(LOG_SHOWN_BYTES));
        eprintln!("--- {} ---\n{text}", self.log.display());
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if thread::panicking() {
            self.show_log();
        }
    }
}

fn read_from(path: &Path, start: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        file.seek(SeekFrom::Start(start)).expect("a log seeks");
        file.read_to_end(&mut bytes).expect("a log reads");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Gives the lines of a program's standard output, and reads on when nobody listens any more.
fn lines_of(stdout: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            drop(sender.send(line));
        }
    });
    receiver
}
