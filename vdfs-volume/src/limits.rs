//! Bounds of one volume, each with its reason. Those shared with other crates are in
//! `vdfs_proto::limits`.

/// Kernel memory of one chunk file, in bytes: inode and directory entry of a tmpfs, which
/// `st_blocks` does not show.
pub const CHUNK_KERNEL_BYTES: u64 = 1024;
/// Heap of one chunk, in bytes: its map entry, its state and its first leaf of sums.
pub const CHUNK_HEAP_BYTES: u64 = 512;
/// Open chunk files kept for the next request. A quarter of the usual soft limit of 1024 open
/// files, which the volume may share with a mount in one process.
pub const OPEN_FILES_MAX: usize = 256;
/// Reaped data ids remembered: more than a client can have had in flight when its file was reaped.
pub const REAPED_IDS_MAX: u32 = 1 << 16;
/// Data ids that a master may give out between two registrations of a volume: a million files a second
/// for twelve days.
pub const DATA_IDS_AHEAD: u64 = 1 << 40;
/// Ended sessions remembered, so that a write delayed in the network is refused.
pub const ENDED_SESSIONS_MAX: usize = 1 << 16;
/// The smallest budget, in bytes: tables of a useful size and a few chunks.
pub const BUDGET_BYTES_MIN: u64 = 4 << 20;
/// Part of the budget left to transfers: one 32nd, at most this many bytes. They are enforced as
/// [`payloads_bytes`], half of it again in buffers that are kept for the next, and what peers may send
/// ahead, at most 8 MiB. Below a budget of 1 GiB, of which that would be too large a part, they may
/// together exceed their part by at most 20 MiB. What other volumes pass on has half as much again three
/// times for its payloads, at least two of the longest each.
pub const BUFFERS_BYTES_MAX: u64 = 32 << 20;
/// Payloads in flight of a volume with a budget of `budget_bytes`, in bytes: half of its part for
/// transfers, but always two of the longest.
pub fn payloads_bytes(budget_bytes: u64) -> usize {
    let half = buffers_bytes(budget_bytes) as usize / 2;
    half.max(2 * vdfs_proto::limits::PAYLOAD_BYTES_MAX)
}
/// The part of `budget_bytes` that is left to transfers, in bytes.
pub fn buffers_bytes(budget_bytes: u64) -> u64 {
    (budget_bytes / 32).min(BUFFERS_BYTES_MAX)
}
/// Below this much free space a budget of at least [`LOW_SPACE_BUDGET_BYTES`] is low.
pub const LOW_SPACE_BYTES: u64 = 256 << 20;
/// Smaller budgets go by 5 % alone: 256 MiB would be all of them.
pub const LOW_SPACE_BUDGET_BYTES: u64 = 1 << 30;
/// Damaged chunks that a scrub tells of one by one: their report fits a frame.
pub const DAMAGED_CHUNKS_LISTED_MAX: usize = 10_000;
/// Chunks that may be damaged, or were looked into a moment ago: whatever a bad memory module has, and few
/// enough to be listed for each new one.
pub const DOUBTS_MAX: usize = 4096;
/// How often a chunk is given again in one life of a volume before its RAM is taken for bad.
pub const GIVEN_MAX: u32 = 3;
/// Results of commands kept until the master has heard them; beyond it the oldest is dropped and
/// the master sends its command again.
pub const RESULTS_MAX: usize = vdfs_proto::limits::OUTBOX_EVENTS_MAX;
/// Who may wait for one op: its first caller, the one above, and retries of both whose own callers
/// are gone.
pub const CALLERS_PER_CHANGE_MAX: usize = 16;
/// Changes that wait for one chunk, each with its bytes: all that one client has in flight to a
/// volume. Beyond it the answer is `Busy`.
pub const CHANGES_PER_CHUNK_MAX: usize = 64;
/// Bytes of changes that one successor is sent before their turns have come, in bytes, until it has made
/// them: what it has room for from one volume at least, and more than a link carries in the time that a
/// change takes.
pub const EARLY_BYTES_MAX: usize = vdfs_proto::limits::PAYLOAD_BYTES_MAX;
/// Changes of one chunk whose bytes go ahead of them: the next ones that have their turns.
pub const EARLY_CHANGES_MAX: usize = 4;
/// Fewer bytes are sent with their order, which costs less than to wait for it.
pub const EARLY_BYTES_MIN: usize = 64 << 10;
/// Pieces of chunks that a volume gives to others at once, or takes from them, of 1 MiB: a link of 10 Gbit/s is full while
/// some of them are read, stored or answered.
pub const PIECES_AT_ONCE: usize = 8;
/// The same beside clients that read or write.
pub const PIECES_BESIDE_CLIENTS: usize = 2;
/// Readers that wait for one closed chunk; beyond it they ask again at once.
pub const READERS_PER_CHUNK_MAX: usize = 1024;
/// How long after a lost message a change is passed on again, in milliseconds.
pub const PASS_AGAIN_MS: u64 = 50;
/// A successor that has not answered for this long is reported to the master, in milliseconds: longer
/// than a busy machine stands still, and well within what a client may wait when a member is lost.
pub const SILENT_SUCCESSOR_MS: u64 = 1500;
/// The same of one that is given a chunk first: a chunk of 256 MiB over 1 Gbit/s takes three seconds.
pub const SILENT_SUPPLIED_MS: u64 = 20_000;
/// How often the core looks after what is under way, in milliseconds.
pub const TICK_MS: u64 = 100;
