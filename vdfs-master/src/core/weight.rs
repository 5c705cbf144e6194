//! What things take of the master's RAM, so that its budget can be kept.
//!
//! A weight is what the allocator takes, not what the program asks for. It need not be exact to the
//! byte: the budget leaves room for what is not counted, and a test under a kernel limit shows that it
//! suffices.

use std::sync::Arc;

use vdfs_proto::{Ino, SessionId};

use super::directory::Directory;
use super::inode::{Body, Inode};
use super::state::{State, Xattrs};

/// A stored reply in its slot.
const REPLY_BYTES: u64 = 320;
/// A session with its labels, its own parts here, and its connections with their buffers.
const SESSION_BYTES: u64 = 64 << 10;
/// A chain, or a volume with its labels.
const CHAIN_BYTES: u64 = 128;
/// A lock of one range, in the maps by inode, by session, and by both.
const LOCK_BYTES: u64 = 512;
/// A set of extended attributes, but for names and values.
const XATTRS_BYTES: u64 = 640;

/// The two counts of an `Arc` and the three words of the `Vec` in it, as the heap has them.
pub(crate) const ARC_BYTES: u64 = 48;

/// What the heap takes for an allocation of so many bytes (glibc: a word more, in steps of 16, at least
/// 32; nothing is taken for nothing, but an empty vector soon has something).
pub(crate) const fn heap_bytes(bytes: usize) -> u64 {
    let taken = (bytes as u64 + 8).next_multiple_of(16);
    if taken < 32 { 32 } else { taken }
}

/// Totals of what would have to be walked to be known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weights {
    /// Names, and what symlinks point to.
    bodies: u64,
    xattrs: u64,
    replies: u64,
}

impl Weights {
    /// By a walk over everything.
    pub(crate) fn of(state: &State) -> Weights {
        let xattrs = state.xattrs.iter().map(|(_, xattrs)| xattrs_bytes(xattrs));
        let sessions = state.sessions.iter();
        Weights {
            bodies: state.inodes.slots().map(body_bytes).sum(),
            xattrs: xattrs.sum(),
            replies: sessions
                .map(|(_, session)| session.slots.len() as u64)
                .sum(),
        }
    }
}

/// What an inode has beside its record.
fn body_bytes(inode: &Inode) -> u64 {
    match &inode.body {
        Body::Directory(directory) => heap_bytes(16 + size_of::<Directory>()) + directory.bytes(),
        Body::Symlink(target) => heap_bytes(32) + heap_bytes(target.as_bytes().len()),
        Body::File(_) | Body::Special { .. } | Body::Free { .. } | Body::Retired => 0,
    }
}

fn xattrs_bytes(xattrs: &Xattrs) -> u64 {
    let strings = xattrs
        .iter()
        .map(|(name, value)| heap_bytes(name.as_bytes().len()) + heap_bytes(value.len()));
    XATTRS_BYTES.max(xattrs.len() as u64 * 128) + strings.sum::<u64>()
}

impl State {
    /// What the state takes of the heap.
    pub(crate) fn bytes(&self) -> u64 {
        let maps = self.xattrs.bytes()
            + self.orphans.bytes()
            + self.trims.bytes()
            + self.reaps.bytes()
            + self.writers.bytes();
        let Weights {
            bodies,
            xattrs,
            replies,
        } = self.weights;
        self.inodes.bytes()
            + maps
            + bodies
            + xattrs
            + replies * REPLY_BYTES
            + self.sessions.len() as u64 * SESSION_BYTES
            + self.locks.pieces() as u64 * LOCK_BYTES
            + self.table.chains.len() as u64 * CHAIN_BYTES
    }

    /// Changes the names in a directory. Panics if there is none.
    pub(crate) fn change_names<T>(
        &mut self,
        ino: Ino,
        change: impl FnOnce(&mut Directory) -> T,
    ) -> T {
        let directory = self.inodes.get_mut(ino).directory_mut();
        let directory = directory.expect("names are in a directory");
        let before = directory.bytes();
        let outcome = change(directory);
        let after = directory.bytes();
        self.weights.bodies = self.weights.bodies + after - before;
        outcome
    }

    /// Changes the extended attributes of an inode; an empty set is none.
    pub(crate) fn change_xattrs<T>(
        &mut self,
        ino: Ino,
        change: impl FnOnce(&mut Xattrs) -> T,
    ) -> T {
        let mut set = self.xattrs.remove(ino);
        let before = set.as_ref().map_or(0, |set| xattrs_bytes(set));
        let xattrs = Arc::make_mut(set.get_or_insert_default());
        let outcome = change(xattrs);
        let after = match xattrs.is_empty() {
            true => 0,
            false => xattrs_bytes(xattrs),
        };
        if let Some(set) = set.filter(|set| !set.is_empty()) {
            self.xattrs.insert(ino, set);
        }
        self.weights.xattrs = self.weights.xattrs + after - before;
        outcome
    }

    pub(crate) fn occupy(&mut self, ino: Ino, inode: Inode) {
        self.weights.bodies += body_bytes(&inode);
        self.inodes.occupy(ino, inode);
    }

    /// Ends an inode and its attributes. Gives back what was there.
    pub(crate) fn vacate(&mut self, ino: Ino) -> Inode {
        let inode = self.inodes.vacate(ino);
        self.weights.bodies -= body_bytes(&inode);
        if let Some(xattrs) = self.xattrs.remove(ino) {
            self.weights.xattrs -= xattrs_bytes(&xattrs);
        }
        inode
    }

    /// One more stored reply.
    pub(crate) fn weigh_reply(&mut self) {
        self.weights.replies += 1;
    }

    /// The replies of a session that is gone.
    pub(crate) fn forget_replies(&mut self, session: SessionId, replies: usize) {
        assert!(!self.sessions.contains(session), "{session} is gone");
        self.weights.replies -= replies as u64;
    }
}
