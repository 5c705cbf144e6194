//! A simulated volume: the real core, a shelf for a store, and what `engine` does in between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use vdfs_proto::volume::ChainEvent;
use vdfs_proto::{
    ChainId, ChainTable, ChunkId, Epoch, MemberState, OpId, SessionId, Status, StoreId, Version,
    VolumeId,
};
use vdfs_volume::chain::{Departed, Effect, Member, Order, Reading, Rule, Unwanted};

use crate::conversation::Conversation;
use crate::history::History;
use crate::merging::Merging;
use crate::message::chain_of;
use crate::message::{Action, Ask, Caller, CoreInput, Event, Lesson, Message, Place, Read, Reply};
use crate::report::{Counts, trace};
use crate::rng::Rng;
use crate::shelf::{Cells, KilledAt, Made, Patch, Shelf};
use crate::supplied::Supplied;
use crate::supplying::Supplying;

/// Slots of a volume's own changes: few, so that they are used again.
const OWN_SLOTS: u64 = 2;
/// How long copies are kept of a chain that others serve.
const KEPT_MS: u64 = 2_000;
const TICK_US: u64 = 50_000;
/// So many ticks make a heartbeat.
const BEAT_TICKS: u64 = 5;
/// Before a reader that was woken looks at the chunk.
const READ_AGAIN_US: u64 = 100;
const FORWARD_DEADLINE_US: u64 = 1_000_000;

type Core = Member<Patch, Caller>;
pub(crate) type CoreEffect = Effect<Patch, Caller>;

/// What a volume's code may touch beside itself.
pub(crate) struct Scene<'a> {
    pub(crate) now_us: u64,
    pub(crate) rng: &'a mut Rng,
    pub(crate) history: &'a mut History,
    pub(crate) counts: &'a mut Counts,
    pub(crate) actions: &'a mut Vec<Action>,
    /// The master's, as its disk has it.
    pub(crate) table: &'a ChainTable,
    /// The master's, as it will be if nothing of its log is lost.
    pub(crate) table_to_come: &'a ChainTable,
    /// The process is killed after so many more effects.
    pub(crate) kill_in: Option<u64>,
    /// It is killed within the next change that it makes.
    pub(crate) is_doomed: bool,
    /// A thread goes on that stood still: what it does may be of an earlier time in the chain.
    pub(crate) is_late: bool,
}

impl Scene<'_> {
    fn now_ms(&self) -> u64 {
        self.now_us / 1000
    }

    pub(crate) fn send(&mut self, from: usize, to: Place, message: Message) {
        let from = Place::Volume(from);
        self.actions.push(Action::Send { from, to, message });
    }

    pub(crate) fn after(&mut self, delay_us: u64, event: Event) {
        self.actions.push(Action::After { delay_us, event });
    }

    /// How long the thread stands still at the store, if it does.
    fn stall_us(&mut self) -> Option<u64> {
        let stands = self.rng.permille(2);
        stands.then(|| {
            self.counts.hit("threads that stood still at the store");
            self.rng.below(5_000_000)
        })
    }

    /// Whether the process is killed now.
    pub(crate) fn is_killed(&mut self) -> bool {
        match &mut self.kill_in {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }
}

/// A change on its way to the successor.
pub(crate) type PassedOn = vdfs_volume::chain::PassedOn<Patch>;

/// The process has ended.
#[derive(Debug)]
pub(crate) struct Killed;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) life: u64,
    /// How often its machine has lost its RAM.
    losses: u64,
    pub(crate) shelf: Shelf,
    pub(crate) core: Option<Core>,
    pub(crate) conversation: Conversation,
    pub(crate) rules: Rules,
    pub(crate) supplying: Supplying,
    pub(crate) merging: Merging,
    /// What this volume is given while it is syncing.
    supplied: Supplied,
    /// A change is followed while syncing: nothing else touches what is given.
    is_locked: bool,
    /// What waits for that.
    locked_out: VecDeque<(Place, Message)>,
    departed: Departed,
    /// One after the other.
    to_free: VecDeque<ChunkId>,
}

/// What a volume has promised in this life, and must not go back on.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// The last message in which an op was passed on: answers to earlier ones say nothing.
    passed: BTreeMap<OpId, u64>,
    /// Sessions whose fence it has acknowledged: it makes no changes of theirs.
    pub(crate) fenced: BTreeSet<SessionId>,
    /// Those that it was told of, by the numbers of the commands.
    pub(crate) fences: BTreeMap<u64, SessionId>,
}

impl Rules {
    /// Checks an input and what the core made of it.
    fn check(&self, core: &Core, input: &Seen, effects: &[CoreEffect]) {
        match *input {
            Seen::Forward { op, chain, epoch } => {
                let present = core.place(chain).map(|place| place.epoch);
                assert!(
                    present == Some(epoch) || !effects.iter().any(takes_or_confirms),
                    "{op:?} is taken in {epoch:?}, it is {present:?} now"
                );
            }
            Seen::Answered { exchange } => {
                let last = |op: &OpId| self.passed.get(op).is_none_or(|last| *last == exchange);
                let ends = |effect: &CoreEffect| match effect {
                    Effect::Apply { op, .. } | Effect::Discard { op, .. } => !last(op),
                    _ => false,
                };
                assert!(
                    !effects.iter().any(ends),
                    "an answer to an earlier message counts: {effects:?}"
                );
            }
            Seen::Other => {}
        }
    }

    fn made(&self, made: &Made) {
        let session = made.op.expect("it was just made").session;
        assert!(
            !self.fenced.contains(&session),
            "{made:?} behind its session's fence"
        );
    }
}

/// What the rules look at of an input.
enum Seen {
    Forward {
        op: OpId,
        chain: ChainId,
        epoch: Epoch,
    },
    Answered {
        exchange: u64,
    },
    Other,
}

impl Seen {
    fn of(input: &CoreInput) -> Self {
        match input {
            CoreInput::Forward { order, epoch, .. } => Seen::Forward {
                op: order.op,
                chain: order.chain,
                epoch: *epoch,
            },
            CoreInput::Answered { exchange, .. } => Seen::Answered {
                exchange: *exchange,
            },
            _ => Seen::Other,
        }
    }
}

fn is_of_store(effect: &CoreEffect) -> bool {
    let is_change = matches!(effect, Effect::Execute { .. } | Effect::Apply { .. });
    is_change || matches!(effect, Effect::Prepare { .. } | Effect::Record { .. })
}

fn takes_or_confirms(effect: &CoreEffect) -> bool {
    matches!(
        effect,
        Effect::Execute { .. } | Effect::Prepare { .. } | Effect::Answer { outcome: Ok(_), .. }
    )
}

impl Node {
    pub(crate) fn new(index: usize) -> Self {
        Node {
            index,
            life: 0,
            losses: 0,
            shelf: Shelf::default(),
            core: None,
            conversation: Conversation::default(),
            rules: Rules::default(),
            supplying: Supplying::default(),
            merging: Merging::default(),
            supplied: Supplied::default(),
            is_locked: false,
            locked_out: VecDeque::new(),
            departed: Departed::new(KEPT_MS),
            to_free: VecDeque::new(),
        }
    }

    pub(crate) fn volume(index: usize) -> VolumeId {
        VolumeId(index as u32 + 1)
    }

    pub(crate) fn index_of(volume: VolumeId) -> usize {
        volume.0 as usize - 1
    }

    pub(crate) fn first_store(index: usize) -> StoreId {
        StoreId(index as u128 + 1)
    }

    pub(crate) fn store(&self) -> StoreId {
        StoreId(Self::first_store(self.index).0 + u128::from(self.losses) * 100)
    }

    /// Its machine restarts.
    pub(crate) fn lose_ram(&mut self) {
        assert!(!self.is_up(), "the process ends with it");
        self.losses += 1;
        self.shelf = Shelf::default();
    }

    pub(crate) fn core(&self) -> &Core {
        self.core.as_ref().expect("it is up")
    }

    pub(crate) fn is_up(&self) -> bool {
        self.core.is_some()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.core.as_ref().is_some_and(Member::is_idle)
    }

    pub(crate) fn start(&mut self, scene: &mut Scene<'_>) {
        self.life += 1;
        self.conversation = Conversation::default();
        self.rules = Rules::default();
        self.supplying = Supplying::default();
        self.merging = Merging::default();
        self.supplied = Supplied::default();
        self.is_locked = false;
        self.locked_out.clear();
        self.departed = Departed::new(KEPT_MS);
        self.to_free.clear();
        for made in self.shelf.recover() {
            match made.op {
                Some(_) => scene.counts.hit("rolled forward"),
                None => scene.counts.hit("torn and given up"),
            }
            let is_alone = self.is_alone(scene.table_to_come, chain_of(made.chunk));
            match made.op {
                Some(_) if is_alone => scene.history.made(&made, Epoch(u64::MAX), true),
                // Whether it counts shows when its volume goes on with the chain.
                Some(_) | None => scene.history.found(&made),
            }
        }
        let replies = self.shelf.replies.values().copied();
        self.core = Some(Member::new(self.store(), replies, 10_000));
        self.tick_after(scene, 0);
    }

    fn is_alone(&self, table: &ChainTable, chain: ChainId) -> bool {
        let mut serving = table.chain(chain).expect("it exists").serving();
        serving.all(|of| of.volume == Self::volume(self.index))
    }

    /// Whether changes were under way.
    pub(crate) fn kill(&mut self) -> bool {
        self.core.take().is_some_and(|core| !core.is_idle())
    }

    fn tick_after(&self, scene: &mut Scene<'_>, count: u64) {
        let (volume, life) = (self.index, self.life);
        scene.after(
            TICK_US,
            Event::VolumeTick {
                volume,
                life,
                count,
            },
        );
    }

    pub(crate) fn tick(&mut self, scene: &mut Scene<'_>, count: u64) -> Result<(), Killed> {
        self.tick_after(scene, count + 1);
        self.converse(scene, count.is_multiple_of(BEAT_TICKS));
        self.free_departed(scene);
        self.supply_whoever_lacks(scene);
        self.merge_whoever_waits(scene);
        self.take(scene, CoreInput::Tick)
    }

    /// What is left of chains that others have served for some time.
    fn free_departed(&mut self, scene: &mut Scene<'_>) {
        let core = self.core.as_ref().expect("it is up");
        let due = self.departed.look(core.membership(), scene.now_ms());
        let left = due.iter().flat_map(|chain| self.shelf.chunks_of(*chain));
        self.to_free.extend(left);
        self.departed.note_freed(due);
        let Some(chunk) = self.to_free.pop_front() else {
            return;
        };
        let unwanted = Unwanted::of(core.membership(), chain_of(chunk));
        if unwanted.is_some_and(|unwanted| unwanted.has(chunk)) {
            scene.counts.hit("copies freed that were left behind");
            let me = Place::Volume(self.index);
            trace(scene.now_us, &me, &("frees", chunk));
            self.shelf.drop_copy(chunk);
        }
    }

    /// Cuts a chunk that it heads, as for a truncation.
    pub(crate) fn cut(
        &mut self,
        scene: &mut Scene<'_>,
        (chunk, len): (ChunkId, u32),
    ) -> Result<(), Killed> {
        let chain = chain_of(chunk);
        let is_here = self.shelf.told(chunk).is_some();
        let place = self.core().place(chain);
        let Some(place) = place.filter(|place| place.is_head && is_here) else {
            return Ok(());
        };
        let seq = scene.now_us;
        let op = OpId {
            session: SessionId::of_volume(Self::volume(self.index)),
            slot: (seq % OWN_SLOTS) as u16,
            seq,
        };
        let order = Order {
            chain,
            chunk,
            op,
            body: Patch::Cut { len },
        };
        let (epoch, caller) = (place.epoch, Caller::Own { op });
        let request = CoreInput::Request {
            order,
            epoch,
            caller,
        };
        self.take(scene, request)
    }

    pub(crate) fn receive(
        &mut self,
        scene: &mut Scene<'_>,
        from: Place,
        message: Message,
    ) -> Result<(), Killed> {
        match message {
            Message::Write {
                order,
                epoch,
                attempt,
            } => {
                let Place::Client(client) = from else {
                    unreachable!()
                };
                let (op, chunk) = (order.op, order.chunk);
                let caller = Caller::Writer {
                    client,
                    attempt,
                    op,
                    chunk,
                };
                self.take(
                    scene,
                    CoreInput::Request {
                        order,
                        epoch,
                        caller,
                    },
                )
            }
            Message::Read(read) => {
                let Place::Client(client) = from else {
                    unreachable!()
                };
                self.read(scene, client, read)
            }
            forward @ Message::Forward { .. } => self.follow(scene, from, forward),
            ask @ Message::Ask { .. } => self.asked(scene, from, ask),
            news => self.hear(scene, news),
        }
    }

    /// A change that the predecessor passes on.
    fn follow(
        &mut self,
        scene: &mut Scene<'_>,
        from: Place,
        forward: Message,
    ) -> Result<(), Killed> {
        let behind = self.serves_behind(from, &forward);
        if behind == Some(false) && self.is_locked {
            self.locked_out.push_back((from, forward));
            return Ok(());
        }
        let Message::Forward {
            life,
            exchange,
            order,
            epoch,
            base,
            version,
        } = forward
        else {
            unreachable!()
        };
        let Place::Volume(volume) = from else {
            unreachable!()
        };
        let is_syncing = behind == Some(false);
        let caller = Caller::Above {
            volume,
            life,
            exchange,
            syncing: is_syncing.then_some((order.chain, epoch, order.chunk)),
        };
        let checked = match behind {
            None => Err(Status::NotServing),
            Some(false) => self.core().check_settled(order.chain, epoch),
            Some(true) => Ok(()),
        };
        if let Err(status) = checked {
            self.answer(scene, caller, Err(status));
            return Ok(());
        }
        self.is_locked |= is_syncing;
        if is_syncing
            && self
                .core()
                .place(order.chain)
                .is_some_and(|of| of.epoch == epoch)
        {
            self.supplied.begin(&mut self.shelf, order.chain, epoch);
        }
        let input = CoreInput::Forward {
            order,
            epoch,
            base,
            version,
            caller,
        };
        self.take(scene, input)
    }

    /// Whether this volume has all that its chain has; none if it is not the one behind the asker.
    fn serves_behind(&self, from: Place, message: &Message) -> Option<bool> {
        let chain = match message {
            Message::Forward { order, .. } => order.chain,
            Message::Ask {
                ask: Ask::Put { told, .. },
                ..
            } => told.copy.chain,
            Message::Ask {
                ask: Ask::Drop { chain, .. },
                ..
            } => *chain,
            _ => return None,
        };
        self.place_behind(from, chain).map(|place| place.serves)
    }

    /// Its place in a chain, if it is the one behind that volume's.
    fn place_behind(&self, from: Place, chain: ChainId) -> Option<vdfs_volume::chain::Place> {
        let place = self.core().place(chain)?;
        let before = place.predecessor.map(Self::index_of);
        (before.map(Place::Volume) == Some(from)).then_some(place)
    }

    fn is_syncing_behind(&self, from: Place, (chain, epoch): (ChainId, Epoch)) -> bool {
        let place = self.place_behind(from, chain);
        place.is_some_and(|of| of.epoch == epoch && !of.serves)
    }

    fn may_list(&self, from: Place, chains: &[(ChainId, Epoch)]) -> Result<(), Status> {
        let is_behind = chains.iter().all(|of| self.is_syncing_behind(from, *of));
        if !is_behind {
            return Err(Status::NotServing);
        }
        let mut settled = chains.iter();
        settled.try_for_each(|(chain, epoch)| self.core().check_settled(*chain, *epoch))
    }

    /// What other volumes ask.
    fn asked(
        &mut self,
        scene: &mut Scene<'_>,
        from: Place,
        message: Message,
    ) -> Result<(), Killed> {
        let serves = self.serves_behind(from, &message);
        let Message::Ask { life, call, ask } = message else {
            unreachable!()
        };
        let needs_lock = matches!(ask, Ask::List(_) | Ask::Put { .. } | Ask::Drop { .. });
        if needs_lock && self.is_locked {
            self.locked_out
                .push_back((from, Message::Ask { life, call, ask }));
            return Ok(());
        }
        let check = |chain, epoch| {
            let place = self.core().place(chain).ok_or(Status::NotServing)?;
            match serves {
                None => Err(Status::NotServing),
                Some(false) if place.epoch == epoch => self.core().check_settled(chain, epoch),
                Some(_) => Err(Status::StaleEpoch(place.epoch)),
            }
        };
        let reply = match ask {
            Ask::Learn(lessons) => self.learn(scene, from, lessons)?,
            Ask::List(chains) => match self.may_list(from, &chains) {
                Ok(()) => {
                    for (chain, epoch) in chains {
                        self.supplied.begin(&mut self.shelf, chain, epoch);
                    }
                    Ok(Reply::List(self.shelf.list()))
                }
                Err(status) => Err(status),
            },
            Ask::Put {
                epoch,
                told,
                stream,
                piece,
            } => {
                let checked = check(told.copy.chain, epoch);
                let killed = scene.is_killed().then(|| killed_at(scene));
                let put = (epoch, &told, stream);
                let (supplied, shelf) = (&mut self.supplied, &mut self.shelf);
                let is_done = checked.and_then(|()| supplied.put(shelf, put, &piece, killed));
                if killed.is_some() {
                    scene.counts.hit("killed within a copy");
                    return Err(Killed);
                }
                is_done.map(|is_done| Reply::Put { is_done })
            }
            Ask::Drop {
                chain,
                epoch,
                chunk,
            } => check(chain, epoch).map(|()| {
                let (supplied, shelf) = (&mut self.supplied, &mut self.shelf);
                supplied.drop_chunk(shelf, chunk, (chain, epoch));
                Reply::Done
            }),
            to_merge @ (Ask::ListToMerge { .. } | Ask::Fetch { .. }) => self.merged(from, to_merge),
        };
        scene.send(self.index, from, Message::Reply { life, call, reply });
        Ok(())
    }

    fn learn(
        &mut self,
        scene: &mut Scene<'_>,
        from: Place,
        lessons: Vec<Lesson>,
    ) -> Result<Result<Reply, Status>, Killed> {
        for (chain, epoch, replies) in lessons {
            if !self.is_syncing_behind(from, (chain, epoch)) {
                return Ok(Err(Status::NotServing));
            }
            if let Err(status) = self.core().check_settled(chain, epoch) {
                return Ok(Err(status));
            }
            let input = CoreInput::Taught {
                chain,
                epoch,
                replies,
            };
            self.take(scene, input)?;
        }
        Ok(Ok(Reply::Done))
    }

    /// What is said to one life of a volume.
    fn hear(&mut self, scene: &mut Scene<'_>, news: Message) -> Result<(), Killed> {
        match news {
            Message::Forwarded {
                life,
                exchange,
                answer,
            } if life == self.life => self.take(scene, CoreInput::Answered { exchange, answer }),
            Message::Reply { life, call, reply } if life == self.life => {
                self.replied(scene, call, reply)
            }
            Message::Answer { life, call, said } if life == self.life => {
                self.told(scene, call, *said)
            }
            // For an earlier life.
            _ => Ok(()),
        }
    }

    /// Forgets what it was given of chains in which it is not syncing any more.
    pub(crate) fn keep_supplied(&mut self) {
        if !self.is_locked {
            let core = self.core.as_ref().expect("it is up");
            self.supplied
                .keep_chains(|chain| core.place(chain).is_some_and(|of| !of.serves));
        }
    }

    pub(crate) fn read(
        &mut self,
        scene: &mut Scene<'_>,
        client: usize,
        read: Read,
    ) -> Result<(), Killed> {
        match self.reading(scene, read) {
            Ok(Reading::Now(_)) => {
                let (version, cells) = self.shelf.read(read.chunk);
                let (volume, life) = (self.index, self.life);
                let copied = Event::Copied {
                    volume,
                    life,
                    client,
                    read,
                    version,
                    cells,
                };
                let delay_us = scene.rng.below(1500);
                scene.after(delay_us, copied);
                Ok(())
            }
            Ok(Reading::WhenOpen) => {
                scene.counts.hit("reads that waited for a closed chunk");
                let caller = Caller::Reader { client, read };
                let chunk = read.chunk;
                self.take(scene, CoreInput::WaitForOpen { chunk, caller })
            }
            Err(status) => {
                self.answer_read(scene, client, read, Err(status));
                Ok(())
            }
        }
    }

    /// Whether the chunk may be read, and is not lost.
    fn reading(&self, scene: &Scene<'_>, read: Read) -> Result<Reading, Status> {
        let Read {
            chain,
            epoch,
            chunk,
            ..
        } = read;
        match self.core().reading(scene.now_ms(), chain, epoch, chunk)? {
            Reading::Now(lost_below) if chunk.data < lost_below => Err(Status::DataLost),
            reading => Ok(reading),
        }
    }

    /// Whoever waited looks again, in a moment: too many wait if it is at once.
    fn read_again(&self, scene: &mut Scene<'_>, client: usize, read: Read) {
        let (volume, life) = (self.index, self.life);
        let again = Event::ReadAgain {
            volume,
            life,
            client,
            read,
        };
        scene.after(READ_AGAIN_US, again);
    }

    /// What was copied is good if it may still be served.
    pub(crate) fn copied(
        &mut self,
        scene: &mut Scene<'_>,
        client: usize,
        read: Read,
        copy: (Version, Cells),
    ) -> Result<(), Killed> {
        match self.reading(scene, read) {
            Ok(Reading::Now(_)) => {
                let chain = scene.table.chain(read.chain).expect("it exists");
                let me = Self::volume(self.index);
                let serves = |of: &vdfs_proto::Member| of.state == MemberState::Serving;
                let mut members = chain.members.iter();
                let has_place = members.any(|member| member.volume == me && serves(member));
                assert!(
                    has_place,
                    "volume {} serves {read:?} without a place",
                    self.index
                );
                self.answer_read(scene, client, read, Ok(copy));
                Ok(())
            }
            Ok(Reading::WhenOpen) => self.read(scene, client, read),
            Err(status) => {
                scene
                    .counts
                    .hit("reads that lost their lease or place on the way");
                self.answer_read(scene, client, read, Err(status));
                Ok(())
            }
        }
    }

    fn answer_read(
        &self,
        scene: &mut Scene<'_>,
        client: usize,
        read: Read,
        outcome: Result<(Version, Cells), Status>,
    ) {
        let number = read.number;
        let message = Message::ReadDone { number, outcome };
        scene.send(self.index, Place::Client(client), message);
    }

    /// Brings an input to the core and performs what follows, unless the process is killed on the
    /// way.
    pub(crate) fn take(&mut self, scene: &mut Scene<'_>, input: CoreInput) -> Result<(), Killed> {
        let mut effects = Vec::new();
        let core = self.core.as_mut().expect("it is up");
        if !matches!(input, CoreInput::Tick | CoreInput::Lease { .. }) {
            trace(scene.now_us, &Place::Volume(self.index), &input);
        }
        let seen = Seen::of(&input);
        core.step(scene.now_ms(), input, &mut effects);
        core.check();
        self.rules.check(core, &seen, &effects);
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            let changes = matches!(effect, Effect::Execute { .. } | Effect::Apply { .. });
            let killed = scene.is_killed() || changes && scene.is_doomed;
            trace(scene.now_us, &Place::Volume(self.index), &effect);
            match is_of_store(&effect).then(|| scene.stall_us()).flatten() {
                Some(stall_us) if !killed => self.perform_late(scene, effect, stall_us),
                _ => self.perform(scene, effect, killed)?,
            }
        }
        while !self.is_locked
            && let Some((from, message)) = self.locked_out.pop_front()
        {
            self.receive(scene, from, message)?;
        }
        Ok(())
    }

    fn perform_late(&self, scene: &mut Scene<'_>, effect: CoreEffect, stall_us: u64) {
        let (volume, life) = (self.index, self.life);
        let late = Event::PerformLate {
            volume,
            life,
            effect,
        };
        scene.after(stall_us, late);
    }

    pub(crate) fn perform(
        &mut self,
        scene: &mut Scene<'_>,
        effect: CoreEffect,
        killed: bool,
    ) -> Result<(), Killed> {
        let killed_at = killed.then(|| killed_at(scene));
        self.note_birth(scene, &effect);
        match effect {
            Effect::Execute { order, rule, terms } => {
                if let Rule::Next(epoch) = rule {
                    scene.history.headed(order.chain, epoch, self.index);
                }
                let executed = self.shelf.execute(&order, rule, terms, killed_at);
                if let Ok((_, Some(made))) = &executed {
                    self.show(scene, made, order.chain);
                }
                let (op, outcome) = (order.op, executed.map(|(version, _)| version));
                self.stored(scene, CoreInput::Executed { op, outcome });
            }
            Effect::Apply { op, chunk } => {
                let made = self.shelf.apply(op, chunk, killed_at);
                if let Some(made) = &made {
                    // Its chain is the chunk's.
                    self.show(scene, made, chain_of(chunk));
                }
                self.stored(scene, CoreInput::Applied { op });
            }
            _ if killed => {}
            other => self.perform_whole(scene, other)?,
        }
        if killed {
            scene.counts.hit("killed between or within effects");
            return Err(Killed);
        }
        Ok(())
    }

    fn note_birth(&self, scene: &mut Scene<'_>, effect: &CoreEffect) {
        let Effect::Prepare { order, .. } = effect else {
            return;
        };
        let place = self.core().place(order.chain);
        let successor = place.and_then(|place| place.successor);
        let has_syncing = successor.is_some_and(|of| of.state == MemberState::Syncing);
        if has_syncing && self.shelf.told(order.chunk).is_none() {
            scene.counts.hit("chunks born while a member is syncing");
        }
    }

    fn show(&self, scene: &mut Scene<'_>, made: &Made, chain: ChainId) {
        let core = self.core.as_ref().expect("it is up");
        let is_serving = core.membership().own_state(chain) == Some(MemberState::Serving);
        if scene.is_late && !is_serving {
            // Its copy is the chain's no more, or not yet.
            return scene.history.found(made);
        }
        // One that is syncing has changes made that others may have shown; these keep the fence.
        if core.place(chain).is_none_or(|place| place.serves) {
            self.rules.made(made);
        }
        let is_shown = core.place(chain).is_some_and(|place| {
            let reading = core.reading(scene.now_ms(), chain, place.epoch, made.chunk);
            reading.is_ok()
        });
        let epoch = core.place(chain).map_or(Epoch(0), |place| place.epoch);
        scene.history.made(made, epoch, is_shown);
    }

    fn perform_whole(&mut self, scene: &mut Scene<'_>, effect: CoreEffect) -> Result<(), Killed> {
        match effect {
            Effect::Opened { caller } => {
                let Caller::Reader { client, read } = caller else {
                    unreachable!("only readers wait for that")
                };
                self.read_again(scene, client, read);
            }
            Effect::Answer { caller, outcome } => self.answer(scene, caller, outcome),
            Effect::Fenced { ack } => {
                self.rules.fenced.insert(self.rules.fences[&ack]);
                self.note_result(ack);
            }
            Effect::Left { chain, epoch } => {
                panic!("volume {} has diverged in {chain:?} {epoch:?}", self.index)
            }
            Effect::PassOn(passed) => {
                self.note_passed(scene, &passed);
                match passed.lacks_chunk {
                    true => return self.supply(scene, passed),
                    false => self.forward(scene, passed),
                }
            }
            Effect::Activate { .. } | Effect::Report { .. } | Effect::HasLeft { .. } => {
                self.note_for_master(scene, effect);
            }
            of_store => self.perform_on_shelf(scene, of_store),
        }
        Ok(())
    }

    fn perform_on_shelf(&mut self, scene: &mut Scene<'_>, effect: CoreEffect) {
        match effect {
            Effect::Prepare { order, rule, terms } => {
                if let Rule::Next(epoch) = rule {
                    scene.history.headed(order.chain, epoch, self.index);
                }
                let outcome = self.shelf.prepare(&order, rule, terms);
                let op = order.op;
                self.stored(scene, CoreInput::Prepared { op, outcome });
            }
            Effect::Remember { chain, op, outcome } => self.shelf.record(op, chain, outcome),
            Effect::ForgetReply { op } => {
                scene.counts.hit("replies that a chain does not know");
                self.shelf.forget_reply(op);
            }
            Effect::Discard { op, chunk } => self.shelf.discard(op, chunk),
            Effect::Record {
                op, chunk, outcome, ..
            } => {
                self.shelf.record(op, chain_of(chunk), outcome);
                self.stored(scene, CoreInput::Recorded { op });
            }
            Effect::KeepReplies => {
                let core = self.core.as_ref().expect("it is up");
                self.shelf.keep_sessions(|session| core.may_retry(session));
            }
            Effect::ForgetReplies { session } => self.shelf.keep_sessions(|of| of != session),
            other => unreachable!("{other:?} is done by the caller"),
        }
    }

    fn note_passed(&mut self, scene: &mut Scene<'_>, passed: &PassedOn) {
        let (op, exchange) = (passed.order.op, passed.exchange);
        if self.rules.passed.insert(op, exchange).is_some() {
            scene.counts.hit("changes passed on again");
        }
    }

    pub(crate) fn forward(&mut self, scene: &mut Scene<'_>, passed: PassedOn) {
        let PassedOn {
            exchange,
            to,
            order,
            epoch,
            base,
            version,
            lacks_chunk: _,
        } = passed;
        let (volume, life) = (self.index, self.life);
        let message = Message::Forward {
            life,
            exchange,
            order,
            epoch,
            base,
            version,
        };
        scene.send(volume, Place::Volume(Self::index_of(to)), message);
        let status = Status::DeadlineExceeded;
        let lost = Event::ForwardLost {
            volume,
            life,
            exchange,
            status,
        };
        scene.after(FORWARD_DEADLINE_US, lost);
    }

    /// What the master is to hear.
    fn note_for_master(&mut self, scene: &mut Scene<'_>, effect: CoreEffect) {
        match effect {
            Effect::Activate { chain, epoch } => self.note_news(chain, epoch, ChainEvent::Active),
            Effect::Report {
                chain,
                epoch,
                suspect,
            } => {
                scene.counts.hit("silent successors reported");
                self.note_news(chain, epoch, ChainEvent::Suspect(suspect));
            }
            Effect::HasLeft { chain, epoch } => self.note_news(chain, epoch, ChainEvent::HasLeft),
            other => unreachable!("{other:?} tells nobody"),
        }
    }

    fn answer(&mut self, scene: &mut Scene<'_>, caller: Caller, outcome: Result<Version, Status>) {
        match caller {
            Caller::Writer {
                client,
                attempt,
                op,
                chunk,
            } => {
                let message = Message::Written {
                    attempt,
                    op,
                    chunk,
                    outcome,
                };
                scene.send(self.index, Place::Client(client), message);
            }
            Caller::Above {
                volume,
                life,
                exchange,
                syncing,
            } => {
                if let Some((chain, epoch, chunk)) = syncing {
                    self.is_locked = false;
                    if outcome.is_ok() {
                        self.supplied.follows(chunk, (chain, epoch));
                    }
                }
                let answer = outcome;
                let message = Message::Forwarded {
                    life,
                    exchange,
                    answer,
                };
                scene.send(self.index, Place::Volume(volume), message);
            }
            Caller::Own { op } => match outcome {
                Ok(_) => scene.counts.hit("chunks cut by their heads"),
                Err(Status::NoSpace) => scene.history.refused(op),
                Err(_) => {}
            },
            Caller::Reader { .. } => unreachable!("readers are answered by the shell"),
        }
    }

    fn stored(&self, scene: &mut Scene<'_>, input: CoreInput) {
        let (volume, life) = (self.index, self.life);
        let delay_us = match scene.stall_us() {
            Some(stall_us) => stall_us,
            None if scene.rng.permille(333) => 0,
            None => scene.rng.below(2000),
        };
        scene.after(
            delay_us,
            Event::Stored {
                volume,
                life,
                input,
            },
        );
    }
}

pub(crate) fn killed_at(scene: &mut Scene<'_>) -> KilledAt {
    match scene.rng.below(4) {
        0 => KilledAt::Before,
        1 => KilledAt::HalfDone,
        2 => KilledAt::BytesDone,
        _ => KilledAt::Done,
    }
}
