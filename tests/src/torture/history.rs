//! What was called, when, and what came of it.

use serde::{Deserialize, Serialize};

use super::tree::Tree;

/// An inode. Files, and directories that a round begins with, have the number that the filesystem
/// gives them; what is made in a round and tells no number has one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Node(pub u64);

impl Node {
    /// The directory or symbolic link that the call at `index` of a round makes.
    pub fn made_by(index: usize) -> Node {
        Node(1 << 63 | index as u64)
    }
}

/// One of a few names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name(pub u8);

impl Name {
    /// How many there are.
    pub const COUNT: u8 = 3;

    pub fn all() -> impl Iterator<Item = Name> {
        (0..Name::COUNT).map(Name)
    }

    /// `a`, `b`, `c`.
    pub fn text(self) -> String {
        char::from(b'a' + self.0).to_string()
    }

    pub fn from_text(text: &str) -> Option<Name> {
        Name::all().find(|name| name.text() == text)
    }
}

/// A name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    pub directory: Node,
    pub name: Name,
}

/// A system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// `O_CREAT`, and writes its contents.
    Create {
        at: Place,
        exclusive: bool,
    },
    /// `O_RDONLY | O_NOFOLLOW`, and reads the contents of a file.
    Open {
        at: Place,
    },
    Stat {
        at: Place,
    },
    ReadLink {
        at: Place,
    },
    Mkdir {
        at: Place,
    },
    Rmdir {
        at: Place,
    },
    Unlink {
        at: Place,
    },
    Symlink {
        at: Place,
        target: u64,
    },
    Link {
        from: Place,
        to: Place,
    },
    Rename {
        from: Place,
        to: Place,
        no_replace: bool,
    },
    List {
        directory: Node,
    },
}

impl Call {
    /// The call looks at this name.
    pub fn names(&self, place: Place) -> bool {
        match *self {
            Call::Create { at, .. }
            | Call::Open { at }
            | Call::Stat { at }
            | Call::ReadLink { at }
            | Call::Mkdir { at }
            | Call::Rmdir { at }
            | Call::Unlink { at }
            | Call::Symlink { at, .. } => at == place,
            Call::Link { from, to } | Call::Rename { from, to, .. } => from == place || to == place,
            Call::List { .. } => false,
        }
    }
}

/// What a call returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A change without a result.
    Done,
    /// A file was opened; how many bytes of its contents there were.
    File {
        node: Node,
        bytes: usize,
    },
    /// A directory was opened.
    Directory,
    /// `stat` of a file.
    FileStat {
        node: Node,
        links: u64,
    },
    DirectoryStat,
    SymlinkStat,
    /// Target of a symbolic link.
    Target(u64),
    Names(Vec<Name>),
    /// `errno`.
    Failed(i32),
}

/// One call of one worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub worker: usize,
    pub call: Call,
    /// In nanoseconds since the round began.
    pub begun: u64,
    pub returned: u64,
    pub answer: Answer,
}

impl Record {
    /// Both took place at the same time, for a while.
    pub fn overlaps(&self, other: &Record) -> bool {
        self.begun < other.returned && other.begun < self.returned
    }
}

/// Everything between two quiet points.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Round {
    /// Workers take turns on them.
    pub mounts: usize,
    pub before: Tree,
    pub records: Vec<Record>,
    pub after: Tree,
}

impl Round {
    /// The call failed because of what the kernel believed, and did nothing: see the module's head.
    pub fn gave_up(&self, record: &Record) -> bool {
        match record.answer {
            Answer::Failed(libc::ESTALE) => true,
            Answer::Failed(libc::ELOOP) => self.met_a_moved_directory(record),
            _ => false,
        }
    }

    /// Another mount has moved something, perhaps a directory, before the call returned.
    pub fn met_a_moved_directory(&self, record: &Record) -> bool {
        let mut others = self.records.iter().filter(|other| {
            let is_elsewhere = other.worker % self.mounts != record.worker % self.mounts;
            is_elsewhere && other.begun < record.returned && other.answer == Answer::Done
        });
        others.any(|other| matches!(other.call, Call::Rename { .. }))
    }
}
