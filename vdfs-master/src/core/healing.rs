//! What becomes of chains with time: members that are away lose their places, chains that wait find
//! whose copy is theirs, and those that are short get new members, or lose some that are too many.
//!
//! Looked at with each tick, over all chains: it does not matter in which order volumes went, or
//! whether the master was there when they did.

use std::collections::{BTreeMap, BTreeSet};

use vdfs_proto::{Chain, ChainId, Member, MemberState, VolumeId};

use super::Core;
use super::chains::{each_chain, serving};
use super::limits::{COPIES_WAIT_MS, HEAL_AFTER_MS};
use super::membership::Changes;
use super::record::ChainChange;
use super::spread::host_of;

impl Core {
    pub(crate) fn tend_chains(&mut self) {
        if self.live.log_full.is_some() {
            return;
        }
        let mut changes = self.places_of_the_gone();
        changes.extend(self.ends_of_waits());
        self.change_chains(&changes);
        self.drop_surplus();
        self.heal();
    }

    /// Members that are away, where another one serves.
    fn places_of_the_gone(&self) -> Changes {
        let mut changes = Vec::new();
        for (id, chain) in each_chain(&self.state.table) {
            let may_go = |member: &&Member| match member.state {
                MemberState::Serving => self.has_other(chain, member.volume),
                MemberState::Syncing => true,
                MemberState::Waiting => false,
            };
            let gone = chain.members.iter().filter(|of| self.is_away(of.volume));
            changes.extend(
                gone.filter(may_go)
                    .map(|member| (id, ChainChange::Removed(member.volume))),
            );
        }
        changes
    }

    /// Chains whose members had all gone, and of which enough are back.
    fn ends_of_waits(&mut self) -> Changes {
        let now_ms = self.live.now.boot_ms;
        let before = std::mem::take(&mut self.live.waiting_since_ms);
        let mut changes = Vec::new();
        for (id, chain) in each_chain(&self.state.table) {
            let Some(winner) = self.best_copy(chain) else {
                continue;
            };
            let since_ms = before.get(&id).copied().unwrap_or(now_ms);
            let are_all_back = chain.members.iter().all(|of| self.is_alive(of.volume));
            match are_all_back || since_ms + COPIES_WAIT_MS <= now_ms {
                true => changes.push((id, ChainChange::Resumed(winner))),
                false => drop(self.live.waiting_since_ms.insert(id, since_ms)),
            }
        }
        changes
    }

    /// Of the members that wait and are back: one whose process did not end within a change, and of
    /// these the last one, since a change is applied from there up.
    fn best_copy(&self, chain: &Chain) -> Option<VolumeId> {
        let waiting = chain.members.iter().enumerate();
        let back =
            waiting.filter(|(_, of)| of.state == MemberState::Waiting && self.is_alive(of.volume));
        let is_whole = |volume| !self.live.volumes[&volume].is_torn;
        let best = back.max_by_key(|(at, member)| (is_whole(member.volume), *at));
        best.map(|(_, member)| member.volume)
    }

    /// There shall be fewer copies: the last members are asked to leave, one after the other.
    fn drop_surplus(&mut self) {
        let chains = each_chain(&self.state.table);
        let longer = chains.filter(|(id, chain)| {
            chain.is_active && chain.members.len() > self.state.replicas_of(*id)
        });
        let last = longer.filter_map(|(id, chain)| Some((id, chain.members.last()?.volume)));
        let surplus: Vec<(ChainId, VolumeId)> = last.collect();
        for (chain, volume) in surplus {
            self.begin_removal(chain, volume);
        }
    }

    fn heal(&mut self) {
        if self.live.lost_member_ms + HEAL_AFTER_MS > self.live.now.boot_ms {
            return;
        }
        let hosts: BTreeSet<String> = self.hosts_alive().into_values().collect();
        let chains = each_chain(&self.state.table);
        let short: Vec<(ChainId, &Chain)> = chains
            .filter(|(id, chain)| self.is_short(*id, chain, hosts.len()))
            .collect();
        if short.is_empty() {
            return;
        }
        let mut candidates = Candidates::of(self);
        let mut changes = Vec::new();
        for (id, chain) in short {
            let last = self.live.last_removed.get(&id).copied();
            if let Some(volume) = candidates.take_best(chain, last) {
                changes.push((id, ChainChange::Added(volume)));
            }
        }
        self.change_chains(&changes);
    }

    fn is_short(&self, id: ChainId, chain: &Chain, hosts: usize) -> bool {
        let target = hosts.min(self.state.replicas_of(id));
        let serves =
            |member: &Member| member.state == MemberState::Serving && self.is_alive(member.volume);
        chain.is_active
            && chain.members.len() < target
            && chain.members.iter().all(serves)
            && !self.live.removals.contains_key(&id)
    }

    /// Of the volumes that serve.
    fn hosts_alive(&self) -> BTreeMap<VolumeId, String> {
        let volumes = self.state.table.volumes.iter();
        let alive = volumes.filter(|info| self.is_alive(info.id));
        alive.map(|info| (info.id, host_of(info))).collect()
    }

    /// Copies that there can be now of what directories ask nothing for: as many as shall be, on
    /// different hosts.
    pub(crate) fn copies_possible(&self) -> u32 {
        let hosts: BTreeSet<String> = self.hosts_alive().into_values().collect();
        self.state
            .config
            .replicas
            .clamp(1, hosts.len().max(1) as u32)
    }
}

/// Volumes that may be given copies.
struct Candidates {
    /// Of all volumes.
    hosts: BTreeMap<VolumeId, String>,
    volumes: BTreeMap<VolumeId, Candidate>,
}

struct Candidate {
    capacity_bytes: u64,
    /// Chains of which it is a member, those of this round among them.
    chains: u64,
}

impl Candidates {
    fn of(core: &Core) -> Self {
        let infos = core.state.table.volumes.iter();
        let hosts = infos.map(|info| (info.id, host_of(info))).collect();
        let may_take = |volume: &VolumeId| core.is_alive(*volume);
        let live = core.live.volumes.iter();
        let volumes = live
            .filter(|(volume, live)| may_take(volume) && live.has_room())
            .map(|(volume, live)| {
                let candidate = Candidate {
                    capacity_bytes: live.capacity_bytes,
                    chains: 0,
                };
                (*volume, candidate)
            });
        let mut candidates = Candidates {
            hosts,
            volumes: volumes.collect(),
        };
        let members = core.state.table.chains.iter().flat_map(|of| &of.members);
        members.for_each(|member| candidates.charge(member.volume));
        candidates
    }

    fn charge(&mut self, volume: VolumeId) {
        if let Some(candidate) = self.volumes.get_mut(&volume) {
            candidate.chains += 1;
        }
    }

    /// The one that was there last, with most of the chain's data perhaps; else the one with the fewest
    /// chains for its capacity.
    fn take_best(&mut self, chain: &Chain, last: Option<VolumeId>) -> Option<VolumeId> {
        let taken: Vec<&String> = serving(chain)
            .filter_map(|volume| self.hosts.get(&volume))
            .collect();
        let is_elsewhere = |volume: &VolumeId| {
            let host = self.hosts.get(volume);
            host.is_some_and(|host| !taken.contains(&host))
        };
        let volumes = self.volumes.iter();
        let possible = volumes.filter(|(volume, _)| is_elsewhere(volume));
        let best = possible.min_by(|(one, of_one), (other, of_other)| {
            let is_last = |volume: &VolumeId| Some(*volume) == last;
            let by_load = of_one.load_less(of_other);
            is_last(other).cmp(&is_last(one)).then(by_load)
        });
        let best = best.map(|(volume, _)| *volume)?;
        self.charge(best);
        Some(best)
    }
}

impl Candidate {
    fn load_less(&self, other: &Candidate) -> std::cmp::Ordering {
        let mine = u128::from(self.chains) * u128::from(other.capacity_bytes.max(1));
        let others = u128::from(other.chains) * u128::from(self.capacity_bytes.max(1));
        mine.cmp(&others)
    }
}
