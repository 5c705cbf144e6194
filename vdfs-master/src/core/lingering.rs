//! Files that a rename has just replaced. They stay for a moment: whoever found one under its name
//! is about to open it, and on a local disk would get the old file or the new one, never an error.
//!
//! Not logged: after a restart they end with the other orphans. Invariant: they hold at most
//! [`LINGERING_BYTES_MAX`], for at most [`LINGER_MS`] and a tick.

use std::collections::{BTreeSet, VecDeque};

use vdfs_proto::Ino;

use super::limits::{LINGER_MS, LINGERING_BYTES_MAX, LINGERING_MAX};

#[derive(Debug, Default)]
pub(crate) struct Lingering {
    /// Oldest first.
    files: VecDeque<File>,
    inos: BTreeSet<Ino>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct File {
    ino: Ino,
    bytes: u64,
    until_ms: u64,
}

impl Lingering {
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub(crate) fn contains(&self, ino: Ino) -> bool {
        self.inos.contains(&ino)
    }

    pub(crate) fn inos(&self) -> impl Iterator<Item = Ino> {
        assert_eq!(
            self.inos.len(),
            self.files.len(),
            "each file is counted once"
        );
        self.inos.iter().copied()
    }

    /// A file of `bytes` may come.
    pub(crate) fn takes(bytes: u64) -> bool {
        bytes <= LINGERING_BYTES_MAX
    }

    pub(crate) fn insert(&mut self, ino: Ino, bytes: u64, now_ms: u64) {
        self.files.push_back(File {
            ino,
            bytes,
            until_ms: now_ms + LINGER_MS,
        });
        self.bytes += bytes;
        let is_new = self.inos.insert(ino);
        assert!(is_new, "{ino} is replaced once");
    }

    /// Those whose time is over, or whose room others need.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Vec<Ino> {
        let mut due = Vec::new();
        while let Some(file) = self.files.front().copied() {
            let fits = self.bytes <= LINGERING_BYTES_MAX && self.files.len() <= LINGERING_MAX;
            if fits && now_ms < file.until_ms {
                break;
            }
            self.files.pop_front();
            self.inos.remove(&file.ino);
            self.bytes -= file.bytes;
            due.push(file.ino);
        }
        due
    }
}
