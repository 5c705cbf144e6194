//! Members that lose their places while they live: somebody cannot reach them, or there are too many.
//!
//! Such a member is told to leave first, and gets no lease until it has said that it did: it may be
//! out of reach of the others and serve what it has. Its heartbeats are then not answered at all, so a
//! volume that cannot say so is away after its lease, as one that is silent. A life that registers
//! again confirms nothing, and is told again.
//!
//! Invariants: one member of a chain is removed at a time, and only in the epoch in which it was
//! asked; one that is certainly gone goes before one that was asked.

use std::collections::BTreeSet;

use vdfs_proto::volume::Command;
use vdfs_proto::{Chain, ChainId, Epoch, MemberState, Status, VolumeId};

use super::chains::state_of;
use super::limits::{DEPARTURES_EVERY_MS, REMOVALS_MAX};
use super::live::Sent;
use super::membership::Changes;
use super::record::ChainChange;
use super::{Core, Effect};

/// Of one member of a chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Removal {
    volume: VolumeId,
    epoch: Epoch,
    /// It has said that it serves the chain no more.
    has_left: bool,
    /// Another one has its place, or is to have it: it is not missed.
    is_moved: bool,
}

impl Core {
    /// Asks the member to leave. Nothing if it is the last one that serves, or another one is asked.
    pub(crate) fn begin_removal(&mut self, id: ChainId, volume: VolumeId) {
        self.ask_to_leave(id, volume, false);
    }

    /// The same of members that are not missed: there are enough others, or their volumes are not to have
    /// these places any more. Nothing if some were asked a moment ago.
    pub(crate) fn begin_departures(&mut self, leaving: &[(ChainId, VolumeId)]) {
        let now_ms = self.live.now.boot_ms;
        if leaving.is_empty() || self.live.departures_ms + DEPARTURES_EVERY_MS > now_ms {
            return;
        }
        self.live.departures_ms = now_ms;
        for (id, volume) in leaving {
            self.ask_to_leave(*id, *volume, true);
        }
    }

    fn ask_to_leave(&mut self, id: ChainId, volume: VolumeId, is_moved: bool) {
        let chain = self.state.table.chain(id).expect("looked at by the caller");
        let is_full = self.live.removals.len() >= REMOVALS_MAX;
        // One that is away goes with the next tick.
        let may_be = self.may_lose(chain, volume) && !self.is_away(volume);
        if is_full || !may_be || self.live.removals.contains_key(&id) {
            return;
        }
        let removal = Removal {
            volume,
            epoch: chain.epoch,
            has_left: false,
            is_moved,
        };
        self.live.removals.insert(id, removal);
        self.send_leave(id);
        self.withhold_leases();
    }

    fn may_lose(&self, chain: &Chain, volume: VolumeId) -> bool {
        match state_of(chain, volume) {
            Some(MemberState::Serving | MemberState::Waiting) => self.has_other(chain, volume),
            Some(MemberState::Syncing) => true,
            None => false,
        }
    }

    fn send_leave(&mut self, chain: ChainId) {
        if let Some(Removal { volume, epoch, .. }) = self.live.removals.get(&chain).copied() {
            let command = Command::Leave { chain, epoch };
            self.live.send(volume, command, Sent::Leave(chain, epoch));
        }
    }

    /// The volume has answered the order to leave.
    pub(crate) fn leave_answered(&mut self, id: ChainId, epoch: Epoch, result: Result<(), Status>) {
        let removal = self.live.removals.get_mut(&id);
        let Some(removal) = removal.filter(|removal| removal.epoch == epoch) else {
            return;
        };
        match result {
            Ok(()) => {
                removal.has_left = true;
                self.withhold_leases();
            }
            Err(_) => self.send_leave(id),
        }
    }

    /// Logs the removal of those who have left, while somebody else serves. If the others are away it
    /// is these that lose their places, and whoever has left goes on in the epoch after that.
    pub(crate) fn finish_removals(&mut self) {
        let removals = self.live.removals.iter();
        let left = removals.filter(|(id, removal)| {
            let chain = self.state.table.chain(**id);
            removal.has_left && chain.is_some_and(|chain| self.may_lose(chain, removal.volume))
        });
        let changes: Changes = left
            .map(|(id, removal)| (*id, ChainChange::Removed(removal.volume)))
            .collect();
        self.change_chains(&changes);
    }

    /// The member leaves this epoch, and is not missed.
    pub(crate) fn is_moved(&self, id: ChainId, volume: VolumeId) -> bool {
        let removal = self.live.removals.get(&id);
        removal.is_some_and(|removal| removal.is_moved && removal.volume == volume)
    }

    /// Whoever was asked to leave an epoch that is over may stay.
    pub(crate) fn forget_removals(&mut self) {
        let table = &self.state.table;
        self.live.removals.retain(|id, removal| {
            let chain = table.chain(*id);
            chain.is_some_and(|chain| {
                let is_member = state_of(chain, removal.volume).is_some();
                chain.epoch == removal.epoch && is_member
            })
        });
        self.withhold_leases();
    }

    /// The volume has registered again, and may have missed any of them; it has a lease to lose.
    pub(crate) fn resend_leaves_to(&mut self, volume: VolumeId) {
        self.live.withheld.remove(&volume);
        let removals = self.live.removals.iter();
        let asked = removals.filter(|(_, removal)| removal.volume == volume && !removal.has_left);
        let asked: Vec<ChainId> = asked.map(|(id, _)| *id).collect();
        for id in asked {
            self.send_leave(id);
        }
        self.withhold_leases();
    }

    /// Has the leases withheld of exactly those that are asked to leave and have not.
    fn withhold_leases(&mut self) {
        let removals = self.live.removals.values();
        let asked = removals.filter(|removal| !removal.has_left);
        let asked: BTreeSet<VolumeId> = asked.map(|removal| removal.volume).collect();
        let before = std::mem::replace(&mut self.live.withheld, asked);
        for volume in before.symmetric_difference(&self.live.withheld) {
            self.live.effects.push(Effect::Withhold {
                volume: *volume,
                is_on: !before.contains(volume),
            });
        }
    }
}
