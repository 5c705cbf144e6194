//! Volumes: registration, leases, commands. Their heartbeats are answered before they come here.
//!
//! A volume that was silent for its lease is *away*: it must register again before it is served, so
//! it learns all fences before its next lease. With one replica nothing else follows from it: its
//! chains wait.

use std::sync::Arc;

use vdfs_proto::limits::VOLUME_LEASE_MS;
use vdfs_proto::volume::{
    Command, Commands, Fence, NextCommands, Register, Registered, VolumeReply, VolumeRequest,
};
use vdfs_proto::{ChainTable, SessionId, Status, VolumeId, VolumeInfo};

use super::inode::NewData;
use super::limits::{DATA_IDS_LOST_MAX, LABEL_BYTES_MAX};
use super::live::{AfterDurable, LiveVolume, Seat, Sent};
use super::record::{Record, VolumeRegistered};
use super::{Core, CoreReply, Effect, Grant, Heard, Ticket};

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

    /// Begins an incarnation. What changes the chain table is answered when it is durable.
    fn register(
        &mut self,
        ticket: Ticket,
        node: &str,
        register: Register,
    ) -> Result<Option<VolumeReply>, Status> {
        let labels = [&register.name, &register.host];
        if labels.iter().any(|label| label.len() > LABEL_BYTES_MAX) {
            return Err(Status::Invalid);
        }
        let known = self
            .state
            .table
            .volumes
            .iter()
            .find(|info| info.node == node);
        let volume = known.map_or(self.state.numbers.volume, |info| info.id);
        if self.may_run_elsewhere(volume, &register) {
            return Err(Status::NameInUse);
        }
        if register.data_id_max.0 >= self.state.numbers.data.0.saturating_add(DATA_IDS_LOST_MAX) {
            return Err(Status::Invalid);
        }
        let lost = register.data_id_max >= self.state.numbers.data;
        if known.is_some_and(|info| self.is_unchanged(info, &register)) && !lost {
            self.finish_registration(ticket, volume, &register);
            return Ok(None);
        }
        if self.live.log_full.is_some() {
            return Err(Status::Busy);
        }
        let is_new = known.is_none();
        if lost {
            self.note_lost_history(node, &register);
        }
        self.log(Record::VolumeRegistered(VolumeRegistered {
            volume,
            name: register.name.clone(),
            host: register.host.clone(),
            addr: register.addr,
            node: node.to_owned(),
            store: register.store,
            capacity_bytes: register.capacity_bytes,
            data_id_max: register.data_id_max,
        }));
        if is_new {
            let live = LiveVolume::new(self.state.numbers.term, self.live.now.boot_ms);
            self.live.volumes.insert(volume, live);
        }
        self.live
            .volumes
            .entry(volume)
            .and_modify(|live| live.keeps_all |= lost);
        self.after_sync(AfterDurable::Registered {
            ticket,
            volume,
            register,
            table: self.state.table.clone(),
        });
        Ok(None)
    }

    /// The volume is known with another store, and has not been silent for its lease. That store is
    /// not lost because a second process, a copy of the machine perhaps, comes with the same name.
    fn may_run_elsewhere(&self, volume: VolumeId, register: &Register) -> bool {
        let stored = self.state.volumes.get(&volume);
        let has_other_store = stored.is_some_and(|stored| stored.store != register.store);
        let live = self.live.volumes.get(&volume);
        has_other_store && live.is_some_and(|live| !live.away)
    }

    fn is_unchanged(&self, info: &VolumeInfo, register: &Register) -> bool {
        let stored = self.state.volumes.get(&info.id);
        let same_store = stored.is_some_and(|stored| stored.store == register.store);
        let same_place = info.addr == register.addr && info.host == register.host;
        same_store && same_place && info.name == register.name
    }

    fn note_lost_history(&mut self, node: &str, register: &Register) {
        let next = self.state.numbers.data;
        let why = format!(
            "volume {node} holds data up to {}, but the log ends before {next}: \
             the log has lost its end, and nothing is deleted there",
            register.data_id_max
        );
        self.live.history_lost = Some(why);
    }

    pub(crate) fn finish_registration(
        &mut self,
        ticket: Ticket,
        volume: VolumeId,
        register: &Register,
    ) {
        let now_ms = self.live.now.boot_ms;
        let fences = self.durable_fences();
        let live = self
            .live
            .volumes
            .get_mut(&volume)
            .expect("known since it was logged");
        live.registration += 1;
        live.untold_fences = fences.iter().map(|fence| fence.session).collect();
        let registration = live.registration;
        let parked = live.outbox.take_parked();
        live.leave();
        live.incarnation = Some(register.incarnation);
        live.away = false;
        live.heard_ms = now_ms;
        live.capacity_bytes = register.capacity_bytes;
        live.used_bytes = register.used_bytes;
        let grant = Some(Grant {
            incarnation: register.incarnation,
            heard_ms: now_ms,
        });
        self.live.effects.push(Effect::Lease { volume, grant });
        if let Some(parked) = parked {
            self.live.reply(parked, Err(Status::NotFound));
        }
        let reply = self.registered(volume, registration, fences);
        self.live.reply(ticket, Ok(CoreReply::Volume(reply)));
        self.resend_trims_to(volume);
    }

    fn registered(&self, volume: VolumeId, registration: u64, fences: Vec<Fence>) -> VolumeReply {
        let sessions = self.state.sessions.iter().map(|(session, _)| session);
        VolumeReply::Register(Registered {
            volume,
            registration,
            term: self.state.numbers.term,
            chunk_size: self.state.config.chunk_size,
            table: (*self.live.table).clone(),
            data_next: self.state.numbers.data,
            fences,
            live_sessions: std::iter::once(SessionId::MASTER).chain(sessions).collect(),
        })
    }

    fn durable_fences(&self) -> Vec<Fence> {
        let closings = &self.live.closings;
        let is_durable = |fence: &Fence| closings.get(&fence.session).is_some_and(|c| c.durable);
        self.state.fences().into_iter().filter(is_durable).collect()
    }

    /// The table's last change is durable: everybody may see it.
    pub(crate) fn publish_table(&mut self, table: Arc<ChainTable>) {
        assert!(
            self.live.table.version < table.version,
            "tables are published in order"
        );
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
            let live = self.live.volumes.get_mut(&heard.volume);
            let live = live.expect("a volume that was granted its lease is known");
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
        for session in std::mem::take(&mut live.untold_fences) {
            self.fenced_at(next.volume, session);
        }
        self.live.seats.insert(ticket, Seat::Commands(next.volume));
        if let Some(before) = before {
            let reply = self.commands(Vec::new());
            self.live.reply(before, Ok(reply));
        }
        for (number, result) in &next.results {
            self.command_done(next.volume, *number, *result);
        }
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

    /// The first chunk of what lies there is on a volume that serves and has room.
    pub(crate) fn takes_new_data(&self, place: NewData) -> bool {
        let layout = super::inode::FileBody::new(place, 0).layout();
        let chain = self.state.table.chain(layout.chain(0));
        let head = chain.and_then(|chain| chain.members.first());
        head.and_then(|member| self.live.volumes.get(&member.volume))
            .is_some_and(|live| live.is_registered() && live.has_room())
    }
}
