//! Volumes: leases, commands, and what they say with them. Their heartbeats are answered before they
//! come here.
//!
//! A volume that was silent for its lease is *away*: it must register again before it is served, so
//! it learns all fences before its next lease. Of its chains those that others serve go on without it
//! (`healing`); the others wait.

use std::sync::Arc;

use vdfs_proto::limits::VOLUME_LEASE_MS;
use vdfs_proto::volume::{Command, Commands, NextCommands, VolumeReply, VolumeRequest};
use vdfs_proto::{ChainTable, Status, VolumeId};

use super::chains::{head_of, serving};
use super::inode::NewData;
use super::live::{LiveVolume, Seat, Sent};
use super::{Core, CoreReply, Effect, Heard, Ticket};

impl Core {
    pub(crate) fn take_volume_request(
        &mut self,
        ticket: Ticket,
        node: &str,
        request: VolumeRequest,
    ) {
        let outcome = match request {
            VolumeRequest::Register(register) => self.register(ticket, node, register),
            VolumeRequest::Heartbeat(_) => Err(Status::NotSupported),
            VolumeRequest::NextCommands(next) => {
                self.next_commands(ticket, node, &next).map(|()| None)
            }
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(reply)) => self.live.reply(ticket, Ok(CoreReply::Volume(reply))),
            Err(status) => self.live.reply(ticket, Err(status)),
        }
    }

    /// The table's last change is durable: everybody may see it.
    pub(crate) fn publish_table(&mut self, table: Arc<ChainTable>) {
        let (before, after) = (self.live.table.version, table.version);
        assert!(before <= after, "tables are published in order");
        if before == after {
            return;
        }
        self.live.table = table;
        let table: ChainTable = (*self.live.table).clone();
        let volumes: Vec<VolumeId> = self.live.volumes.keys().copied().collect();
        for volume in volumes {
            if let Some(live) = self.live.volumes.get_mut(&volume) {
                live.outbox
                    .retain(|command| !matches!(command, Command::Table(_)));
            }
            self.live
                .send(volume, Command::Table(table.clone()), Sent::News);
        }
        self.announce_table();
        self.follow_heads();
    }

    /// `NotFound` if the volume has to register first, `WrongRole` if it is not the asker's.
    fn registered_volume(
        &mut self,
        node: &str,
        next: &NextCommands,
    ) -> Result<&mut LiveVolume, Status> {
        let info = self.state.table.volume(next.volume);
        if info.is_some_and(|info| info.node != node) {
            return Err(Status::WrongRole);
        }
        let live = self.live.volumes.get_mut(&next.volume);
        let live = live.ok_or(Status::NotFound)?;
        let is_present =
            live.incarnation == Some(next.incarnation) && live.registration == next.registration;
        match is_present {
            true => Ok(live),
            false => Err(Status::NotFound),
        }
    }

    pub(crate) fn take_heard(&mut self, heard: &[Heard]) {
        for heard in heard {
            // It may have been removed meanwhile.
            let Some(live) = self.live.volumes.get_mut(&heard.volume) else {
                continue;
            };
            live.heard_ms = live.heard_ms.max(heard.heard_ms);
            live.capacity_bytes = heard.capacity_bytes;
            live.used_bytes = heard.used_bytes;
        }
    }

    fn next_commands(
        &mut self,
        ticket: Ticket,
        node: &str,
        next: &NextCommands,
    ) -> Result<(), Status> {
        let now_ms = self.live.now.boot_ms;
        let clock_ahead_ms = self.clock_ahead_ms(next.wall);
        let live = self.registered_volume(node, next)?;
        live.clock_ahead_ms = Some(clock_ahead_ms);
        live.net = next.net;
        let before = live.outbox.poll(next.seen, ticket, now_ms);
        self.live.seats.insert(ticket, Seat::Commands(next.volume));
        if let Some(before) = before {
            let reply = self.commands(Vec::new());
            self.live.reply(before, Ok(reply));
        }
        for (number, result) in &next.results {
            self.command_done(next.volume, *number, *result);
        }
        self.take_news(next.volume, &next.news);
        Ok(())
    }

    fn command_done(&mut self, volume: VolumeId, number: u64, result: Result<(), Status>) {
        let live = self.live.volumes.get_mut(&volume);
        let Some(sent) = live.and_then(|live| live.sent.remove(&number)) else {
            return;
        };
        match (sent, result) {
            (Sent::Trim(ino), result) => self.trim_answered(ino, volume, result),
            (Sent::Reap, Ok(())) => self.reap_done(volume),
            (Sent::Reap, Err(_)) => self.reap_failed(volume),
            (Sent::Fence(session), Ok(())) => self.fenced_at(volume, session),
            (Sent::Fence(session), Err(_)) => self.send_fence(volume, session),
            (Sent::Leave(chain, epoch), result) => self.leave_answered(chain, epoch, result),
            (Sent::News, _) => {}
        }
    }

    fn commands(&self, commands: Vec<(u64, Command)>) -> CoreReply {
        let term = self.state.numbers.term;
        CoreReply::Volume(VolumeReply::NextCommands(Commands { term, commands }))
    }

    pub(crate) fn answer_volume_polls(&mut self) {
        let now_ms = self.live.now.boot_ms;
        let volumes = self.live.volumes.values_mut();
        let batches: Vec<_> = volumes
            .filter_map(|live| live.outbox.take_answer(now_ms))
            .collect();
        for (ticket, batch) in batches {
            let reply = self.commands(batch);
            self.live.reply(ticket, Ok(reply));
        }
    }

    pub(crate) fn expire_volumes(&mut self) {
        let now_ms = self.live.now.boot_ms;
        let is_over = |live: &LiveVolume| !live.away && live.heard_ms + VOLUME_LEASE_MS < now_ms;
        let volumes = self.live.volumes.iter();
        let over: Vec<VolumeId> = volumes
            .filter(|(_, live)| is_over(live))
            .map(|(volume, _)| *volume)
            .collect();
        for volume in over {
            self.volume_is_away(volume);
        }
    }

    fn volume_is_away(&mut self, volume: VolumeId) {
        let live = self.live.volumes.get_mut(&volume).expect("listed just now");
        live.away = true;
        let parked = live.outbox.take_parked();
        live.leave();
        if let Some(parked) = parked {
            self.live.reply(parked, Err(Status::NotFound));
        }
        self.live.effects.push(Effect::Lease {
            volume,
            grant: None,
        });
        self.all_fenced_at(volume);
    }

    /// The first chunk of what lies there is on volumes that serve and have room.
    pub(crate) fn takes_new_data(&self, place: NewData) -> bool {
        let layout = super::inode::FileBody::new(place, 0).layout();
        let Some(chain) = self.state.table.chain(layout.chain(0)) else {
            return false;
        };
        let takes = |volume| {
            let live: Option<&LiveVolume> = self.live.volumes.get(&volume);
            live.is_some_and(|live| live.has_room()) && self.may_get_places(volume)
        };
        head_of(chain).is_some() && serving(chain).all(takes)
    }
}
