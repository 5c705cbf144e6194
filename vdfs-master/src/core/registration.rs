//! Registrations of volumes: from a process and its store to a member of chains.
//!
//! Invariant: a volume is told the table only as everybody may see it, with all that was decided of its
//! chains before; so its registration waits until that is durable.

use vdfs_proto::volume::{Fence, Register, Registered, VolumeReply};
use vdfs_proto::{DataId, SessionId, Status, VolumeId, VolumeInfo};

use super::limits::{DATA_IDS_LOST_MAX, LABEL_BYTES_MAX};
use super::live::{AfterDurable, LiveVolume};
use super::membership::Changes;
use super::record::{Record, VolumeRegistered};
use super::{Core, CoreReply, Effect, Grant, Ticket};

impl Core {
    /// Begins an incarnation. What is logged for it is answered when it is durable.
    pub(crate) fn register(
        &mut self,
        ticket: Ticket,
        node: &str,
        register: Register,
    ) -> Result<Option<VolumeReply>, Status> {
        let known = self.state.table.volumes.iter();
        let known = known.clone().find(|info| info.node == node);
        let volume = known.map_or(self.state.numbers.volume, |info| info.id);
        self.check_registration(volume, &register)?;
        let lost = register.data_id_max >= self.state.numbers.data;
        if known.is_some_and(|info| self.is_unchanged(info, &register)) && !lost {
            match self.must_wait(volume) {
                true => self.wait_for_table(ticket, volume, register),
                false => self.finish_registration(ticket, volume, &register),
            }
            return Ok(None);
        }
        if self.live.log_full.is_some() {
            return Err(Status::Busy);
        }
        let changes = self.plan_registration(volume, &register)?;
        if lost {
            self.note_lost_history(node, &register);
        }
        self.log_registration(volume, node, &register, changes);
        let live = self.live.volumes.get_mut(&volume).expect("made if need be");
        live.keeps_all |= lost;
        live.logged_as = self.state.records;
        self.wait_for_table(ticket, volume, register);
        Ok(None)
    }

    fn check_registration(&self, volume: VolumeId, register: &Register) -> Result<(), Status> {
        let labels = [&register.name, &register.host];
        if labels.iter().any(|label| label.len() > LABEL_BYTES_MAX) {
            return Err(Status::Invalid);
        }
        if self.state.removed.contains(&register.store) {
            return Err(Status::Removed);
        }
        if self.may_run_elsewhere(volume, register) {
            return Err(Status::NameInUse);
        }
        let ids_max = self.state.numbers.data.0.saturating_add(DATA_IDS_LOST_MAX);
        match register.data_id_max.0 >= ids_max {
            true => Err(Status::Invalid),
            false => Ok(()),
        }
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
        let same_life = stored.is_some_and(|stored| {
            (stored.store, stored.incarnation) == (register.store, register.incarnation)
        });
        let same_place = info.addr == register.addr && info.host == register.host;
        same_life && same_place && info.name == register.name
    }

    /// Something that was decided is not durable, and so nothing to be told yet.
    pub(super) fn must_wait(&self, volume: VolumeId) -> bool {
        let live = self.live.volumes.get(&volume);
        let is_logged = live.is_none_or(|live| live.logged_as <= self.live.durable);
        !is_logged || self.live.table.version < self.state.table.version
    }

    pub(super) fn wait_for_table(&mut self, ticket: Ticket, volume: VolumeId, register: Register) {
        self.after_sync(AfterDurable::Registered {
            ticket,
            volume,
            register,
            table: self.state.table.clone(),
        });
    }

    /// A store that is another one has its places lost, or kept, by the record of the registration.
    fn plan_registration(&self, volume: VolumeId, register: &Register) -> Result<Changes, Status> {
        let stored = self.state.volumes.get(&volume);
        let is_next_life = stored.is_some_and(|stored| {
            stored.store == register.store && stored.incarnation != register.incarnation
        });
        match is_next_life {
            true => self.plan_new_life(volume),
            false => Ok(Vec::new()),
        }
    }

    fn log_registration(
        &mut self,
        volume: VolumeId,
        node: &str,
        register: &Register,
        changes: Changes,
    ) {
        let stored = self.state.volumes.get(&volume);
        let is_new_store = stored.is_none_or(|stored| stored.store != register.store);
        self.log_chain_changes(&changes);
        let registered = VolumeRegistered::new(volume, node, register);
        self.log(Record::VolumeRegistered(registered));
        self.forget_removals();
        let (term, now_ms) = (self.state.numbers.term, self.live.now.boot_ms);
        let live = self.live.volumes.entry(volume);
        live.or_insert_with(|| LiveVolume::new(term, now_ms));
        if is_new_store {
            let reaps: Vec<DataId> = self.state.reaps_of(volume).collect();
            self.after_durable(AfterDurable::Inherited(volume, reaps));
        }
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
        let registration = live.registration;
        let parked = live.outbox.take_parked();
        live.leave();
        live.incarnation = Some(register.incarnation);
        live.away = false;
        live.heard_ms = now_ms;
        live.capacity_bytes = register.capacity_bytes;
        live.used_bytes = register.used_bytes;
        let grant = Some(Grant {
            registration,
            heard_ms: now_ms,
        });
        self.live.effects.push(Effect::Lease { volume, grant });
        if let Some(parked) = parked {
            self.live.reply(parked, Err(Status::NotFound));
        }
        let reply = self.registered(volume, registration, fences);
        self.live.reply(ticket, Ok(CoreReply::Volume(reply)));
        self.resend_fences_to(volume);
        self.resend_leaves_to(volume);
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
            session_next: self.state.numbers.session,
        })
    }

    fn durable_fences(&self) -> Vec<Fence> {
        let closings = &self.live.closings;
        let is_durable = |fence: &Fence| closings.get(&fence.session).is_some_and(|c| c.durable);
        self.state.fences().into_iter().filter(is_durable).collect()
    }
}
