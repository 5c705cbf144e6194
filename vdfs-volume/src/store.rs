//! The chunk store: bytes of chunks in a tmpfs, with their versions, sums and retry records.
//!
//! | in the directory | what | size |
//! |---|---|---|
//! | `store` | [store id, format, chunk size](header) | 36 bytes |
//! | `index` | [two records a chunk](record), written in turn | 128 bytes a chunk |
//! | `sums` | [CRC32C of each 4 KiB block](sums), in leaves of 13 | 0.12 % of the data |
//! | `replies` | [what each op was answered](replies) | 64 bytes a (session, slot), fixed |
//! | `reaped` | [data ids reaped lately](reaped) | 16 bytes an id, fixed |
//! | `chunks/` | [one sparse file a chunk](files) | its pages, and 1 KiB of kernel memory |
//!
//! Invariants:
//! - Bytes past a chunk's length are zero, and blocks wholly past it are absent.
//! - A change goes: record it, change the bytes, change the sums, record it as done with its op,
//!   record the reply. A process killed between any two leaves what [`recovery`] can finish, and
//!   never harms a byte outside the change's range.
//! - All that a change needs is reserved before it is recorded. Refusals come before; after that it
//!   cannot fail: an error of the kernel then ends the process.
//! - What the budget counts is at least what the tmpfs uses.
//!
//! Left out: who may write, in which epoch, and what is a retry (`chain`), and how bytes get here
//! (`service`).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use vdfs_proto::limits::VOLUME_REPLIES_MAX;
use vdfs_proto::{ChainId, ChunkId, ChunkSize, DataId, OpId, SessionId, Status, StoreId};

use crate::chain::{Outcome, Reply};
use crate::limits;

mod budget;
mod chunks;
mod copy;
mod files;
mod header;
mod heal;
mod inventory;
mod job;
mod memory;
mod merge;
mod plan;
mod read;
mod reap;
mod reaped;
mod record;
mod recovery;
mod replies;
mod scrub;
mod seek;
mod space;
pub mod steps;
mod sums;
mod supply;
mod table;
mod trim;
mod write;

use budget::Budget;
use chunks::{Body, ChunkMap};
use files::ChunkFiles;
use header::Header;
use plan::HeldPlans;
use reaped::{REAPED_BYTES, Reaped};
use record::{Content, ENTRY_BYTES, RECORD_BYTES, Record};
use replies::{REPLY_BYTES, Replies};
use steps::{Step, Steps};
use sums::{LEAF_BYTES, SumTable};
use table::Table;

pub use heal::Looked;
pub use job::Job;
pub use merge::Difference;
pub use recovery::Recovery;
pub(crate) use scrub::{ScrubCursor, ScrubbedPiece};
pub(crate) use supply::{Piece, is_sound};

/// Memory of one chunk beside its pages and tables, in bytes.
const CHUNK_BYTES: u64 = limits::CHUNK_KERNEL_BYTES + limits::CHUNK_HEAP_BYTES;
const PAGE_BYTES: u64 = vdfs_proto::chunk::BLOCK_BYTES as u64;
/// What an empty store takes beside its tables: the header, also while it is replaced, and the
/// kernel's memory of directories and tables.
const FIXED_BYTES: u64 = 2 * PAGE_BYTES + (files::DIRECTORIES + 8) * limits::CHUNK_KERNEL_BYTES;

/// How long the lock of an earlier process is waited for: a killed one may still be ending, and one
/// that is forked holds it until it executes its program.
const LOCK_WAIT: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// Another process has the store open.
    #[error("{}: in use by another process", path.display())]
    InUse { path: PathBuf },
    #[error("{}: damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: &'static str },
    #[error(
        "a budget of {asked} bytes is too small, at least {} are needed",
        limits::BUDGET_BYTES_MIN
    )]
    BudgetTooSmall { asked: u64 },
    #[error("the store has chunks of {stored:?}, the filesystem of {asked:?}")]
    OtherChunkSize { stored: ChunkSize, asked: ChunkSize },
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The contract: all that the store may take of the RAM, in bytes.
    pub budget_bytes: u64,
    /// Others may take the room of the tmpfs.
    pub is_shared: bool,
    pub steps: Arc<dyn Steps>,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What chunks may take, in bytes.
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    pub chunks: u64,
}

/// The chunks of one volume. All methods are synchronous and may be called from any thread.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    id: StoreId,
    chunk_size: OnceLock<ChunkSize>,
    budget: Budget,
    chunks: ChunkMap,
    files: ChunkFiles,
    index: Table,
    sums: SumTable,
    replies: Replies,
    reaped: Reaped,
    held: HeldPlans,
    steps: Arc<dyn Steps>,
    /// Held as long as the store lives.
    _lock: File,
}

impl Store {
    /// Opens the store in `directory`, or makes one there, and finishes what was interrupted.
    pub fn open(directory: &Path, config: StoreConfig) -> Result<(Self, Recovery), StoreError> {
        if config.budget_bytes < limits::BUDGET_BYTES_MIN {
            return Err(StoreError::BudgetTooSmall {
                asked: config.budget_bytes,
            });
        }
        let lock = lock_directory(directory)?;
        let header = read_or_make_header(directory)?;
        let io_error = |source| StoreError::Io {
            path: directory.to_owned(),
            source,
        };
        let store = Store::assemble(directory, header, config, lock).map_err(io_error)?;
        let recovery = store.recover().map_err(io_error)?;
        Ok((store, recovery))
    }

    fn assemble(
        directory: &Path,
        header: Header,
        config: StoreConfig,
        lock: File,
    ) -> io::Result<Self> {
        let budget = Budget::new(config.budget_bytes);
        budget.charge(FIXED_BYTES);
        let open = |name: &str, record_bytes: usize| {
            Table::open(
                table_file(&directory.join(name))?,
                record_bytes as u64,
                &budget,
            )
        };
        let index = open("index", ENTRY_BYTES)?;
        let sums = SumTable::new(open("sums", LEAF_BYTES)?);
        let replies = open("replies", REPLY_BYTES)?;
        replies.preallocate(replies_max(config.budget_bytes), &budget)?;
        let reaped = open("reaped", REAPED_BYTES)?;
        reaped.preallocate(reaped_max(config.budget_bytes), &budget)?;
        let chunk_size = OnceLock::new();
        if let Some(known) = header.chunk_size {
            chunk_size.set(known).expect("set once");
        }
        Ok(Store {
            directory: directory.to_owned(),
            id: header.id,
            chunk_size,
            chunks: ChunkMap::new(),
            files: ChunkFiles::open(directory.join("chunks"), config.is_shared)?,
            index,
            sums,
            replies: Replies::load(replies),
            reaped: Reaped::load(reaped),
            held: HeldPlans::default(),
            budget,
            steps: config.steps,
            _lock: lock,
        })
    }

    pub fn id(&self) -> StoreId {
        self.id
    }

    pub fn usage(&self) -> Usage {
        Usage {
            capacity_bytes: self.budget.limit(),
            used_bytes: self.budget.used(),
            chunks: self.chunks.len(),
        }
    }

    /// The highest data id that has a chunk here.
    pub fn data_id_max(&self) -> DataId {
        self.chunks.data_id_max()
    }

    /// Fixes the size of chunks, for ever, when the first master tells it.
    pub fn adopt_chunk_size(&self, asked: ChunkSize) -> Result<(), StoreError> {
        if let Some(stored) = self.chunk_size.get().copied() {
            if stored == asked {
                return Ok(());
            }
            return Err(StoreError::OtherChunkSize { stored, asked });
        }
        let header = Header {
            id: self.id,
            chunk_size: Some(asked),
        };
        header.write(&self.directory)?;
        let stored = *self.chunk_size.get_or_init(|| asked);
        assert_eq!(stored, asked, "one master tells it");
        Ok(())
    }

    /// Bytes of a chunk; `NotServing` until a master has told it.
    fn chunk_bytes(&self) -> Result<u32, Status> {
        let size = self.chunk_size.get().ok_or(Status::NotServing)?;
        Ok(size.bytes())
    }

    /// Little room is left: writers should write through.
    pub fn is_low(&self) -> bool {
        self.budget.is_low()
    }

    /// What ops were answered, as far as it was found when the store was opened.
    pub fn replies(&self) -> Vec<Reply> {
        self.replies.found()
    }

    /// Retry records there is room for.
    pub fn replies_max(&self) -> usize {
        self.replies.capacity()
    }

    /// Keeps a copy of what an op was answered.
    pub fn record_reply(&self, op: OpId, (chain, chunk): (ChainId, ChunkId), outcome: Outcome) {
        self.keep_reply(Reply {
            op,
            chain: Some(chain),
            outcome: Some(outcome),
        });
        self.passed(Step::Replied, chunk);
    }

    /// The same of an op that was answered elsewhere.
    pub(crate) fn keep_reply(&self, reply: Reply) {
        self.replies.record(reply);
    }

    /// Keeps of this op only that earlier ones of its slot are over.
    pub(crate) fn forget_reply(&self, op: OpId) {
        self.replies.record(Reply {
            op,
            chain: None,
            outcome: None,
        });
    }

    /// Drops the retry records of all sessions but those for which `is_live` says so.
    pub fn keep_sessions(&self, is_live: impl Fn(SessionId) -> bool) {
        self.replies.keep_sessions(is_live);
    }

    /// Drops the retry records of a session that has ended.
    pub fn forget_session(&self, session: SessionId) {
        self.replies.forget_session(session);
    }

    fn passed(&self, step: Step, chunk: ChunkId) {
        self.steps.passed(step, chunk);
    }

    /// Writes the chunk's next record, in the place of the older one.
    fn record(&self, body: &mut Body, content: Content) {
        let entry = body.entry.expect("a chunk that changes has an entry");
        body.sequence = body.sequence.wrapping_add(1);
        let record = Record {
            sequence: body.sequence,
            chunk: body.id,
            chain: body.chain,
            content,
        };
        let place = u64::from(body.sequence % 2) * RECORD_BYTES as u64;
        self.index.write_part(entry, place, &record.encode());
    }

    /// Brings what the budget counts for a chunk's pages to `bytes`.
    fn recharge(&self, body: &mut Body, bytes: u64) {
        if bytes > body.charged {
            self.budget.charge(bytes - body.charged);
        } else {
            self.budget.release(body.charged - bytes);
        }
        body.charged = bytes;
    }
}

/// Retry records of a volume: at most a 64th of its budget.
fn replies_max(budget_bytes: u64) -> u32 {
    let fraction = budget_bytes / 64 / REPLY_BYTES as u64;
    fraction.min(u64::from(VOLUME_REPLIES_MAX)) as u32
}

/// Reaped ids of a volume: at most a 1024th of its budget, but a page.
fn reaped_max(budget_bytes: u64) -> u32 {
    let fraction = budget_bytes / 1024 / REAPED_BYTES as u64;
    let page = PAGE_BYTES / REAPED_BYTES as u64;
    fraction.clamp(page, u64::from(limits::REAPED_IDS_MAX)) as u32
}

/// The exclusive lock proves that every earlier process of this store is dead.
fn lock_directory(directory: &Path) -> Result<File, StoreError> {
    let path = directory.to_owned();
    let opened = File::open(directory).map_err(|source| StoreError::Io {
        path: path.clone(),
        source,
    })?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(opened),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(LOCK_PAUSE),
            Err(Errno::WOULDBLOCK) => return Err(StoreError::InUse { path }),
            Err(error) => {
                let source = error.into();
                return Err(StoreError::Io { path, source });
            }
        }
    }
}

fn read_or_make_header(directory: &Path) -> Result<Header, StoreError> {
    if let Some(header) = Header::read(directory)? {
        return Ok(header);
    }
    let index = directory.join("index");
    if fs::metadata(&index).is_ok_and(|meta| meta.len() > 0) {
        return Err(StoreError::Damaged {
            path: directory.to_owned(),
            why: "it has chunks but no file `store`",
        });
    }
    let header = Header {
        id: StoreId(rand::random()),
        chunk_size: None,
    };
    header.write(directory)?;
    Ok(header)
}

fn table_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(0o600).open(path)
}
