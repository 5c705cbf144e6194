//! One operation on one file, as it is chosen, written to a log, and done again.

use serde::{Deserialize, Serialize};

/// How a slot's handle is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    Read,
    ReadDirect,
    ReadWrite,
    /// `O_RDWR | O_APPEND`.
    Append,
    /// `O_RDWR | O_DIRECT`.
    Direct,
    /// `O_RDWR | O_SYNC`.
    Sync,
}

impl Access {
    pub const ALL: [Access; 6] = [
        Access::Read,
        Access::ReadDirect,
        Access::ReadWrite,
        Access::Append,
        Access::Direct,
        Access::Sync,
    ];

    pub(super) fn writes(self) -> bool {
        !matches!(self, Access::Read | Access::ReadDirect)
    }

    /// Reads go past the page cache.
    pub(super) fn reads_directly(self) -> bool {
        matches!(self, Access::ReadDirect | Access::Direct | Access::Append)
    }

    /// A write is out when it returns.
    pub(super) fn writes_through(self) -> bool {
        matches!(self, Access::Direct | Access::Append | Access::Sync)
    }
}

/// A range of a file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub at: u64,
    pub len: u64,
}

impl Span {
    pub(super) fn end(self) -> u64 {
        self.at + self.len
    }
}

/// Where the bytes of a copy come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub file: usize,
    pub slot: usize,
    pub span: Span,
}

/// What is done. A slot is a place for one open handle of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Opens the name on a mount, making the file if there is none.
    Open {
        slot: usize,
        mount: usize,
        access: Access,
        truncate: bool,
    },
    Close {
        slot: usize,
    },
    Read {
        slot: usize,
        span: Span,
    },
    /// On an append handle the place does not count.
    Write {
        slot: usize,
        span: Span,
    },
    /// `ftruncate(2)`.
    Resize {
        slot: usize,
        size: u64,
    },
    /// `truncate(2)`.
    ResizeByName {
        mount: usize,
        size: u64,
    },
    /// `fallocate(2)`.
    Allocate {
        slot: usize,
        span: Span,
        keep_size: bool,
    },
    /// `FALLOC_FL_PUNCH_HOLE`.
    Punch {
        slot: usize,
        span: Span,
    },
    /// `FALLOC_FL_ZERO_RANGE`.
    Zero {
        slot: usize,
        span: Span,
        keep_size: bool,
    },
    /// `copy_file_range(2)`.
    Copy {
        slot: usize,
        at: u64,
        source: Source,
    },
    /// `lseek(2)` from data to hole to data, through the whole file.
    SeekAll {
        slot: usize,
    },
    Sync {
        slot: usize,
        data_only: bool,
    },
    /// `posix_fadvise(2)`: the kernel may forget its pages.
    Forget {
        slot: usize,
    },
    MapRead {
        slot: usize,
        span: Span,
        shared: bool,
    },
    /// Maps, writes, calls `msync(2)` or not, and unmaps.
    MapWrite {
        slot: usize,
        span: Span,
        sync: bool,
    },
    /// `fstat(2)`.
    StatOpen {
        slot: usize,
    },
    /// `stat(2)`.
    Stat {
        mount: usize,
    },
    Unlink {
        mount: usize,
    },
    /// Writes another file and renames it over the name.
    Replace {
        mount: usize,
        len: u64,
    },
    /// Opens, reads everything, closes.
    Check {
        mount: usize,
    },
}

/// An operation on one of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// From 1; it also decides which bytes are written.
    pub number: u64,
    pub file: usize,
    pub op: Op,
}
