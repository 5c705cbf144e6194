//! What may be said of a file's size while some of its bytes are still on their way.

use std::collections::BTreeMap;

/// Ranges that volumes have acknowledged since the last commit; neighbours are merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extents {
    /// Start to end.
    ranges: BTreeMap<u64, u64>,
}

/// The end that a commit names, and whether it makes a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitPlan {
    pub(crate) end: u64,
    pub(crate) holes: bool,
}

impl Extents {
    pub(crate) fn insert(&mut self, mut start: u64, mut end: u64) {
        assert!(start < end, "an extent is not empty");
        while let Some((&other, &other_end)) = self.ranges.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.ranges.remove(&other);
            start = start.min(other);
            end = end.max(other_end);
        }
        self.ranges.insert(start, end);
    }

    /// Forgets what lies below `end`.
    pub(crate) fn remove_below(&mut self, end: u64) {
        let beyond = self.ranges.split_off(&end);
        let across = self.ranges.last_key_value().map(|(_, &last)| last);
        self.ranges = beyond;
        if let Some(last) = across.filter(|&last| last > end) {
            self.ranges.insert(end, last);
        }
    }

    /// All of a range is in one extent.
    pub(crate) fn covers(&self, start: u64, end: u64) -> bool {
        let before = self.ranges.range(..=start).next_back();
        before.is_some_and(|(_, &last)| last >= end)
    }

    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }

    pub(crate) fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, &end)| end)
    }

    /// Plans a commit on top of `committed` bytes. `unfinished` are the ranges on their way: the
    /// end never passes the start of one that reaches beyond `committed`.
    pub(crate) fn plan(
        &self,
        committed: u64,
        unfinished: impl Iterator<Item = (u64, u64)>,
    ) -> CommitPlan {
        let limit = unfinished
            .filter(|&(_, end)| end > committed)
            .map(|(start, _)| start.max(committed))
            .min()
            .unwrap_or(u64::MAX);
        let mut plan = CommitPlan {
            end: committed,
            holes: false,
        };
        for (&start, &end) in self.ranges.iter().take_while(|&(&start, _)| start < limit) {
            let end = end.min(limit);
            if end > plan.end {
                plan.holes |= start > plan.end;
                plan.end = end;
            }
        }
        assert!(plan.end >= committed, "a commit never shrinks a file");
        plan
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extents(ranges: &[(u64, u64)]) -> Extents {
        let mut extents = Extents::default();
        for &(start, end) in ranges {
            extents.insert(start, end);
        }
        extents
    }

    #[test]
    fn commit_of_a_stream_stops_before_what_is_unfinished() {
        let acked = extents(&[(0, 100), (200, 300)]);
        let plan = acked.plan(0, [(100, 200)].into_iter());
        assert_eq!(
            plan,
            CommitPlan {
                end: 100,
                holes: false
            }
        );
    }

    #[test]
    fn commit_beyond_a_gap_makes_a_hole() {
        let acked = extents(&[(200, 300)]);
        let plan = acked.plan(100, std::iter::empty());
        assert_eq!(
            plan,
            CommitPlan {
                end: 300,
                holes: true
            }
        );
    }

    #[test]
    fn commit_is_not_held_up_by_an_overwrite() {
        let acked = extents(&[(100, 300)]);
        let plan = acked.plan(100, [(0, 50)].into_iter());
        assert_eq!(
            plan,
            CommitPlan {
                end: 300,
                holes: false
            }
        );
    }

    proptest! {
        #[test]
        fn extents_agree_with_a_set_of_bytes(
            ranges in proptest::collection::vec((0u64..200, 1u64..50), 0..20),
            cut in 0u64..250,
            committed in 0u64..200,
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(start, len)| (start, start + len)).collect();
            let mut extents = extents(&ranges);
            let covered = |at: u64| ranges.iter().any(|&(start, end)| (start..end).contains(&at));
            let plan = extents.plan(committed, std::iter::empty());
            let last = (0..250).filter(|&at| covered(at)).max().map_or(0, |at| at + 1);
            prop_assert_eq!(plan.end, last.max(committed));
            prop_assert_eq!(plan.holes, (committed..plan.end).any(|at| !covered(at)));
            for start in (0..250).step_by(7) {
                let all = (start..cut).all(covered);
                prop_assert_eq!(start < cut && extents.covers(start, cut), start < cut && all);
            }
            extents.remove_below(cut);
            let inside = |at: u64| extents.ranges.iter().any(|(&start, &end)| (start..end).contains(&at));
            for at in 0..250 {
                prop_assert_eq!(inside(at), at >= cut && covered(at), "at {}", at);
            }
        }
    }
}
