//! Who gets the chains of a new group: each volume as often as its share of the capacity, evenly
//! interleaved, and no two members of one chain on one host.

use std::collections::BTreeSet;

use vdfs_proto::limits::CHAINS_PER_GROUP;
use vdfs_proto::{Member, MemberState, StoreId, VolumeId, VolumeInfo};

/// A volume that may get places.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub(super) volume: VolumeId,
    pub(super) store: StoreId,
    /// See [`host_of`].
    pub(super) host: String,
    pub(super) capacity_bytes: u64,
}

/// What names the machine of a volume: what it says itself, or else its address.
pub(super) fn host_of(info: &VolumeInfo) -> String {
    match info.host.is_empty() {
        true => info.addr.ip().to_string(),
        false => info.host.clone(),
    }
}

/// The members of each chain of a group, heads first: `replicas`, or as many as there are hosts. Heads
/// are given out by smooth weighted round robin; further places to whoever has had the fewest of all
/// places for its capacity.
pub(super) fn spread(volumes: &[Share], replicas: usize) -> Vec<Vec<Member>> {
    assert!(!volumes.is_empty(), "chains need members");
    let hosts: BTreeSet<&str> = volumes.iter().map(|share| share.host.as_str()).collect();
    let places = replicas.clamp(1, hosts.len());
    let mut heads = Credits::of(volumes);
    let mut all = Credits::of(volumes);
    let chains = 0..CHAINS_PER_GROUP;
    let members = chains.map(|_| {
        heads.earn(1);
        all.earn(places);
        let mut picked: Vec<usize> = Vec::with_capacity(places);
        for place in 0..places {
            let is_free = |at: usize| {
                picked
                    .iter()
                    .all(|of| volumes[*of].host != volumes[at].host)
            };
            let next = match place {
                0 => heads.richest(is_free),
                _ => all.richest(is_free),
            };
            picked.push(next.expect("there are as many hosts as places"));
        }
        heads.charge(picked[0]);
        picked.iter().for_each(|of| all.charge(*of));
        picked.iter().map(|of| volumes[*of].member()).collect()
    });
    members.collect()
}

impl Share {
    fn member(&self) -> Member {
        Member {
            volume: self.volume,
            store: self.store,
            state: MemberState::Serving,
        }
    }
}

/// How many places each volume should have had, less those that it got; in units of one place times
/// the total of all weights.
struct Credits {
    weights: Vec<i128>,
    total: i128,
    credits: Vec<i128>,
}

impl Credits {
    fn of(volumes: &[Share]) -> Self {
        let weight = |share: &Share| i128::from(share.capacity_bytes.max(1));
        let weights: Vec<i128> = volumes.iter().map(weight).collect();
        Credits {
            total: weights.iter().sum(),
            credits: vec![0; weights.len()],
            weights,
        }
    }

    fn earn(&mut self, places: usize) {
        for (credit, weight) in self.credits.iter_mut().zip(&self.weights) {
            *credit += weight * places as i128;
        }
    }

    fn charge(&mut self, volume: usize) {
        self.credits[volume] -= self.total;
    }

    /// The first of those with the most.
    fn richest(&self, may_be: impl Fn(usize) -> bool) -> Option<usize> {
        let possible = (0..self.credits.len()).filter(|at| may_be(*at));
        possible.max_by_key(|at| (self.credits[*at], std::cmp::Reverse(*at)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn share(volume: u32, host: &str, capacity_bytes: u64) -> Share {
        Share {
            volume: VolumeId(volume),
            store: StoreId(volume.into()),
            host: host.to_owned(),
            capacity_bytes,
        }
    }

    /// How often each volume is the member at `place`, or at any if none is said.
    fn counts(chains: &[Vec<Member>], place: Option<usize>) -> BTreeMap<u32, usize> {
        let mut counts = BTreeMap::new();
        for chain in chains {
            let is_meant = |at: usize| place.is_none_or(|place| place == at);
            for (_, member) in chain.iter().enumerate().filter(|(at, _)| is_meant(*at)) {
                *counts.entry(member.volume.0).or_insert(0) += 1;
            }
        }
        counts
    }

    #[test]
    fn spread_gives_each_volume_its_share_of_chains() {
        let volumes = [share(1, "a", 1 << 30), share(2, "b", 3 << 30)];
        let chains = spread(&volumes, 1);
        assert_eq!(counts(&chains, None), BTreeMap::from([(1, 64), (2, 192)]));
    }

    #[test]
    fn spread_puts_copies_on_different_hosts_by_capacity() {
        let volumes = [
            share(1, "a", 1 << 30),
            share(2, "a", 1 << 30),
            share(3, "b", 2 << 30),
            share(4, "c", 2 << 30),
        ];
        let chains = spread(&volumes, 2);
        let host = |member: &Member| &volumes[member.volume.0 as usize - 1].host;
        for chain in &chains {
            assert_eq!(chain.len(), 2);
            assert_ne!(host(&chain[0]), host(&chain[1]));
        }
        let heads = counts(&chains, Some(0));
        assert_eq!((heads[&1], heads[&3]), (43, 85));
        for (volume, places) in counts(&chains, None) {
            let fair = if volume <= 2 { 85 } else { 171 };
            assert!(places.abs_diff(fair) <= 2, "{volume} has {places}");
        }
    }

    #[test]
    fn spread_gives_no_more_members_than_there_are_hosts() {
        let volumes = [share(1, "a", 5), share(2, "a", 5)];
        assert!(spread(&volumes, 3).iter().all(|chain| chain.len() == 1));
    }
}
