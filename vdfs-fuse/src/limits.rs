//! The door's bounds, each with its reason.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Bytes of one READ or WRITE: what Linux allows without raising `max_pages_limit`.
pub(crate) const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Read-ahead and asynchronous reads in flight in the kernel; with requests of 1 MiB a quarter of
/// a gigabyte, so that one reader never waits for another's window.
pub(crate) const BACKGROUND_MAX: u16 = 256;
/// Above this many the kernel drops read-ahead.
pub(crate) const CONGESTION_THRESHOLD: u16 = 192;
/// Window of the kernel's read-ahead, in KiB: four requests in flight for one sequential reader.
pub(crate) const READ_AHEAD_KIB: u32 = 4096;

/// Loop threads. Four even on a small machine: one that is copying 1 MiB must not hold up a stat.
pub(crate) const LOOP_THREADS_MIN: usize = 4;
/// More readers of one device only contend for its lock.
pub(crate) const LOOP_THREADS_MAX: usize = 8;

/// Entries asked for at once. A reply of 32 KiB (what `getdents` of the C library makes the kernel
/// ask for) holds about this many of usual length; what does not fit is fetched again.
pub(crate) const READDIR_ENTRIES: u32 = 768;
/// The same with attributes, which are four times as long.
pub(crate) const READDIRPLUS_ENTRIES: u32 = 192;

/// Directories whose place is remembered, 100 bytes each: as many as are being removed at once, and
/// those that are looked up between the look at one and its removal.
pub(crate) const FOUND_DIRECTORIES_MAX: NonZeroUsize = NonZeroUsize::new(1 << 12).expect("not 0");

/// A request that waits longer than this has its caller watched for signals.
pub(crate) const WATCH_AFTER: Duration = Duration::from_millis(200);
/// The same for a process that has just been interrupted and is closing its files: several waits
/// must fit into the second within which `^C` works.
pub(crate) const WATCH_INTERRUPTED_AFTER: Duration = Duration::from_millis(100);
/// For how long a process counts as just interrupted.
pub(crate) const INTERRUPTED_FOR: Duration = Duration::from_secs(2);
/// Time between two looks at the callers.
pub(crate) const WATCH_INTERVAL: Duration = Duration::from_millis(50);
/// Callers looked at in one round: two small files of /proc each, so at most some milliseconds.
pub(crate) const WATCH_CALLERS_MAX: usize = 512;

/// Threads that tell the kernel to drop pages. Each may wait for a page that is being read or
/// written back; an inode always goes to the same one.
pub(crate) const NOTIFIER_THREADS: usize = 4;
/// Inodes waiting for one notifier thread, 64 bytes each.
pub(crate) const NOTIFIER_INODES_MAX: usize = 1 << 16;
/// How long the reply to an uncached write waits for the pages under it to be dropped.
pub(crate) const DROP_PAGES_MAX: Duration = Duration::from_secs(1);

/// How long a mount may take until the root directory can be looked at.
pub(crate) const FIRST_ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long the mount that is found at the mountpoint may take to answer; one that does not is
/// alive.
pub(crate) const PROBE_MAX: Duration = Duration::from_secs(2);
/// Processes named when a mount is busy: a line that a person reads.
pub(crate) const HOLDERS_MAX: usize = 16;
/// How long they are looked for: a thousand processes are read within a tenth of it, and a stop has
/// to end.
pub(crate) const HOLDERS_WAIT: Duration = Duration::from_secs(1);
/// Inodes whose last drop of pages is remembered, before old ones are sorted out.
pub(crate) const DROPS_KEPT: usize = 4096;
/// How long a write waits for pages to be dropped that may be older than it. Its own page may be locked
/// for it: then there is nothing to drop.
pub(crate) const DROP_OLDER_MAX: Duration = Duration::from_millis(20);
