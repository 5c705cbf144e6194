//! Byte-range locks of one file as `fcntl(2)` defines them: kinds, ranges, and what one owner holds.
//!
//! Invariant of [`LockRanges`]: pieces ascend and do not touch one another unless they are of
//! different kinds. What a set replaces is split, and what it continues is joined.
//!
//! Left out: who conflicts with whom across owners, and who waits; the master decides that.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::FILE_BYTES_MAX;
use crate::status::Status;

/// Who holds a lock within one session, as its kernel numbers owners: the programs that share a
/// table of descriptors (`fcntl`), or an open file (`flock`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct LockOwner(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockKind {
    /// Shared with other readers (`F_RDLCK`, `LOCK_SH`).
    Read,
    /// Exclusive (`F_WRLCK`, `LOCK_EX`).
    Write,
}

impl LockKind {
    /// Two owners cannot hold these of the same byte.
    pub fn conflicts_with(self, other: LockKind) -> bool {
        self == LockKind::Write || other == LockKind::Write
    }
}

/// Bytes of a file; both ends belong to it, and the last possible byte stands for the end wherever
/// it will be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct LockRange {
    first: u64,
    last: u64,
}

impl LockRange {
    pub const WHOLE: LockRange = LockRange {
        first: 0,
        last: FILE_BYTES_MAX,
    };

    /// `Invalid` if it is empty or reaches behind [`FILE_BYTES_MAX`].
    pub fn new(first: u64, last: u64) -> Result<Self, Status> {
        match first <= last && last <= FILE_BYTES_MAX {
            true => Ok(LockRange { first, last }),
            false => Err(Status::Invalid),
        }
    }

    pub fn first(self) -> u64 {
        self.first
    }

    pub fn last(self) -> u64 {
        self.last
    }

    pub fn overlaps(self, other: LockRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// What of it lies before `other`.
    fn before(self, other: LockRange) -> Option<LockRange> {
        let last = self.last.min(other.first.checked_sub(1)?);
        LockRange::new(self.first, last).ok()
    }

    /// What of it lies behind `other`.
    fn behind(self, other: LockRange) -> Option<LockRange> {
        LockRange::new(self.first.max(other.last + 1), self.last).ok()
    }

    fn intersection(self, other: LockRange) -> Option<LockRange> {
        LockRange::new(self.first.max(other.first), self.last.min(other.last)).ok()
    }
}

impl TryFrom<(u64, u64)> for LockRange {
    type Error = Status;

    fn try_from((first, last): (u64, u64)) -> Result<Self, Status> {
        LockRange::new(first, last)
    }
}

impl From<LockRange> for (u64, u64) {
    fn from(range: LockRange) -> Self {
        (range.first, range.last)
    }
}

impl fmt::Debug for LockRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            FILE_BYTES_MAX => write!(f, "{}..", self.first),
            last => write!(f, "{}..={last}", self.first),
        }
    }
}

/// What one owner holds of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRanges(Vec<(LockRange, LockKind)>);

impl LockRanges {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many pieces it takes to say what is held.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Ascending.
    pub fn iter(&self) -> impl Iterator<Item = (LockRange, LockKind)> {
        self.0.iter().copied()
    }

    /// Locks a range, or unlocks it with `None`; what was held of it is replaced.
    pub fn set(&mut self, range: LockRange, kind: Option<LockKind>) {
        let mut pieces: Vec<(LockRange, LockKind)> = Vec::with_capacity(self.0.len() + 2);
        for (held, as_kind) in self.iter() {
            let outside = [held.before(range), held.behind(range)];
            pieces.extend(outside.into_iter().flatten().map(|part| (part, as_kind)));
        }
        pieces.extend(kind.map(|kind| (range, kind)));
        pieces.sort_by_key(|(part, _)| part.first);
        self.0.clear();
        pieces.into_iter().for_each(|piece| self.join(piece));
        self.check();
    }

    /// Adds a piece behind all others, to the last one if it continues that.
    fn join(&mut self, (range, kind): (LockRange, LockKind)) {
        match self.0.last_mut() {
            Some((last, last_kind)) if *last_kind == kind && last.last + 1 == range.first => {
                last.last = range.last;
            }
            _ => self.0.push((range, kind)),
        }
    }

    /// The first piece that another owner's lock of `kind` would conflict with.
    pub fn conflict(&self, range: LockRange, kind: LockKind) -> Option<(LockRange, LockKind)> {
        self.iter()
            .find(|(held, as_kind)| held.overlaps(range) && as_kind.conflicts_with(kind))
    }

    /// Some byte of `range` is held as `kind`.
    pub fn holds(&self, range: LockRange, kind: LockKind) -> bool {
        self.iter()
            .any(|(held, as_kind)| held.overlaps(range) && as_kind == kind)
    }

    /// Some byte of `range` is held.
    pub fn touches(&self, range: LockRange) -> bool {
        self.iter().any(|(held, _)| held.overlaps(range))
    }

    /// All of `range` in pieces, ascending, each with what is held of it.
    pub fn cut(&self, range: LockRange) -> Vec<(LockRange, Option<LockKind>)> {
        let mut pieces = Vec::new();
        let mut rest = Some(range);
        for (held, kind) in self.iter() {
            let (Some(ahead), Some(part)) = (rest, held.intersection(range)) else {
                continue;
            };
            pieces.extend(ahead.before(part).map(|gap| (gap, None)));
            pieces.push((part, Some(kind)));
            rest = ahead.behind(part);
        }
        pieces.extend(rest.map(|gap| (gap, None)));
        pieces
    }

    fn check(&self) {
        let good = |pair: &[(LockRange, LockKind)]| {
            let [(left, left_kind), (right, right_kind)] = pair else {
                return false;
            };
            let apart = left.last + 1 < right.first;
            apart || (left.last + 1 == right.first && left_kind != right_kind)
        };
        assert!(self.0.windows(2).all(good), "pieces ascend: {:?}", self.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of the model; the last one stands for all from there on.
    const BYTES: u64 = 32;

    fn kinds() -> impl Strategy<Value = Option<LockKind>> {
        prop_oneof![
            Just(None),
            Just(Some(LockKind::Read)),
            Just(Some(LockKind::Write))
        ]
    }

    fn ranges() -> impl Strategy<Value = LockRange> {
        let first = 0..BYTES - 1;
        first.prop_flat_map(|first| {
            let last = prop_oneof![8 => first..BYTES - 1, 1 => Just(FILE_BYTES_MAX)];
            last.prop_map(move |last| LockRange::new(first, last).expect("ascends"))
        })
    }

    fn model_bytes(range: LockRange) -> std::ops::RangeInclusive<usize> {
        range.first as usize..=range.last.min(BYTES - 1) as usize
    }

    proptest! {
        #[test]
        fn lock_ranges_agree_with_a_byte_for_byte_model(
            sets in proptest::collection::vec((ranges(), kinds()), 1..40),
            asked in ranges(),
            as_kind in prop_oneof![Just(LockKind::Read), Just(LockKind::Write)],
        ) {
            let mut held = LockRanges::default();
            let mut model = [None; BYTES as usize];
            for (range, kind) in sets {
                held.set(range, kind);
                model[model_bytes(range)].fill(kind);
            }
            for (byte, expected) in model.iter().enumerate() {
                let at = LockRange::new(byte as u64, byte as u64).expect("one byte");
                prop_assert_eq!(held.cut(at), vec![(at, *expected)]);
            }
            let of_model = &model[model_bytes(asked)];
            let conflicts = of_model.iter().flatten().any(|kind| kind.conflicts_with(as_kind));
            prop_assert_eq!(held.conflict(asked, as_kind).is_some(), conflicts);
            prop_assert_eq!(held.touches(asked), of_model.iter().any(Option::is_some));
            prop_assert_eq!(held.holds(asked, as_kind), of_model.contains(&Some(as_kind)));
            let changes = model.windows(2).filter(|pair| pair[0] != pair[1] && pair[1].is_some());
            prop_assert_eq!(held.len(), changes.count() + usize::from(model[0].is_some()));
        }

        #[test]
        fn cut_restores_what_a_set_has_replaced(
            sets in proptest::collection::vec((ranges(), kinds()), 1..20),
            range in ranges(),
            kind in kinds(),
        ) {
            let mut held = LockRanges::default();
            sets.into_iter().for_each(|(range, kind)| held.set(range, kind));
            let before = held.clone();
            let pieces = held.cut(range);
            held.set(range, kind);
            pieces.into_iter().for_each(|(piece, kind)| held.set(piece, kind));
            prop_assert_eq!(held, before);
        }
    }

    #[test]
    fn lock_range_refuses_what_is_no_range() {
        assert_eq!(LockRange::new(2, 1), Err(Status::Invalid));
        assert_eq!(LockRange::new(0, FILE_BYTES_MAX + 1), Err(Status::Invalid));
        let backwards = crate::codec::encode(&(2u64, 1u64));
        assert!(crate::codec::decode::<LockRange>(&backwards).is_err());
    }
}
