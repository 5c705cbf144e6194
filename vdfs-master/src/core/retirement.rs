//! Volumes that are taken out of the table for good.
//!
//! A volume that runs must have no place left: who serves something old may serve it on. Of one that is
//! away the places go with it; where nobody else has a copy the chain begins anew with another volume, and
//! all that had bytes there is lost. Its store is remembered, and refused when it comes back.
//!
//! Invariant: no chain is without a member; what is lost reads as lost (`lost_below`), whatever the new
//! member may still have from an earlier time.

use std::sync::Arc;

use vdfs_proto::meta::{AdminReply, RemoveAnswer, RemoveVolume};
use vdfs_proto::{ChainId, DataId, Status, StoreId, VolumeId};

use super::chains::places_in;
use super::limits::REMOVED_STORES_MAX;
use super::live::AfterDurable;
use super::loads::{Loads, Wanted};
use super::record::Record;
use super::state::State;
use super::{Core, CoreReply, Effect, Ticket};

/// Which volumes go on with chains that have lost their only copy.
type Heirs = Vec<(ChainId, VolumeId)>;

impl Core {
    pub(crate) fn remove_volume(&mut self, ticket: Ticket, remove: RemoveVolume) {
        let planned = self.plan_removal_of(remove);
        let answer = planned.as_ref().err().copied();
        let reply = AdminReply::RemoveVolume(answer.unwrap_or(RemoveAnswer::Removed));
        let reply = CoreReply::Admin(reply);
        match planned {
            Ok(heirs) => {
                let volume = remove.volume;
                self.log(Record::VolumeRemoved { volume, heirs });
                self.forget_removals();
                self.forget_volume(volume);
                self.after_sync(AfterDurable::Table(self.state.table.clone()));
                self.after_durable(AfterDurable::Reply(ticket, reply));
            }
            Err(_) => self.live.reply(ticket, Ok(reply)),
        }
    }

    fn plan_removal_of(&self, remove: RemoveVolume) -> Result<Heirs, RemoveAnswer> {
        let volume = remove.volume;
        if !self.state.volumes.contains_key(&volume) {
            return Err(RemoveAnswer::Unknown);
        }
        let chains = places_in(&self.state.table, volume);
        let alone = self.state.chains_alone(volume);
        if chains > 0 && self.is_alive(volume) {
            let alone = alone.len() as u32;
            return Err(RemoveAnswer::Serves { chains, alone });
        }
        if chains > 0 && !self.is_away(volume) {
            return Err(RemoveAnswer::MayBeAlive);
        }
        if !alone.is_empty() && !remove.may_lose {
            let chains = alone.len() as u32;
            return Err(RemoveAnswer::HasOnlyCopy { chains });
        }
        self.heirs_of(volume, &alone)
    }

    fn heirs_of(&self, volume: VolumeId, alone: &[ChainId]) -> Result<Heirs, RemoveAnswer> {
        let mut loads = Loads::of(self);
        let heir_of = |id: &ChainId| {
            let chain = self.state.table.chain(*id).expect("it was just found");
            let mut others = chain.members.iter().map(|member| member.volume);
            let syncing = others.find(|other| *other != volume);
            let leaving = Some(volume);
            let wanted = Wanted {
                id: *id,
                chain,
                leaving,
                had: None,
            };
            let best = || loads.best(wanted, |_| false);
            let heir = syncing.or_else(best).ok_or(RemoveAnswer::NoOther)?;
            loads.charge(*id, heir);
            Ok((*id, heir))
        };
        alone.iter().map(heir_of).collect()
    }

    /// Nobody waits for it any more.
    fn forget_volume(&mut self, volume: VolumeId) {
        let Some(mut live) = self.live.volumes.remove(&volume) else {
            return;
        };
        if let Some(parked) = live.outbox.take_parked() {
            self.live.reply(parked, Err(Status::NotFound));
        }
        self.live.effects.push(Effect::Lease {
            volume,
            grant: None,
        });
        self.all_fenced_at(volume);
    }
}

impl State {
    pub(crate) fn apply_volume_removed(&mut self, volume: VolumeId, heirs: &[(ChainId, VolumeId)]) {
        // Nobody goes back to what it had.
        let stored = Arc::make_mut(&mut self.volumes).remove(&volume);
        self.refuse_store(stored.expect("the volume is known").store);
        self.lose_volume(volume, heirs);
        let table = Arc::make_mut(&mut self.table);
        table.version += 1;
        table.volumes.retain(|info| info.id != volume);
        let own: Vec<DataId> = self.reaps_of(volume).collect();
        self.apply_reaped(volume, &own);
    }

    fn refuse_store(&mut self, store: StoreId) {
        let removed = Arc::make_mut(&mut self.removed);
        if removed.len() == REMOVED_STORES_MAX {
            removed.remove(0);
        }
        removed.push(store);
    }
}
