//! The owner of the core. In a turn it takes what has arrived, steps the core, appends the turn's
//! records with one write, and only then lets the turn's replies go.
//!
//! Decides nothing about the namespace. Between the steps of the core and the end of the append
//! nothing leaves, so a log that has no room blocks the keeper there and loses nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use vdfs_net::clock;
use vdfs_proto::meta::{AdminRequest, LogTrouble};
use vdfs_proto::{Timestamp, VolumeId};

use super::boot::BootNote;
use super::checkpoints::Checkpoints;
use super::inbox::{Answer, Inbox, Item, Mail};
use crate::checkpoint::CheckpointError;
use crate::core::{Core, CoreReply, CoreRequest, Effect, Grant, Image, Input, Now, Ticket};
use crate::limits::{TURN_BYTES, TURN_BYTES_MAX};
use crate::log::{LogError, OpLog};
use crate::pulse::Pulse;

/// How often a log without room is tried again.
const ROOM_RETRY: Duration = Duration::from_secs(1);
/// Without a timer of the core's or a checkpoint's the thread looks up this often.
const IDLE_WAIT: Duration = Duration::from_secs(60);
/// Up to how many records the core's whole state is checked after each turn of a debug build: it
/// takes time in proportion to the state.
#[cfg(debug_assertions)]
const CHECKED_RECORDS: u64 = 500;

type Reply = (oneshot::Sender<Answer>, Answer);

/// Why the process cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fatal {
    #[error("{0}; nothing can be acknowledged any more")]
    Log(#[from] LogError),
    #[error("{0}; nothing can be acknowledged any more")]
    Checkpoint(#[from] CheckpointError),
}

#[derive(Debug)]
pub(super) struct Keeper {
    core: Core,
    log: Box<dyn OpLog>,
    inbox: Arc<Inbox>,
    checkpoints: Checkpoints,
    callers: HashMap<Ticket, oneshot::Sender<Answer>>,
    /// What has arrived and is not stepped yet: empty unless the keeper is blocked.
    items: VecDeque<Item>,
    effects: Vec<Effect>,
    /// Bytes of `Effect::Append` among the effects.
    effect_bytes: u64,
    /// Every reply waits for the disk.
    sync_log: bool,
    /// Replies that wait until the log is durable up to a record, ascending.
    held: VecDeque<(u64, Vec<Reply>)>,
    /// What the core knows to be durable.
    told_durable: u64,
    /// When room is looked for again, if there was none.
    full_until: Option<Instant>,
    /// What the core has done and the log would not take.
    unwritten: Option<Batch>,
    /// Why, and since when on the scale of [`Now::boot_ms`].
    blocked: Option<(String, u64)>,
    /// To be written when the records of this term's start are durable, so that a crash before
    /// repeats them.
    boot_note: Option<BootNote>,
    /// When the master's thread looks up next without being called.
    promised: Instant,
    pulse: Arc<Mutex<Pulse>>,
}

/// What the steps of a turn have made.
#[derive(Debug)]
struct Batch {
    records: Vec<Vec<u8>>,
    leases: Vec<(VolumeId, LeaseChange)>,
    replies: Vec<Reply>,
    is_urgent: bool,
}

/// What becomes of a volume's heartbeats.
#[derive(Clone, Copy, Debug)]
enum LeaseChange {
    Grant(Option<Grant>),
    Withhold(bool),
}

pub(crate) fn now() -> Now {
    Now {
        wall: Timestamp::from_system(SystemTime::now()),
        boot_ms: clock::boot_ms(),
    }
}

impl Keeper {
    /// Begins a term on a restored core; nothing is answered before its records are durable. Where
    /// the disk has no room for them it is blocked until there is.
    pub(super) fn begin(
        mut core: Core,
        log: Box<dyn OpLog>,
        checkpoints: Checkpoints,
        options: KeeperOptions,
    ) -> Result<Self, Fatal> {
        let mut effects = Vec::new();
        core.start(now(), options.same_boot, &mut effects);
        let mut keeper = Keeper {
            pulse: Arc::new(Mutex::new(Pulse::new(core.term()))),
            core,
            log,
            inbox: options.inbox,
            checkpoints,
            callers: HashMap::new(),
            items: VecDeque::new(),
            effects,
            effect_bytes: 0,
            sync_log: options.sync_log,
            held: VecDeque::new(),
            told_durable: 0,
            full_until: None,
            unwritten: None,
            blocked: None,
            boot_note: Some(options.boot_note),
            promised: Instant::now(),
        };
        keeper.commit()?;
        Ok(keeper)
    }

    /// Runs a turn. A keeper that was blocked first tries to write what it holds.
    pub(super) fn turn(&mut self, mail: Mail) -> Result<Turn, Fatal> {
        if let Some(error) = mail.sync_failure {
            return Err(LogError::Sync(error).into());
        }
        if let Some(outcome) = mail.checkpoint {
            self.checkpoints.finish(outcome, &mut *self.log)?;
        }
        self.items.extend(mail.items);
        if self.write_out()? == Turn::Blocked {
            self.answer_status();
            return Ok(Turn::Blocked);
        }
        let now = now();
        self.tell_heard(now);
        self.look_for_room(now);
        self.tell_durable(now);
        while let Some(item) = self.items.pop_front() {
            self.take_item(now, item);
            if self.effect_bytes > TURN_BYTES {
                if self.commit()? == Turn::Blocked {
                    return Ok(Turn::Blocked);
                }
                self.look_for_room(now);
            }
        }
        self.end_turn(now)
    }

    fn end_turn(&mut self, now: Now) -> Result<Turn, Fatal> {
        let due = self.core.next_deadline();
        if due.is_some_and(|due| due <= now.boot_ms) {
            self.step(now, Input::Tick);
        }
        let outcome = self.commit()?;
        if outcome == Turn::Done {
            assert!(self.items.is_empty(), "a turn takes all that it was given");
            self.checkpoints.consider(&self.core, &*self.log);
        }
        Ok(outcome)
    }

    pub(super) fn image(&self) -> Image {
        self.core.image()
    }

    /// The log takes nothing: nothing is stepped until it does.
    pub(super) fn is_blocked(&self) -> bool {
        self.unwritten.is_some()
    }

    fn take_item(&mut self, now: Now, item: Item) {
        match item {
            Item::Abandoned(ticket) => {
                if self.callers.remove(&ticket).is_some() {
                    self.step(now, Input::Abandoned(ticket));
                }
            }
            Item::Request {
                ticket,
                request,
                reply,
            } => {
                self.callers.insert(ticket, reply);
                self.step(now, Input::Request { ticket, request });
            }
        }
    }

    fn step(&mut self, now: Now, input: Input) {
        let known = self.effects.len();
        self.core.step(now, input, &mut self.effects);
        let added = self.effects[known..].iter();
        let bytes = |effect: &Effect| match effect {
            Effect::Append(record) => record.len() as u64,
            Effect::Reply { .. }
            | Effect::Lease { .. }
            | Effect::Withhold { .. }
            | Effect::Sync => 0,
        };
        self.effect_bytes += added.map(bytes).sum::<u64>();
    }

    /// Takes room for the largest turn before anything is stepped.
    fn look_for_room(&mut self, now: Now) {
        if self.full_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let was_full = self.full_until.take().is_some();
        match self.log.reserve(TURN_BYTES_MAX) {
            Ok(()) if was_full => {
                tracing::info!("the log has room again");
                self.step(now, Input::LogHasRoom);
            }
            Ok(()) => {}
            Err(error) => {
                self.full_until = Some(Instant::now() + ROOM_RETRY);
                if !was_full {
                    tracing::error!(%error, "changes are refused until the log has room");
                    self.step(
                        now,
                        Input::LogFull {
                            why: error.to_string(),
                        },
                    );
                }
            }
        }
    }

    /// Answers heartbeats without waiting for a turn.
    pub(super) fn pulse(&self) -> Arc<Mutex<Pulse>> {
        self.pulse.clone()
    }

    /// Tells the core whom it must not take for gone. Before anything else is stepped at `now`, and
    /// after that time was read.
    fn tell_heard(&mut self, now: Now) {
        let heard = self.pulse.lock().take_news();
        if !heard.is_empty() {
            self.step(now, Input::Heard(heard));
        }
    }

    /// Tells the core what is on the disk, and lets replies go that waited for it.
    fn tell_durable(&mut self, now: Now) {
        let records = self.log.durable();
        if records == self.told_durable {
            return;
        }
        self.told_durable = records;
        self.step(now, Input::LogDurable { records });
        while self
            .held
            .front()
            .is_some_and(|(needed, _)| *needed <= records)
        {
            let (_, replies) = self.held.pop_front().expect("there is a front");
            send(replies);
        }
    }

    /// Writes the records of what was stepped, then lets the replies leave.
    fn commit(&mut self) -> Result<Turn, Fatal> {
        assert!(self.unwritten.is_none(), "nothing is stepped while blocked");
        self.unwritten = Some(self.sort_effects());
        self.write_out()
    }

    fn write_out(&mut self) -> Result<Turn, Fatal> {
        let Some(mut batch) = self.unwritten.take() else {
            return Ok(Turn::Done);
        };
        if let Err(error) = self.write(&mut batch) {
            self.unwritten = Some(batch);
            return self.block(error);
        }
        self.blocked = None;
        #[cfg(debug_assertions)]
        self.check();
        self.let_go(batch);
        Ok(Turn::Done)
    }

    fn let_go(&mut self, batch: Batch) {
        let waits_for_disk = self.sync_log && self.log.durable() < self.log.records();
        for (volume, change) in batch.leases {
            match change {
                LeaseChange::Grant(grant) => self.pulse.lock().grant(volume, grant),
                LeaseChange::Withhold(is_on) => self.pulse.lock().withhold(volume, is_on),
            }
        }
        if batch.is_urgent || waits_for_disk {
            self.log.sync();
        }
        if waits_for_disk {
            self.held.push_back((self.log.records(), batch.replies));
        } else {
            send(batch.replies);
        }
    }

    #[cfg(debug_assertions)]
    fn check(&self) {
        assert_eq!(
            self.core.records(),
            self.log.records(),
            "what is applied is logged"
        );
        if self.core.records() < CHECKED_RECORDS {
            self.core.check();
        }
    }

    fn sort_effects(&mut self) -> Batch {
        let (mut records, mut replies, mut is_urgent) = (Vec::new(), Vec::new(), false);
        let mut leases = Vec::new();
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Append(record) => records.push(record),
                Effect::Lease { volume, grant } => {
                    leases.push((volume, LeaseChange::Grant(grant)));
                }
                Effect::Withhold { volume, is_on } => {
                    leases.push((volume, LeaseChange::Withhold(is_on)));
                }
                Effect::Sync => is_urgent = true,
                Effect::Reply { ticket, outcome } => {
                    let caller = self.callers.remove(&ticket);
                    replies.extend(caller.map(|caller| (caller, outcome)));
                }
            }
        }
        self.effect_bytes = 0;
        Batch {
            records,
            leases,
            replies,
            is_urgent,
        }
    }

    /// Appends what the core has already done: no reply leaves before. Goes on where it failed.
    fn write(&mut self, batch: &mut Batch) -> Result<(), LogError> {
        if !batch.records.is_empty() {
            self.log.append(&batch.records)?;
            batch.records.clear();
        }
        if let Some(note) = &self.boot_note {
            self.log.flush()?;
            note.write()?;
            self.boot_note = None;
        }
        Ok(())
    }

    fn block(&mut self, error: LogError) -> Result<Turn, Fatal> {
        match error {
            LogError::NoRoom { .. } | LogError::Write { .. } => {
                if self.blocked.is_none() {
                    tracing::error!(%error, "everything waits until the log can be written");
                    self.blocked = Some((error.to_string(), now().boot_ms));
                }
                Ok(Turn::Blocked)
            }
            LogError::Broken { .. } | LogError::Sync(_) => Err(error.into()),
        }
    }

    /// Whoever asks what is wrong is told, although all others wait.
    fn answer_status(&mut self) {
        let Some((why, since_ms)) = self.blocked.clone() else {
            return;
        };
        let trouble = LogTrouble {
            why,
            since_ms: now().boot_ms.saturating_sub(since_ms),
            serves_reads: false,
        };
        for item in std::mem::take(&mut self.items) {
            match item {
                Item::Request {
                    request: CoreRequest::Admin(AdminRequest::GetStatus(_)),
                    reply,
                    ..
                } => {
                    let status = self.core.status_while_blocked(trouble.clone());
                    send(vec![(reply, Ok(CoreReply::Admin(status)))]);
                }
                other => self.items.push_back(other),
            }
        }
    }

    /// Until when the master's thread may sleep; it keeps to it unless it is called.
    pub(super) fn promise_wake(&mut self) -> Instant {
        self.promised = self.next_wake();
        self.promised
    }

    /// Whether the thread has to look up before it means to.
    pub(super) fn must_call(&self) -> bool {
        self.is_blocked() || self.next_wake() < self.promised
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        if self.is_blocked() {
            return now + ROOM_RETRY;
        }
        let core = self.core.next_deadline().map_or(IDLE_WAIT, |due| {
            Duration::from_millis(due.saturating_sub(clock::boot_ms()))
        });
        let wake = (now + core).min(self.checkpoints.deadline());
        self.full_until.map_or(wake, |until| wake.min(until))
    }

    /// Ends with everything on the disk.
    pub(super) fn finish(mut self) -> Result<(), Fatal> {
        self.log.flush()?;
        let now = now();
        self.tell_heard(now);
        // Those who wait for the disk have their answer before the end.
        self.tell_durable(now);
        if self.commit()? == Turn::Blocked {
            self.halt();
            return Ok(());
        }
        self.log.close()?;
        self.inbox.close();
        self.callers.clear();
        self.checkpoints.end(true);
        self.checkpoints.write_last(&self.core, &*self.log);
        Ok(())
    }

    /// Ends as a killed process would, less what only a process's end can undo.
    pub(super) fn halt(mut self) {
        self.inbox.close();
        self.checkpoints.end(false);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Done,
    /// The log has no room for what was done: to be tried again.
    Blocked,
}

/// What a [`Keeper`] is made with besides its parts.
#[derive(Debug)]
pub(super) struct KeeperOptions {
    pub(super) inbox: Arc<Inbox>,
    pub(super) sync_log: bool,
    /// The log has all that was acknowledged.
    pub(super) same_boot: bool,
    pub(super) boot_note: BootNote,
}

fn send(replies: Vec<Reply>) {
    for (caller, answer) in replies {
        // A caller that is gone has no use for it.
        drop(caller.send(answer));
    }
}
