//! What is known of one chunk, apart from its bytes: version, length, and the change in progress.
//!
//! Pure: no IO, no lock, no clock. A chunk with a pending change is *closed*: nobody may read or
//! change it until the change was applied or taken back. Closed is a state and not a lock, so that
//! a caller who goes away ends nothing.
//!
//! Left out: which bytes and sums the change brings (the store), and who sent it (the chain).

use vdfs_proto::data::SpaceKind;
use vdfs_proto::{Epoch, OpId, Version};

/// What a pending change does to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `len` bytes at `offset` are replaced; `sum` is the payload's.
    Write {
        offset: u32,
        len: u32,
        sum: u32,
    },
    /// Bytes at and past `len` are dropped.
    Trim {
        len: u32,
    },
    Space(Space),
}

/// `len` bytes at `offset` become zeros, or get pages, or lose them. Done twice it is done once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub kind: SpaceKind,
    pub offset: u32,
    pub len: u32,
}

impl Change {
    /// The length of a chunk of `len` bytes once the change is applied.
    pub fn len_after(self, len: u32) -> u32 {
        match self {
            Change::Write {
                offset, len: bytes, ..
            } => len.max(offset + bytes),
            Change::Trim { len: cut } => len.min(cut),
            Change::Space(space) => match space.kind {
                SpaceKind::Punch => len,
                SpaceKind::Zero | SpaceKind::Allocate => len.max(space.offset + space.len),
            },
        }
    }
}

/// A change that has its version and is not applied yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    pub op: OpId,
    /// The version it was made for.
    pub base: Version,
    pub version: Version,
    pub change: Change,
}

/// The state of one chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkState {
    version: Version,
    len: u32,
    op: Option<OpId>,
    pending: Option<Pending>,
}

impl ChunkState {
    /// A chunk at rest, as a clean record tells it. `op` is what made this version, if that is
    /// known.
    pub fn clean(version: Version, len: u32, op: Option<OpId>) -> Self {
        ChunkState {
            version,
            len,
            op,
            pending: None,
        }
    }

    /// A chunk in the middle of a change, as a record tells it. `len` is the length before.
    pub fn closed(pending: Pending, len: u32) -> Self {
        assert!(
            pending.base < pending.version,
            "a change raises the version"
        );
        ChunkState {
            version: pending.base,
            len,
            op: None,
            pending: Some(pending),
        }
    }

    /// The version of the bytes that may be read.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Bytes in the chunk, before any pending change.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// No byte was ever written, or all were trimmed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What made the current version, if that is known.
    pub fn op(&self) -> Option<OpId> {
        self.op
    }

    pub fn pending(&self) -> Option<&Pending> {
        self.pending.as_ref()
    }

    /// A change under `epoch` is possible: versions never go back to an older epoch.
    pub fn admits(&self, epoch: Epoch) -> bool {
        epoch >= self.version.epoch
    }

    /// Begins a change: gives it the next version and closes the chunk.
    ///
    /// Panics if a change is pending or the epoch is older than the chunk's.
    pub fn close(&mut self, op: OpId, epoch: Epoch, change: Change) -> Pending {
        assert!(self.pending.is_none(), "one change at a time");
        let pending = Pending {
            op,
            base: self.version,
            version: self.version.next(epoch),
            change,
        };
        self.pending = Some(pending);
        pending
    }

    /// Ends the pending change: its bytes are in place. Gives the version that shows them.
    pub fn apply(&mut self) -> Version {
        let pending = self.pending.take().expect("only a closed chunk applies");
        assert_eq!(pending.base, self.version, "made for these bytes");
        self.len = pending.change.len_after(self.len);
        self.version = pending.version;
        self.op = Some(pending.op);
        self.version
    }

    /// Ends the pending change after a restart found its bytes incomplete. The length stays; the
    /// version is taken, since bytes within the range may have changed; the op is not, so that a
    /// retry is executed.
    pub fn abandon(&mut self) -> Version {
        let pending = self.pending.take().expect("only a closed chunk abandons");
        assert_eq!(pending.base, self.version, "made for these bytes");
        self.version = pending.version;
        self.op = None;
        self.version
    }
}

#[cfg(test)]
mod tests {
    use vdfs_proto::SessionId;

    use super::*;

    fn op(seq: u64) -> OpId {
        OpId {
            session: SessionId(1),
            slot: 0,
            seq,
        }
    }

    fn write(offset: u32, len: u32) -> Change {
        Change::Write {
            offset,
            len,
            sum: 0,
        }
    }

    #[test]
    fn chunk_state_apply_takes_version_length_and_op() {
        let mut state = ChunkState::default();
        let pending = state.close(op(1), Epoch(3), write(100, 50));
        assert_eq!(state.pending(), Some(&pending));
        assert_eq!(state.len(), 0, "the length shows only once it is applied");
        let version = state.apply();
        assert_eq!((version.epoch, version.counter), (Epoch(3), 1));
        assert_eq!((state.len(), state.op()), (150, Some(op(1))));
        assert!(state.pending().is_none());
    }

    #[test]
    fn chunk_state_abandon_takes_the_version_alone() {
        let mut state = ChunkState::clean(Version::default(), 10, Some(op(1)));
        state.close(op(2), Epoch(1), write(5, 100));
        let version = state.abandon();
        assert_eq!(version.counter, 1);
        assert_eq!((state.len(), state.op()), (10, None));
    }

    #[test]
    fn chunk_state_trim_shortens_and_never_lengthens() {
        let mut state = ChunkState::clean(Version::default(), 10, None);
        state.close(op(1), Epoch(1), Change::Trim { len: 20 });
        state.apply();
        assert_eq!(state.len(), 10);
        state.close(op(2), Epoch(1), Change::Trim { len: 0 });
        state.apply();
        assert!(state.is_empty());
        assert_eq!(state.version().counter, 2);
    }

    #[test]
    fn chunk_state_of_a_punch_keeps_its_length_and_grows_with_pages() {
        let mut state = ChunkState::clean(Version::default(), 10, None);
        let space = |kind| {
            let (offset, len) = (5, 20);
            Change::Space(Space { kind, offset, len })
        };
        let lens = [SpaceKind::Punch, SpaceKind::Allocate, SpaceKind::Zero].map(|kind| {
            state.close(op(1), Epoch(1), space(kind));
            state.apply();
            state.len()
        });
        assert_eq!(lens, [10, 25, 25]);
    }

    #[test]
    fn chunk_state_admits_no_older_epoch() {
        let mut state = ChunkState::default();
        state.close(op(1), Epoch(4), write(0, 1));
        state.apply();
        assert!(state.admits(Epoch(4)) && state.admits(Epoch(5)));
        assert!(!state.admits(Epoch(3)));
    }

    #[test]
    fn chunk_state_closed_from_a_record_goes_on_where_it_was() {
        let mut before = ChunkState::clean(Version::default(), 7, None);
        let pending = before.close(op(1), Epoch(1), write(0, 9));
        let mut after = ChunkState::closed(pending, 7);
        assert_eq!(after.apply(), before.apply());
        assert_eq!(after, before);
    }

    #[test]
    #[should_panic(expected = "one change at a time")]
    fn chunk_state_close_of_a_closed_chunk_panics() {
        let mut state = ChunkState::default();
        state.close(op(1), Epoch(1), write(0, 1));
        state.close(op(2), Epoch(1), write(0, 1));
    }
}
