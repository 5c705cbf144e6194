//! Chains that move: off volumes that are drained, and off those that have more than their share.
//!
//! A move is two changes. The chain gets one more member, which syncs as in healing; when that serves,
//! another one is asked to leave, as if it were suspected. So there are never fewer copies than before,
//! but where a chain has `CHAIN_MEMBERS_MAX` members: there one leaves first, and healing fills its place.
//!
//! Nothing of a move is remembered. A chain that is longer than it shall be loses the member that is
//! drained, or else the one that has most for its capacity (`loads`): for it the chain was made longer.
//!
//! Invariant: a move for balance takes a place from a volume that has at least one above its share and
//! gives it to one that has at least one below, in the same group. So nobody crosses his share, and moves
//! come to an end.

use std::collections::BTreeSet;
use std::sync::Arc;

use vdfs_proto::limits::CHAIN_MEMBERS_MAX;
use vdfs_proto::meta::{
    AdminReply, BalanceStatus, DrainAnswer, DrainStatus, DrainVolume, MoveProgress, PauseBalance,
};
use vdfs_proto::{Chain, ChainId, Member, MemberState, VolumeId};

use super::chains::{each_chain, places_in, state_of};
use super::limits::MOVES_MAX;
use super::live::LiveVolume;
use super::loads::{Loads, Wanted};
use super::membership::Changes;
use super::record::{ChainChange, Record};
use super::state::State;
use super::{Core, CoreReply, Ticket};

/// A member that is to be replaced.
#[derive(Clone, Copy, Debug)]
struct Move {
    chain: ChainId,
    from: VolumeId,
    to: VolumeId,
}

/// How far moves that belong together have come, in this term.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    begun_ms: u64,
    /// Places that were to move then, or most at any time since.
    total: u32,
    left: u32,
    /// What the volume held then, in bytes.
    held_bytes: u64,
}

impl Progress {
    fn begin(now_ms: u64, left: u32, held_bytes: u64) -> Self {
        Progress {
            begun_ms: now_ms,
            total: left,
            left,
            held_bytes,
        }
    }

    fn go_on(&mut self, left: u32) {
        self.left = left;
        self.total = self.total.max(left);
    }

    fn tell(&self, now_ms: u64) -> MoveProgress {
        let done = self.total - self.left;
        let passed_ms = now_ms.saturating_sub(self.begun_ms);
        let is_moving = done > 0 && self.left > 0;
        MoveProgress {
            left: self.left,
            done,
            remaining_ms: is_moving
                .then(|| passed_ms.saturating_mul(self.left.into()) / u64::from(done)),
        }
    }
}

impl Core {
    pub(crate) fn is_draining(&self, volume: VolumeId) -> bool {
        self.state.is_draining(volume)
    }

    /// It serves, and is not drained.
    pub(crate) fn may_get_places(&self, volume: VolumeId) -> bool {
        self.is_alive(volume) && !self.is_draining(volume)
    }

    /// Begins as many moves as may be under way at once, those off drained volumes first.
    pub(super) fn move_chains(&mut self, mut loads: Loads) {
        let drains = self.plan_drains(&mut loads);
        let balance = self.plan_balance(&mut loads);
        self.note_progress(&balance);
        if self.rests_after_loss() {
            return;
        }
        let room = MOVES_MAX.saturating_sub(self.chains_under_way());
        let is_paused = self.state.is_balance_paused;
        let balance = balance.into_iter().filter(|_| !is_paused);
        let moves: Vec<Move> = drains.into_iter().chain(balance).take(room).collect();
        let has_room = |planned: &&Move| {
            let chain = self.state.table.chain(planned.chain);
            chain.is_some_and(|chain| chain.members.len() < CHAIN_MEMBERS_MAX)
        };
        let (longer, full): (Vec<&Move>, Vec<&Move>) = moves.iter().partition(has_room);
        let added = |planned: &Move| (planned.chain, ChainChange::Added(planned.to));
        let changes: Changes = longer.into_iter().map(added).collect();
        self.change_chains(&changes);
        let leaving = |planned: &Move| (planned.chain, planned.from);
        let leaving: Vec<(ChainId, VolumeId)> = full.into_iter().map(leaving).collect();
        self.begin_departures(&leaving);
    }

    fn plan_drains(&self, loads: &mut Loads) -> Vec<Move> {
        let settled = self.settled_chains();
        let moves = settled.filter_map(|(id, chain)| {
            let mut members = chain.members.iter().map(|member| member.volume);
            let from = members.find(|volume| self.is_draining(*volume))?;
            let to = self.best_instead(loads, (id, chain), from)?;
            loads.charge(id, to);
            Some(Move {
                chain: id,
                from,
                to,
            })
        });
        moves.collect()
    }

    fn plan_balance(&self, loads: &mut Loads) -> Vec<Move> {
        if !loads.is_uneven() {
            return Vec::new();
        }
        let is_drained = |member: &Member| self.is_draining(member.volume);
        let settled = self.settled_chains();
        let others = settled.filter(|(_, chain)| !chain.members.iter().any(is_drained));
        let moves = others.filter_map(|(id, chain)| {
            let from = loads.most_above(id, chain)?;
            let to = self.best_instead(loads, (id, chain), from)?;
            if !loads.is_below(id, to) {
                return None;
            }
            loads.discharge(id, from);
            loads.charge(id, to);
            Some(Move {
                chain: id,
                from,
                to,
            })
        });
        moves.collect()
    }

    /// Chains with which nothing goes on.
    fn settled_chains(&self) -> impl Iterator<Item = (ChainId, &Chain)> {
        each_chain(&self.state.table)
            .filter(|(id, chain)| self.is_at_rest(*id, chain) && !self.state.is_longer(*id, chain))
    }

    /// Not the one that has just failed to take it, while there are others.
    fn best_instead(
        &self,
        loads: &Loads,
        (id, chain): (ChainId, &Chain),
        from: VolumeId,
    ) -> Option<VolumeId> {
        let leaving = Some(from);
        let last = self.live.last_removed.get(&id).copied();
        let wanted = Wanted {
            id,
            chain,
            leaving,
            had: None,
        };
        loads.best(wanted, |volume| Some(volume) != last)
    }

    /// Copies that are being made, and members that are leaving.
    fn chains_under_way(&self) -> usize {
        let is_under_way = |(id, chain): &(ChainId, &Chain)| {
            let last = chain.members.last();
            last.is_some_and(|last| last.state == MemberState::Syncing)
                || self.state.is_longer(*id, chain)
                || self.live.removals.contains_key(id)
        };
        each_chain(&self.state.table).filter(is_under_way).count()
    }

    fn note_progress(&mut self, balance: &[Move]) {
        let now_ms = self.live.now.boot_ms;
        let left = (balance.len() + self.chains_in_balance()) as u32;
        match &mut self.live.balance {
            _ if left == 0 => self.live.balance = None,
            Some(progress) => progress.go_on(left),
            None => self.live.balance = Some(Progress::begin(now_ms, left, 0)),
        }
        let mut drains = std::mem::take(&mut self.live.drains);
        drains.retain(|volume, _| self.is_draining(*volume));
        let volumes = self.state.volumes.iter();
        for (volume, _) in volumes.filter(|(_, stored)| stored.is_draining) {
            let left = places_in(&self.state.table, *volume);
            let live = self.live.volumes.get(volume);
            let held_bytes = live.map_or(0, |live| live.used_bytes);
            let begun = || Progress::begin(now_ms, left, held_bytes);
            drains.entry(*volume).or_insert_with(begun).go_on(left);
        }
        self.live.drains = drains;
    }

    /// Chains that are longer than they shall be, and not because of a drained volume.
    fn chains_in_balance(&self) -> usize {
        let is_drained = |member: &Member| self.is_draining(member.volume);
        self.longer_chains()
            .filter(|chain| !chain.members.iter().any(is_drained))
            .count()
    }

    fn longer_chains(&self) -> impl Iterator<Item = &Chain> {
        let chains = each_chain(&self.state.table);
        let longer = chains.filter(|(id, chain)| self.state.is_longer(*id, chain));
        longer.map(|(_, chain)| chain)
    }

    pub(crate) fn balance_status(&self) -> BalanceStatus {
        let now_ms = self.live.now.boot_ms;
        let progress = self.live.balance.map(|progress| progress.tell(now_ms));
        BalanceStatus {
            is_paused: self.state.is_balance_paused,
            moving: self.longer_chains().count() as u32,
            progress: progress.unwrap_or_default(),
        }
    }

    pub(crate) fn drain_status(&self, volume: VolumeId, live: &LiveVolume) -> Option<DrainStatus> {
        if !self.is_draining(volume) {
            return None;
        }
        let left = places_in(&self.state.table, volume);
        let begun = Progress::begin(self.live.now.boot_ms, left, live.used_bytes);
        let mut progress = self.live.drains.get(&volume).copied().unwrap_or(begun);
        progress.go_on(left);
        let total = u64::from(progress.total.max(1));
        let share = progress.held_bytes as u128 * u128::from(left) / u128::from(total);
        Some(DrainStatus {
            progress: progress.tell(self.live.now.boot_ms),
            left_bytes: share as u64,
            can_move: left == 0 || self.others_can_take(volume),
        })
    }

    /// Somebody may have the first of its places that can move at all.
    fn others_can_take(&self, volume: VolumeId) -> bool {
        let loads = Loads::of(self);
        let mut chains = each_chain(&self.state.table);
        chains.any(|(id, chain)| {
            let is_member = state_of(chain, volume).is_some();
            let is_longer = self.state.is_longer(id, chain);
            is_member && (is_longer || self.best_instead(&loads, (id, chain), volume).is_some())
        })
    }

    pub(crate) fn drain_volume(&mut self, ticket: Ticket, drain: DrainVolume) {
        let answer = self.check_drain(drain);
        let reply = AdminReply::DrainVolume(answer);
        if answer != DrainAnswer::Logged {
            return self.live.reply(ticket, Ok(CoreReply::Admin(reply)));
        }
        let DrainVolume { volume, is_on } = drain;
        self.log_order(ticket, Record::Draining { volume, is_on }, reply);
    }

    fn check_drain(&self, DrainVolume { volume, is_on }: DrainVolume) -> DrainAnswer {
        if !self.state.volumes.contains_key(&volume) {
            return DrainAnswer::Unknown;
        }
        if !is_on {
            return DrainAnswer::Logged;
        }
        let others = self.live.volumes.iter();
        let others = others.filter(|(other, _)| **other != volume && self.may_get_places(**other));
        let free_bytes: u64 = others.clone().map(|(_, live)| live.room_bytes()).sum();
        let held_bytes = self.live.volumes[&volume].used_bytes;
        let mut hosts = self.hosts_alive();
        hosts.remove(&volume);
        let hosts = hosts.into_values().collect::<BTreeSet<String>>().len() as u32;
        // Otherwise the number follows.
        let is_said = self.state.config.replicas.is_some();
        let replicas = if is_said { self.copies_possible() } else { 1 };
        match () {
            () if others.count() == 0 => DrainAnswer::NoOther,
            () if hosts < replicas => DrainAnswer::TooFewHosts { hosts, replicas },
            () if free_bytes < held_bytes => DrainAnswer::NoRoom {
                held_bytes,
                free_bytes,
            },
            () => DrainAnswer::Logged,
        }
    }

    pub(crate) fn pause_balance(&mut self, ticket: Ticket, pause: PauseBalance) {
        let PauseBalance { is_paused } = pause;
        let order = Record::BalancePaused { is_paused };
        self.log_order(ticket, order, AdminReply::PauseBalance(()));
    }
}

impl State {
    pub(crate) fn is_draining(&self, volume: VolumeId) -> bool {
        let stored = self.volumes.get(&volume);
        stored.is_some_and(|stored| stored.is_draining)
    }

    pub(crate) fn apply_draining(&mut self, volume: VolumeId, is_on: bool) {
        let stored = Arc::make_mut(&mut self.volumes).get_mut(&volume);
        stored.expect("the volume is known").is_draining = is_on;
    }
}
