//! A simulated volume gives a successor that is syncing what it lacks: what `src/supply.rs` and
//! `src/peers.rs` do, as a machine of steps between messages.

use std::collections::{BTreeMap, BTreeSet};

use vdfs_proto::peer::ChunkCopy;
use vdfs_proto::volume::ChainEvent;
use vdfs_proto::{ChainId, ChunkId, Epoch, OpId, Status};

use crate::message::{Ask, CoreInput, Event, Message, Place, Reply, Told};
use crate::node::{Killed, Node, PassedOn, Scene};

const DEADLINE_US: u64 = 2_000_000;
/// Before a successor that could not be supplied is tried again.
const PAUSE_US: u64 = 200_000;
/// Before a chunk that is being changed is looked at again.
const CLOSED_PAUSE_US: u64 = 10_000;

type Chains = BTreeMap<ChainId, Epoch>;

/// Everything that one life gives to others.
#[derive(Debug, Default)]
pub(crate) struct Supplying {
    /// Of calls, of givings, and of streams.
    next: u64,
    calls: BTreeMap<u64, For>,
    tasks: BTreeMap<usize, Task>,
    givings: BTreeMap<u64, Giving>,
}

/// What a call is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum For {
    Lesson(usize),
    List(usize),
    Drop(usize),
    Giving(u64),
    Merge(ChainId, usize),
}

/// Supplies one successor.
#[derive(Debug, Default)]
struct Task {
    chains: Chains,
    /// Changes that its epoch has found under way: until they have ended it may lack them.
    before: Vec<(ChainId, OpId)>,
    has_begun: bool,
    givings: BTreeSet<u64>,
    /// What it has and the chain perhaps not.
    to_drop: Vec<ChunkCopy>,
}

/// Gives one chunk.
#[derive(Debug)]
struct Giving {
    peer: usize,
    chunk: ChunkId,
    place: (ChainId, Epoch),
    /// For this change, which it is closed for; else in the background.
    passed: Option<PassedOn>,
    told: Option<Told>,
    stream: u64,
    at: usize,
    /// Cells of a piece.
    cells: usize,
}

impl Supplying {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// A version whose op nobody knows may be of other bytes.
fn has(theirs: Option<ChunkCopy>, own: &ChunkCopy) -> bool {
    theirs.is_some_and(|theirs| theirs == *own && own.op.is_some())
}

impl Node {
    /// Supplies whoever lacks something.
    pub(crate) fn supply_whoever_lacks(&mut self, scene: &mut Scene<'_>) {
        let core = self.core();
        let mut by_peer: BTreeMap<usize, Chains> = BTreeMap::new();
        for (chain, epoch, peer) in core.membership().to_supply() {
            let chains = by_peer.entry(Self::index_of(peer)).or_default();
            chains.insert(chain, epoch);
        }
        for (peer, chains) in by_peer {
            if !self.supplying.tasks.contains_key(&peer) {
                let of_chain = |chain: &ChainId| {
                    let underway = self.core().underway(*chain);
                    let chain = *chain;
                    underway.into_iter().map(move |op| (chain, op))
                };
                let before = chains.keys().flat_map(of_chain).collect();
                let task = Task {
                    chains,
                    before,
                    ..Task::default()
                };
                self.supplying.tasks.insert(peer, task);
                scene.counts.hit("syncs begun");
            }
        }
        for peer in 0..crate::world::VOLUMES {
            self.begin_task(scene, peer);
        }
    }

    fn begin_task(&mut self, scene: &mut Scene<'_>, peer: usize) {
        let core = self.core.as_ref().expect("it is up");
        let Some(task) = self
            .supplying
            .tasks
            .get_mut(&peer)
            .filter(|of| !of.has_begun)
        else {
            return;
        };
        task.before
            .retain(|(chain, op)| core.underway(*chain).contains(op));
        if task.before.is_empty() {
            task.has_begun = true;
            let chains = task.chains.iter().map(|(chain, epoch)| (*chain, *epoch));
            let list = Ask::List(chains.collect());
            self.call(scene, peer, For::List(peer), list);
        }
    }

    pub(crate) fn call(&mut self, scene: &mut Scene<'_>, peer: usize, why: For, ask: Ask) {
        let (call, life, volume) = (self.supplying.number(), self.life, self.index);
        self.supplying.calls.insert(call, why);
        let message = Message::Ask { life, call, ask };
        scene.send(volume, Place::Volume(peer), message);
        let status = Status::DeadlineExceeded;
        let lost = Event::AskLost {
            volume,
            life,
            call,
            status,
        };
        scene.after(DEADLINE_US, lost);
    }

    /// A call has ended, one way or another.
    pub(crate) fn replied(
        &mut self,
        scene: &mut Scene<'_>,
        call: u64,
        reply: Result<Reply, Status>,
    ) -> Result<(), Killed> {
        let Some(why) = self.supplying.calls.remove(&call) else {
            return Ok(());
        };
        match (why, reply) {
            (For::Merge(chain, peer), reply) => {
                return self.merge_replied(scene, (chain, peer), reply);
            }
            (For::Giving(giving), reply) => return self.given_piece(scene, giving, reply),
            (For::Lesson(peer) | For::List(peer) | For::Drop(peer), Err(status)) => {
                self.fail_task(scene, peer, status);
            }
            (For::Lesson(peer), Ok(_)) => self.finish_task(scene, peer),
            (For::List(peer), Ok(Reply::List(theirs))) => {
                return self.compare(scene, peer, theirs);
            }
            (For::Drop(peer), Ok(_)) => self.drop_next(scene, peer),
            (why, reply) => unreachable!("{why:?} is answered {reply:?}"),
        }
        Ok(())
    }

    fn compare(
        &mut self,
        scene: &mut Scene<'_>,
        peer: usize,
        theirs: Vec<ChunkCopy>,
    ) -> Result<(), Killed> {
        let Some(chains) = self.supplying.tasks.get(&peer).map(|of| of.chains.clone()) else {
            return Ok(());
        };
        let is_of_chains = |copy: &ChunkCopy| chains.contains_key(&copy.chain);
        let theirs = theirs.into_iter().filter(is_of_chains);
        let mut theirs: BTreeMap<ChunkId, ChunkCopy> =
            theirs.map(|copy| (copy.chunk, copy)).collect();
        let own = self.shelf.list().into_iter().filter(is_of_chains);
        let lacking: Vec<ChunkCopy> = own
            .filter(|copy| !has(theirs.remove(&copy.chunk), copy))
            .collect();
        let task = self.supplying.tasks.get_mut(&peer).expect("just seen");
        task.to_drop = theirs.into_values().collect();
        let mut begun = Vec::new();
        for copy in lacking {
            let place = (copy.chain, chains[&copy.chain]);
            let giving = self.begin_giving(scene, peer, copy.chunk, place, None);
            begun.push(giving);
        }
        let task = self.supplying.tasks.get_mut(&peer).expect("just seen");
        task.givings = begun.iter().copied().collect();
        for giving in &begun {
            self.give(scene, *giving)?;
        }
        if begun.is_empty() {
            self.drop_next(scene, peer);
        }
        Ok(())
    }

    fn begin_giving(
        &mut self,
        scene: &mut Scene<'_>,
        peer: usize,
        chunk: ChunkId,
        place: (ChainId, Epoch),
        passed: Option<PassedOn>,
    ) -> u64 {
        let giving = self.supplying.number();
        let made = Giving {
            peer,
            chunk,
            place,
            passed,
            told: None,
            stream: 0,
            at: 0,
            cells: *scene.rng.pick(&[1, 2, 3, 4]),
        };
        self.supplying.givings.insert(giving, made);
        giving
    }

    /// Gives the successor the chunk that a change is closed for, then passes the change on.
    pub(crate) fn supply(&mut self, scene: &mut Scene<'_>, passed: PassedOn) -> Result<(), Killed> {
        scene.counts.hit("supplies within writes");
        let (chunk, place) = (passed.order.chunk, (passed.order.chain, passed.epoch));
        let peer = Self::index_of(passed.to);
        let giving = self.begin_giving(scene, peer, chunk, place, Some(passed));
        self.give_closed(scene, giving)
    }

    /// Gives a chunk as it is, when nobody changes it.
    pub(crate) fn give(&mut self, scene: &mut Scene<'_>, giving: u64) -> Result<(), Killed> {
        let Some(of) = self.supplying.givings.get(&giving) else {
            return Ok(());
        };
        let (chain, epoch) = of.place;
        if self.core().place(chain).is_none_or(|of| of.epoch != epoch) {
            return self.end_giving(scene, giving, Err(Status::NotServing));
        }
        if self.core().is_closed(of.chunk) {
            self.give_again(scene, giving);
            return Ok(());
        }
        self.give_closed(scene, giving)
    }

    fn give_again(&self, scene: &mut Scene<'_>, giving: u64) {
        let (volume, life) = (self.index, self.life);
        let again = Event::GiveAgain {
            volume,
            life,
            giving,
        };
        scene.after(CLOSED_PAUSE_US, again);
    }

    fn give_closed(&mut self, scene: &mut Scene<'_>, giving: u64) -> Result<(), Killed> {
        // Different from all streams of other volumes and lives.
        let own = self.supplying.number();
        let stream = own << 16 | (self.index as u64) << 12 | self.life;
        let of = self.supplying.givings.get_mut(&giving).expect("under way");
        of.told = self.shelf.told(of.chunk);
        (of.stream, of.at) = (stream, 0);
        let (peer, chunk, (chain, epoch)) = (of.peer, of.chunk, of.place);
        if of.told.is_none() {
            let ask = Ask::Drop {
                chain,
                epoch,
                chunk,
            };
            self.call(scene, peer, For::Giving(giving), ask);
            return Ok(());
        }
        self.give_piece(scene, giving)
    }

    fn give_piece(&mut self, scene: &mut Scene<'_>, giving: u64) -> Result<(), Killed> {
        let of = self.supplying.givings.get_mut(&giving).expect("under way");
        let told = of.told.expect("it is given in pieces");
        let piece = match self.shelf.piece(&told, of.at, of.cells) {
            Ok(piece) => piece,
            Err(status) => return self.end_giving(scene, giving, Err(status)),
        };
        of.at += of.cells;
        let (peer, (_, epoch), stream) = (of.peer, of.place, of.stream);
        let ask = Ask::Put {
            epoch,
            told,
            stream,
            piece,
        };
        self.call(scene, peer, For::Giving(giving), ask);
        Ok(())
    }

    fn given_piece(
        &mut self,
        scene: &mut Scene<'_>,
        giving: u64,
        reply: Result<Reply, Status>,
    ) -> Result<(), Killed> {
        if !self.supplying.givings.contains_key(&giving) {
            return Ok(());
        }
        match reply {
            Ok(Reply::Put { is_done: false }) => self.give_piece(scene, giving),
            Ok(_) => self.end_giving(scene, giving, Ok(())),
            Err(status) => self.end_giving(scene, giving, Err(status)),
        }
    }

    fn end_giving(
        &mut self,
        scene: &mut Scene<'_>,
        giving: u64,
        result: Result<(), Status>,
    ) -> Result<(), Killed> {
        let is_background = self.supplying.givings[&giving].passed.is_none();
        if is_background && result == Err(Status::NotInSync) {
            scene.counts.hit("copies that were overtaken");
            self.give_again(scene, giving);
            return Ok(());
        }
        let of = self.supplying.givings.remove(&giving).expect("looked at");
        let peer = of.peer;
        match (of.passed, result) {
            (Some(passed), Ok(())) => self.forward(scene, passed),
            (Some(passed), Err(status)) => {
                let status = match status {
                    Status::NoSpace => Status::Busy,
                    status => status,
                };
                let exchange = passed.exchange;
                let answer = Err(status);
                return self.take(scene, CoreInput::Answered { exchange, answer });
            }
            (None, Ok(())) => {
                if let Some(task) = self.supplying.tasks.get_mut(&peer) {
                    let is_of_task = task.givings.remove(&giving);
                    if is_of_task && task.givings.is_empty() {
                        self.drop_next(scene, peer);
                    }
                }
            }
            (None, Err(status)) => self.fail_task(scene, peer, status),
        }
        Ok(())
    }

    fn drop_next(&mut self, scene: &mut Scene<'_>, peer: usize) {
        let Some(task) = self.supplying.tasks.get_mut(&peer) else {
            return;
        };
        while let Some(copy) = task.to_drop.pop() {
            let (chain, chunk) = (copy.chain, copy.chunk);
            if self.shelf.told(chunk).is_none() {
                let epoch = task.chains[&chain];
                let ask = Ask::Drop {
                    chain,
                    epoch,
                    chunk,
                };
                scene.counts.hit("chunks that a chain does not have");
                return self.call(scene, peer, For::Drop(peer), ask);
            }
        }
        let core = self.core.as_ref().expect("it is up");
        let lesson = |(chain, epoch): (&ChainId, &Epoch)| (*chain, *epoch, core.replies_of(*chain));
        let lessons = task.chains.iter().map(lesson).collect();
        self.call(scene, peer, For::Lesson(peer), Ask::Learn(lessons));
    }

    fn finish_task(&mut self, scene: &mut Scene<'_>, peer: usize) {
        let Some(task) = self.supplying.tasks.get_mut(&peer) else {
            return;
        };
        for (chain, epoch) in std::mem::take(&mut task.chains) {
            self.note_news(chain, epoch, ChainEvent::InSync(Self::volume(peer)));
        }
        scene.counts.hit("syncs finished");
        self.end_task(scene, peer);
    }

    fn fail_task(&mut self, scene: &mut Scene<'_>, peer: usize, status: Status) {
        let Some(task) = self.supplying.tasks.get_mut(&peer) else {
            return;
        };
        scene.counts.hit("syncs interrupted");
        let chains = std::mem::take(&mut task.chains);
        for giving in std::mem::take(&mut task.givings) {
            self.supplying.givings.remove(&giving);
        }
        if status == Status::NoSpace {
            for (chain, epoch) in chains {
                self.note_news(chain, epoch, ChainEvent::Suspect(Self::volume(peer)));
            }
        }
        self.end_task(scene, peer);
    }

    fn end_task(&mut self, scene: &mut Scene<'_>, peer: usize) {
        let (volume, life) = (self.index, self.life);
        let again = Event::SupplyAgain { volume, life, peer };
        scene.after(PAUSE_US, again);
    }

    pub(crate) fn supply_again(&mut self, peer: usize) {
        self.supplying.tasks.remove(&peer);
    }
}
