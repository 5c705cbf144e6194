//! How many places in chains each volume has, and how many would be its share.
//!
//! Invariant: places are counted as they will be when what is under way has ended: of a chain that is
//! longer than it shall be, whoever is to leave it counts no more.

use std::collections::BTreeMap;

use vdfs_proto::{Chain, ChainId, MemberState, VolumeId};

use super::Core;
use super::chains::{each_chain, serving};
use super::spread::host_of;

/// Of one instant, and of what has been decided since.
#[derive(Clone, Debug)]
pub(super) struct Loads {
    /// Of all volumes.
    hosts: BTreeMap<VolumeId, String>,
    /// Volumes that may have places: they serve, and are not drained.
    volumes: BTreeMap<VolumeId, Load>,
    /// Who is to leave chains that are longer than they shall be.
    leavers: BTreeMap<ChainId, VolumeId>,
    /// Places that these volumes have, or get from drained ones.
    places: u64,
    capacity_bytes: u64,
}

#[derive(Clone, Debug)]
struct Load {
    capacity_bytes: u64,
    places: u64,
    has_room: bool,
}

/// Whom a place is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) chain: &'a Chain,
    /// The member whose place it takes: its host is free.
    pub(super) leaving: Option<VolumeId>,
}

impl Loads {
    pub(super) fn of(core: &Core) -> Self {
        let infos = core.state.table.volumes.iter();
        let live = core.live.volumes.iter();
        let may_have = live.filter(|(volume, _)| core.may_get_places(**volume));
        let volumes: BTreeMap<VolumeId, Load> = may_have
            .map(|(volume, live)| {
                let load = Load {
                    capacity_bytes: live.capacity_bytes.max(1),
                    places: 0,
                    has_room: live.has_room(),
                };
                (*volume, load)
            })
            .collect();
        let mut loads = Loads {
            hosts: infos.map(|info| (info.id, host_of(info))).collect(),
            capacity_bytes: volumes.values().map(|load| load.capacity_bytes).sum(),
            volumes,
            leavers: BTreeMap::new(),
            places: 0,
        };
        loads.count(core);
        loads
    }

    fn count(&mut self, core: &Core) {
        let chains = core.state.table.chains.iter();
        for member in chains.flat_map(|chain| &chain.members) {
            let counts = core.is_draining(member.volume) || self.has(member.volume);
            self.places += u64::from(counts);
            self.charge(member.volume);
        }
        let chains = each_chain(&core.state.table);
        for (id, chain) in chains.filter(|(id, chain)| core.state.is_longer(*id, chain)) {
            let surplus = chain.members.len() - core.state.replicas_of(id);
            self.choose_leavers(core, (id, chain), surplus);
        }
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
                let by_load = self.cmp_loads(one, other);
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
            self.discharge(*leaver);
            let counts = core.is_draining(*leaver) || self.has(*leaver);
            self.places -= u64::from(counts);
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

    /// It gets one more place.
    pub(super) fn charge(&mut self, volume: VolumeId) {
        if let Some(load) = self.volumes.get_mut(&volume) {
            load.places += 1;
        }
    }

    /// It loses one.
    pub(super) fn discharge(&mut self, volume: VolumeId) {
        if let Some(load) = self.volumes.get_mut(&volume) {
            load.places -= 1;
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
        let possible =
            volumes.filter(|(volume, load)| load.has_room && self.fits(wanted, **volume));
        let best = possible.min_by(|(one, of_one), (other, of_other)| {
            let by_load = of_one.cmp_for_capacity(of_other);
            is_first(**other).cmp(&is_first(**one)).then(by_load)
        });
        best.map(|(volume, _)| *volume)
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
    pub(super) fn most_above(&self, chain: &Chain) -> Option<VolumeId> {
        let members = chain.members.iter().map(|member| member.volume);
        let above = members.filter(|volume| self.above(*volume) >= i128::from(self.capacity_bytes));
        above.max_by_key(|volume| self.above(*volume))
    }

    /// It has at least one place less than its share.
    pub(super) fn is_below(&self, volume: VolumeId) -> bool {
        self.has(volume) && self.above(volume) <= -i128::from(self.capacity_bytes)
    }

    /// Somebody could take a place from somebody.
    pub(super) fn is_uneven(&self) -> bool {
        let mut volumes = self.volumes.keys();
        let is_above = |volume: &VolumeId| self.above(*volume) >= i128::from(self.capacity_bytes);
        volumes.clone().any(is_above) && volumes.any(|volume| self.is_below(*volume))
    }

    /// Places more than its share, in units of one place divided by the capacity of all.
    fn above(&self, volume: VolumeId) -> i128 {
        let load = self.volumes.get(&volume);
        load.map_or(0, |load| {
            let share = i128::from(self.places) * i128::from(load.capacity_bytes);
            i128::from(load.places) * i128::from(self.capacity_bytes) - share
        })
    }

    fn cmp_loads(&self, one: VolumeId, other: VolumeId) -> std::cmp::Ordering {
        match (self.volumes.get(&one), self.volumes.get(&other)) {
            (Some(one), Some(other)) => one.cmp_for_capacity(other),
            (one, other) => one.is_some().cmp(&other.is_some()),
        }
    }
}

impl Load {
    fn cmp_for_capacity(&self, other: &Load) -> std::cmp::Ordering {
        let mine = u128::from(self.places) * u128::from(other.capacity_bytes);
        let others = u128::from(other.places) * u128::from(self.capacity_bytes);
        mine.cmp(&others)
    }
}
