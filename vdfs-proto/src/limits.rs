//! Every bound of every queue, buffer and message, with its reason.

/// A name in a directory, in bytes: what every Linux filesystem allows (`NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;
/// A symlink's target, in bytes: `PATH_MAX` less the terminating NUL.
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// The name of an extended attribute, in bytes (`XATTR_NAME_MAX`).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// The value of an extended attribute, in bytes (`XATTR_SIZE_MAX`).
pub const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;
/// Names and values of all extended attributes of one inode, in bytes (`XATTR_LIST_MAX`; it bounds
/// what one inode can take of the master's RAM).
pub const XATTR_TOTAL_BYTES_MAX: usize = 64 << 10;
/// Entries of one ACL: what fits the page in which the kernel asks for one.
pub const ACL_ENTRIES_MAX: usize = (4096 - 4) / 8;
/// Hard links to one inode: ext4's bound, so that `st_nlink` fits whatever reads it.
pub const LINKS_MAX: u32 = 65_000;
/// The size of a file, in bytes: `off_t`.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// The body of one frame, in bytes: a reply to the largest `readdir` or `getxattr` fits, and a
/// malicious length costs at most this.
pub const FRAME_BODY_BYTES_MAX: usize = 1 << 20;
/// The bytes of one bulk transfer: long enough that headers cost nothing, short enough that a read
/// holds a chunk only for a millisecond.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;
/// The bytes that a volume copies in one operation: it holds them in a buffer meanwhile, as it does
/// the payload of a write, and gives up the chunk in between.
pub const COPY_BYTES_MAX: u32 = 1 << 20;
/// Entries in one `readdir` reply: with the longest names and attributes they fit a frame body.
pub const READDIR_ENTRIES_MAX: usize = 1024;

/// Slots of one session at the master, so mutations in flight of one mount; each keeps one reply.
pub const META_SLOTS_PER_SESSION: u16 = 256;
/// Slots of one session at a volume, so writes in flight from one mount to one volume.
pub const DATA_SLOTS_PER_SESSION: u16 = 64;
/// Live sessions of one master: each costs at most `META_SLOTS_PER_SESSION` stored replies.
pub const SESSIONS_MAX: usize = 4096;
/// Open handles of one session: bounds what a client can pin.
pub const HANDLES_PER_SESSION_MAX: usize = 1 << 20;
/// Pieces of locks on one inode: every look for a conflict goes through them.
pub const LOCKS_PER_INODE_MAX: usize = 4096;
/// The same of one session: more than the programs of one machine hold, and some megabytes.
pub const LOCKS_PER_SESSION_MAX: usize = 1 << 16;
/// The same of all sessions: some 20 MiB of the master's RAM.
pub const LOCKS_MAX: usize = 1 << 18;
/// Locks, and waits for one, that one answer to an operator holds: keeps it within a frame body.
pub const LOCKS_LISTED_MAX: usize = 1000;
/// How long a wait for a lock is parked at the master before the client asks again: well below an
/// attempt's deadline, and rare enough to cost nothing.
pub const LOCK_PARK_MS: u64 = 10_000;
/// Retry records of one volume: 64 bytes each, `SESSIONS_MAX` mounts with 16 busy slots.
pub const VOLUME_REPLIES_MAX: u32 = 1 << 16;

/// Requests that a server works on at once for one connection; the next one waits in the
/// transport's flow control.
pub const REQUESTS_PER_CONNECTION_MAX: usize = 512;
/// Events or commands kept for a peer that does not fetch them; beyond it the peer is treated as
/// gone.
pub const OUTBOX_EVENTS_MAX: usize = 1 << 16;
/// Events in one reply: keeps the reply within a frame body.
pub const EVENTS_PER_REPLY_MAX: usize = 1024;
/// Data ids in one reap command: keeps the command within a frame body.
pub const REAP_BATCH_MAX: usize = 4096;
/// Written bytes that a client holds until its volumes have them. One volume takes half of it at most, a
/// chunk of the default size: the head of the next chunk is at work before that of the last one has done.
pub const WRITE_BEHIND_BYTES_MAX: usize = 128 << 20;
/// Read ahead of one open file, in bytes.
pub const READ_AHEAD_BYTES_MAX: usize = 32 << 20;

/// Chains of one group.
pub const CHAINS_PER_GROUP: u32 = 256;
/// Members of one chain.
pub const CHAIN_MEMBERS_MAX: usize = 3;

/// Chunks in one answer to [`crate::data::Inventory`], and in one [`crate::data::Mend`]: keeps both within
/// a frame body.
pub const CHUNKS_PER_STOCK_MAX: usize = 4096;
/// Chunks in one answer to [`crate::peer::ListChunks`]: keeps it within a frame body.
pub const CHUNKS_PER_LIST_MAX: usize = 8192;
/// Blocks in one [`crate::peer::FetchBlocks`]: 1 MiB of them.
pub const BLOCKS_PER_FETCH_MAX: u32 = 256;
/// Replies in one [`crate::peer::LearnReplies`]: likewise.
pub const REPLIES_PER_LESSON_MAX: usize = 8192;
/// News of chains in one `NextCommands`: likewise.
pub const NEWS_PER_REQUEST_MAX: usize = 8192;

/// A session that is silent for its lease is ended, after it was fenced at every volume.
pub const SESSION_LEASE_MS: u64 = 10_000;
/// How long a `NextEvents` or `NextCommands` is parked when there is nothing to say; it renews the
/// lease. A cut of the network may be shorter than the lease by this and by what a new dial takes, and
/// ends no session.
pub const EVENTS_PARK_MS: u64 = 1_000;
/// A volume that the master has not heard for this long is away (T of the protocol).
pub const VOLUME_LEASE_MS: u64 = 2_500;
/// Time between two heartbeats of a volume.
pub const HEARTBEAT_MS: u64 = 250;
