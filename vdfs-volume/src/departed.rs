//! Copies of chains in which this volume has no place any more: they are freed, and so are those of what
//! its chain has lost.
//!
//! Not at once: a volume that lost its places because it was away has them again in a moment, and what it
//! still has need not be copied then.
//!
//! Invariant: a copy goes only while the master's table says that others serve its chain, or that it is
//! lost. Whoever gives this volume a copy holds the same lock, and finds it a member.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use vdfs_proto::{ChainId, ChunkId, DataId, Epoch, MemberState};

use crate::chain::Membership;
use crate::engine::Engine;

/// How long a chain must have been elsewhere: several times what the master takes to give a place back.
const KEPT: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After which the thread sees to its other work; freeing a chunk of 64 MiB takes some milliseconds.
const PAUSE: Duration = Duration::from_millis(5);

/// What of a chain is nobody's, as far as this volume is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unwanted {
    /// Others serve the chain, and this volume has no place in it.
    All,
    /// The chain has lost what is below.
    Below(DataId),
}

impl Unwanted {
    fn of(membership: &Membership, id: ChainId) -> Option<Unwanted> {
        let chain = membership.table().chain(id)?;
        membership.volume()?;
        let serves = |state| state == MemberState::Serving;
        let is_served = chain.members.iter().any(|member| serves(member.state));
        match membership.own_state(id) {
            None if chain.is_active && is_served => Some(Unwanted::All),
            Some(_) if chain.lost_below > DataId(0) => Some(Unwanted::Below(chain.lost_below)),
            None | Some(_) => None,
        }
    }

    fn has(self, chunk: ChunkId) -> bool {
        match self {
            Unwanted::All => true,
            Unwanted::Below(mark) => chunk.data < mark,
        }
    }
}

type Found = (Unwanted, Epoch);

#[derive(Debug, Default)]
struct Departed {
    /// Of each chain in its present epoch.
    since: BTreeMap<ChainId, (Found, Instant)>,
    /// Of these nothing is left.
    freed: BTreeSet<ChainId>,
    /// A master that names an earlier one has lost history: it may not know what is here.
    latest: BTreeMap<ChainId, Epoch>,
}

impl Departed {
    /// Takes up what is unwanted now; gives the chains whose time has come.
    fn look(&mut self, membership: &Membership, now: Instant) -> BTreeSet<ChainId> {
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
            self.since.entry(id).or_insert((what, now));
        }
        let due = self.since.iter();
        let due = due.filter(|(id, (_, since))| {
            now.duration_since(*since) >= KEPT && !self.freed.contains(id)
        });
        due.map(|(id, _)| *id).collect()
    }
}

/// Looks for such copies from time to time; never ends.
pub(crate) async fn free_departed(engine: &Engine) {
    let mut departed = Departed::default();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let now = Instant::now();
        let due = engine.look(|core| departed.look(core.membership(), now));
        if due.is_empty() {
            continue;
        }
        for (chunk, chain) in engine.store().chunks_of(|chain| due.contains(&chain)) {
            if free(engine, chunk, chain).await {
                tokio::time::sleep(PAUSE).await;
            }
        }
        departed.freed.extend(due);
    }
}

/// False if it is wanted again.
async fn free(engine: &Engine, chunk: ChunkId, chain: ChainId) -> bool {
    let _giving = engine.supplied.lock().await;
    let unwanted = engine.look(|core| Unwanted::of(core.membership(), chain));
    let is_unwanted = unwanted.is_some_and(|unwanted| unwanted.has(chunk));
    if is_unwanted {
        engine.store().drop_copy(chunk);
    }
    is_unwanted
}

#[cfg(test)]
mod tests {
    use vdfs_proto::volume::Registered;
    use vdfs_proto::{Chain, ChainTable, ChunkSize, Member, StoreId, VolumeId};

    use super::*;

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
        });
        membership
    }

    #[test]
    fn departed_are_chains_that_others_have_served_for_long() {
        let mut departed = Departed::default();
        let chains = vec![chain(1, true, 0), chain(2, true, 0), chain(2, false, 0)];
        let elsewhere = membership(1, chains);
        let begun = Instant::now();
        assert!(departed.look(&elsewhere, begun).is_empty());
        let soon = begun + KEPT / 2;
        assert!(departed.look(&elsewhere, soon).is_empty());
        let later = begun + KEPT;
        let due = departed.look(&elsewhere, later);
        assert_eq!(due, BTreeSet::from([ChainId(1)]));
        departed.freed.extend(due);
        assert!(departed.look(&elsewhere, later).is_empty(), "once");
        let back = membership(2, vec![chain(1, true, 0); 3]);
        assert!(departed.look(&back, later).is_empty());
        assert!(departed.look(&elsewhere, later).is_empty(), "begins anew");
        assert_eq!(departed.look(&elsewhere, later + KEPT).len(), 1);
    }

    #[test]
    fn departed_are_not_chains_of_a_master_that_has_lost_history() {
        let mut departed = Departed::default();
        let mut ours = chain(1, true, 0);
        ours.epoch = Epoch(2);
        let begun = Instant::now();
        departed.look(&membership(1, vec![ours]), begun);
        let earlier = membership(1, vec![chain(2, true, 0)]);
        departed.look(&earlier, begun);
        assert!(departed.look(&earlier, begun + KEPT).is_empty());
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
