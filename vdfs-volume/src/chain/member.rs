//! The step machine of one volume: see the module above for the walk and the invariants.

use std::collections::BTreeMap;

use vdfs_proto::data::FilePart;
use vdfs_proto::volume::{Fence, Registered};
use vdfs_proto::{
    ChainId, ChainSet, ChainTable, ChunkId, DataId, Epoch, MemberState, OpId, SessionId, Status,
    StoreId, Version, VolumeId,
};

use super::chunk_state::Rule;
use super::is_planted;
use super::lease::Lease;
use super::membership::{Membership, Place};
use super::replies::{Known, Outcome, Refusal, Replies, Reply, Slot, slot_of};
use super::writes::{Asker, Opened, Passed, Phase, Underway, Writes, answer};
use crate::limits::{PASS_AGAIN_MS, SILENT_SUCCESSOR_MS, SILENT_SUPPLIED_MS};

/// A change of one chunk. What it does to the bytes is the business of whoever carries `body`.
#[derive(Clone, Debug)]
pub struct Order<B> {
    pub chain: ChainId,
    pub chunk: ChunkId,
    pub op: OpId,
    pub body: B,
}

/// What the store must know of a change beside the change.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Data ids below it without a record are lost.
    pub lost_below: DataId,
    /// Whether a change that was not made before may be made.
    pub admission: Result<(), Status>,
}

/// Why the store did not make a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// For good, as far as this op is concerned, unless the status is one that may pass.
    Refused(Status),
    /// The chunk here is not the one that the change was made for.
    Diverged,
}

/// The store is ready to apply a change, and nothing can go wrong any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    Ready {
        base: Version,
        version: Version,
    },
    /// It was applied before.
    Already(Version),
}

/// Something that happened. `C` is how a caller is answered, `B` the bytes of a change.
#[derive(Debug)]
pub enum Input<B, C> {
    /// A client's change, whole and checked.
    Request {
        order: Order<B>,
        epoch: Epoch,
        caller: C,
    },
    /// A predecessor's change, whole and checked.
    Forward {
        order: Order<B>,
        epoch: Epoch,
        base: Version,
        version: Version,
        caller: C,
    },
    /// [`Effect::Execute`] was done.
    Executed {
        op: OpId,
        outcome: Result<Version, Failure>,
    },
    /// [`Effect::Prepare`] was done.
    Prepared {
        op: OpId,
        outcome: Result<Prepared, Failure>,
    },
    /// [`Effect::Apply`] was done.
    Applied {
        op: OpId,
    },
    /// [`Effect::Record`] was done.
    Recorded {
        op: OpId,
    },
    /// What became of [`Effect::PassOn`]: the successor's answer, or how the message was lost.
    Answered {
        exchange: u64,
        answer: Result<Version, Status>,
    },
    /// A reader was told [`Reading::WhenOpen`].
    WaitForOpen {
        chunk: ChunkId,
        caller: C,
    },
    Registered(Box<Registered>),
    Table(ChainTable),
    /// The volume is about to lose its place in the chain: it serves nothing of it in this epoch.
    Leave {
        chain: ChainId,
        epoch: Epoch,
    },
    /// Refuse the session's changes; `ack` comes back in [`Effect::Fenced`].
    Fence {
        fence: Fence,
        ack: u64,
    },
    ForgetSession(SessionId),
    /// What ops of a chain were answered, as the predecessor knows it whose copies this volume has now:
    /// all that were made in earlier epochs of the chain, and some of this one.
    Taught {
        chain: ChainId,
        epoch: Epoch,
        replies: Vec<(OpId, Outcome)>,
    },
    /// A copy of a chunk was taken from a member that waits: this made its version.
    Taken {
        chain: ChainId,
        op: OpId,
        version: Version,
    },
    /// No member that waits has a better copy of anything than this volume, the chain's head.
    Merged {
        chain: ChainId,
        epoch: Epoch,
    },
    /// A heartbeat sent at `sent_ms` was acknowledged.
    Lease {
        sent_ms: u64,
        lease_ms: u64,
    },
    /// Time has passed.
    Tick,
}

/// A change on its way to the successor.
#[derive(Clone, Debug)]
pub struct PassedOn<B> {
    /// Comes back with the answer.
    pub exchange: u64,
    pub to: VolumeId,
    pub order: Order<B>,
    pub epoch: Epoch,
    pub base: Version,
    pub version: Version,
    /// The successor is to be given the chunk first, as it is here.
    pub lacks_chunk: bool,
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect<B, C> {
    /// Make the change, all or nothing.
    Execute {
        order: Order<B>,
        rule: Rule,
        terms: Terms,
    },
    /// Reserve all that the change needs, and give it its version.
    Prepare {
        order: Order<B>,
        rule: Rule,
        terms: Terms,
    },
    /// Make the change that was prepared.
    Apply { op: OpId, chunk: ChunkId },
    /// Drop the change that was prepared.
    Discard { op: OpId, chunk: ChunkId },
    /// Keep a copy of the reply.
    Record {
        op: OpId,
        chain: ChainId,
        chunk: ChunkId,
        outcome: Outcome,
    },
    /// Pass the change on.
    PassOn(PassedOn<B>),
    Answer {
        caller: C,
        outcome: Result<Version, Status>,
    },
    /// The chunk was opened: the reader asks again.
    Opened { caller: C },
    /// Nothing of the fence's session is under way any more.
    Fenced { ack: u64 },
    /// Keep copies only of the replies to sessions that [`Member::may_retry`].
    KeepReplies,
    /// Drop the copies of this session's replies.
    ForgetReplies { session: SessionId },
    /// Keep a copy of what an op was answered elsewhere.
    Remember {
        chain: ChainId,
        op: OpId,
        outcome: Outcome,
    },
    /// Keep of this op only that earlier ones of its slot are over: its chain never had it.
    ForgetReply { op: OpId },
    /// Tell the master that this head has taken over.
    Activate { chain: ChainId, epoch: Epoch },
    /// Tell the master that this volume has left the chain, as it was told to.
    HasLeft { chain: ChainId, epoch: Epoch },
    /// Tell the master who must lose its place: a successor that does not answer, or this volume
    /// itself, whose copy is not the chain's.
    Report {
        chain: ChainId,
        epoch: Epoch,
        suspect: VolumeId,
    },
    /// The copies of this chain's chunks here are not the chain's.
    Left { chain: ChainId, epoch: Epoch },
}

/// How a read is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// At once; data ids below this one without a record are lost.
    Now(DataId),
    /// When the chunk is open again.
    WhenOpen,
}

/// How a change that has arrived goes on.
enum Arrival {
    New,
    Underway,
    Answered(Outcome),
}

/// Everything that one volume knows of chains and changes under way.
#[derive(Debug)]
pub struct Member<B, C> {
    membership: Membership,
    lease: Lease,
    replies: Replies,
    writes: Writes<B, C>,
    /// Fences that wait for changes of their sessions.
    fencing: BTreeMap<u64, SessionId>,
    now_ms: u64,
    effects: Vec<Effect<B, C>>,
}

impl<B: Clone, C> Member<B, C> {
    /// A volume that has just started, with the replies its store remembers and has room for.
    pub fn new(
        store: StoreId,
        replies: impl IntoIterator<Item = Reply>,
        replies_max: usize,
    ) -> Self {
        Member {
            membership: Membership::new(store),
            lease: Lease::default(),
            replies: Replies::new(replies, replies_max),
            writes: Writes::new(),
            fencing: BTreeMap::new(),
            now_ms: 0,
            effects: Vec::new(),
        }
    }

    /// Takes one input at `now_ms` of CLOCK_BOOTTIME, and emits what follows from it.
    pub fn step(&mut self, now_ms: u64, input: Input<B, C>, effects: &mut Vec<Effect<B, C>>) {
        assert!(self.effects.is_empty(), "every step hands its effects out");
        self.now_ms = now_ms;
        match input {
            Input::Request {
                order,
                epoch,
                caller,
            } => self.request(order, epoch, caller),
            Input::Forward {
                order,
                epoch,
                base,
                version,
                caller,
            } => self.forward(order, epoch, (base, version), caller),
            Input::Executed { op, outcome } => self.executed(op, outcome),
            Input::Prepared { op, outcome } => self.prepared(op, outcome),
            Input::Applied { op } => self.applied(op),
            Input::Recorded { op } => self.recorded(op),
            Input::Answered { exchange, answer } => self.answered(exchange, answer),
            Input::WaitForOpen { chunk, caller } => self.wait_for_open(chunk, caller),
            Input::Registered(registered) => self.registered(&registered),
            Input::Table(table) => self.table(table),
            Input::Leave { chain, epoch } => self.leave(chain, epoch),
            Input::Fence { fence, ack } => self.fence(fence, ack),
            Input::ForgetSession(session) => self.forget(session),
            Input::Taught {
                chain,
                epoch,
                replies,
            } => self.taught((chain, epoch), replies),
            Input::Taken { chain, op, version } => self.taken(chain, op, version),
            Input::Merged { chain, epoch } => self.merged(chain, epoch),
            Input::Lease { sent_ms, lease_ms } => self.lease.extend(sent_ms, lease_ms),
            Input::Tick => self.tick(),
        }
        self.acknowledge_fences();
        effects.append(&mut self.effects);
    }

    /// How a read of a client that knows this epoch is served. Asked again once the bytes are
    /// copied: what was copied is good only if the answer is still [`Reading::Now`].
    ///
    /// `StaleEpoch`, or `NotServing` if this volume has no place in the chain, or may not know that
    /// it has lost it.
    pub fn reading(
        &self,
        now_ms: u64,
        chain: ChainId,
        epoch: Epoch,
        chunk: ChunkId,
    ) -> Result<Reading, Status> {
        let place = self.readable_place(now_ms, chain, epoch)?;
        let closed_by = self.writes.closed_by(chunk);
        match closed_by.is_some_and(|write| self.must_see(now_ms, write)) {
            true => Ok(Reading::WhenOpen),
            false => Ok(Reading::Now(place.lost_below)),
        }
    }

    /// Whoever reads must find the change: members below may show it; or it was let in under a lease that has
    /// run out since, for a session whose rights others may have by now.
    fn must_see(&self, now_ms: u64, write: &Underway<B, C>) -> bool {
        let may_be_late =
            !self.lease.holds(now_ms) || self.membership.admit(write.order.op.session).is_err();
        (write.may_show_below() || may_be_late) && !is_planted!(ReadClosed)
    }

    fn readable_place(&self, now_ms: u64, chain: ChainId, epoch: Epoch) -> Result<Place, Status> {
        let place = self.membership.serving_place(chain, epoch)?;
        let needs_lease = place.members > 1 && !is_planted!(ServeWithoutLease);
        match needs_lease && !self.lease.holds(now_ms) {
            true => Err(Status::NotServing),
            false => Ok(place),
        }
    }

    /// Checks that all chains of a part of a file are here, as the asker believes, and that this volume may
    /// answer for them; gives the highest `lost_below` of them.
    pub fn part(&self, now_ms: u64, part: &FilePart) -> Result<DataId, Status> {
        let membership = &self.membership;
        if membership.table().version < part.table_version {
            return Err(Status::NotServing);
        }
        if part.chains == ChainSet::default() {
            return Err(Status::Invalid);
        }
        let mut lost_below = DataId::default();
        for position in part.chains.iter() {
            let chain = part.layout.chain_at(position);
            let epoch = membership.epoch(chain).ok_or(Status::NotServing)?;
            let place = self.readable_place(now_ms, chain, epoch)?;
            lost_below = lost_below.max(place.lost_below);
        }
        Ok(lost_below)
    }

    /// Changes of chunks in a part of a file that whoever asks must see.
    pub fn to_be_seen(&self, now_ms: u64, part: &FilePart) -> Vec<(ChunkId, OpId)> {
        let all = self.writes.closing_file(part.layout.data);
        let is_asked = |chunk: ChunkId| part.chains.contains(part.layout.position(chunk.index));
        let asked = all.filter(|(chunk, write)| is_asked(*chunk) && self.must_see(now_ms, write));
        asked
            .map(|(chunk, write)| (chunk, write.order.op))
            .collect()
    }

    /// This volume's place in a chain; none if it does not serve it.
    pub fn place(&self, chain: ChainId) -> Option<Place> {
        self.membership.current(chain)
    }

    /// Its place in a chain, if it has all that the chain has.
    pub fn serving_place(&self, chain: ChainId, epoch: Epoch) -> Result<Place, Status> {
        self.membership.serving_place(chain, epoch)
    }

    /// What the master has told of all chains.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Chunks of a file, from this one on, of which a change is under way.
    pub fn closed_from(&self, first: ChunkId) -> Vec<ChunkId> {
        let closed = self.writes.closing_file(first.data);
        let behind = closed.filter(|(chunk, _)| *chunk >= first);
        behind.map(|(chunk, _)| chunk).collect()
    }

    /// Whether a change of the chunk is under way.
    pub fn is_closed(&self, chunk: ChunkId) -> bool {
        self.writes.closed_by(chunk).is_some()
    }

    /// The first `count` changes that wait for their turns at the chunk, and whom they are to be passed on
    /// to; none if they end here.
    pub fn next_in_line(&self, chunk: ChunkId, count: usize) -> Option<(VolumeId, Vec<Order<B>>)> {
        let chain = self.writes.closed_by(chunk)?.order.chain;
        let successor = self.membership.current(chain)?.successor?;
        let waiting = self.writes.waiting(chunk).take(count);
        let orders = waiting.map(|write| write.order.clone()).collect();
        (successor.state == MemberState::Serving).then_some((successor.volume, orders))
    }

    /// Changes of a chain that have begun and not ended.
    pub fn underway(&self, chain: ChainId) -> Vec<OpId> {
        self.writes.closing(chain)
    }

    /// `Busy` as long as the store may make a change of the chain, or its record, that came before this epoch:
    /// what it has of the chain is not what it will have.
    pub fn check_settled(&self, chain: ChainId, epoch: Epoch) -> Result<(), Status> {
        match self.writes.is_at_store_before(chain, epoch) {
            true => Err(Status::Busy),
            false => Ok(()),
        }
    }

    /// `NotServing` for a data id that the master cannot have given out yet.
    pub fn check_data(&self, data: DataId) -> Result<(), Status> {
        self.membership.check_data(data)
    }

    /// Commands of a lower term come from a master that has been replaced.
    pub fn accepts_term(&self, term: u64) -> bool {
        self.membership.accepts_term(term)
    }

    /// What ops of a chain were answered.
    pub fn replies_of(&self, chain: ChainId) -> Vec<(OpId, Outcome)> {
        self.replies.of_chain(chain)
    }

    /// Whether the session may still come back with a retry.
    pub fn may_retry(&self, session: SessionId) -> bool {
        self.membership.may_retry(session)
    }

    /// Nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.writes.is_empty()
    }

    /// Panics if the parts do not fit each other. Takes time in proportion to what is under way.
    pub fn check(&self) {
        self.writes.check();
    }

    fn request(&mut self, order: Order<B>, epoch: Epoch, caller: C) {
        match self.admit_request(&order, epoch) {
            Ok(Arrival::New) => {
                let asker = Asker::Client(caller);
                self.begin(Underway::new(order, epoch, Rule::Next(epoch), asker));
            }
            Ok(Arrival::Underway) => self.attach(slot_of(order.op), Asker::Client(caller)),
            Ok(Arrival::Answered(outcome)) => self.answer(caller, answer(outcome)),
            Err(status) => self.answer(caller, Err(status)),
        }
    }

    fn admit_request(&mut self, order: &Order<B>, epoch: Epoch) -> Result<Arrival, Status> {
        let place = self.membership.place(order.chain, epoch)?;
        if !place.is_head || !place.is_active {
            return Err(Status::NotServing);
        }
        if let Some(write) = self.writes.get(slot_of(order.op)) {
            return match write.order.op.seq {
                seq if seq == order.op.seq => Ok(Arrival::Underway),
                seq if seq > order.op.seq => Err(Status::StaleRequest),
                _ => Err(Status::Busy),
            };
        }
        match self.replies.find(order.op) {
            Known::Answered(outcome) => return Ok(Arrival::Answered(outcome)),
            Known::Stale => return Err(Status::StaleRequest),
            Known::New => {}
        }
        self.admit_client(order.op.session)?;
        self.take_room(order)?;
        Ok(Arrival::New)
    }

    /// Whether a client's change may begin.
    fn admit_client(&self, session: SessionId) -> Result<(), Status> {
        self.membership.admit(session)?;
        match self.lease.holds(self.now_ms) {
            true => Ok(()),
            false => Err(Status::NotServing),
        }
    }

    fn take_room(&mut self, order: &Order<B>) -> Result<(), Status> {
        if !self.writes.has_room(order.chunk) {
            return Err(Status::Busy);
        }
        self.replies.reserve(order.op)
    }

    fn forward(
        &mut self,
        order: Order<B>,
        epoch: Epoch,
        (base, version): (Version, Version),
        caller: C,
    ) {
        match self.admit_forward(&order, epoch, version) {
            Ok(Arrival::New) => {
                let rule = Rule::Given { base, version };
                let asker = Asker::Predecessor(caller);
                self.begin(Underway::new(order, epoch, rule, asker));
            }
            Ok(Arrival::Underway) => {
                let slot = slot_of(order.op);
                self.writes.expect(slot).epoch = epoch;
                self.attach(slot, Asker::Predecessor(caller));
            }
            Ok(Arrival::Answered(outcome)) => self.answer(caller, answer(outcome)),
            Err(status) => self.answer(caller, Err(status)),
        }
    }

    /// What is under way or was applied here is never refused: not even if its session has ended, whose
    /// replies are forgotten; then the store knows it by its version.
    fn admit_forward(
        &mut self,
        order: &Order<B>,
        epoch: Epoch,
        version: Version,
    ) -> Result<Arrival, Status> {
        let place = self.membership.place(order.chain, epoch)?;
        if place.is_head {
            return Err(Status::NotServing);
        }
        if let Some(write) = self.writes.get(slot_of(order.op)) {
            let is_same = write.order.op == order.op && write.version() == Some(version);
            return match is_same {
                true => Ok(Arrival::Underway),
                false => Err(Status::NotServing),
            };
        }
        // One that is syncing may remember what the chain never knew: its chunk decides.
        if place.serves {
            match self.replies.find(order.op) {
                Known::Answered(Ok(other)) if other != version => {
                    self.diverged(order.chain, place.epoch);
                    return Err(Status::NotServing);
                }
                Known::Answered(outcome) => return Ok(Arrival::Answered(outcome)),
                Known::Stale => return Err(Status::StaleRequest),
                Known::New => {}
            }
        }
        // The one above passes on one change of a chunk at a time: this is a late duplicate, or it
        // is ahead of what ends here in a moment.
        if self.writes.closed_by(order.chunk).is_some() {
            return Err(Status::NotServing);
        }
        self.take_room(order)?;
        Ok(Arrival::New)
    }

    fn attach(&mut self, slot: Slot, asker: Asker<C>) {
        if let Err((asker, status)) = self.writes.expect(slot).attach(asker) {
            self.answer_all(vec![asker], Err(status));
        }
    }

    fn begin(&mut self, write: Underway<B, C>) {
        let slot = slot_of(write.order.op);
        if self.writes.insert(write) {
            self.start(slot);
        }
    }

    /// The chunk is closed for the change: the store's turn.
    fn start(&mut self, slot: Slot) {
        let write = self.writes.expect(slot);
        let (order, rule, epoch) = (write.order.clone(), write.rule, write.epoch);
        let is_own = matches!(rule, Rule::Next(_));
        let current = self.membership.current(order.chain);
        let place = current.filter(|place| place.epoch == epoch);
        let Some(place) = place else {
            return self.end(slot, Err(self.no_place(order.chain)));
        };
        let admission = match is_own {
            true => self.admit_client(order.op.session),
            false if is_planted!(FenceOnlyAtHead) => Ok(()),
            // Members that were removed since may have shown it, which this one cannot know.
            false if !place.serves => Ok(()),
            false => self.membership.admit(order.op.session),
        };
        let terms = Terms {
            lost_below: place.lost_below,
            admission,
        };
        let write = self.writes.expect(slot);
        if place.successor.is_none() {
            write.phase = Phase::Executing;
            self.effects.push(Effect::Execute { order, rule, terms });
        } else {
            write.phase = Phase::Preparing;
            self.effects.push(Effect::Prepare { order, rule, terms });
        }
    }

    fn no_place(&self, chain: ChainId) -> Status {
        let epoch = self.membership.epoch(chain);
        epoch.map_or(Status::NotServing, Status::StaleEpoch)
    }

    /// A change that waits for the store's report.
    fn reported(&mut self, op: OpId, phase: Phase) -> Slot {
        let slot = slot_of(op);
        let write = self.writes.expect(slot);
        assert_eq!(
            (write.order.op, write.phase),
            (op, phase),
            "as it was asked"
        );
        slot
    }

    fn executed(&mut self, op: OpId, outcome: Result<Version, Failure>) {
        let slot = self.reported(op, Phase::Executing);
        match outcome {
            _ if self.writes.expect(slot).is_withdrawn => self.end_withdrawn(slot),
            Ok(version) => self.record(slot, Ok(version)),
            Err(failure) => self.failed(slot, failure),
        }
    }

    fn prepared(&mut self, op: OpId, outcome: Result<Prepared, Failure>) {
        let slot = self.reported(op, Phase::Preparing);
        let write = self.writes.expect(slot);
        match outcome {
            Ok(Prepared::Ready { .. }) if write.is_withdrawn => self.keep_or_discard(slot),
            _ if write.is_withdrawn => self.end_withdrawn(slot),
            Ok(Prepared::Already(version)) => self.record(slot, Ok(version)),
            Ok(Prepared::Ready { base, version }) => {
                write.rule = Rule::Given { base, version };
                self.pass_on(slot);
            }
            Err(failure) => self.failed(slot, failure),
        }
    }

    /// Whoever has the chain's copy may have made the change or not.
    fn end_withdrawn(&mut self, slot: Slot) {
        let chain = self.writes.expect(slot).order.chain;
        self.end(slot, Err(self.no_place(chain)));
    }

    fn failed(&mut self, slot: Slot, failure: Failure) {
        match failure {
            Failure::Refused(status) => self.refuse(slot, status),
            Failure::Diverged => {
                let (chain, epoch) = self.chain_of(slot);
                match self.membership.own_state(chain) {
                    Some(MemberState::Syncing) => self.end(slot, Err(Status::NotInSync)),
                    Some(MemberState::Serving) => {
                        self.end(slot, Err(Status::NotServing));
                        self.diverged(chain, epoch);
                    }
                    Some(MemberState::Waiting) | None => self.end(slot, Err(Status::NotServing)),
                }
            }
        }
    }

    fn chain_of(&mut self, slot: Slot) -> (ChainId, Epoch) {
        let write = self.writes.expect(slot);
        let (chain, epoch) = (write.order.chain, write.epoch);
        (chain, self.membership.epoch(chain).unwrap_or(epoch))
    }

    /// Nobody from here on has applied the change, or will.
    fn refuse(&mut self, slot: Slot, status: Status) {
        let is_below = self
            .membership
            .current(self.writes.expect(slot).order.chain)
            .is_some_and(|place| !place.is_head);
        match Refusal::of(status) {
            Some(refusal) if !(is_below && is_planted!(ForgetRefusalBelow)) => {
                self.record(slot, Err(refusal));
            }
            Some(_) | None => self.end(slot, Err(status)),
        }
    }

    /// The change has its version and its room: to the successor, or done here.
    fn pass_on(&mut self, slot: Slot) {
        let write = self.writes.expect(slot);
        let order = write.order.clone();
        let (op, chunk) = (order.op, order.chunk);
        let Rule::Given { base, version } = write.rule else {
            unreachable!("it was prepared")
        };
        let before = match write.phase {
            Phase::Passed(passed) => Some(passed),
            _ => None,
        };
        // One that has come back as one that is syncing passes nothing on: it is of its last time here.
        let current = self.membership.current(order.chain);
        let Some(place) = current.filter(|place| place.serves) else {
            return self.keep_or_discard(slot);
        };
        let Some(successor) = place.successor else {
            self.writes.expect(slot).phase = Phase::Applying;
            self.effects.push(Effect::Apply { op, chunk });
            return;
        };
        let to = successor.volume;
        let exchange = self.writes.begin_exchange(slot);
        let is_again = before.filter(|passed| passed.successor == to);
        // One that serves by now has been given it.
        let is_syncing = successor.state == MemberState::Syncing;
        let is_lacking = is_syncing && is_again.is_some_and(|passed| passed.is_lacking);
        let passed = Passed {
            exchange: Some(exchange),
            successor: to,
            epoch: place.epoch,
            report_ms: is_again
                .map_or(self.now_ms + SILENT_SUCCESSOR_MS, |passed| passed.report_ms),
            again_ms: self.now_ms,
            is_lacking,
        };
        let version = match before {
            Some(_) if is_planted!(RenumberOnResend) => base.next(place.epoch),
            _ => version,
        };
        let write = self.writes.expect(slot);
        write.rule = Rule::Given { base, version };
        write.phase = Phase::Passed(passed);
        self.effects.push(Effect::PassOn(PassedOn {
            exchange,
            to,
            order,
            epoch: place.epoch,
            base,
            version,
            lacks_chunk: is_lacking,
        }));
        if is_planted!(AckBeforeSuccessor) {
            self.writes.expect(slot).phase = Phase::Applying;
            self.effects.push(Effect::Apply { op, chunk });
        }
    }

    /// What was passed on may have been applied below: as long as this volume may have a place in the
    /// next epoch, it is kept.
    fn keep_or_discard(&mut self, slot: Slot) {
        let write = self.writes.expect(slot);
        let (op, chunk, chain) = (write.order.op, write.order.chunk, write.order.chain);
        let was_passed_on = matches!(write.phase, Phase::Passed(_));
        if was_passed_on && self.membership.may_return(chain) {
            return;
        }
        self.effects.push(Effect::Discard { op, chunk });
        self.end(slot, Err(self.no_place(chain)));
    }

    fn answered(&mut self, exchange: u64, answer: Result<Version, Status>) {
        let Some(slot) = self.writes.end_exchange(exchange) else {
            return;
        };
        let now_ms = self.now_ms;
        let chain = self.writes.expect(slot).order.chain;
        let may_refuse = !self.is_supplying(chain);
        let write = self.writes.expect(slot);
        let (op, chunk) = (write.order.op, write.order.chunk);
        match answer {
            Ok(version) if Some(version) == write.version() => {
                write.phase = Phase::Applying;
                self.effects.push(Effect::Apply { op, chunk });
            }
            Ok(_) => {
                self.effects.push(Effect::Discard { op, chunk });
                self.failed(slot, Failure::Diverged);
            }
            Err(status) if is_refusal(status) && may_refuse => {
                self.effects.push(Effect::Discard { op, chunk });
                self.refuse(slot, status);
            }
            Err(status) => {
                let Phase::Passed(passed) = &mut write.phase else {
                    unreachable!("only what was passed on is answered")
                };
                passed.exchange = None;
                passed.again_ms = now_ms + PASS_AGAIN_MS;
                match status {
                    Status::NotInSync => {
                        passed.is_lacking = true;
                        passed.report_ms = now_ms + SILENT_SUPPLIED_MS;
                        self.pass_on(slot);
                    }
                    // It lives, and waits itself.
                    Status::Busy => passed.report_ms = now_ms + SILENT_SUCCESSOR_MS,
                    status if is_refusal(status) => passed.report_ms = now_ms,
                    _ => {}
                }
            }
        }
    }

    /// The successor is syncing. It does not know whether members that were removed had applied a change,
    /// so it cannot refuse it.
    fn is_supplying(&self, chain: ChainId) -> bool {
        let successor = self.membership.current(chain).and_then(|of| of.successor);
        successor.is_some_and(|of| of.state == MemberState::Syncing)
    }

    fn applied(&mut self, op: OpId) {
        let slot = self.reported(op, Phase::Applying);
        let version = self.writes.expect(slot).version().expect("it was applied");
        self.record(slot, Ok(version));
    }

    fn record(&mut self, slot: Slot, outcome: Outcome) {
        let write = self.writes.expect(slot);
        let (op, chunk, chain) = (write.order.op, write.order.chunk, write.order.chain);
        write.phase = Phase::Recording(outcome);
        if is_planted!(ForgetReply) {
            return self.ended(slot, outcome);
        }
        if is_planted!(KeepReplyInHeap) {
            let reply = Reply {
                op,
                chain: Some(write.order.chain),
                outcome: Some(outcome),
            };
            let epoch = write.epoch;
            self.replies.record(epoch, reply);
            return self.ended(slot, outcome);
        }
        self.effects.push(Effect::Record {
            op,
            chain,
            chunk,
            outcome,
        });
    }

    fn recorded(&mut self, op: OpId) {
        let slot = slot_of(op);
        let write = self.writes.expect(slot);
        let (phase, chain, epoch) = (write.phase, Some(write.order.chain), write.epoch);
        let Phase::Recording(outcome) = phase else {
            unreachable!("{op:?} is recorded in {phase:?}")
        };
        let reply = Reply {
            op,
            chain,
            outcome: Some(outcome),
        };
        self.replies.record(epoch, reply);
        self.ended(slot, outcome);
        // Its session's records were dropped meanwhile.
        if !self.membership.may_retry(op.session) {
            self.drop_replies(op.session);
        }
    }

    /// The change ended, and its reply is on record.
    fn ended(&mut self, slot: Slot, outcome: Outcome) {
        self.writes.expect(slot).phase = Phase::Done(outcome);
        let opened = self.writes.open(slot);
        let chain = self.writes.expect(slot).order.chain;
        self.answer_predecessors(slot, answer(outcome));
        self.settle(slot);
        self.go_on(opened);
        self.activate_chain(chain);
    }

    /// The change ended without a reply to remember.
    fn end(&mut self, slot: Slot, answer: Result<Version, Status>) {
        let opened = self.writes.open(slot);
        let write = self.writes.remove(slot);
        self.replies.release(write.order.op);
        self.answer_all(write.askers, answer);
        self.go_on(opened);
    }

    /// The chunk is open: its readers, and the next change that waits for it, go on.
    fn go_on(&mut self, opened: Opened<C>) {
        for caller in opened.readers {
            self.effects.push(Effect::Opened { caller });
        }
        if let Some(next) = opened.next {
            self.start(next);
        }
    }

    /// Who has asked in an earlier epoch could take it for the word of those who have lost their places
    /// since, and tell its client; it asks again.
    fn answer_predecessors(&mut self, slot: Slot, answer: Result<Version, Status>) {
        let write = self.writes.expect(slot);
        let epoch = self.membership.epoch(write.order.chain);
        let answer = match epoch.filter(|epoch| *epoch != write.epoch) {
            Some(epoch) => Err(Status::StaleEpoch(epoch)),
            None => answer,
        };
        let (clients, predecessors): (Vec<_>, Vec<_>) = std::mem::take(&mut write.askers)
            .into_iter()
            .partition(|asker| matches!(asker, Asker::Client(_)));
        write.askers = clients;
        self.answer_all(predecessors, answer);
    }

    /// Answers the clients of an ended change if the chain is active, and keeps them waiting if it
    /// is not yet.
    fn settle(&mut self, slot: Slot) {
        let write = self.writes.expect(slot);
        let Phase::Done(outcome) = write.phase else {
            return;
        };
        let (chain, has_askers) = (write.order.chain, !write.askers.is_empty());
        let current = self.membership.current(chain);
        let place = current.filter(|place| place.serves);
        if has_askers && place.is_some_and(|place| !place.is_active) {
            return;
        }
        let answer = match place {
            Some(_) => answer(outcome),
            None => Err(self.no_place(chain)),
        };
        let askers = self.writes.remove(slot).askers;
        self.answer_all(askers, answer);
    }

    fn answer_all(&mut self, askers: Vec<Asker<C>>, outcome: Result<Version, Status>) {
        for asker in askers {
            let (Asker::Client(caller) | Asker::Predecessor(caller)) = asker;
            self.answer(caller, outcome);
        }
    }

    fn answer(&mut self, caller: C, outcome: Result<Version, Status>) {
        self.effects.push(Effect::Answer { caller, outcome });
    }

    fn wait_for_open(&mut self, chunk: ChunkId, caller: C) {
        if let Err(caller) = self.writes.wait_for_open(chunk, caller) {
            self.effects.push(Effect::Opened { caller });
        }
    }

    fn registered(&mut self, registered: &Registered) {
        self.membership.register(registered);
        let (membership, writes) = (&self.membership, &self.writes);
        self.replies.retain(|slot| {
            let (session, _) = slot;
            membership.may_retry(session) || writes.get(slot).is_some()
        });
        self.effects.push(Effect::KeepReplies);
        self.follow_table();
    }

    fn table(&mut self, table: ChainTable) {
        self.membership.install_table(table);
        self.follow_table();
    }

    /// Takes up what is under way in chains whose epoch is another one now.
    fn follow_table(&mut self) {
        for slot in self.writes.slots() {
            self.follow_table_with(slot);
        }
        self.activate_chains();
    }

    fn follow_table_with(&mut self, slot: Slot) {
        let Some(write) = self.writes.get(slot) else {
            return;
        };
        let (op, chunk, chain) = (write.order.op, write.order.chunk, write.order.chain);
        let epoch = self.membership.current(chain).map(|place| place.epoch);
        match write.phase {
            Phase::Queued if epoch != Some(write.epoch) => {
                self.end_queued(slot, self.no_place(chain));
            }
            Phase::Passed(passed) if epoch != Some(passed.epoch) => {
                if is_planted!(DropPendingAtEpoch) {
                    self.effects.push(Effect::Discard { op, chunk });
                    return self.end(slot, Err(self.no_place(chain)));
                }
                self.pass_on(slot);
            }
            Phase::Done(_) => self.settle(slot),
            // Its last time in the chain is over.
            Phase::Executing | Phase::Preparing => {
                let is_syncing = self.membership.own_state(chain) == Some(MemberState::Syncing);
                let is_of_now = epoch == Some(write.epoch);
                self.writes.expect(slot).is_withdrawn |= is_syncing && !is_of_now;
            }
            Phase::Queued | Phase::Passed(_) | Phase::Applying | Phase::Recording(_) => {}
        }
    }

    fn activate_chains(&mut self) {
        for (chain, epoch) in self.membership.to_activate() {
            self.activate((chain, epoch));
        }
    }

    /// Takes the epoch over, unless members that have lost their places, or wait, may have shown a change
    /// that is not made here yet.
    fn activate(&mut self, (chain, epoch): (ChainId, Epoch)) {
        let is_inherited = self.writes.may_be_shown_below(chain, epoch);
        let must_wait = is_inherited && !is_planted!(ActivateBeforeInherited);
        let must_merge = self.membership.must_merge(chain) && !is_planted!(ActivateBeforeMerge);
        if !must_wait && !must_merge {
            self.effects.push(Effect::Activate { chain, epoch });
        }
    }

    /// A change has ended, for which its chain may have waited.
    fn activate_chain(&mut self, chain: ChainId) {
        let place = self.membership.current(chain);
        if let Some(place) = place.filter(|place| place.is_head && !place.is_active) {
            self.activate((chain, place.epoch));
        }
    }

    /// Ends a change that has not begun.
    fn end_queued(&mut self, slot: Slot, status: Status) {
        let write = self.writes.remove(slot);
        self.replies.release(write.order.op);
        self.answer_all(write.askers, Err(status));
    }

    /// This copy is not the chain's.
    fn diverged(&mut self, chain: ChainId, epoch: Epoch) {
        self.effects.push(Effect::Left { chain, epoch });
        self.membership.leave_for_good(chain);
        self.follow_table_in(chain);
    }

    fn leave(&mut self, chain: ChainId, epoch: Epoch) {
        self.membership.leave(chain, epoch);
        self.follow_table_in(chain);
    }

    fn follow_table_in(&mut self, chain: ChainId) {
        for slot in self.writes.of_chain(chain) {
            self.follow_table_with(slot);
        }
    }

    fn fence(&mut self, fence: Fence, ack: u64) {
        self.membership.fence(fence);
        for slot in self.writes.of_session(fence.session) {
            if self.writes.expect(slot).phase == Phase::Queued {
                self.end_queued(slot, Status::Fenced);
            }
        }
        self.fencing.insert(ack, fence.session);
    }

    fn acknowledge_fences(&mut self) {
        let writes = &self.writes;
        let may_go =
            |session: SessionId| !writes.has_session(session) || is_planted!(AckFenceEarly);
        let done: Vec<u64> = self
            .fencing
            .iter()
            .filter(|(_, session)| may_go(**session))
            .map(|(ack, _)| *ack)
            .collect();
        for ack in done {
            self.fencing.remove(&ack);
            self.effects.push(Effect::Fenced { ack });
        }
    }

    fn forget(&mut self, session: SessionId) {
        self.membership.forget_session(session);
        self.drop_replies(session);
    }

    /// What this volume remembers of the chain's earlier epochs, and its predecessor does not, is of
    /// changes that the chain has not kept.
    fn taught(&mut self, (chain, epoch): (ChainId, Epoch), replies: Vec<(OpId, Outcome)>) {
        if is_planted!(IgnoreLesson) {
            return;
        }
        let lesson: BTreeMap<OpId, Outcome> = replies.iter().copied().collect();
        // What came in this epoch came from the predecessor, whatever epoch its version is of.
        for (op, outcome) in self.replies.of_chain_before(chain, epoch) {
            let is_underway = self.writes.get(slot_of(op)).is_some();
            if !is_underway && lesson.get(&op) != Some(&outcome) {
                self.replies.forget(op);
                self.effects.push(Effect::ForgetReply { op });
            }
        }
        for (op, outcome) in replies {
            if self.replies.find(op) == Known::New {
                self.remember((chain, epoch), op, outcome);
            }
        }
    }

    /// Its op is done, also if it was refused here: nobody was told so, or the other would have lost its
    /// place.
    fn taken(&mut self, chain: ChainId, op: OpId, version: Version) {
        let epoch = self.membership.epoch(chain).unwrap_or_default();
        if self.replies.find(op) != Known::Stale {
            self.remember((chain, epoch), op, Ok(version));
        }
    }

    /// What an op was answered elsewhere.
    fn remember(&mut self, (chain, epoch): (ChainId, Epoch), op: OpId, outcome: Outcome) {
        if self.membership.may_retry(op.session) && self.replies.reserve(op).is_ok() {
            let reply = Reply {
                op,
                chain: Some(chain),
                outcome: Some(outcome),
            };
            self.replies.record(epoch, reply);
            self.effects.push(Effect::Remember { chain, op, outcome });
        }
    }

    fn merged(&mut self, chain: ChainId, epoch: Epoch) {
        self.membership.note_merged(chain, epoch);
        self.activate_chain(chain);
    }

    fn drop_replies(&mut self, session: SessionId) {
        let writes = &self.writes;
        self.replies
            .retain(|slot| slot.0 != session || writes.get(slot).is_some());
        self.effects.push(Effect::ForgetReplies { session });
    }

    fn tick(&mut self) {
        for slot in self.writes.slots() {
            self.look_after(slot);
        }
        for (chain, epoch, suspect) in self.membership.left_behind() {
            self.effects.push(match self.membership.may_return(chain) {
                true => Effect::HasLeft { chain, epoch },
                false => Effect::Report {
                    chain,
                    epoch,
                    suspect,
                },
            });
        }
        self.activate_chains();
    }

    /// Passes a change on again whose message was lost, and reports a successor that is silent. A
    /// report may be lost too, so it is repeated.
    fn look_after(&mut self, slot: Slot) {
        let Some(write) = self.writes.get_mut(slot) else {
            return;
        };
        let chain = write.order.chain;
        let Phase::Passed(passed) = &mut write.phase else {
            return;
        };
        let is_lacking = passed.is_lacking;
        if passed.report_ms <= self.now_ms {
            passed.report_ms = self.now_ms + SILENT_SUCCESSOR_MS;
            self.effects.push(Effect::Report {
                chain,
                epoch: passed.epoch,
                suspect: passed.successor,
            });
        }
        if passed.exchange.is_none() && passed.again_ms <= self.now_ms {
            self.pass_on(slot);
        }
        if is_lacking {
            // It takes a while: the one above is to know that this one lives.
            self.answer_predecessors(slot, Err(Status::Busy));
        }
    }
}

/// The successor has decided: nobody from there on has applied the change, or will. Everything else
/// leaves it open.
fn is_refusal(status: Status) -> bool {
    let is_final = matches!(status, Status::Fenced | Status::SessionExpired);
    let is_planted = matches!(status, Status::StaleEpoch(_)) && is_planted!(PassStaleEpochUp);
    is_final || is_planted || Refusal::of(status).is_some()
}

#[cfg(test)]
mod tests;
