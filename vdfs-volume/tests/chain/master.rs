//! The master: its own core, and what its shell does for it. Records reach the disk late; a kill of the
//! process leaves them all, a restart of the machine those that were there.

mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use vdfs_master::core::{Core, CoreReply, CoreRequest, Effect, FsConfig, Input, Now, Peer, Ticket};
use vdfs_master::pulse::Pulse;
use vdfs_proto::handshake::Role;
use vdfs_proto::limits::CHAIN_MEMBERS_MAX;
use vdfs_proto::meta::{AdminRequest, DrainVolume, SetReplicas};
use vdfs_proto::operation::Operation;
use vdfs_proto::session::SessionRequest;
use vdfs_proto::volume::{Heartbeat, Register, VolumeReply, VolumeRequest};
use vdfs_proto::{
    Chain, ChainId, ChainTable, ChunkSize, ClusterId, DataId, MemberState, Status, StoreId,
    Timestamp,
};

use crate::message::{Action, CHAINS, Event, Message, Place, Said};
use crate::node::Node;
use crate::report::{Counts, trace};
use crate::rng::Rng;
use crate::world::VOLUMES;
use watch::{Look, Watch};

/// What a volume may hold, in units that mean nothing.
pub(crate) const CAPACITY: u64 = 1_000;
/// The worst delay of a sound disk, in microseconds.
pub(crate) const DISK_US: u64 = 20_000;
/// Above the ids of all files.
const DATA_ID_MAX: DataId = DataId(1_000);

#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) life: u64,
    /// What is on the disk.
    disk: Core,
    /// On its way there, with the times of arrival.
    log: VecDeque<(u64, Vec<u8>)>,
    running: Option<Running>,
    /// Its machine has restarted since its process had begun with all that it logged.
    has_rebooted: bool,
    watch: Watch,
    /// The newest life of each volume that has come through: what a process has sent comes before its
    /// successor's words, or not at all.
    lives: [u64; VOLUMES],
    orders: VecDeque<AdminRequest>,
    /// The worst delay of the disk, in microseconds.
    pub(crate) disk_us: u64,
}

/// One process.
#[derive(Debug)]
struct Running {
    core: Core,
    pulse: Pulse,
    callers: BTreeMap<Ticket, Caller>,
    /// The last one that was given out.
    last_ticket: u64,
    /// It answers nobody before so many records are on the disk: those of its begin.
    begins_at: u64,
}

#[derive(Clone, Copy, Debug)]
struct Caller {
    place: Place,
    life: u64,
    call: u64,
}

pub(crate) struct Office<'a> {
    pub(crate) now_us: u64,
    pub(crate) rng: &'a mut Rng,
    pub(crate) counts: &'a mut Counts,
    pub(crate) actions: &'a mut Vec<Action>,
}

impl Office<'_> {
    fn now(&self) -> Now {
        Now {
            wall: Timestamp::default(),
            boot_ms: self.now_us / 1000,
        }
    }

    fn answer(&mut self, caller: Caller, said: Said) {
        let Caller { place, life, call } = caller;
        let message = Message::Answer {
            life,
            call,
            said: Box::new(said),
        };
        let from = Place::Master;
        let to = place;
        self.actions.push(Action::Send { from, to, message });
    }

    fn after(&mut self, delay_us: u64, event: Event) {
        self.actions.push(Action::After { delay_us, event });
    }
}

impl Running {
    fn take_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }
}

/// As a volume speaks of itself.
pub(crate) fn register(index: usize, store: StoreId, life: u64, used_bytes: u64) -> Register {
    Register {
        name: node_name(index),
        host: format!("host-{index}"),
        addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        store,
        incarnation: life,
        capacity_bytes: CAPACITY,
        used_bytes,
        data_id_max: DataId(0),
    }
}

/// In its certificate.
fn node_name(index: usize) -> String {
    format!("volume-{index}")
}

fn config(replicas: u32) -> FsConfig {
    FsConfig {
        cluster: ClusterId(1),
        chunk_size: ChunkSize::DEFAULT,
        replicas: Some(replicas),
        hash_key: [1; 16],
        root_uid: 0,
        root_gid: 0,
        files_max: 1_000,
    }
}

impl Master {
    /// With the members of each chain.
    pub(crate) fn new(chains: &[Vec<usize>], volumes: usize) -> Self {
        assert_eq!(chains.len() as u64, CHAINS);
        let known = |index| Register {
            data_id_max: DATA_ID_MAX,
            ..register(index, Node::first_store(index), 1, 0)
        };
        let known: Vec<Register> = (0..volumes).map(known).collect();
        let now = Now {
            wall: Timestamp::default(),
            boot_ms: 0,
        };
        let replicas = chains[0].len() as u32;
        let disk = Core::with_chains(config(replicas), now, &known, chains);
        Master {
            life: 0,
            disk,
            log: VecDeque::new(),
            running: None,
            has_rebooted: false,
            watch: Watch::default(),
            lives: [0; VOLUMES],
            orders: VecDeque::new(),
            disk_us: DISK_US,
        }
    }

    pub(crate) fn table(&self) -> &ChainTable {
        self.disk.table()
    }

    /// As it will be if nothing of the log is lost.
    pub(crate) fn table_to_come(&self) -> &ChainTable {
        let running = self.running.as_ref();
        running.map_or(self.disk.table(), |running| running.core.table())
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// All that the volume has is elsewhere too.
    pub(crate) fn may_lose_ram(&self, volume: usize) -> bool {
        let has_copies = |row: &Chain| row.is_active && serving(row).any(|of| of != volume);
        self.is_up() && self.log.is_empty() && self.table().chains.iter().all(has_copies)
    }

    /// What the volume had when it was taken in last.
    pub(crate) fn store_of(&self, volume: usize) -> StoreId {
        self.disk.life_of(Node::volume(volume)).0
    }

    /// The volume is taken in by this registration, and gets leases.
    pub(crate) fn serves(&self, (volume, registration): (usize, u64), now_us: u64) -> bool {
        let beat = beat_of(volume, registration, 0);
        let pulse = self.running.as_ref().map(|running| running.pulse.clone());
        pulse.is_some_and(|mut pulse| pulse.beat(&beat, now_us / 1000).is_ok())
    }

    /// Each chain has all the members that it shall have.
    pub(crate) fn is_whole(&self) -> bool {
        let replicas = self.disk.config().replicas.expect("it is said") as usize;
        let is_whole = |row: &Chain| row.is_active && serving(row).count() == replicas;
        let mut chains = self.table().chains.iter();
        self.orders.is_empty() && chains.all(|row| is_whole(row) && row.members.len() == replicas)
    }

    /// Given as soon as it can be.
    fn order(&mut self, order: AdminRequest) {
        self.orders.push_back(order);
    }

    /// The number of copies changes, or a volume is drained or no more.
    pub(crate) fn order_something(&mut self, office: &mut Office<'_>) {
        let is_on = office.rng.permille(500);
        let volume = Node::volume(office.rng.below(VOLUMES as u64) as usize);
        let replicas = 1 + office.rng.below(CHAIN_MEMBERS_MAX as u64) as u32;
        self.order(match office.rng.permille(500) {
            true => DrainVolume { volume, is_on }.wrap(),
            false => SetReplicas { replicas }.wrap(),
        });
    }

    /// As it shall be at the end.
    pub(crate) fn order_the_end(&mut self, replicas: u32) {
        for volume in (0..VOLUMES).map(Node::volume) {
            let is_on = false;
            self.order(DrainVolume { volume, is_on }.wrap());
        }
        self.order(SetReplicas { replicas }.wrap());
    }

    pub(crate) fn start(&mut self, office: &mut Office<'_>) {
        self.life += 1;
        let sections = self.disk.image().sections();
        let sections = sections.map(|(name, bytes)| (name.to_owned(), bytes));
        let mut core = Core::from_image(sections).expect("the image of a core");
        let mut effects = Vec::new();
        core.start(office.now(), !self.has_rebooted, &mut effects);
        self.running = Some(Running {
            begins_at: core.records(),
            pulse: Pulse::new(core.term()),
            core,
            callers: BTreeMap::new(),
            last_ticket: 0,
        });
        self.perform(office, effects);
        self.tick_in_time(office);
    }

    /// Of the process, or of its machine: then what the disk does not have is gone, or some of it.
    pub(crate) fn kill(&mut self, office: &mut Office<'_>) {
        self.running = None;
        let reboots = office.rng.permille(500);
        let kept = match reboots {
            true => office.rng.below(self.log.len() as u64 + 1) as usize,
            false => self.log.len(),
        };
        self.has_rebooted |= reboots;
        office.counts.hit(match reboots {
            true => "masters killed with their machines",
            false => "masters killed",
        });
        for (_, record) in self.log.drain(..).take(kept).collect::<Vec<_>>() {
            self.reach_disk(office, &record);
        }
        self.log.clear();
    }

    fn reach_disk(&mut self, office: &mut Office<'_>, record: &[u8]) {
        let before = Look::of(&self.disk);
        self.disk.replay(record).expect("it was just encoded");
        let after = Look::of(&self.disk);
        self.watch.see(office, &before, &after);
    }

    /// Brings an input to the core, as the shell's turns do.
    fn step(&mut self, office: &mut Office<'_>, input: Input) {
        let running = self.running.as_mut().expect("it is up");
        let mut effects = Vec::new();
        let heard = running.pulse.take_news();
        if !heard.is_empty() {
            let heard = Input::Heard(heard);
            running.core.step(office.now(), heard, &mut effects);
        }
        let sessions = running.core.sessions();
        running.core.step(office.now(), input, &mut effects);
        for ended in sessions.difference(&running.core.sessions()) {
            // Others may have its rights.
            office.actions.push(Action::Release(*ended));
        }
        self.perform(office, effects);
    }

    fn perform(&mut self, office: &mut Office<'_>, effects: Vec<Effect>) {
        for effect in effects {
            let running = self.running.as_mut().expect("it is up");
            match effect {
                Effect::Append(record) => self.append(office, record),
                Effect::Reply { ticket, outcome } => self.reply(office, ticket, outcome),
                Effect::Lease { volume, grant } => running.pulse.grant(volume, grant),
                Effect::Withhold { volume, is_on } => running.pulse.withhold(volume, is_on),
                // All of the log is on its way to the disk as it is.
                Effect::Sync => {}
            }
        }
    }

    fn append(&mut self, office: &mut Office<'_>, record: Vec<u8>) {
        let earliest = office.now_us + office.rng.below(self.disk_us);
        let last = self.log.back().map(|(due_us, _)| *due_us);
        let due_us = last.map_or(earliest, |last| earliest.max(last));
        if due_us > office.now_us + 1_000_000 {
            office.counts.hit("slow log");
        }
        self.log.push_back((due_us, record));
        let life = self.life;
        office.after(due_us - office.now_us, Event::LogDue { life });
    }

    fn reply(
        &mut self,
        office: &mut Office<'_>,
        ticket: Ticket,
        outcome: Result<CoreReply, Status>,
    ) {
        let running = self.running.as_mut().expect("it is up");
        let Some(caller) = running.callers.remove(&ticket) else {
            return;
        };
        let said = match outcome {
            Ok(CoreReply::Session(reply)) => Said::Session(reply),
            Ok(CoreReply::Volume(reply)) => Said::Volume(reply),
            Ok(_) => return,
            Err(status) => {
                if matches!(caller.place, Place::Volume(_)) && status == Status::Busy {
                    office.counts.hit("registrations that had to wait");
                }
                Said::Refused(status)
            }
        };
        office.answer(caller, said);
    }

    pub(crate) fn log_due(&mut self, office: &mut Office<'_>) {
        let now_us = office.now_us;
        while self
            .log
            .front()
            .is_some_and(|(due_us, _)| *due_us <= now_us)
        {
            let (_, record) = self.log.pop_front().expect("looked at");
            self.reach_disk(office, &record);
        }
        let records = self.disk.records();
        let running = self.running.as_ref().expect("it is up");
        if records >= running.begins_at {
            self.has_rebooted = false;
        }
        self.step(office, Input::LogDurable { records });
    }

    /// Its first records are on the disk.
    fn has_begun(&self) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| running.begins_at <= self.disk.records())
    }

    pub(crate) fn receive(&mut self, office: &mut Office<'_>, from: Place, message: Message) {
        let Message::Call {
            life,
            call,
            request,
        } = message
        else {
            unreachable!("{from:?} sends {message:?}");
        };
        if !self.has_begun() || self.is_of_the_past(from, life) {
            return;
        }
        let place = from;
        let caller = Caller { place, life, call };
        match *request {
            CoreRequest::Volume {
                request: VolumeRequest::Heartbeat(beat),
                ..
            } => self.beat(office, caller, &beat),
            request => self.ask(office, caller, request),
        }
    }

    fn is_of_the_past(&mut self, from: Place, life: u64) -> bool {
        let Place::Volume(volume) = from else {
            return false;
        };
        let newest = &mut self.lives[volume];
        *newest = life.max(*newest);
        life < *newest
    }

    fn beat(&mut self, office: &mut Office<'_>, caller: Caller, beat: &Heartbeat) {
        let running = self.running.as_mut().expect("it is up");
        let ack = running.pulse.beat(beat, office.now_us / 1000);
        let ack = ack.map(|ack| Said::Volume(VolumeReply::Heartbeat(ack)));
        office.answer(caller, ack.unwrap_or_else(Said::Refused));
    }

    fn ask(&mut self, office: &mut Office<'_>, caller: Caller, request: CoreRequest) {
        trace(office.now_us, &caller.place, &request);
        let running = self.running.as_mut().expect("it is up");
        let ticket = running.take_ticket();
        running.callers.insert(ticket, caller);
        self.step(office, Input::Request { ticket, request });
    }

    fn tick_in_time(&self, office: &mut Office<'_>) {
        let running = self.running.as_ref().expect("it is up");
        let due_ms = running.core.next_deadline().expect("there are volumes");
        let life = self.life;
        let delay_us = (due_ms * 1000).saturating_sub(office.now_us);
        office.after(delay_us, Event::MasterTick { life });
    }

    pub(crate) fn tick(&mut self, office: &mut Office<'_>) {
        if self.has_begun()
            && let Some(order) = self.orders.pop_front()
        {
            let running = self.running.as_mut().expect("it is up");
            let ticket = running.take_ticket();
            let request = CoreRequest::Admin(order);
            self.step(office, Input::Request { ticket, request });
        }
        self.step(office, Input::Tick);
        self.tick_in_time(office);
    }
}

pub(crate) fn beat_of(volume: usize, registration: u64, used_bytes: u64) -> Heartbeat {
    Heartbeat {
        volume: Node::volume(volume),
        registration,
        capacity_bytes: CAPACITY,
        used_bytes,
    }
}

/// What a volume asks.
pub(crate) fn of_volume(index: usize, request: VolumeRequest) -> CoreRequest {
    let node = node_name(index);
    CoreRequest::Volume { node, request }
}

/// What a client asks.
pub(crate) fn of_client(index: usize, request: SessionRequest) -> CoreRequest {
    let peer = Peer {
        role: Role::Client,
        node: format!("client-{index}").into(),
    };
    CoreRequest::Session(peer, request)
}

fn serving(row: &Chain) -> impl DoubleEndedIterator<Item = usize> {
    row.serving().map(|of| Node::index_of(of.volume))
}

fn state_of(row: &Chain, volume: usize) -> Option<MemberState> {
    let mut members = row.members.iter();
    let member = members.find(|of| Node::index_of(of.volume) == volume)?;
    Some(member.state)
}

fn chains() -> impl Iterator<Item = ChainId> {
    (0..CHAINS as u32).map(ChainId)
}
