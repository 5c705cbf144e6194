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

/// Which version a change takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The next one, under this epoch: at the head.
    Next(Epoch),
    /// The one that the head gave it, on top of `base`.
    Given { base: Version, version: Version },
}

/// What a rule says of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is made, with this version.
    Go(Version),
    /// It was made before.
    Already(Version),
    /// The chunk has moved on: the head's epoch is over, or this is a late copy of a message.
    Late,
    /// The chunk has neither the base nor the version: this copy is not the chain's.
    Diverged,
}

/// A change that has its version and is not applied yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// None if the change is a part of taking a copy from another member.
    pub op: Option<OpId>,
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

    /// Whether a change is made, and with which version. Versions never go back to an older epoch.
    pub fn admission(&self, rule: Rule) -> Admission {
        match rule {
            Rule::Next(epoch) if epoch < self.version.epoch => Admission::Late,
            Rule::Next(epoch) => Admission::Go(self.version.next(epoch)),
            Rule::Given { version, .. } if version == self.version => Admission::Already(version),
            Rule::Given { base, version } if base == self.version => Admission::Go(version),
            Rule::Given { version, .. } if version < self.version => Admission::Late,
            Rule::Given { .. } => Admission::Diverged,
        }
    }

    /// Begins a change with the version that it was admitted with: closes the chunk.
    ///
    /// Panics if a change is pending or the version is not newer than the chunk's.
    pub fn close(&mut self, op: Option<OpId>, version: Version, change: Change) -> Pending {
        assert!(self.pending.is_none(), "one change at a time");
        assert!(self.version < version, "a change raises the version");
        let pending = Pending {
            op,
            base: self.version,
            version,
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
        self.op = pending.op;
        self.version
    }

    /// Ends the pending change after a restart found its bytes incomplete. The length stays, the op is
    /// not taken, so that a retry is executed. The version is one that no other member can have: bytes
    /// within the range may have changed, and are not those of others who have made the change.
    pub fn abandon(&mut self) -> Version {
        let pending = self.pending.take().expect("only a closed chunk abandons");
        assert_eq!(pending.base, self.version, "made for these bytes");
        self.version = pending.version.next(pending.version.epoch);
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

    fn close(state: &mut ChunkState, seq: u64, epoch: u64, change: Change) -> Pending {
        let Admission::Go(version) = state.admission(Rule::Next(Epoch(epoch))) else {
            panic!("{state:?} does not admit epoch {epoch}");
        };
        state.close(Some(op(seq)), version, change)
    }

    #[test]
    fn chunk_state_apply_takes_version_length_and_op() {
        let mut state = ChunkState::default();
        let pending = close(&mut state, 1, 3, write(100, 50));
        assert_eq!(state.pending(), Some(&pending));
        assert_eq!(state.len(), 0, "the length shows only once it is applied");
        let version = state.apply();
        assert_eq!((version.epoch, version.counter), (Epoch(3), 1));
        assert_eq!((state.len(), state.op()), (150, Some(op(1))));
        assert!(state.pending().is_none());
    }

    #[test]
    fn chunk_state_abandon_takes_a_version_of_its_own() {
        let mut state = ChunkState::clean(Version::default(), 10, Some(op(1)));
        close(&mut state, 2, 1, write(5, 100));
        let version = state.abandon();
        assert_eq!(version.counter, 2, "the change itself has 1");
        assert_eq!((state.len(), state.op()), (10, None));
    }

    #[test]
    fn chunk_state_trim_shortens_and_never_lengthens() {
        let mut state = ChunkState::clean(Version::default(), 10, None);
        close(&mut state, 1, 1, Change::Trim { len: 20 });
        state.apply();
        assert_eq!(state.len(), 10);
        close(&mut state, 2, 1, Change::Trim { len: 0 });
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
            close(&mut state, 1, 1, space(kind));
            state.apply();
            state.len()
        });
        assert_eq!(lens, [10, 25, 25]);
    }

    #[test]
    fn chunk_state_admission_goes_by_epoch_at_the_head_and_by_versions_below() {
        let at = |epoch, counter| Version {
            epoch: Epoch(epoch),
            counter,
        };
        let given = |base, version| Rule::Given { base, version };
        let state = ChunkState::clean(at(4, 7), 10, None);
        let table = [
            (Rule::Next(Epoch(3)), Admission::Late),
            (Rule::Next(Epoch(4)), Admission::Go(at(4, 8))),
            (Rule::Next(Epoch(5)), Admission::Go(at(5, 8))),
            (given(at(4, 7), at(4, 8)), Admission::Go(at(4, 8))),
            (given(at(4, 6), at(4, 7)), Admission::Already(at(4, 7))),
            (given(at(4, 5), at(4, 6)), Admission::Late),
            (given(at(4, 8), at(4, 9)), Admission::Diverged),
            (given(at(3, 7), at(5, 8)), Admission::Diverged),
        ];
        for (rule, expected) in table {
            assert_eq!(state.admission(rule), expected, "{rule:?}");
        }
    }

    #[test]
    fn chunk_state_closed_from_a_record_goes_on_where_it_was() {
        let mut before = ChunkState::clean(Version::default(), 7, None);
        let pending = close(&mut before, 1, 1, write(0, 9));
        let mut after = ChunkState::closed(pending, 7);
        assert_eq!(after.apply(), before.apply());
        assert_eq!(after, before);
    }

    #[test]
    #[should_panic(expected = "one change at a time")]
    fn chunk_state_close_of_a_closed_chunk_panics() {
        let mut state = ChunkState::default();
        close(&mut state, 1, 1, write(0, 1));
        close(&mut state, 2, 1, write(0, 1));
    }
}
