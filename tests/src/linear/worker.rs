//! The clients' process: system calls, each told of when it begins and when it has returned.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::time::{ClockId, clock_gettime};

use super::history::{Answer, Call, End, Record, Register, Value};

const BLOCK_BYTES: usize = 4096;
/// No power of two, so that records cross blocks and chunks.
const RECORD_BYTES: usize = 3000;
/// Of a chunk of 256 KiB.
const CHUNK_BLOCKS: u32 = 64;
/// Two neighbours, two on both sides of a border, one alone.
const REGISTERS: [Register; 5] = [
    Register(0),
    Register(1),
    Register(CHUNK_BLOCKS - 1),
    Register(CHUNK_BLOCKS),
    Register(2 * CHUNK_BLOCKS + 2),
];
/// In two chunks.
const BORDER: [Register; 2] = [REGISTERS[2], REGISTERS[3]];
/// Between attempts to open the files again.
const OPEN_INTERVAL: Duration = Duration::from_millis(50);

/// What one process does.
#[derive(Clone, Debug)]
pub struct Work {
    /// Where [`make`] has made the files.
    pub dir: PathBuf,
    /// Which mount that is.
    pub mount: u32,
    /// Clients have numbers from here on, which no other process of the history has.
    pub first_client: u32,
    pub clients: u32,
    pub seed: u64,
    /// Clients wait for the next multiple of this every other call, so that those of all processes meet.
    pub beat: Duration,
}

/// What the process says of a call: first with no end, and again when it has returned.
pub(super) fn line(record: &Record) -> String {
    serde_json::to_string(record).expect("plain data")
}

/// Makes the files that clients work on.
pub fn make(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir)?;
    let blocks = REGISTERS.iter().map(|register| register.0 + 1).max();
    let bytes = blocks.expect("some") as usize * BLOCK_BYTES;
    let mut file = File::create(dir.join("registers"))?;
    file.write_all(&vec![0; bytes])?;
    file.sync_all()?;
    File::create(dir.join("log"))?.sync_all()
}

/// Reads all of both files once.
pub fn look(dir: &Path, mount: u32) -> io::Result<Vec<Record>> {
    let files = Files::open(dir, mount)?;
    let reads = REGISTERS.map(|register| Call::Read {
        registers: vec![register],
    });
    let calls = reads.into_iter().chain([Call::ReadLog, Call::SizeLog]);
    Ok(calls.map(|call| files.perform(0, call)).collect())
}

/// Works until standard input ends; says of each call when it begins and when it has returned.
pub fn run(work: &Work) -> io::Result<()> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..work.clients {
            let stop = &stop;
            scope.spawn(move || client(work, work.first_client + number, stop));
        }
        drop(io::copy(&mut io::stdin(), &mut io::sink()));
        stop.store(true, Ordering::Relaxed);
    });
    Ok(())
}

fn client(work: &Work, number: u32, stop: &AtomicBool) {
    let mut rng = StdRng::seed_from_u64(work.seed << 32 | u64::from(number));
    let mut values = (1..).map(|count| Value(u64::from(number) << 32 | count));
    let mut files = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = files
            .take()
            .or_else(|| Files::open(&work.dir, work.mount).ok())
        else {
            thread::sleep(OPEN_INTERVAL);
            continue;
        };
        let call = choose(&mut rng, values.next().expect("there is always one more"));
        say(&Record {
            client: number,
            mount: work.mount,
            call: call.clone(),
            begun: now(),
            ended: None,
        });
        let record = open.perform(number, call);
        say(&record);
        // After an error a handle may be of a session that has ended.
        files = (!record.has_failed()).then_some(open);
        if rng.random_bool(0.5) {
            let beat = work.beat.as_nanos() as u64;
            thread::sleep(Duration::from_nanos(beat - now() % beat));
        }
    }
}

fn say(record: &Record) {
    let said = writeln!(io::stdout(), "{}", line(record));
    said.expect("somebody listens");
}

fn choose(rng: &mut StdRng, value: Value) -> Call {
    let registers = vec![REGISTERS[rng.random_range(0..REGISTERS.len())]];
    match rng.random_range(0..100) {
        0..33 => Call::Write { registers, value },
        33..65 => Call::Read { registers },
        65..71 => Call::Write {
            registers: BORDER.to_vec(),
            value,
        },
        71..77 => Call::Read {
            registers: BORDER.to_vec(),
        },
        77..89 => Call::Append { value },
        89..94 => Call::ReadLog,
        _ => Call::SizeLog,
    }
}

/// Nanoseconds that all processes count alike.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Direct reads and writes take whole blocks of memory.
#[repr(align(4096))]
struct Blocks([u8; 2 * BLOCK_BYTES]);

/// The files as one client has opened them.
#[derive(Debug)]
struct Files {
    mount: u32,
    registers: File,
    log: File,
    log_reader: File,
}

impl Files {
    fn open(dir: &Path, mount: u32) -> io::Result<Files> {
        let direct = |write| {
            let mut options = OpenOptions::new();
            options.read(true).write(write).custom_flags(libc::O_DIRECT);
            options
        };
        Ok(Files {
            mount,
            registers: direct(true).open(dir.join("registers"))?,
            log: OpenOptions::new().append(true).open(dir.join("log"))?,
            log_reader: direct(false).open(dir.join("log"))?,
        })
    }

    fn perform(&self, client: u32, call: Call) -> Record {
        let begun = now();
        let answer = match &call {
            Call::Write { registers, value } => self.write(registers, *value),
            Call::Read { registers } => self.read(registers),
            Call::Append { value } => self.append(*value),
            Call::ReadLog => self.read_log(),
            Call::SizeLog => self.size_log(),
        };
        let at = now();
        let answer = answer.unwrap_or_else(|error| {
            Answer::Failed(error.raw_os_error().expect("the kernel has refused"))
        });
        Record {
            client,
            mount: self.mount,
            call,
            begun,
            ended: Some(End { at, answer }),
        }
    }

    fn write(&self, registers: &[Register], value: Value) -> io::Result<Answer> {
        let mut blocks = Blocks([0; 2 * BLOCK_BYTES]);
        fill(&mut blocks.0, value);
        let bytes = &blocks.0[..registers.len() * BLOCK_BYTES];
        let written = self.registers.write_at(bytes, offset(registers))?;
        assert_eq!(written, bytes.len(), "a write is whole or fails");
        Ok(Answer::Done)
    }

    fn read(&self, registers: &[Register]) -> io::Result<Answer> {
        let mut blocks = Blocks([0; 2 * BLOCK_BYTES]);
        let bytes = &mut blocks.0[..registers.len() * BLOCK_BYTES];
        let read = self.registers.read_at(bytes, offset(registers))?;
        assert_eq!(read, bytes.len(), "the file is longer");
        Ok(values(bytes, BLOCK_BYTES))
    }

    fn append(&self, value: Value) -> io::Result<Answer> {
        let mut bytes = [0; RECORD_BYTES];
        fill(&mut bytes, value);
        let written = (&self.log).write(&bytes)?;
        assert_eq!(written, bytes.len(), "an append is whole or fails");
        Ok(Answer::Done)
    }

    fn read_log(&self) -> io::Result<Answer> {
        let mut bytes = vec![0; self.log_reader.metadata()?.len() as usize];
        let mut len = 0;
        while len < bytes.len() {
            match self.log_reader.read_at(&mut bytes[len..], len as u64)? {
                0 => break,
                read => len += read,
            }
        }
        Ok(values(&bytes[..len], RECORD_BYTES))
    }

    fn size_log(&self) -> io::Result<Answer> {
        let len = self.log.metadata()?.len();
        let records = len / RECORD_BYTES as u64;
        Ok(match len % RECORD_BYTES as u64 {
            0 => Answer::Count(records),
            _ => Answer::Torn(format!("{len} bytes")),
        })
    }
}

fn offset(registers: &[Register]) -> u64 {
    u64::from(registers[0].0) * BLOCK_BYTES as u64
}

fn fill(bytes: &mut [u8], value: Value) {
    let words = bytes.chunks_exact_mut(8);
    words.for_each(|word| word.copy_from_slice(&value.0.to_le_bytes()));
}

/// The values of blocks or records of `step` bytes each.
fn values(bytes: &[u8], step: usize) -> Answer {
    let mut values = Vec::new();
    for part in bytes.chunks(step) {
        let words = part.chunks(8).map(|word| {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            u64::from_le_bytes(bytes)
        });
        let mut words: Vec<u64> = words.collect();
        words.dedup();
        match words[..] {
            [value] if part.len() == step => values.push(Value(value)),
            _ => return Answer::Torn(format!("part {}: {words:x?}", values.len())),
        }
    }
    Answer::Values(values)
}
