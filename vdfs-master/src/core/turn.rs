//! The frame of every step: what comes before and after the input, and what waits for the log.

use vdfs_proto::Status;

use super::limits::{RESUME_WITHIN_MS, STALL_MS, TICK_MS};
use super::live::AfterDurable;
use super::record::Record;
use super::state::Applied;
use super::{Core, Effect, Now};

impl Core {
    pub(crate) fn begin_turn(&mut self, now: Now) {
        assert!(
            self.live.effects.is_empty(),
            "every turn hands its effects out"
        );
        self.live.now = now;
    }

    pub(crate) fn end_turn(&mut self, effects: &mut Vec<Effect>) {
        self.answer_polls();
        self.count_copies();
        effects.append(&mut self.live.effects);
    }

    /// If this process stood still, nobody was heard and nobody is to blame.
    pub(crate) fn notice_stall(&mut self) {
        let late_ms = self.live.now.boot_ms.saturating_sub(self.live.next_tick_ms);
        if late_ms > STALL_MS {
            self.renew_all_leases();
        }
    }

    pub(crate) fn renew_all_leases(&mut self) {
        let now_ms = self.live.now.boot_ms;
        for session in self.live.sessions.values_mut() {
            session.heard_ms = now_ms;
        }
        for volume in self.live.volumes.values_mut().filter(|live| !live.away) {
            volume.heard_ms = now_ms;
        }
        for asked in self.live.recalls.values_mut() {
            asked.heard_ms = now_ms;
        }
        self.live.resume_by_ms = now_ms + RESUME_WITHIN_MS;
    }

    pub(crate) fn run_timers(&mut self) {
        let now_ms = self.live.now.boot_ms;
        if now_ms < self.live.next_tick_ms {
            return;
        }
        self.live.next_tick_ms = now_ms + TICK_MS;
        self.live.woken.extend(self.live.sessions.keys());
        self.expire_volumes();
        self.tend_chains();
        self.expire_sessions();
        self.retry_trims();
        self.tend_lock_queues();
        self.log_closed_writers();
        self.go_on_surveying();
    }

    /// What is due whenever its conditions hold; nothing while the log is full.
    pub(crate) fn housekeep(&mut self) {
        if self.live.log_full.is_some() {
            return;
        }
        self.mark_tails();
        self.finish_trims();
        self.finish_removals();
        self.close_fenced_sessions();
        self.end_lingering();
        self.drop_dead_orphans();
        self.log_reaped();
        self.send_reaps();
    }

    /// Answers parked polls that have something to say, or whose time is over.
    fn answer_polls(&mut self) {
        self.answer_session_polls();
        self.answer_volume_polls();
    }

    /// Appends a record and applies it.
    pub(crate) fn log(&mut self, record: Record) -> Applied {
        self.live.effects.push(Effect::Append(record.encode()));
        let mut applied = self.state.apply(&record);
        for attr in applied.departed.drain(..) {
            self.live.departed.insert(attr);
        }
        if let Some(ino) = applied.replaced.take() {
            self.let_linger(ino);
        }
        let reaped = std::mem::take(&mut applied.reaped);
        if !reaped.is_empty() {
            self.after_durable(AfterDurable::Reap(reaped));
        }
        applied
    }

    /// Does `what` when everything logged so far is on the disk.
    pub(crate) fn after_durable(&mut self, what: AfterDurable) {
        let record = self.state.records;
        self.live
            .after_durable
            .entry(record)
            .or_default()
            .push(what);
    }

    /// The same, with a sync at once.
    pub(crate) fn after_sync(&mut self, what: AfterDurable) {
        self.after_durable(what);
        if self.live.effects.last() != Some(&Effect::Sync) {
            self.live.effects.push(Effect::Sync);
        }
    }

    pub(crate) fn log_became_durable(&mut self, records: u64) {
        assert!(records <= self.state.records, "what is durable was logged");
        self.live.durable = self.live.durable.max(records);
        while let Some(entry) = self.live.after_durable.first_entry() {
            if *entry.key() > records {
                return;
            }
            for what in entry.remove() {
                self.do_after_durable(what);
            }
        }
    }

    fn do_after_durable(&mut self, what: AfterDurable) {
        match what {
            AfterDurable::Reply(ticket, reply) => self.live.reply(ticket, Ok(reply)),
            AfterDurable::Registered {
                ticket,
                volume,
                register,
                table,
            } => {
                self.publish_table(table);
                // It may have been removed, or have lost its places, while this waited for the disk.
                match self.must_wait(volume) {
                    _ if !self.live.volumes.contains_key(&volume) => {
                        self.live.reply(ticket, Err(Status::Removed));
                    }
                    true => self.wait_for_table(ticket, volume, register),
                    false => self.finish_registration(ticket, volume, &register),
                }
            }
            AfterDurable::Fence(session) => self.send_fences(session),
            AfterDurable::Forget(session) => self.send_forget(session),
            AfterDurable::Trim(ino) => self.begin_trimming(ino),
            AfterDurable::Reap(ids) => self.reap_is_durable(&ids),
            AfterDurable::Inherited(volume, ids) => self.reaps_are_durable(volume, ids),
            AfterDurable::Table(table) => self.publish_table(table),
        }
    }
}
