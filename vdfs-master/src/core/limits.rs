//! Bounds of the core's own queues, with their reasons.

/// Callers that wait for something at once: each holds a request of at most a frame body, most of
/// them a hundred bytes. Beyond it the answer is `Busy`.
pub(crate) const WAITERS_MAX: usize = 1 << 16;
/// Waits for locks of one inode: telling them goes through all pairs of them. Beyond it the answer is
/// `Busy`, and the caller tries again by itself.
pub(crate) const LOCK_WAITS_PER_INODE_MAX: usize = 256;
/// Who is told that a lock is free has this long to take it: many round trips, and no longer than a
/// caller that has died may hold others up.
pub(crate) const LOCK_TURN_MS: u64 = 2_000;
/// How long one who could have a lock lets those who wait and came before go first.
pub(crate) const LOCK_YIELD_MS: u64 = 5_000;
/// Holders that are looked at for a circle of waits: a larger circle is not found.
pub(crate) const LOCK_CIRCLE_MAX: usize = 1024;
/// Members that are asked to leave their chains at once: few enough for the queue of one volume;
/// further ones follow.
pub(crate) const REMOVALS_MAX: usize = 4096;
/// Chains that move at once, off volumes that are drained or have more than their share: each is a copy
/// of a 256th of a group that the machines make beside their other work, four pieces of 1 MiB at a time
/// from one volume to another; enough that chains without data do not wait for their turns of some ticks.
pub(crate) const MOVES_MAX: usize = 16;
/// Between two times at which members are asked to leave because chains move: who is asked gets no lease
/// until he has answered, and must not lose one heartbeat after the other.
pub(crate) const DEPARTURES_EVERY_MS: u64 = 1_000;
/// Stores of removed volumes that are remembered, 16 bytes each: far more than anybody keeps to bring
/// back.
pub(crate) const REMOVED_STORES_MAX: usize = 4096;
/// How long a chain stays short before another volume is given its data: a volume that was restarted
/// comes back to its own meanwhile.
pub(crate) const HEAL_AFTER_MS: u64 = 1_000;
/// How long a chain whose members had all gone waits for the others once one is back: longer than
/// volumes take that start together, and no longer than its files may be out of reach.
pub(crate) const COPIES_WAIT_MS: u64 = 10_000;
/// Free slots of the inode slab that rest before one is used again, so that generations of a few
/// slots are not used up by programs that create and unlink in a loop.
pub(crate) const FREE_SLOTS_RESTING: u64 = 1024;
/// A volume with less than this part of its budget free gets no new files while another has room.
pub(crate) const LOW_SPACE_FRACTION: u64 = 20;
/// Ended inodes whose attributes are still known: some megabytes, and more than are removed while
/// somebody looks at one of them.
pub(crate) const DEPARTED_MAX: usize = 1 << 14;
/// How long a file that a rename has replaced can still be opened: longer than any program takes from
/// finding it to opening it.
pub(crate) const LINGER_MS: u64 = 1000;
/// What such files may hold: a program that replaces files all the time keeps others' room for no
/// longer than it must.
pub(crate) const LINGERING_BYTES_MAX: u64 = 64 << 20;
/// The same, for small files.
pub(crate) const LINGERING_MAX: usize = 4096;
/// A session that says nothing of a recall for so long is ended, as if it were silent altogether: a
/// lease, and time for a client that has just reconnected.
pub(crate) const RECALL_SILENT_MS: u64 = vdfs_proto::limits::SESSION_LEASE_MS + 1_000;
/// Time between two looks at leases and parked polls.
pub(crate) const TICK_MS: u64 = 250;
/// A step that comes this much later than it was due means that this process stood still: nobody
/// is declared gone for its silence meanwhile.
pub(crate) const STALL_MS: u64 = 500;
/// How far data and session ids skip when the end of the log may have been lost: more than can be
/// given out between two syncs.
pub(crate) const IDS_SKIPPED: u64 = 1 << 20;
/// The same for generations of inode slots.
pub(crate) const GENERATIONS_SKIPPED: u32 = 4096;
/// Ids or inodes in one internal record: keeps records and turns short.
pub(crate) const BATCH_MAX: usize = 4096;
/// Names and chains that one piece of the survey looks at: some milliseconds.
pub(crate) const SURVEY_PIECE: usize = 20_000;
/// Time for which a survey of more than one piece is good.
pub(crate) const SURVEY_GOOD_MS: u64 = 10_000;
/// Paths that a survey remembers of each kind: what a reader of the status looks at.
pub(crate) const SURVEY_NAMES: usize = 3;
/// Files of several names that a survey counts once; 8 bytes each.
pub(crate) const SURVEY_LINKS_MAX: usize = 1 << 17;
/// Bytes of one block of a checkpoint section, about.
pub(crate) const SECTION_BLOCK_BYTES: usize = 4 << 20;
/// Identity, host and mount of a session, in bytes each; name and host of a volume.
pub(crate) const LABEL_BYTES_MAX: usize = 4096;
/// How long a session may take to say what it holds, after a restart of the master: twice the time in
/// which one that is not heard ends.
pub(crate) const RESUME_WITHIN_MS: u64 = 2 * vdfs_proto::limits::SESSION_LEASE_MS;
/// Data ids that a log may have lost with its end, and those that a reboot skips: what a volume has seen
/// beyond is no id of this filesystem.
pub(crate) const DATA_IDS_LOST_MAX: u64 = 1 << 52;

/// How long a session has had a file open for writing when readers elsewhere stop caching it: longer
/// than it takes to write most files, so that those are cached and mapped as soon as they are closed.
pub(crate) const SETTLED_WRITER_MS: u64 = 1000;
