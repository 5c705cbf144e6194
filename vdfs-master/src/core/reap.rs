//! Dropping the chunks of files that are gone.
//!
//! A data id enters the queue of every volume by the record that ends its inode or renews it. When
//! that record is durable, the volume is told, again after each restart until it has acknowledged;
//! an acknowledgement is a record that takes the id out. Each step may be repeated.

use std::collections::BTreeSet;

use vdfs_proto::limits::REAP_BATCH_MAX;
use vdfs_proto::meta::{AdminReply, DropOrphans};
use vdfs_proto::volume::Command;
use vdfs_proto::{DataId, Ino, Status, VolumeId};

use super::limits::BATCH_MAX;
use super::lingering::Lingering;
use super::live::{LiveVolume, Sent};
use super::record::Record;
use super::state::{Applied, State};
use super::{Core, Ticket};

impl State {
    pub(crate) fn queue_reap(&mut self, data: DataId, applied: &mut Applied) {
        for volume in self.volumes.keys() {
            self.reaps.insert((*volume, data), ());
        }
        applied.reaped.push(data);
    }

    pub(crate) fn apply_reaped(&mut self, volume: VolumeId, ids: &[DataId]) {
        for data in ids {
            self.reaps.remove((volume, *data));
        }
    }

    /// A store that has nothing yet may be given chunks that others have still to drop, and nothing
    /// else that is gone.
    pub(crate) fn inherit_reaps(&mut self, volume: VolumeId) {
        let own: Vec<DataId> = self.reaps_of(volume).collect();
        self.apply_reaped(volume, &own);
        let ids: BTreeSet<DataId> = self.reaps.iter().map(|((_, id), ())| id).collect();
        for data in ids {
            self.reaps.insert((volume, data), ());
        }
    }

    pub(crate) fn reaps_of(&self, volume: VolumeId) -> impl Iterator<Item = DataId> {
        self.reaps
            .iter_from((volume, DataId(0)))
            .take_while(move |((of, _), ())| *of == volume)
            .map(|((_, data), ())| data)
    }
}

impl Core {
    /// Gives each volume that has no reap under way the next batch of what is durable.
    pub(crate) fn send_reaps(&mut self) {
        let volumes: Vec<VolumeId> = self.live.volumes.keys().copied().collect();
        for volume in volumes {
            self.send_reaps_to(volume);
        }
    }

    fn send_reaps_to(&mut self, volume: VolumeId) {
        let Some(live) = self.live.volumes.get_mut(&volume) else {
            return;
        };
        let may_reap = live.is_registered() && !live.keeps_all && live.reaping.is_empty();
        if !may_reap || live.reap_ready.is_empty() {
            return;
        }
        let count = live.reap_ready.len().min(REAP_BATCH_MAX);
        let ids: Vec<DataId> = live.reap_ready.drain(..count).collect();
        live.reaping = ids.clone();
        self.live.send(volume, Command::Reap { ids }, Sent::Reap);
    }

    pub(crate) fn drop_orphans(&mut self, ticket: Ticket, DropOrphans { ids }: DropOrphans) {
        let numbers = &self.state.numbers;
        let (from, below) = numbers.lost_data;
        let is_known = |data: &DataId| *data < numbers.data && !(from..below).contains(data);
        if ids.len() > REAP_BATCH_MAX || !ids.iter().all(is_known) {
            return self.live.reply(ticket, Err(Status::Invalid));
        }
        let order = Record::OrphansFound { ids };
        self.log_order(ticket, order, AdminReply::DropOrphans(()));
    }

    /// The volume has acknowledged its batch.
    pub(crate) fn reap_done(&mut self, volume: VolumeId) {
        if let Some(live) = self.live.volumes.get_mut(&volume) {
            let ids = std::mem::take(&mut live.reaping);
            live.reaped.extend(ids);
        }
    }

    /// The volume could not do it now: once more, later.
    pub(crate) fn reap_failed(&mut self, volume: VolumeId) {
        if let Some(live) = self.live.volumes.get_mut(&volume) {
            live.return_reaps();
        }
    }

    pub(crate) fn log_reaped(&mut self) {
        let volumes: Vec<VolumeId> = self.live.volumes.keys().copied().collect();
        for volume in volumes {
            let live = self.live.volumes.get_mut(&volume);
            let ids = std::mem::take(&mut live.expect("listed above").reaped);
            if !ids.is_empty() {
                self.log(Record::Reaped { volume, ids });
            }
        }
    }

    /// `ids` may be dropped: the record that says so is durable.
    pub(crate) fn reap_is_durable(&mut self, ids: &[DataId]) {
        for live in self.live.volumes.values_mut() {
            live.reap_ready.extend(ids);
        }
    }

    /// The same of all that a volume with a new store has to drop.
    pub(crate) fn reaps_are_durable(&mut self, volume: VolumeId, ids: Vec<DataId>) {
        if let Some(live) = self.live.volumes.get_mut(&volume) {
            live.reaping.clear();
            live.reap_ready = ids.into();
        }
    }

    /// A file that is replaced may stay for a moment, while there is room for new ones.
    pub(crate) fn may_linger(&self, ino: Ino) -> bool {
        let has_room = self.live.volumes.values().all(LiveVolume::has_room);
        let file = self.state.file(ino);
        has_room && file.is_ok_and(|file| Lingering::takes(file.size))
    }

    pub(crate) fn let_linger(&mut self, ino: Ino) {
        let now_ms = self.live.now.boot_ms;
        if let Ok(file) = self.state.file(ino) {
            self.live.lingering.insert(ino, file.size, now_ms);
        }
    }

    pub(crate) fn end_lingering(&mut self) {
        let due = self.live.lingering.take_due(self.live.now.boot_ms);
        self.live.maybe_dead.extend(due);
    }

    fn is_in_use(&self, ino: Ino) -> bool {
        self.live.is_pinned(ino) || self.live.lingering.contains(ino)
    }

    /// Ends orphans that nobody has open any more.
    pub(crate) fn drop_dead_orphans(&mut self) {
        if !self.live.unresumed.is_empty() || self.live.maybe_dead.is_empty() {
            return;
        }
        let candidates = std::mem::take(&mut self.live.maybe_dead);
        let dead: Vec<Ino> = candidates
            .into_iter()
            .filter(|ino| self.state.orphans.contains(*ino) && !self.is_in_use(*ino))
            .collect();
        for inos in dead.chunks(BATCH_MAX) {
            let inos = inos.to_vec();
            self.log(Record::Dropped { inos });
        }
    }
}
