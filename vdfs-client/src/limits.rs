//! Bounds of this crate, each with its reason.

use std::time::Duration;

use vdfs_proto::limits::{
    DATA_SLOTS_PER_SESSION, REQUESTS_PER_CONNECTION_MAX, WRITE_BEHIND_BYTES_MAX,
};

/// Bytes of one write to a volume: headers cost nothing at this length, and many fly at once.
pub(crate) const RUN_BYTES_MAX: usize = 1 << 20;
/// A run up to this long is sent by the thread that waits for it: to copy it takes less time than to
/// wake another one. Longer ones are better copied side by side.
pub(crate) const SHORT_RUN_BYTES: u64 = 32 << 10;
/// What one volume may take of the write buffer, in bytes: half of `WRITE_BEHIND_BYTES_MAX`, more
/// than fills any network, so that one that does not answer leaves the other half.
pub(crate) const VOLUME_BUFFER_BYTES_MAX: usize = WRITE_BEHIND_BYTES_MAX / 2;
/// What it may take of the slots for writes, for the same reason.
pub(crate) const VOLUME_SLOTS_MAX: usize = DATA_SLOTS_PER_SESSION as usize / 2;
/// Runs of one file that wait to be joined: scattered writes go out beyond it.
pub(crate) const FILLING_RUNS_MAX: usize = 256;
/// Orders to volumes of one call that are on their way at once: they keep all volumes busy, and are
/// half of the slots for writes.
pub(crate) const ORDERS_MAX: usize = DATA_SLOTS_PER_SESSION as usize / 2;
/// Bytes that one call copies: a program that is interrupted waits for no more than this.
pub(crate) const COPY_RANGE_BYTES_MAX: u64 = 64 << 20;
/// `stat` of a file with holes asks its volumes for at most this long, then answers with an upper
/// bound: a listing shall not wait for a volume that is away.
pub(crate) const COUNT_WAIT: Duration = Duration::from_secs(1);
/// A run is sent when no write has come for this long.
pub(crate) const WRITE_IDLE: Duration = Duration::from_millis(100);
/// A file that is written without a pause is committed this often.
pub(crate) const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// One attempt of a control operation: a lost reply costs at most this.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(5);
/// One attempt of an operation that the master may park (a recall from others, a sync).
pub(crate) const ATTEMPT_PARKED: Duration = Duration::from_secs(30);
/// One attempt of a bulk transfer.
pub(crate) const ATTEMPT_BULK: Duration = Duration::from_secs(10);

/// Waits for locks that are parked at the master: a quarter of what one connection may have under way,
/// so that the unlocks they wait for get through. Those beyond it try again and again.
pub(crate) const LOCK_WAITS_MAX: usize = REQUESTS_PER_CONNECTION_MAX / 4;

/// A reader asks another member of the chain when one has said nothing for this long: it waits far less
/// than the lease of one that has died, and two send the same bytes only where links are slow.
pub(crate) const READ_SILENCE: Duration = Duration::from_millis(500);

/// How long others are asked first where a volume was not reached: several times what an attempt to connect
/// takes.
pub(crate) const SILENT_FOR: Duration = Duration::from_secs(5);

/// First and longest pause between attempts.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(5);
pub(crate) const BACKOFF_MAX: Duration = Duration::from_millis(250);

/// `NoSpace` of a volume is final after this, however many reaps are on their way; of the master's
/// log too.
pub(crate) const NO_SPACE_WAIT: Duration = Duration::from_secs(5);
/// A read of a chain that nobody serves ends after this, while the master is there.
pub(crate) const READ_WAIT: Duration = Duration::from_secs(60);
/// Replans of one transfer after its layout has changed: each needs a truncation by somebody.
pub(crate) const REPLANS_MAX: u32 = 16;

/// A recall that takes longer is answered `Held` this often: the master ends a session that says
/// nothing of a recall for its lease.
pub(crate) const RECALL_REPORT: Duration = Duration::from_secs(1);
/// How long a recall waits for the kernel to forget a file: a program that is writing to it holds
/// pages that are free only when the recall is over.
pub(crate) const FORGET_PAGES_MAX: Duration = Duration::from_millis(300);
/// A kernel has dropped a file's pages so long after the answer to the open that told it to: longer than
/// any answer is on its way.
pub(crate) const OPEN_DROPS_WITHIN: Duration = Duration::from_secs(1);
/// The lease counts as over this long before it is.
pub(crate) const LEASE_MARGIN_MS: u64 = 500;
/// Handles in one `ResumeSession`: keeps it within a frame body.
pub(crate) const RESUME_HANDLES_MAX: usize = 16_384;
/// Operations of one kind that a new session or a shutdown has in flight at once.
pub(crate) const PARALLEL_MAX: usize = 64;

/// Bytes of one piece of read-ahead; divides every larger chunk size.
pub(crate) const READ_AHEAD_PIECE_BYTES: u32 = 1 << 20;
/// Read-ahead of all files of the client, in bytes.
pub(crate) const READ_AHEAD_TOTAL_BYTES: usize = 128 << 20;
/// Bytes that were read ahead are used for this long: others may have changed the file.
pub(crate) const READ_AHEAD_AGE: Duration = Duration::from_secs(1);

/// Closed inodes whose data version is remembered, so that their pages can be kept at the next
/// open; 24 bytes each.
pub(crate) const VERSIONS_MAX: usize = 1 << 16;
/// Inodes of which is remembered whether they have an ACL; about 50 bytes each. One that is forgotten
/// costs a question to the master.
pub(crate) const ACL_MEMORY_MAX: usize = 1 << 16;
/// Symlinks followed in one path walk (path_resolution(7)).
pub(crate) const SYMLINKS_MAX: u32 = 40;

/// How often a read begins again because the file was said to be longer meanwhile: each time
/// somebody else has to have asked, and a file that grows all the time is not read for ever.
pub(crate) const READ_ATTEMPTS_MAX: u32 = 8;
