//! How many places in chains each volume has, and how many would be its share, in each group: balanced
//! over all groups together, one volume could have all the chains of one.
//!
//! Invariant: places are counted as they will be when what is under way has ended: of a chain that is
//! longer than it shall be, whoever is to leave it counts no more.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use vdfs_proto::{Chain, ChainId, MemberState, VolumeId};

use super::Core;
use super::chains::{each_chain, serving};
use super::groups::group_of;
use super::spread::host_of;

/// Of one instant, and of what has been decided since.
#[derive(Clone, Debug)]
pub(super) struct Loads {
    /// Of all volumes.
    hosts: BTreeMap<VolumeId, String>,
    /// Volumes that may have places: they serve, and are not drained.
    volumes: BTreeMap<VolumeId, Taker>,
    /// Of these.
    capacity_bytes: u64,
    /// Who is to leave chains that are longer than they shall be.
    leavers: BTreeMap<ChainId, VolumeId>,
    groups: Vec<Places>,
}

#[derive(Clone, Copy, Debug)]
struct Taker {
    capacity_bytes: u64,
    has_room: bool,
}

/// In the chains of one group.
#[derive(Clone, Debug, Default)]
struct Places {
    /// Of those that may have some.
    of: BTreeMap<VolumeId, u64>,
    /// That these have, or get from drained ones.
    total: u64,
}

/// Whom a place is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) id: ChainId,
    pub(super) chain: &'a Chain,
    /// The member whose place it takes: its host is free.
    pub(super) leaving: Option<VolumeId>,
    /// Who has lost it, and has what lies there: it needs no more room for that.
    pub(super) had: Option<VolumeId>,
}

impl Loads {
    pub(super) fn of(core: &Core) -> Self {
        let infos = core.state.table.volumes.iter();
        let live = core.live.volumes.iter();
        let may_have = live.filter(|(volume, _)| core.may_get_places(**volume));
        let volumes: BTreeMap<VolumeId, Taker> = may_have
            .map(|(volume, live)| {
                let taker = Taker {
                    capacity_bytes: live.capacity_bytes.max(1),
                    has_room: live.has_room(),
                };
                (*volume, taker)
            })
            .collect();
        let mut loads = Loads {
            hosts: infos.map(|info| (info.id, host_of(info))).collect(),
            capacity_bytes: volumes.values().map(|taker| taker.capacity_bytes).sum(),
            volumes,
            leavers: BTreeMap::new(),
            groups: vec![Places::default(); core.state.groups.len()],
        };
        loads.count(core);
        loads
    }

    fn count(&mut self, core: &Core) {
        for (id, chain) in each_chain(&core.state.table) {
            for member in &chain.members {
                let counts = core.is_draining(member.volume) || self.has(member.volume);
                self.places_mut(id).total += u64::from(counts);
                self.charge(id, member.volume);
            }
        }
        let chains = each_chain(&core.state.table);
        for (id, chain) in chains.filter(|(id, chain)| core.state.is_longer(*id, chain)) {
            let surplus = chain.members.len() - core.state.replicas_of(id);
            self.choose_leavers(core, (id, chain), surplus);
        }
    }

    fn places(&self, chain: ChainId) -> &Places {
        &self.groups[usize::from(group_of(chain))]
    }

    fn places_mut(&mut self, chain: ChainId) -> &mut Places {
        &mut self.groups[usize::from(group_of(chain))]
    }

    /// Whoever syncs in vain goes first, then who is drained, then who has most for his capacity.
    fn choose_leavers(&mut self, core: &Core, (id, chain): (ChainId, &Chain), surplus: usize) {
        let mut serving: Vec<VolumeId> = serving(chain).collect();
        let is_syncing = |state| state == MemberState::Syncing;
        let syncing = chain.members.iter().find(|member| is_syncing(member.state));
        let in_vain = syncing.filter(|member| {
            core.is_draining(member.volume) || serving.len() > core.state.replicas_of(id)
        });
        let mut leavers: Vec<VolumeId> = in_vain.map(|member| member.volume).into_iter().collect();
        while leavers.len() < surplus && serving.len() > 1 {
            let at = (0..serving.len()).max_by(|one, other| {
                let (one, other) = (serving[*one], serving[*other]);
                let by_load = self.cmp_loads(id, one, other);
                core.is_draining(one)
                    .cmp(&core.is_draining(other))
                    .then(by_load)
            });
            leavers.push(serving.remove(at.expect("there are some")));
        }
        // With one copy the one that serves goes when the one that syncs has come.
        if leavers.is_empty() {
            leavers.extend(serving.first());
        }
        for leaver in &leavers {
            self.discharge(id, *leaver);
            let counts = core.is_draining(*leaver) || self.has(*leaver);
            self.places_mut(id).total -= u64::from(counts);
        }
        self.leavers
            .extend(leavers.first().map(|leaver| (id, *leaver)));
    }

    /// Who is to leave a chain that is longer than it shall be.
    pub(super) fn leaver(&self, chain: ChainId) -> Option<VolumeId> {
        self.leavers.get(&chain).copied()
    }

    fn has(&self, volume: VolumeId) -> bool {
        self.volumes.contains_key(&volume)
    }

    /// It gets a place in the chain.
    pub(super) fn charge(&mut self, chain: ChainId, volume: VolumeId) {
        if self.has(volume) {
            *self.places_mut(chain).of.entry(volume).or_default() += 1;
        }
    }

    /// It loses one.
    pub(super) fn discharge(&mut self, chain: ChainId, volume: VolumeId) {
        if let Some(places) = self.places_mut(chain).of.get_mut(&volume) {
            *places -= 1;
        }
    }

    /// The volume that is best for a place: the one that `is_first` names if it may have it, else the one
    /// with the fewest places for its capacity.
    pub(super) fn best(
        &self,
        wanted: Wanted<'_>,
        is_first: impl Fn(VolumeId) -> bool,
    ) -> Option<VolumeId> {
        let volumes = self.volumes.iter();
        let possible = volumes.filter(|(volume, taker)| {
            let has_room = taker.has_room || wanted.had == Some(**volume);
            has_room && self.fits(wanted, **volume)
        });
        let possible = possible.map(|(volume, _)| *volume);
        possible.min_by(|one, other| {
            let by_load = self.cmp_loads(wanted.id, *one, *other);
            is_first(*other).cmp(&is_first(*one)).then(by_load)
        })
    }

    /// No member that stays is on its host.
    fn fits(&self, wanted: Wanted<'_>, volume: VolumeId) -> bool {
        let members = wanted.chain.members.iter().map(|member| member.volume);
        let mut staying = members
            .clone()
            .filter(|member| Some(*member) != wanted.leaving);
        let host = self.hosts.get(&volume);
        let mut members = members;
        !members.any(|member| member == volume)
            && staying.all(|member| self.hosts.get(&member) != host)
    }

    /// The member that has most above its share, if that is a place at least.
    pub(super) fn most_above(&self, id: ChainId, chain: &Chain) -> Option<VolumeId> {
        let places = self.places(id);
        let members = chain.members.iter().map(|member| member.volume);
        let above = members.filter(|volume| self.is_above(places, *volume));
        above.max_by_key(|volume| self.above(places, *volume))
    }

    /// It has at least one place less than its share.
    pub(super) fn is_below(&self, chain: ChainId, volume: VolumeId) -> bool {
        self.is_below_in(self.places(chain), volume)
    }

    /// Somebody could take a place from somebody.
    pub(super) fn is_uneven(&self) -> bool {
        self.groups.iter().any(|places| {
            let mut volumes = self.volumes.keys();
            let has_above = volumes.clone().any(|of| self.is_above(places, *of));
            has_above && volumes.any(|of| self.is_below_in(places, *of))
        })
    }

    fn is_above(&self, places: &Places, volume: VolumeId) -> bool {
        self.above(places, volume) >= i128::from(self.capacity_bytes)
    }

    fn is_below_in(&self, places: &Places, volume: VolumeId) -> bool {
        self.has(volume) && self.above(places, volume) <= -i128::from(self.capacity_bytes)
    }

    /// Places more than its share, in units of one place divided by the capacity of all.
    fn above(&self, places: &Places, volume: VolumeId) -> i128 {
        let taker = self.volumes.get(&volume);
        taker.map_or(0, |taker| {
            let share = i128::from(places.total) * i128::from(taker.capacity_bytes);
            i128::from(places.count(volume)) * i128::from(self.capacity_bytes) - share
        })
    }

    /// By their places for their capacity; who may have none is the least.
    fn cmp_loads(&self, chain: ChainId, one: VolumeId, other: VolumeId) -> Ordering {
        let places = self.places(chain);
        let (of_one, of_other) = (self.volumes.get(&one), self.volumes.get(&other));
        match (of_one, of_other) {
            (Some(of_one), Some(of_other)) => {
                let weigh = |volume, against: &Taker| {
                    u128::from(places.count(volume)) * u128::from(against.capacity_bytes)
                };
                weigh(one, of_other).cmp(&weigh(other, of_one))
            }
            (of_one, of_other) => of_one.is_some().cmp(&of_other.is_some()),
        }
    }
}

impl Places {
    fn count(&self, volume: VolumeId) -> u64 {
        self.of.get(&volume).copied().unwrap_or(0)
    }
}
