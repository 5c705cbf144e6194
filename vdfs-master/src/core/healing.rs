//! What becomes of chains with time: members that are away lose their places, chains that wait find
//! whose copy is theirs, and those that are short get new members, or lose some that are too many.
//!
//! Members that volumes or operators move away are in `moving`.
//!
//! Looked at with each tick, over all chains: it does not matter in which order volumes went, or
//! whether the master was there when they did.

use std::collections::{BTreeMap, BTreeSet};

use vdfs_proto::{Chain, ChainId, Member, MemberState, VolumeId};

use super::Core;
use super::chains::{each_chain, head_of, serving, state_of};
use super::limits::{COPIES_WAIT_MS, HEAL_AFTER_MS};
use super::loads::{Loads, Wanted};
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
        changes.extend(self.chains_that_go_back());
        self.change_chains(&changes);
        let mut loads = Loads::of(self);
        self.drop_surplus(&loads);
        self.heal(&mut loads);
        self.move_chains(loads);
    }

    /// Members that are away, where another one serves.
    fn places_of_the_gone(&self) -> Changes {
        let mut changes = Vec::new();
        for (id, chain) in each_chain(&self.state.table) {
            let may_go = |member: &&Member| match member.state {
                MemberState::Syncing => true,
                MemberState::Serving | MemberState::Waiting => self.has_other(chain, member.volume),
            };
            let gone = chain.members.iter().filter(|of| self.is_away(of.volume));
            changes.extend(
                gone.filter(may_go)
                    .map(|member| (id, ChainChange::Removed(member.volume))),
            );
        }
        changes
    }

    /// Chains whose head went before it had taken over, and of which another member in sync is there: nobody
    /// has been told anything under this head.
    fn chains_that_go_back(&self) -> Changes {
        let goes_back = |(id, chain): &(ChainId, &Chain)| {
            let are_away = serving(chain).all(|volume| self.is_away(volume));
            let is_headless = head_of(chain).is_some() && are_away;
            let mut in_sync = self.state.in_sync_of(*id);
            is_headless && in_sync.any(|of| self.is_alive(of.volume))
        };
        let chains = each_chain(&self.state.table).filter(|(_, chain)| !chain.is_active);
        let chains = chains.filter(goes_back);
        chains.map(|(id, _)| (id, ChainChange::Suspended)).collect()
    }

    /// Chains whose members had all gone, and of which enough are back.
    fn ends_of_waits(&mut self) -> Changes {
        let now_ms = self.live.now.boot_ms;
        let before = std::mem::take(&mut self.live.waiting_since_ms);
        let mut changes = Vec::new();
        for (id, chain) in each_chain(&self.state.table) {
            let Some(last) = self.last_back(chain) else {
                continue;
            };
            let since_ms = before.get(&id).copied().unwrap_or(now_ms);
            let are_all_back = chain.members.iter().all(|of| self.is_alive(of.volume));
            match are_all_back || since_ms + COPIES_WAIT_MS <= now_ms {
                true => changes.push((id, ChainChange::Resumed(last))),
                false => drop(self.live.waiting_since_ms.insert(id, since_ms)),
            }
        }
        changes
    }

    /// Of the members that wait, as long as nobody serves, the last one that is back: changes are applied
    /// from there up, so that it lacks least.
    fn last_back(&self, chain: &Chain) -> Option<VolumeId> {
        let waits = head_of(chain).is_none();
        let mut members = chain.members.iter().rev().map(|member| member.volume);
        members.find(|volume| waits && self.is_alive(*volume))
    }

    /// Members of chains that are longer than they shall be are asked to leave, one after the other.
    fn drop_surplus(&mut self, loads: &Loads) {
        let chains = each_chain(&self.state.table).filter(|(_, chain)| chain.is_active);
        let may_go = |chain: &Chain, leaver| match state_of(chain, leaver) {
            Some(MemberState::Syncing) => true,
            _ => serving(chain).count() == chain.members.len(),
        };
        let leaving = chains.filter_map(|(id, chain)| Some((id, chain, loads.leaver(id)?)));
        let surplus: Vec<(ChainId, VolumeId)> = leaving
            .filter(|(_, chain, leaver)| may_go(chain, *leaver))
            .map(|(id, _, leaver)| (id, leaver))
            .collect();
        self.begin_departures(&surplus);
    }

    fn heal(&mut self, loads: &mut Loads) {
        if self.rests_after_loss() {
            return;
        }
        let hosts: BTreeSet<String> = self.hosts_alive().into_values().collect();
        let chains = each_chain(&self.state.table);
        let short = chains.filter(|(id, chain)| self.is_short(*id, chain, hosts.len()));
        let mut changes = Vec::new();
        for (id, chain) in short {
            let had = self.live.last_removed.get(&id).copied();
            let wanted = Wanted {
                id,
                chain,
                leaving: None,
                had,
            };
            if let Some(volume) = loads.best(wanted, |volume| Some(volume) == had) {
                loads.charge(id, volume);
                changes.push((id, ChainChange::Added(volume)));
            }
        }
        self.change_chains(&changes);
    }

    /// Whoever is gone may be back in a moment.
    pub(super) fn rests_after_loss(&self) -> bool {
        self.live.lost_member_ms + HEAL_AFTER_MS > self.live.now.boot_ms
    }

    fn is_short(&self, id: ChainId, chain: &Chain, hosts: usize) -> bool {
        let target = hosts.min(self.state.replicas_of(id));
        chain.members.len() < target && self.is_at_rest(id, chain)
    }

    /// All its members serve, and nobody is asked to leave.
    pub(super) fn is_at_rest(&self, id: ChainId, chain: &Chain) -> bool {
        let serves =
            |member: &Member| member.state == MemberState::Serving && self.is_alive(member.volume);
        chain.is_active && chain.members.iter().all(serves) && !self.live.removals.contains_key(&id)
    }

    /// Of the volumes that may get places.
    pub(super) fn hosts_alive(&self) -> BTreeMap<VolumeId, String> {
        let volumes = self.state.table.volumes.iter();
        let alive = volumes.filter(|info| self.may_get_places(info.id));
        alive.map(|info| (info.id, host_of(info))).collect()
    }

    /// Copies that there can be now of what directories ask nothing for: as many as shall be, on
    /// different hosts.
    pub(crate) fn copies_possible(&self) -> u32 {
        let hosts: BTreeSet<String> = self.hosts_alive().into_values().collect();
        self.state.replicas().clamp(1, hosts.len().max(1) as u32)
    }
}
