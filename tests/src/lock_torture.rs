//! Processes on two mounts count under locks, and are killed in the middle of it.
//!
//! The file holds counters, each with the number of the worker that is at work on it. A worker locks
//! a counter in one of several ways, signs, adds one, takes its name off, unlocks, and says what it
//! has counted. So two holders of one lock show as a name that is still there, though nobody was
//! killed who could have left it; a lost or stale write shows as a number that was counted twice.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::fs::{FlockOperation, flock};

use crate::programs;
use crate::sys::{self, MapKind, Mapping, RangeLock};

/// The name of the file in each directory.
const FILE: &str = "counters";
const COUNTERS: u64 = 6;
/// A worker's number, 0 for none, and the count.
const RECORD_BYTES: u64 = 16;
/// All counters lie in one page, which both mounts cache and map.
const FILE_BYTES: u64 = 4096;
/// A worker that says nothing for this long hangs; a killed mount may hold others up for 14 s.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub time: Duration,
    /// Processes on each mount.
    pub workers: usize,
    pub ways: &'static [Way],
}

/// What was done.
#[derive(Debug, Default)]
pub struct Summary {
    pub counted: u64,
    /// By way of locking.
    pub ways: BTreeMap<String, u64>,
    pub killed: u64,
    /// Workers that ended by themselves: their mount was gone.
    pub failed: u64,
    /// Names that killed workers have left.
    pub left_names: u64,
}

/// Runs workers in one directory, or in two that are one; `disturb` is called a few times a second with the
/// time so far. Panics if something was lost or two have held one lock.
pub fn run(dirs: &[PathBuf], plan: Plan, mut disturb: impl FnMut(Duration)) -> Summary {
    let path = dirs[0].join(FILE);
    fs::write(&path, vec![0; FILE_BYTES as usize]).expect("writes");
    let mut torture = Torture::new(dirs, plan);
    for _ in 0..plan.workers {
        (0..dirs.len()).for_each(|mount| torture.start(mount));
    }
    let begin = Instant::now();
    while begin.elapsed() < plan.time {
        disturb(begin.elapsed());
        torture.take_reports();
        if torture.rng.random_bool(0.5) {
            torture.kill_one();
        }
    }
    torture.end();
    torture.check(&fs::read(&path).expect("reads"));
    std::mem::take(&mut torture.summary)
}

struct Torture {
    dirs: Vec<PathBuf>,
    ways: &'static [Way],
    rng: StdRng,
    workers: BTreeMap<u64, Worker>,
    started: u64,
    reports: Receiver<(u64, Option<String>)>,
    sender: Sender<(u64, Option<String>)>,
    /// Workers that cannot have cleaned up.
    dead: HashSet<u64>,
    /// Names found at a time when their worker was not known to be dead.
    suspicious: Vec<u64>,
    counted: BTreeMap<u64, BTreeSet<u64>>,
    summary: Summary,
}

struct Worker {
    child: Child,
    mount: usize,
    last_heard: Instant,
}

impl Torture {
    fn new(dirs: &[PathBuf], plan: Plan) -> Self {
        let (sender, reports) = mpsc::channel();
        Torture {
            dirs: dirs.to_vec(),
            ways: plan.ways,
            rng: StdRng::seed_from_u64(plan.seed),
            workers: BTreeMap::new(),
            started: 0,
            reports,
            sender,
            dead: HashSet::new(),
            suspicious: Vec::new(),
            counted: BTreeMap::new(),
            summary: Summary::default(),
        }
    }

    fn start(&mut self, mount: usize) {
        self.started += 1;
        let number = self.started;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(programs::lock_counter());
        command.arg(self.dirs[mount].join(FILE));
        command.arg(number.to_string());
        command.args(self.ways.iter().map(|way| format!("{way:?}")));
        command.stdout(Stdio::piped());
        command.stderr(Stdio::null());
        let mut child = command.spawn().expect("a worker starts");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let sender = self.sender.clone();
        thread::spawn(move || {
            let lines = stdout.lines().map_while(Result::ok).map(Some);
            let reports = lines.chain([None]).map(|report| (number, report));
            let heard = reports.map(|report| sender.send(report));
            heard.take_while(Result::is_ok).for_each(drop);
        });
        let worker = Worker {
            child,
            mount,
            last_heard: Instant::now(),
        };
        self.workers.insert(number, worker);
    }

    /// Takes what workers say for a moment.
    fn take_reports(&mut self) {
        let until = Instant::now() + Duration::from_millis(200);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok((number, report)) => self.take(number, report),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => unreachable!("this holds a sender"),
            }
        }
        for (number, worker) in &self.workers {
            let silent = worker.last_heard.elapsed();
            assert!(silent < SILENCE_MAX, "worker {number} hangs for {silent:?}");
        }
    }

    fn take(&mut self, number: u64, report: Option<String>) {
        let Some(report) = report else {
            return self.ended(number);
        };
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.last_heard = Instant::now();
        }
        let words: Vec<&str> = report.split(' ').collect();
        match *words {
            ["counted", way, counter, count] => {
                let (counter, count) = (parse(counter), parse(count));
                let is_new = self.counted.entry(counter).or_default().insert(count);
                assert!(is_new, "counter {counter} was {count} twice, by {way}");
                self.summary.counted += 1;
                *self.summary.ways.entry(way.to_owned()).or_default() += 1;
            }
            ["found", name] => {
                self.summary.left_names += 1;
                if !self.dead.contains(&parse(name)) {
                    self.suspicious.push(parse(name));
                }
            }
            _ => panic!("worker {number}: {report}"),
        }
    }

    /// It has closed its output: killed, or its mount is gone.
    fn ended(&mut self, number: u64) {
        let Some(mut worker) = self.workers.remove(&number) else {
            return;
        };
        worker.child.wait().expect("a child");
        self.dead.insert(number);
        self.summary.failed += 1;
        self.start(worker.mount);
    }

    fn kill_one(&mut self) {
        let index = self.rng.random_range(0..self.workers.len());
        let number = *self.workers.keys().nth(index).expect("in range");
        let mount = self.kill(number);
        self.summary.killed += 1;
        self.start(mount);
    }

    fn kill(&mut self, number: u64) -> usize {
        let mut worker = self.workers.remove(&number).expect("is there");
        // Known before it is, so that what it leaves behind is never suspicious.
        self.dead.insert(number);
        worker.child.kill().expect("alive, or not waited for");
        // On a mount that is gone it may take a moment to die; nobody waits for it here.
        thread::spawn(move || worker.child.wait());
        worker.mount
    }

    fn end(&mut self) {
        let numbers: Vec<u64> = self.workers.keys().copied().collect();
        for number in numbers {
            self.kill(number);
        }
        // The reports that are still in the pipes.
        self.take_reports();
        let file = File::options()
            .read(true)
            .write(true)
            .open(self.dirs[0].join(FILE));
        let everything = sys::lock_range(
            &file.expect("opens"),
            RangeLock::Write,
            (0, 0),
            (true, false),
        );
        everything.expect("the dead hold nothing for ever");
        self.take_reports();
    }

    fn check(&self, bytes: &[u8]) {
        let alive = self
            .suspicious
            .iter()
            .find(|name| !self.dead.contains(name));
        assert_eq!(alive, None, "two held one lock");
        let deaths = self.dead.len() as u64;
        for counter in 0..COUNTERS {
            let at = (counter * RECORD_BYTES) as usize;
            let (_, count) = parts(&bytes[at..at + RECORD_BYTES as usize]);
            let empty = BTreeSet::new();
            let counted = self.counted.get(&counter).unwrap_or(&empty);
            let last = counted.last().copied().unwrap_or(0);
            assert!(
                last <= count && count <= counted.len() as u64 + deaths,
                "counter {counter} is {count}: {} were counted, up to {last}",
                counted.len()
            );
        }
    }
}

impl Drop for Torture {
    fn drop(&mut self) {
        for worker in self.workers.values_mut() {
            drop(worker.child.kill());
        }
    }
}

fn parse(word: &str) -> u64 {
    word.parse().expect("workers print numbers")
}

/// A worker's process: counts until it is killed, or its mount is.
pub fn run_worker(path: &Path, number: u64, mut ways: Vec<Way>) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let maps = (0..COUNTERS).map(|counter| {
        let (offset, len) = (counter * RECORD_BYTES, RECORD_BYTES as usize);
        Mapping::new(&file, MapKind::SharedWrite, offset, len)
    });
    let maps = match maps.collect::<io::Result<Vec<Mapping>>>() {
        // The other mount came first: this one does not map.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Vec::new(),
        maps => maps?,
    };
    if maps.is_empty() {
        ways.retain(|way| *way != Way::Mapped);
    }
    let mut counting = Counting {
        maps,
        ways,
        file,
        number,
        rng: StdRng::seed_from_u64(number),
    };
    loop {
        counting.count()?;
    }
}

struct Counting {
    file: File,
    /// Of each counter, or none.
    maps: Vec<Mapping>,
    ways: Vec<Way>,
    number: u64,
    rng: StdRng,
}

/// How a counter is locked, and how it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `F_SETLKW` of the counter.
    Range,
    /// `F_SETLK` of the counter, until it succeeds.
    Tries,
    /// `flock` of the file.
    Flock,
    /// `F_SETLKW` of the file, counting through a mapping: a page belongs to one mount at a time.
    Mapped,
    /// A shared lock of the counter, which must stand still meanwhile.
    Shared,
}

impl Way {
    pub const ALL: [Way; 5] = [Way::Range, Way::Tries, Way::Flock, Way::Shared, Way::Mapped];

    /// The way of that name, as [`Debug`](std::fmt::Debug) has it.
    pub fn named(name: &str) -> Option<Way> {
        Way::ALL.into_iter().find(|way| format!("{way:?}") == name)
    }
}

impl Counting {
    fn count(&mut self) -> io::Result<()> {
        let way = self.ways[self.rng.random_range(0..self.ways.len())];
        let counter = self.rng.random_range(0..COUNTERS);
        self.lock(way, counter)?;
        let mut report = String::new();
        match way {
            Way::Shared => self.stand_still(counter)?,
            way => {
                let (name, count) = self.get(way, counter)?;
                if name != 0 {
                    report += &format!("found {name}\n");
                }
                self.put(way, counter, (self.number, count))?;
                thread::sleep(Duration::from_micros(self.rng.random_range(0..500)));
                let found = self.get(way, counter)?;
                self.must_be_alone(way, found, (self.number, count))?;
                self.put(way, counter, (0, count + 1))?;
                report += &format!("counted {way:?} {counter} {}\n", count + 1);
            }
        }
        self.unlock(way, counter)?;
        // All at once, and before the next lock: what is printed was done.
        io::stdout().write_all(report.as_bytes())
    }

    fn lock(&self, way: Way, counter: u64) -> io::Result<()> {
        let range = (counter * RECORD_BYTES, RECORD_BYTES);
        let lock = |kind, range, waits| sys::lock_range(&self.file, kind, range, (waits, false));
        match way {
            Way::Range => lock(RangeLock::Write, range, true),
            Way::Shared => lock(RangeLock::Read, range, true),
            Way::Mapped => lock(RangeLock::Write, (0, 0), true),
            Way::Flock => Ok(flock(&self.file, FlockOperation::LockExclusive)?),
            Way::Tries => loop {
                match lock(RangeLock::Write, range, false) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        thread::sleep(Duration::from_millis(1));
                    }
                    outcome => return outcome,
                }
            },
        }
    }

    fn unlock(&self, way: Way, counter: u64) -> io::Result<()> {
        let range = match way {
            Way::Flock => return Ok(flock(&self.file, FlockOperation::Unlock)?),
            Way::Mapped => (0, 0),
            Way::Range | Way::Tries | Way::Shared => (counter * RECORD_BYTES, RECORD_BYTES),
        };
        sys::lock_range(&self.file, RangeLock::Unlock, range, (false, false))
    }

    fn stand_still(&self, counter: u64) -> io::Result<()> {
        let before = self.get(Way::Shared, counter)?;
        thread::sleep(Duration::from_micros(200));
        let found = self.get(Way::Shared, counter)?;
        self.must_be_alone(Way::Shared, found, before)
    }

    /// Otherwise says so, which ends the torture.
    fn must_be_alone(&self, way: Way, found: (u64, u64), expected: (u64, u64)) -> io::Result<()> {
        if found == expected {
            return Ok(());
        }
        writeln!(
            io::stdout(),
            "not alone with {way:?}: {found:?}, not {expected:?}"
        )
    }

    fn get(&self, way: Way, counter: u64) -> io::Result<(u64, u64)> {
        if way == Way::Mapped {
            return Ok(parts(&self.maps[counter as usize].read()));
        }
        let mut bytes = [0; RECORD_BYTES as usize];
        self.file
            .read_exact_at(&mut bytes, counter * RECORD_BYTES)?;
        Ok(parts(&bytes))
    }

    fn put(&mut self, way: Way, counter: u64, (name, count): (u64, u64)) -> io::Result<()> {
        let bytes = [name.to_le_bytes(), count.to_le_bytes()].concat();
        if way == Way::Mapped {
            self.maps[counter as usize].write(&bytes);
            return Ok(());
        }
        self.file.write_all_at(&bytes, counter * RECORD_BYTES)
    }
}

fn parts(record: &[u8]) -> (u64, u64) {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    (number(&record[..8]), number(&record[8..]))
}
