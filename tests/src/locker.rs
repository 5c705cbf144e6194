//! A process that locks files as it is told: `fcntl(2)` locks belong to processes.
//!
//! It takes a line for each call, and answers it with a line: `ok`, what was asked for, or
//! `errno N`. The file of a call is one that it has opened before, by the name it was given.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::programs;
use crate::sys::{self, MapKind, Mapping, RangeLock};

/// How long an answer may take that waits for nobody.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A locker at work; killed when dropped.
#[derive(Debug)]
pub struct Locker {
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<String>,
}

impl Locker {
    /// Starts one that has `path` open for reading and writing under the name `f`.
    pub fn on(path: &Path) -> Locker {
        let mut locker = Locker::start();
        locker.ok(&format!("open f {}", path.display()));
        locker
    }

    pub fn start() -> Locker {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(programs::locker());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the locker starts");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = stdout.lines().map_while(Result::ok);
            lines.all(|line| sender.send(line).is_ok())
        });
        Locker {
            stdin: child.stdin.take().expect("stdin is piped"),
            child,
            answers,
        }
    }

    /// Begins a call whose answer is fetched later.
    pub fn tell(&mut self, call: &str) {
        writeln!(self.stdin, "{call}").expect("the locker listens");
    }

    /// The answer to the call before, if it comes within `limit`.
    pub fn answer_within(&self, limit: Duration) -> Option<String> {
        self.answers.recv_timeout(limit).ok()
    }

    pub fn ask(&mut self, call: &str) -> String {
        self.tell(call);
        let answer = self.answer_within(ANSWER_MAX);
        answer.unwrap_or_else(|| panic!("{call}: no answer"))
    }

    /// Panics unless the call succeeds.
    pub fn ok(&mut self, call: &str) {
        assert_eq!(self.ask(call), "ok", "{call}");
    }

    /// Panics unless the call before succeeds within `limit`.
    pub fn ok_within(&self, limit: Duration) {
        let begin = Instant::now();
        let answer = self.answer_within(limit);
        assert_eq!(answer.as_deref(), Some("ok"), "after {:?}", begin.elapsed());
    }

    /// Panics unless the call is refused with `errno`.
    pub fn refused(&mut self, call: &str, errno: i32) {
        assert_eq!(self.ask(call), format!("errno {errno}"), "{call}");
    }

    /// Panics if the call before is answered.
    pub fn waits(&self) {
        let answer = self.answer_within(Duration::from_millis(300));
        assert_eq!(answer, None, "it should wait");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("is there");
    }

    pub fn is_gone(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// `kill -9`; waits for the end.
    pub fn kill9(mut self) {
        self.child.kill().expect("alive");
        self.child.wait().expect("a child");
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The process.
pub fn run_locker() -> io::Result<()> {
    let mut open = Open::default();
    let mut stdout = io::stdout();
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match open.call(&words) {
            Ok(answer) => answer,
            Err(error) => format!("errno {}", error.raw_os_error().unwrap_or_default()),
        };
        writeln!(stdout, "{answer}")?;
    }
    Ok(())
}

#[derive(Default)]
struct Open {
    files: HashMap<String, File>,
    mappings: HashMap<String, Mapping>,
}

impl Open {
    fn call(&mut self, words: &[&str]) -> io::Result<String> {
        let name = words.get(1).copied().unwrap_or_default();
        match *words {
            ["open", _, path] => self.open(name, OpenOptions::new().write(true), path)?,
            ["open-to-read", _, path] => self.open(name, &mut OpenOptions::new(), path)?,
            ["close", _] => self.close(name)?,
            ["interrupt-after", secs] => sys::interrupt_after(number(secs) as u32)?,
            ["read", _, offset, len] => return self.read(name, number(offset), number(len)),
            ["write", _, offset, text] => {
                self.file(name)
                    .write_all_at(text.as_bytes(), number(offset))?;
            }
            ["map", _, len] => self.map(name, number(len))?,
            ["map-read", _] => return Ok(text(self.mappings[name].read())),
            ["map-write", _, text] => {
                let mapping = self.mappings.get_mut(name).expect("mapped before");
                mapping.write(text.as_bytes());
            }
            ["flock", _, operation] => flock(self.file(name), flock_operation(operation))?,
            ["test", _, kind, first, len] => return self.test(name, kind, (first, len)),
            [how, _, kind, first, len] => self.lock(name, how, kind, (first, len))?,
            _ => panic!("not a call: {words:?}"),
        }
        Ok("ok".to_owned())
    }

    fn open(&mut self, name: &str, how: &mut OpenOptions, path: &str) -> io::Result<()> {
        let file = how.read(true).open(path)?;
        self.files.insert(name.to_owned(), file);
        Ok(())
    }

    fn close(&mut self, name: &str) -> io::Result<()> {
        self.mappings.remove(name);
        sys::close(self.files.remove(name).expect("opened before"))
    }

    fn file(&self, name: &str) -> &File {
        &self.files[name]
    }

    fn read(&self, name: &str, offset: u64, len: u64) -> io::Result<String> {
        let mut bytes = vec![0; len as usize];
        let read = self.file(name).read_at(&mut bytes, offset)?;
        bytes.truncate(read);
        Ok(text(bytes))
    }

    fn map(&mut self, name: &str, len: u64) -> io::Result<()> {
        let mapping = Mapping::new(self.file(name), MapKind::SharedWrite, 0, len as usize)?;
        self.mappings.insert(name.to_owned(), mapping);
        Ok(())
    }

    fn lock(&self, name: &str, how: &str, kind: &str, range: (&str, &str)) -> io::Result<()> {
        let (waits, is_ofd) = match how {
            "lock" => (true, false),
            "try" => (false, false),
            "try-ofd" => (false, true),
            _ => panic!("not a way to lock: {how}"),
        };
        let range = (number(range.0), number(range.1));
        sys::lock_range(self.file(name), range_lock(kind), range, (waits, is_ofd))
    }

    fn test(&self, name: &str, kind: &str, range: (&str, &str)) -> io::Result<String> {
        let range = (number(range.0), number(range.1));
        let found = sys::test_range(self.file(name), range_lock(kind), range)?;
        Ok(found.map_or("free".to_owned(), |lock| {
            let kind = if lock.is_write { "w" } else { "r" };
            format!("{kind} {} {} {}", lock.first, lock.len, lock.pid)
        }))
    }
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("texts are written")
}

fn range_lock(kind: &str) -> RangeLock {
    match kind {
        "r" => RangeLock::Read,
        "w" => RangeLock::Write,
        "un" => RangeLock::Unlock,
        _ => panic!("not a kind of lock: {kind}"),
    }
}

fn flock_operation(operation: &str) -> FlockOperation {
    match operation {
        "sh" => FlockOperation::LockShared,
        "ex" => FlockOperation::LockExclusive,
        "try-sh" => FlockOperation::NonBlockingLockShared,
        "try-ex" => FlockOperation::NonBlockingLockExclusive,
        "un" => FlockOperation::Unlock,
        _ => panic!("not an operation: {operation}"),
    }
}
