//! One simulation: a master, volumes, clients, the network between them, and what goes wrong.

use std::collections::BTreeMap;

use vdfs_proto::{ChainId, ChunkId, Epoch, Member, OpId, Status, Version};

use crate::client::{Client, Desk, Ended};
use crate::faults::Faults;
use crate::history::History;
use crate::master::{DISK_US, Master, Office};
use crate::message::{Action, CHAINS, Event, FILES, LATE_FILES, Message, Place, chain_of};
use crate::network::{Network, Transit};
use crate::node::{Killed, Node, Scene};
use crate::report::Counts;
use crate::rng::Rng;

pub(crate) const VOLUMES: usize = 4;
const CLIENTS: usize = 4;
const OPS_PER_CLIENT: u64 = 600;
/// Its place among those who may stand still, behind the volumes.
pub(crate) const MASTER: usize = VOLUMES;
/// Faults go on for so long.
const STORM_US: u64 = 40_000_000;
/// When they have ended, everything must be done within this time.
const CALM_US: u64 = 240_000_000;

pub(crate) struct World {
    pub(crate) now_us: u64,
    pub(crate) rng: Rng,
    pub(crate) events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    pub(crate) network: Network,
    pub(crate) master: Master,
    pub(crate) nodes: Vec<Node>,
    /// Of each volume, and of the master: whoever stands still does until this time.
    pub(crate) stands_until: Vec<u64>,
    pub(crate) clients: Vec<Client>,
    pub(crate) history: History,
    pub(crate) counts: Counts,
    pub(crate) faults: Faults,
}

/// Runs one seed. Panics if it sees what must not be.
pub(crate) fn run(seed: u64) -> Counts {
    let mut world = World::new(seed);
    world.begin();
    world.run_until(STORM_US, |_| false);
    world.end_storm();
    let deadline_us = world.now_us + CALM_US;
    world.run_until(deadline_us, World::is_done);
    world.check_end();
    world.counts
}

fn chains(rng: &mut Rng) -> Vec<Vec<usize>> {
    let length = *rng.pick(&[1, 2, 2, 2, 3, 3, 3]);
    let chain = |_| {
        let mut members: Vec<usize> = (0..VOLUMES).collect();
        while members.len() > length {
            members.remove(rng.below(members.len() as u64) as usize);
        }
        let turn = rng.below(members.len() as u64) as usize;
        members.rotate_left(turn);
        members
    };
    (0..CHAINS).map(chain).collect()
}

pub(crate) fn chunks() -> impl Iterator<Item = ChunkId> {
    let files = (1..=FILES + LATE_FILES).map(vdfs_proto::DataId);
    files.map(|data| ChunkId { data, index: 0 })
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let chains = chains(&mut rng);
        let master = Master::new(&chains, VOLUMES);
        let client = |index| Client::new(index, master.table().clone(), OPS_PER_CLIENT);
        let clients = (0..CLIENTS).map(client).collect();
        let faults = Faults::new(&mut rng);
        World {
            now_us: 0,
            events: BTreeMap::new(),
            next_event: 0,
            network: Network::new(&mut rng),
            rng,
            master,
            nodes: (0..VOLUMES).map(Node::new).collect(),
            stands_until: vec![0; VOLUMES + 1],
            clients,
            history: History::default(),
            counts: Counts::default(),
            faults,
        }
    }

    fn begin(&mut self) {
        self.schedule(0, Event::MasterStart);
        for volume in 0..VOLUMES {
            self.schedule(0, Event::VolumeStart { volume });
        }
        self.schedule(200_000, Event::Fault);
        for client in 0..CLIENTS {
            self.with_desk(|clients, desk| clients[client].start(desk));
        }
    }

    pub(crate) fn schedule(&mut self, delay_us: u64, event: Event) {
        let key = (self.now_us + delay_us, self.next_event);
        self.next_event += 1;
        self.events.insert(key, event);
    }

    fn run_until(&mut self, end_us: u64, is_over: impl Fn(&World) -> bool) {
        while let Some(entry) = self.events.first_entry() {
            let (at_us, _) = *entry.key();
            if at_us > end_us || is_over(self) {
                break;
            }
            let ((at_us, _), event) = self.events.pop_first().expect("just seen");
            self.now_us = at_us;
            self.counts.hit("steps");
            self.happen(event);
        }
    }

    fn end_storm(&mut self) {
        self.faults.is_over = true;
        self.master.order_the_end(*self.rng.pick(&[1, 2, 2, 3, 3]));
        self.network.heal();
        self.master.disk_us = DISK_US;
        for node in &mut self.nodes {
            node.shelf.is_full = false;
        }
        self.stands_until.fill(0);
    }

    fn is_done(&self) -> bool {
        let clients_are = self.clients.iter().all(Client::is_done);
        let is_served = |node: &Node| self.is_served(node.index);
        let serves = |node: &Node| node.is_idle() && is_served(node);
        clients_are && self.master.is_whole() && self.nodes.iter().all(serves)
    }

    /// The volume's process is taken in, and gets leases.
    pub(crate) fn is_served(&self, volume: usize) -> bool {
        let registration = self.nodes[volume].conversation.registration();
        registration.is_some_and(|of| self.master.serves((volume, of), self.now_us))
    }

    /// Whoever stands still hears everything later.
    fn is_deferred(&mut self, event: &Event) -> Option<u64> {
        let who = match event {
            Event::Deliver {
                to: Place::Master, ..
            }
            | Event::MasterTick { .. }
            | Event::LogDue { .. } => MASTER,
            Event::Deliver {
                to: Place::Volume(volume),
                ..
            }
            | Event::Stored { volume, .. }
            | Event::PerformLate { volume, .. }
            | Event::ReadAgain { volume, .. }
            | Event::Copied { volume, .. }
            | Event::VolumeTick { volume, .. }
            | Event::ForwardLost { volume, .. }
            | Event::AskLost { volume, .. }
            | Event::GiveAgain { volume, .. }
            | Event::SupplyAgain { volume, .. } => *volume,
            _ => return None,
        };
        let until_us = self.stands_until[who];
        // What comes first then is chance.
        let turn_us = self.rng.below(1000);
        (until_us > self.now_us).then(|| until_us - self.now_us + turn_us)
    }

    fn happen(&mut self, event: Event) {
        if let Some(delay_us) = self.is_deferred(&event) {
            return self.schedule(delay_us, event);
        }
        match event {
            Event::Deliver { from, to, message } => self.deliver(from, to, message),
            Event::VolumeStart { volume } => {
                if !self.nodes[volume].is_up() {
                    self.with_scene(volume, |node, scene| node.start(scene));
                }
            }
            Event::ClientTimer {
                client,
                life,
                slot,
                attempt,
            } => {
                if self.clients[client].life == life {
                    self.with_desk(|clients, desk| clients[client].timer(desk, slot, attempt));
                }
            }
            Event::MasterTick { life } => self.with_master(Some(life), Master::tick),
            Event::LogDue { life } => self.with_master(Some(life), Master::log_due),
            Event::MasterStart => {
                if !self.master.is_up() {
                    self.with_office(Master::start);
                }
            }
            Event::ClientStart { client, life } => {
                if self.clients[client].life == life {
                    self.with_desk(|clients, desk| clients[client].start(desk));
                }
            }
            Event::ClientBeat { client, life } => {
                if self.clients[client].life == life {
                    self.with_desk(|clients, desk| clients[client].beat(desk));
                }
            }
            Event::Fault => self.fault(),
            Event::SpaceReturns { volume } => self.nodes[volume].shelf.is_full = false,
            lost @ (Event::ForwardLost { .. } | Event::AskLost { .. }) => self.lose(lost),
            again @ (Event::GiveAgain { .. } | Event::SupplyAgain { .. }) => self.supply(again),
            of_volume => self.happen_at_volume(of_volume),
        }
    }

    /// What one life of a volume has begun.
    fn happen_at_volume(&mut self, event: Event) {
        match event {
            Event::Stored {
                volume,
                life,
                input,
            } => {
                self.with_node(volume, Some(life), |node, scene| node.take(scene, input));
            }
            Event::PerformLate {
                volume,
                life,
                effect,
            } => {
                self.with_node(volume, Some(life), |node, scene| {
                    scene.is_late = true;
                    let killed = scene.is_killed() || scene.is_doomed;
                    node.perform(scene, effect, killed)
                });
            }
            Event::ReadAgain {
                volume,
                life,
                client,
                read,
            } => {
                self.with_node(volume, Some(life), |node, scene| {
                    node.read(scene, client, read)
                });
            }
            Event::Copied {
                volume,
                life,
                client,
                read,
                version,
                cells,
            } => {
                self.with_node(volume, Some(life), |node, scene| {
                    node.copied(scene, client, read, (version, cells))
                });
            }
            Event::VolumeTick {
                volume,
                life,
                count,
            } => {
                self.with_node(volume, Some(life), |node, scene| node.tick(scene, count));
            }
            other => unreachable!("{other:?} is of no volume"),
        }
    }

    /// A volume hears that a message, or its answer, was lost.
    fn lose(&mut self, event: Event) {
        match event {
            Event::ForwardLost {
                volume,
                life,
                exchange,
                status,
            } => {
                let input = crate::message::CoreInput::Answered {
                    exchange,
                    answer: Err(status),
                };
                self.with_node(volume, Some(life), |node, scene| node.take(scene, input));
            }
            Event::AskLost {
                volume,
                life,
                call,
                status,
            } => {
                self.with_node(volume, Some(life), |node, scene| {
                    node.replied(scene, call, Err(status))
                });
            }
            other => unreachable!("{other:?} is no loss"),
        }
    }

    fn supply(&mut self, event: Event) {
        match event {
            Event::GiveAgain {
                volume,
                life,
                giving,
            } => {
                self.with_node(volume, Some(life), |node, scene| node.give(scene, giving));
            }
            Event::SupplyAgain { volume, life, peer } => {
                self.with_node(volume, Some(life), |node, _| {
                    node.supply_again(peer);
                    Ok(())
                });
            }
            other => unreachable!("{other:?} supplies nobody"),
        }
    }

    fn deliver(&mut self, from: Place, to: Place, message: Message) {
        match to {
            Place::Master => {
                self.with_master(None, |master, office| master.receive(office, from, message));
            }
            Place::Volume(volume) => {
                self.with_node(volume, None, |node, scene| {
                    node.receive(scene, from, message)
                });
            }
            Place::Client(client) => self.tell(client, message),
        }
    }

    fn tell(&mut self, client: usize, message: Message) {
        match message {
            Message::Answer { life, call, said } => {
                if self.clients[client].told((life, call), *said) {
                    self.counts.hit("sessions that ended");
                    self.begin_anew(client);
                }
            }
            Message::Written {
                attempt,
                op,
                outcome,
                ..
            } => {
                let ended = self.with_desk(|clients, desk| {
                    clients[client].written(desk, (op, attempt), outcome)
                });
                if let Some(ended) = ended {
                    self.note(ended, None);
                }
            }
            Message::ReadDone { number, outcome } => {
                let is_good = outcome.as_ref().map(drop).map_err(|status| *status);
                let ended = self
                    .with_desk(|clients, desk| clients[client].read_done(desk, number, is_good));
                if let Some(ended) = ended {
                    self.note(ended, outcome.ok());
                }
            }
            other => unreachable!("a client was sent {other:?}"),
        }
    }

    /// Another mount comes in the place of one that has ended.
    fn begin_anew(&mut self, client: usize) {
        self.clients[client].begin_anew();
        self.with_desk(|clients, desk| clients[client].start(desk));
    }

    fn note(&mut self, ended: Ended, read: Option<(Version, crate::shelf::Cells)>) {
        match ended {
            Ended::Acknowledged {
                op,
                chunk,
                version,
                begun_us,
            } => {
                self.history.acknowledged(op, chunk, version, begun_us);
            }
            Ended::Refused { op } => {
                self.counts.hit("writes refused");
                self.history.refused(op);
            }
            Ended::Lost { chunk } => {
                self.counts.hit("lost data asked for");
                self.history.found_lost(chunk);
            }
            Ended::Read {
                chunk,
                floor,
                begun_us,
            } => {
                let (version, cells) = read.expect("it was good");
                self.history.read(chunk, (floor, begun_us), version, cells);
            }
        }
    }

    /// What was acknowledged is on every member that serves, and has what it had.
    fn check_acknowledged(&self, op: OpId, chunk: ChunkId, version: Version) {
        let chain = chain_of(chunk);
        let row = self.master.table().chain(chain).expect("it exists");
        let node = |member: &Member| &self.nodes[Node::index_of(member.volume)];
        let is_there = |member: &&Member| node(member).store() == member.store;
        for member in row.serving().filter(is_there) {
            let has = node(member).shelf.version(chunk);
            assert!(
                has >= version,
                "{op:?} is acknowledged as {version:?}, {:?} has {has:?}",
                member.volume
            );
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::After { delay_us, event } => self.schedule(delay_us, event),
                Action::Resumed {
                    chain,
                    head,
                    epoch,
                    is_complete,
                } => self.resumed((chain, epoch), head, is_complete),
                Action::Lost(chain) => {
                    for chunk in chunks().filter(|chunk| chain_of(*chunk) == chain) {
                        self.history.lose(chunk, self.now_us);
                    }
                }
                Action::Release(session) => self.history.release(session, self.now_us),
                Action::Send { from, to, message } => {
                    if let Message::Written {
                        op,
                        chunk,
                        outcome: Ok(version),
                        ..
                    } = &message
                    {
                        self.check_acknowledged(*op, *chunk, *version);
                    }
                    self.send(from, to, message);
                }
            }
        }
    }

    /// The chain goes on with what this member has, unless that has been lost since.
    fn resumed(&mut self, (chain, epoch): (ChainId, Epoch), head: Member, is_complete: bool) {
        let volume = Node::index_of(head.volume);
        if self.nodes[volume].store() != head.store {
            return;
        }
        for chunk in chunks().filter(|chunk| chain_of(*chunk) == chain) {
            let copy = self.nodes[volume].shelf.read(chunk);
            let since = (epoch, self.now_us);
            let taken_back = self.history.resumed(chunk, copy, since, is_complete);
            self.counts
                .add("reads taken back with those who are gone", taken_back);
        }
    }

    fn send(&mut self, from: Place, to: Place, message: Message) {
        if matches!(message, Message::Forward { .. }) {
            self.counts.hit("changes passed on");
        }
        let transit = self.network.transit(&mut self.rng, self.now_us, from, to);
        match transit {
            Transit::Arrives(delay_us) => {
                self.schedule(delay_us, Event::Deliver { from, to, message });
            }
            Transit::Twice(first_us, second_us) => {
                self.counts.hit("messages twice");
                let copy = message.clone();
                self.schedule(first_us, Event::Deliver { from, to, message });
                self.schedule(
                    second_us,
                    Event::Deliver {
                        from,
                        to,
                        message: copy,
                    },
                );
            }
            Transit::Lost => {
                self.counts.hit("messages lost");
                self.note_lost(from, &message);
            }
        }
    }

    /// A broken connection is noticed soon, most of the time.
    fn note_lost(&mut self, from: Place, message: &Message) {
        let status = Status::Disconnected;
        let lost = match (from, message) {
            (Place::Volume(volume), Message::Forward { life, exchange, .. }) => {
                Event::ForwardLost {
                    volume,
                    life: *life,
                    exchange: *exchange,
                    status,
                }
            }
            (Place::Volume(volume), Message::Ask { life, call, .. }) => Event::AskLost {
                volume,
                life: *life,
                call: *call,
                status,
            },
            _ => return,
        };
        if self.rng.permille(800) {
            let delay_us = self.rng.below(50_000);
            self.schedule(delay_us, lost);
        }
    }

    pub(crate) fn with_office<T>(
        &mut self,
        work: impl FnOnce(&mut Master, &mut Office<'_>) -> T,
    ) -> T {
        let mut actions = Vec::new();
        let mut office = Office {
            now_us: self.now_us,
            rng: &mut self.rng,
            counts: &mut self.counts,
            actions: &mut actions,
        };
        let done = work(&mut self.master, &mut office);
        self.act(actions);
        done
    }

    fn with_master(&mut self, life: Option<u64>, work: impl FnOnce(&mut Master, &mut Office<'_>)) {
        let is_same = life.is_none_or(|life| self.master.life == life);
        if self.master.is_up() && is_same {
            self.with_office(work);
        }
    }

    pub(crate) fn with_desk<T>(
        &mut self,
        work: impl FnOnce(&mut Vec<Client>, &mut Desk<'_>) -> T,
    ) -> T {
        let mut actions = Vec::new();
        let history = &self.history;
        let floor = |chunk| history.floor(chunk);
        let mut desk = Desk {
            now_us: self.now_us,
            rng: &mut self.rng,
            actions: &mut actions,
            floor: &floor,
        };
        let done = work(&mut self.clients, &mut desk);
        self.act(actions);
        done
    }

    fn with_scene<T>(
        &mut self,
        volume: usize,
        work: impl FnOnce(&mut Node, &mut Scene<'_>) -> T,
    ) -> T {
        let kill_in = self.kill_in(volume);
        let is_doomed = self.is_doomed(volume);
        let mut actions = Vec::new();
        let mut scene = Scene {
            now_us: self.now_us,
            rng: &mut self.rng,
            history: &mut self.history,
            counts: &mut self.counts,
            actions: &mut actions,
            table: self.master.table(),
            table_to_come: self.master.table_to_come(),
            kill_in,
            is_doomed,
            is_late: false,
        };
        let done = work(&mut self.nodes[volume], &mut scene);
        self.act(actions);
        done
    }

    pub(crate) fn with_node(
        &mut self,
        volume: usize,
        life: Option<u64>,
        work: impl FnOnce(&mut Node, &mut Scene<'_>) -> Result<(), Killed>,
    ) {
        let node = &self.nodes[volume];
        let is_same = life.is_none_or(|life| node.life == life);
        if !node.is_up() || !is_same {
            return;
        }
        let done = self.with_scene(volume, |node, scene| {
            work(node, scene)?;
            node.tell_tidings(scene);
            Ok(())
        });
        if let Err(Killed) = done {
            self.kill(volume);
        }
    }

    fn check_end(&self) {
        for client in &self.clients {
            assert!(client.is_done(), "{client:?} is not done");
        }
        let served: Vec<bool> = (0..VOLUMES).map(|of| self.is_served(of)).collect();
        let idle: Vec<bool> = self.nodes.iter().map(Node::is_idle).collect();
        let table = self.master.table();
        assert!(
            self.is_done(),
            "served {served:?}, idle {idle:?}, {table:?}"
        );
        for chunk in chunks() {
            self.check_chunk_end(chain_of(chunk), chunk);
        }
    }

    fn check_chunk_end(&self, chain: ChainId, chunk: ChunkId) {
        let row = self.master.table().chain(chain).expect("it exists");
        let members = row
            .members
            .iter()
            .map(|member| Node::index_of(member.volume));
        let copy = |of: usize| {
            let shelf = &self.nodes[of].shelf;
            (shelf.read(chunk), shelf.told(chunk).map(|of| of.copy))
        };
        let copies: Vec<_> = members.map(copy).collect();
        for copy in &copies {
            assert_eq!(*copy, copies[0], "{chunk:?} in {row:?}");
        }
        let ((version, cells), _) = copies[0];
        self.history.check_end(chunk, version, cells);
    }
}
