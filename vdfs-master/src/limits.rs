//! Bounds of the master's shell, each with its reason.

/// A segment of the log, in bytes: what a start reads at once, and what a purge frees at once.
pub const LOG_SEGMENT_BYTES_MAX: u64 = 16 << 20;
/// Records of one turn, in bytes, beyond which no further input is stepped in it.
pub const TURN_BYTES: u64 = 1 << 20;
/// What the records of one input may add to a turn, in bytes: an input is at most a frame body, and
/// ending a session logs less than its frames did.
pub const INPUT_RECORD_BYTES_MAX: u64 = 2 << 20;
/// Room that the log has ahead before a turn is stepped: the largest turn and its header.
pub const TURN_BYTES_MAX: u64 = TURN_BYTES + INPUT_RECORD_BYTES_MAX + 4096;
/// Room that the log takes ahead at once, in bytes, so that not every turn asks the filesystem.
pub const LOG_RESERVE_BYTES: u64 = 8 << 20;
/// Inputs of one turn: keeps the time to the first reply of a turn below a millisecond.
pub const TURN_INPUTS_MAX: usize = 256;
/// Turns that one caller runs for others before it leaves them to the master's thread: it has a
/// reply of its own to give.
pub const CALLER_TURNS_MAX: usize = 4;
/// Requests that wait for a turn; further ones are answered `Busy`.
pub const QUEUE_REQUESTS_MAX: usize = 4096;
/// Callers that wait for a reply, parked ones included: two long polls for each session and some
/// mutations in flight; further ones are answered `Busy`.
pub const WAITING_CALLERS_MAX: usize = 1 << 16;
/// Log since the last checkpoint, in bytes, that makes one worth its writing; bounds the time of a
/// start.
pub const CHECKPOINT_LOG_BYTES: u64 = 64 << 20;
/// The same at a clean stop, where nobody waits.
pub const CHECKPOINT_LOG_BYTES_AT_STOP: u64 = 1 << 20;
/// A block of a checkpoint, in bytes, taken as an error of the file when longer: blocks are made of
/// about 4 MiB, and a damaged length must not take all memory.
pub const CHECKPOINT_BLOCK_BYTES_MAX: u32 = 256 << 20;
/// What the process takes beside metadata: the program, its threads, a segment that a start reads,
/// blocks of a checkpoint, requests and replies under way.
pub const PROCESS_BYTES: u64 = 64 << 20;
/// The part of the rest that is kept for what is in memory twice while a checkpoint is written.
pub const COPIES_FRACTION: u64 = 4;
/// Below it a master could keep hardly any names, in bytes.
pub const RAM_BYTES_MIN: u64 = 96 << 20;
/// Certificates that end soon of which the status tells: more than anybody renews one by one.
pub(crate) const CERTIFICATES_MAX: usize = 256;
