//! Copies of chains in which this volume has no place any more: they may be freed, and so may those of what
//! its chain has lost.
//!
//! Not at once: a volume that lost its places because it was away has them again in a moment, and what it
//! still has need not be copied then.
//!
//! Invariant: a copy goes only while the master's table says that others serve its chain, or that it is
//! lost.

use std::collections::{BTreeMap, BTreeSet};

use vdfs_proto::{ChainId, ChunkId, DataId, Epoch};

use super::{Membership, is_planted};

/// What of a chain is nobody's, as far as this volume is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwanted {
    /// Others serve the chain, and this volume has no place in it.
    All,
    /// The chain has lost what is below.
    Below(DataId),
}

impl Unwanted {
    /// As the master's table has it now.
    pub fn of(membership: &Membership, id: ChainId) -> Option<Unwanted> {
        let chain = membership.table().chain(id)?;
        membership.volume()?;
        let is_served = chain.head().is_some();
        let is_taken_over = chain.is_active || is_planted!(FreeBeforeActive);
        match membership.own_state(id) {
            None if is_taken_over && is_served => Some(Unwanted::All),
            Some(_) if chain.lost_below > DataId(0) => Some(Unwanted::Below(chain.lost_below)),
            None | Some(_) => None,
        }
    }

    pub fn has(self, chunk: ChunkId) -> bool {
        match self {
            Unwanted::All => true,
            Unwanted::Below(mark) => chunk.data < mark,
        }
    }
}

type Found = (Unwanted, Epoch);

/// Chains of which something here is unwanted.
#[derive(Debug)]
pub struct Departed {
    kept_ms: u64,
    /// Of each chain in its present epoch, since when.
    since: BTreeMap<ChainId, (Found, u64)>,
    /// Of these nothing is left.
    freed: BTreeSet<ChainId>,
    /// A master that names an earlier one has lost history: it may not know what is here.
    latest: BTreeMap<ChainId, Epoch>,
}

impl Departed {
    /// What is unwanted is kept for `kept_ms` of CLOCK_BOOTTIME.
    pub fn new(kept_ms: u64) -> Self {
        Departed {
            kept_ms,
            since: BTreeMap::new(),
            freed: BTreeSet::new(),
            latest: BTreeMap::new(),
        }
    }

    /// Nothing is left of these.
    pub fn note_freed(&mut self, chains: BTreeSet<ChainId>) {
        self.freed.extend(chains);
    }

    /// Takes up what is unwanted now; gives the chains whose time has come.
    pub fn look(&mut self, membership: &Membership, now_ms: u64) -> BTreeSet<ChainId> {
        let chains = (0..membership.table().chains.len() as u32).map(ChainId);
        let unwanted: BTreeMap<ChainId, Found> = chains
            .filter_map(|id| {
                let epoch = membership.epoch(id)?;
                let latest = self.latest.entry(id).or_default();
                *latest = epoch.max(*latest);
                let unwanted = Unwanted::of(membership, id).filter(|_| epoch == *latest)?;
                Some((id, (unwanted, epoch)))
            })
            .collect();
        let is_same = |id: &ChainId, was: Found| unwanted.get(id) == Some(&was);
        self.since.retain(|id, (was, _)| is_same(id, *was));
        let since = &self.since;
        self.freed.retain(|id| since.contains_key(id));
        for (id, what) in unwanted {
            self.since.entry(id).or_insert((what, now_ms));
        }
        let due = self.since.iter();
        let due = due
            .filter(|(id, (_, since))| since + self.kept_ms <= now_ms && !self.freed.contains(id));
        due.map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use vdfs_proto::volume::Registered;
    use vdfs_proto::{Chain, ChainTable, ChunkSize, Member, MemberState, StoreId, VolumeId};

    use super::*;

    const KEPT_MS: u64 = 10_000;
    const STORE: StoreId = StoreId(7);

    fn chain(volume: u32, is_active: bool, lost_below: u64) -> Chain {
        let member = Member {
            volume: VolumeId(volume),
            store: STORE,
            state: MemberState::Serving,
        };
        Chain {
            epoch: Epoch(1),
            members: vec![member],
            lost_below: DataId(lost_below),
            is_active,
        }
    }

    fn membership(version: u64, chains: Vec<Chain>) -> Membership {
        let mut membership = Membership::new(STORE);
        membership.register(&Registered {
            volume: VolumeId(1),
            registration: 1,
            term: 1,
            chunk_size: ChunkSize::DEFAULT,
            table: ChainTable {
                version,
                chains,
                volumes: Vec::new(),
            },
            data_next: DataId(1),
            fences: Vec::new(),
            live_sessions: Vec::new(),
            session_next: vdfs_proto::SessionId(1),
        });
        membership
    }

    #[test]
    fn departed_are_chains_that_others_have_served_for_long() {
        let mut departed = Departed::new(KEPT_MS);
        let chains = vec![chain(1, true, 0), chain(2, true, 0), chain(2, false, 0)];
        let elsewhere = membership(1, chains);
        let begun = 100_000;
        assert!(departed.look(&elsewhere, begun).is_empty());
        let soon = begun + KEPT_MS / 2;
        assert!(departed.look(&elsewhere, soon).is_empty());
        let later = begun + KEPT_MS;
        let due = departed.look(&elsewhere, later);
        assert_eq!(due, BTreeSet::from([ChainId(1)]));
        departed.note_freed(due);
        assert!(departed.look(&elsewhere, later).is_empty(), "once");
        let back = membership(2, vec![chain(1, true, 0); 3]);
        assert!(departed.look(&back, later).is_empty());
        assert!(departed.look(&elsewhere, later).is_empty(), "begins anew");
        assert_eq!(departed.look(&elsewhere, later + KEPT_MS).len(), 1);
    }

    #[test]
    fn departed_are_not_chains_of_a_master_that_has_lost_history() {
        let mut departed = Departed::new(KEPT_MS);
        let mut ours = chain(1, true, 0);
        ours.epoch = Epoch(2);
        let begun = 100_000;
        departed.look(&membership(1, vec![ours]), begun);
        let earlier = membership(1, vec![chain(2, true, 0)]);
        departed.look(&earlier, begun);
        assert!(departed.look(&earlier, begun + KEPT_MS).is_empty());
    }

    #[test]
    fn unwanted_of_a_chain_that_is_ours_is_what_it_has_lost() {
        let membership = membership(1, vec![chain(1, true, 5)]);
        let unwanted = Unwanted::of(&membership, ChainId(0)).expect("some is");
        let chunk = |data| ChunkId {
            data: DataId(data),
            index: 0,
        };
        assert!(unwanted.has(chunk(4)) && !unwanted.has(chunk(5)));
        let unknown = Membership::new(STORE);
        assert_eq!(Unwanted::of(&unknown, ChainId(0)), None);
    }
}
