//! The core with clients and a volume that do their duty at once, so that every request is answered
//! before the next one; what happens to requests, the master and its disk on the way is the test's
//! choice, and shows in no answer.

use std::collections::BTreeMap;

use vdfs_proto::meta::{Answer, MutateRequest, Mutated, Mutation, Query, QueryRequest, StatFs};
use vdfs_proto::session::{
    Event, NextEvents, OpenHandle, RecallOutcome, Recalled, ResumeSession, SessionReply,
};
use vdfs_proto::{FileName, HandleId, Ino, SessionId, Status, Timestamp, VolumeId};

use super::ids::Ids;
use super::model::{CLIENTS, Expected};
use super::restores;
use super::storage::Storage;
use super::{Fate, Restore, SETTLE_MS, SILENCE_MS, Transition, VOLUME_SILENCE_MS};
use crate::core::tests::world::{Outcome, World, open_session, registration};
use crate::core::{Core, CoreReply, CoreRequest, Input, Ticket};

mod look;

/// Rounds of everybody's duties within which everything is answered.
const ROUNDS_MAX: usize = 20;
/// Ticks between two signs of life of a session.
const LIFE_TICKS: u64 = 8;

pub(super) struct System {
    pub(super) world: World,
    storage: Storage,
    ids: Ids,
    clients: [Client; CLIENTS],
    /// Looks at everything and holds nothing.
    observer: SessionId,
    volume: VolumeId,
    store: u128,
    incarnation: u64,
    /// Records at the end of each transition since the last sync.
    ends: Vec<u64>,
    /// Of each name for as long as it is there.
    cookies: BTreeMap<(Ino, FileName), u64>,
    /// Of a name that is gone.
    old_cookies: BTreeMap<Ino, u64>,
}

#[derive(Default)]
struct Client {
    session: Option<SessionId>,
    handles: BTreeMap<HandleId, OpenHandle>,
    /// By slot, the oldest first.
    asked: BTreeMap<u16, Vec<MutateRequest>>,
    former: BTreeMap<u16, Vec<MutateRequest>>,
    events_seen: u64,
}

impl System {
    pub(super) const STARTS_MS: u64 = 1_000;

    pub(super) fn new() -> Self {
        let mut world = World::new();
        assert_eq!(world.now_ms, Self::STARTS_MS, "one clock");
        let volume = world.register("n", registration(1, 1)).volume;
        let observer = world.open_session("observer");
        world.syncs_at_once = false;
        let mut system = System {
            world,
            storage: Storage::new(),
            ids: Ids::new(),
            clients: Default::default(),
            observer,
            volume,
            store: 1,
            incarnation: 1,
            ends: Vec::new(),
            cookies: BTreeMap::new(),
            old_cookies: BTreeMap::new(),
        };
        (0..CLIENTS).for_each(|by| system.begin(by));
        system.sync();
        system
    }

    pub(super) fn apply(&mut self, transition: &Transition, expected: &Expected) {
        match transition {
            Transition::Mutate {
                by,
                slot,
                mutation,
                fate,
            } => self.mutate(*by, *slot, mutation, *fate, expected),
            Transition::Ask { by, query } => self.ask(*by, query, expected),
            Transition::AskKilled { by, query } => {
                let handles = self.clients[*by].handles.clone();
                self.ask(*by, query, expected);
                // The client does not know yet that it was done.
                self.clients[*by].handles = handles;
                self.restart(Restore::Newest);
                self.ask(*by, query, expected);
            }
            Transition::Retry { by, slot, back } => self.retry(*by, *slot, *back, expected),
            Transition::RetryFormer { by, slot } => self.retry_former(*by, *slot),
            fault => self.take_fault(fault),
        }
    }

    fn take_fault(&mut self, fault: &Transition) {
        match fault {
            Transition::Begin { by } => self.begin(*by),
            Transition::Close { by } => self.close(*by),
            Transition::Expire { by } => self.expire(*by),
            Transition::Pass { ms } => self.pass(*ms),
            Transition::Sync => self.sync(),
            Transition::Checkpoint => {
                self.sync();
                self.storage.checkpoint(&self.world.core);
            }
            Transition::Restart { from } => self.restart(*from),
            Transition::Crash { lose, torn } => self.crash(*lose, *torn),
            Transition::LoseVolume => {
                self.store += 1;
                self.world.pass(VOLUME_SILENCE_MS);
                self.live(None);
                self.register();
            }
            other => unreachable!("{other:?} is no fault"),
        }
    }

    /// The end of a transition.
    pub(super) fn settle(&mut self, syncs: bool) {
        let before = self.ends.last().copied().unwrap_or(0);
        self.pass(SETTLE_MS);
        if syncs {
            self.sync();
            self.ends.clear();
        } else {
            let durable = self.world.core.live.durable;
            let is_known = self.ends.is_empty() || durable <= before;
            assert!(is_known, "synced up to {durable}, which nobody asked for");
        }
        self.storage.append(&self.world.log);
        self.ends.push(self.world.core.records());
    }

    fn sync(&mut self) {
        self.world.sync();
        self.storage.append(&self.world.log);
        self.storage.sync();
    }

    /// Lets time pass while everybody lives.
    fn pass(&mut self, ms: u64) {
        self.pass_without(ms, None);
    }

    fn pass_without(&mut self, ms: u64, silent: Option<usize>) {
        for _ in 0..ms / SETTLE_MS {
            self.world.pass(SETTLE_MS);
            let beat = self.world.heartbeat(self.volume, self.incarnation);
            beat.expect("it lives");
            if (self.world.now_ms / SETTLE_MS).is_multiple_of(LIFE_TICKS) {
                self.live(silent);
            }
        }
    }

    fn live(&mut self, silent: Option<usize>) {
        let others = (0..CLIENTS).filter(|by| Some(*by) != silent);
        let sessions: Vec<SessionId> = others
            .filter_map(|by| self.clients[by].session)
            .chain([self.observer])
            .collect();
        for session in sessions {
            self.world.ask(session, StatFs {}).expect("it lives");
        }
    }

    /// Everybody does what he is asked, in this order.
    fn do_duty(&mut self, step: usize) {
        match step % 3 {
            0 if self.world.sync_wanted => self.sync(),
            0 => {}
            1 => (0..CLIENTS).for_each(|by| self.answer_recalls(by)),
            _ => drop(self.world.obey(self.volume, self.incarnation)),
        }
    }

    fn wait_for(&mut self, ticket: Ticket) -> Outcome {
        for step in 0..3 * ROUNDS_MAX {
            if let Some(outcome) = self.world.reply(ticket) {
                return outcome;
            }
            self.do_duty(step);
        }
        self.world.reply(ticket).expect("answered in time")
    }

    fn answer_recalls(&mut self, by: usize) {
        let Some(session) = self.clients[by].session else {
            return;
        };
        let next = NextEvents {
            session,
            seen: self.clients[by].events_seen,
            wall: Timestamp::default(),
        };
        let ticket = self.world.send_session(next);
        let events = match self.world.reply(ticket) {
            Some(Ok(CoreReply::Session(SessionReply::NextEvents(events)))) => events.events,
            // Its end is under way.
            Some(Err(Status::SessionExpired)) => return,
            None => return self.world.step(Input::Abandoned(ticket)),
            other => panic!("{other:?}"),
        };
        for (number, event) in events {
            self.clients[by].events_seen = number;
            if let Event::Recall { recall, .. } = event {
                let recalled = Recalled {
                    session,
                    recall,
                    outcome: RecallOutcome::Done,
                };
                self.world.session(recalled).expect("a live session");
            }
        }
    }

    fn mutate(
        &mut self,
        by: usize,
        slot: u16,
        mutation: &Mutation,
        fate: Fate,
        expected: &Expected,
    ) {
        let Some(session) = self.clients[by].session else {
            return;
        };
        let request = MutateRequest {
            op: self.world.op(session, slot),
            mutation: self.ids.core_mutation(mutation),
        };
        let asked = self.clients[by].asked.entry(slot).or_default();
        asked.push(request.clone());
        let outcome = self.carry(&request, fate);
        self.take_mutated(by, outcome, expected);
    }

    fn take_mutated(&mut self, by: usize, outcome: Result<Mutated, Status>, expected: &Expected) {
        self.note_handles(by);
        let outcome = outcome.map(|mutated| self.ids.model_mutated(mutated, expected));
        assert_eq!(Expected::Mutated(outcome), *expected, "core, then model");
    }

    /// The client has its answer and knows what it holds.
    fn note_handles(&mut self, by: usize) {
        let session = self.clients[by].session;
        let live = session.and_then(|id| self.world.core.live.sessions.get(&id));
        self.clients[by].handles = live.map_or(BTreeMap::new(), |live| live.handles.clone());
    }

    fn carry(&mut self, request: &MutateRequest, fate: Fate) -> Result<Mutated, Status> {
        let ticket = self.send(request);
        match fate {
            Fate::Calm => self.wait_for_mutated(ticket),
            Fate::Resent => {
                let answer = self.resend(request, ticket);
                let again = self.send(request);
                assert_eq!(self.wait_for_mutated(again), answer, "the first answer");
                answer
            }
            Fate::Abandoned => {
                self.world.step(Input::Abandoned(ticket));
                (0..6).for_each(|step| self.do_duty(step));
                let again = self.send(request);
                self.wait_for_mutated(again)
            }
            Fate::Killed { after } => {
                (0..usize::from(after)).for_each(|step| self.do_duty(step));
                self.restart(Restore::Newest);
                let again = self.send(request);
                self.wait_for_mutated(again)
            }
        }
    }

    /// Sends it again while it may be in progress.
    fn resend(&mut self, request: &MutateRequest, first: Ticket) -> Result<Mutated, Status> {
        let answered = self.world.replies.contains_key(&first);
        let second = self.send(request);
        if answered {
            let answer = self.wait_for_mutated(first);
            assert_eq!(self.wait_for_mutated(second), answer, "the first answer");
            return answer;
        }
        let busy = self.world.reply(first);
        assert_eq!(busy, Some(Err(Status::Busy)), "the second waits");
        self.wait_for_mutated(second)
    }

    fn send(&mut self, request: &MutateRequest) -> Ticket {
        let peer = self.world.peer.clone();
        self.world.send(CoreRequest::Mutate(peer, request.clone()))
    }

    fn wait_for_mutated(&mut self, ticket: Ticket) -> Result<Mutated, Status> {
        match self.wait_for(ticket)? {
            CoreReply::Mutate(mutated) => Ok(mutated),
            other => panic!("{other:?}"),
        }
    }

    fn retry(&mut self, by: usize, slot: u16, back: usize, expected: &Expected) {
        let asked = self.clients[by].asked.get(&slot);
        let at = asked.and_then(|asked| asked.len().checked_sub(back + 1));
        let (Some(asked), Some(at)) = (asked, at) else {
            return;
        };
        let request = asked[at].clone();
        let ticket = self.send(&request);
        let outcome = self.wait_for_mutated(ticket);
        self.take_mutated(by, outcome, expected);
    }

    fn retry_former(&mut self, by: usize, slot: u16) {
        let asked = self.clients[by].former.get(&slot);
        let Some(request) = asked.and_then(|asked| asked.last()).cloned() else {
            return;
        };
        let ticket = self.send(&request);
        let outcome = self.wait_for_mutated(ticket);
        assert_eq!(outcome, Err(Status::SessionExpired), "{request:?}");
    }

    fn ask(&mut self, by: usize, query: &Query, expected: &Expected) {
        let Some(session) = self.clients[by].session else {
            return;
        };
        let query = self.ids.core_query(query);
        let request = QueryRequest { session, query };
        let peer = self.world.peer.clone();
        let ticket = self.world.send(CoreRequest::Query(peer, request));
        let answer = self.wait_for(ticket).map(|reply| match reply {
            CoreReply::Query(answer) => answer,
            other => panic!("{other:?}"),
        });
        self.note_handles(by);
        let answer: Result<Answer, Status> = self.ids.model_answer(answer, expected);
        assert_eq!(Expected::Answer(answer), *expected, "core, then model");
    }

    fn begin(&mut self, by: usize) {
        self.forget_client(by);
        let ticket = self.world.send_session(open_session(&by.to_string()));
        match self.wait_for(ticket) {
            Ok(CoreReply::Session(SessionReply::OpenSession(opened))) => {
                self.clients[by].session = Some(opened.session);
            }
            other => panic!("{other:?}"),
        }
    }

    fn close(&mut self, by: usize) {
        if let Some(session) = self.clients[by].session {
            let close = vdfs_proto::session::CloseSession { session };
            self.world.session(close).expect("a live session");
            self.forget_client(by);
        }
    }

    /// Nothing is heard of it.
    fn expire(&mut self, by: usize) {
        let session = self.clients[by].session;
        let end_ms = self.world.now_ms + SILENCE_MS;
        while self.world.now_ms < end_ms {
            self.pass_without(SETTLE_MS, Some(by));
            if self.world.sync_wanted {
                self.sync();
            }
            self.world.obey(self.volume, self.incarnation);
        }
        let sessions = &self.world.core.state.sessions;
        assert!(session.is_none_or(|id| !sessions.contains(id)), "silent");
        self.forget_client(by);
    }

    fn forget_client(&mut self, by: usize) {
        let client = std::mem::take(&mut self.clients[by]);
        self.clients[by].former = match client.session {
            Some(_) => client.asked,
            None => client.former,
        };
    }

    fn restart(&mut self, from: Restore) {
        self.storage.append(&self.world.log);
        let core = self.storage.restart(from);
        restores::assert_same(&core, &self.world.core, "a restart");
        self.start(core, true);
        for by in 0..CLIENTS {
            self.clients[by].events_seen = 0;
            if let Some(session) = self.clients[by].session {
                let handles = self.clients[by].handles.values().copied().collect();
                self.resume(session, handles);
            }
        }
        self.resume(self.observer, Vec::new());
    }

    fn resume(&mut self, session: SessionId, handles: Vec<OpenHandle>) {
        let resume = ResumeSession {
            session,
            handles,
            append_tokens: Vec::new(),
            complete: true,
        };
        self.world.session(resume).expect("it has not ended");
    }

    fn start(&mut self, core: Core, same_boot: bool) {
        self.world.restart_with(core, same_boot);
        self.register();
    }

    /// Another life of the volume's process.
    fn register(&mut self) {
        self.incarnation += 1;
        let register = registration(self.store, self.incarnation);
        self.world.syncs_at_once = true;
        self.world.register("n", register);
        self.world.syncs_at_once = false;
        self.sync();
    }

    fn crash(&mut self, lose: usize, torn: bool) {
        self.storage.append(&self.world.log);
        let records = match self.ends.len().checked_sub(1) {
            Some(last) => self.ends[last - lose.min(last)],
            None => self.world.core.records(),
        };
        self.world.log.truncate(records as usize);
        let core = self.storage.crash(records, torn);
        restores::assert_same(&core, &restores::replayed(&self.world.log), "a crash");
        self.start(core, false);
        self.ids.keep_groups(self.world.core.state.groups.len());
        let gone = |world: &World| world.core.state.sessions.is_empty();
        for step in 0..3 * ROUNDS_MAX {
            if gone(&self.world) {
                break;
            }
            self.do_duty(step);
        }
        assert!(gone(&self.world), "the log may have lost its end");
        (0..CLIENTS).for_each(|by| self.forget_client(by));
        self.world.syncs_at_once = true;
        self.observer = self.world.open_session("observer");
        self.world.syncs_at_once = false;
    }

    pub(super) fn check_restores(&self) {
        restores::check(&self.world.core, &self.world.log);
    }
}
