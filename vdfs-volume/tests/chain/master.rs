//! A master as far as chains need it: who is a member, who is gone, whose session ends. What it must
//! not forget lies in a log that reaches its disk late.
//!
//! It stands in for the master's own core as long as that gives each chain one member. The order of
//! its steps is the protocol's: a volume loses its place only once it has said that it serves the
//! chain no more, or a full lease after it was last heard, or with its process; only then is the new
//! epoch logged, and only when that is on the disk does anybody hear of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use vdfs_proto::volume::{Fence, Registered};
use vdfs_proto::{
    Chain, ChainId, ChainTable, ChunkSize, DataId, Epoch, Member, MemberState, SessionId,
};

use crate::message::{Action, CHAINS, Command, Event, Message, Place};
use crate::node::Node;
use crate::report::{Counts, trace};
use crate::rng::Rng;

/// T of the protocol.
const SILENCE_US: u64 = 2_500_000;
const TICK_US: u64 = 100_000;
const RESEND_US: u64 = 200_000;

#[derive(Clone, Debug)]
enum LogOp {
    Removed {
        chain: ChainId,
        volume: usize,
    },
    Active {
        chain: ChainId,
        epoch: Epoch,
    },
    /// A life of a volume was taken in.
    Life {
        volume: usize,
        life: u64,
    },
    Closing(SessionId),
    Closed(SessionId),
}

/// What is on the disk.
#[derive(Clone, Debug, Default)]
struct Disk {
    table: ChainTable,
    lives: BTreeMap<usize, u64>,
    sessions: BTreeSet<SessionId>,
    closing: BTreeSet<SessionId>,
}

#[derive(Debug)]
struct LiveVolume {
    /// The life that is served; none until it registers.
    life: Option<u64>,
    /// The life that waits to be taken in, and its attempt.
    waiting: Option<(u64, u64)>,
    heard_us: u64,
    is_away: bool,
    commands: VecDeque<(u64, Command)>,
    sent_us: u64,
}

/// A volume that loses its place in a chain.
#[derive(Debug)]
struct Removal {
    /// It serves the chain no more.
    is_out: bool,
    is_logged: bool,
}

#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) life: u64,
    is_up: bool,
    disk: Disk,
    log: VecDeque<(u64, LogOp)>,
    volumes: Vec<LiveVolume>,
    removals: BTreeMap<(ChainId, usize), Removal>,
    /// Volumes that may still take changes of a closing session.
    awaiting: BTreeMap<SessionId, BTreeSet<usize>>,
    closed_logged: BTreeSet<SessionId>,
    next_command: u64,
    next_session: u64,
    /// The worst delay of the disk, in microseconds.
    pub(crate) disk_us: u64,
}

pub(crate) struct Office<'a> {
    pub(crate) now_us: u64,
    pub(crate) rng: &'a mut Rng,
    pub(crate) counts: &'a mut Counts,
    pub(crate) actions: &'a mut Vec<Action>,
}

impl Office<'_> {
    fn send(&mut self, to: Place, message: Message) {
        let from = Place::Master;
        self.actions.push(Action::Send { from, to, message });
    }

    fn after(&mut self, delay_us: u64, event: Event) {
        self.actions.push(Action::After { delay_us, event });
    }
}

impl Master {
    /// With the members of each chain.
    pub(crate) fn new(chains: &[Vec<usize>], volumes: usize) -> Self {
        let member = |index: &usize| Member {
            volume: Node::volume(*index),
            store: Node::store(*index),
            state: MemberState::Serving,
        };
        let chain = |members: &Vec<usize>| Chain {
            epoch: Epoch(1),
            members: members.iter().map(member).collect(),
            lost_below: DataId(0),
            is_active: true,
        };
        assert_eq!(chains.len() as u64, CHAINS);
        let table = ChainTable {
            version: 1,
            chains: chains.iter().map(chain).collect(),
            volumes: Vec::new(),
        };
        let disk = Disk {
            table,
            ..Disk::default()
        };
        let mut master = Master {
            life: 0,
            is_up: false,
            disk,
            log: VecDeque::new(),
            volumes: Vec::new(),
            removals: BTreeMap::new(),
            awaiting: BTreeMap::new(),
            closed_logged: BTreeSet::new(),
            next_command: 1,
            next_session: 1,
            disk_us: 20_000,
        };
        master.volumes.resize_with(volumes, || LiveVolume::new(0));
        master
    }

    pub(crate) fn table(&self) -> &ChainTable {
        &self.disk.table
    }

    pub(crate) fn is_up(&self) -> bool {
        self.is_up
    }

    /// This life of the volume is taken in, and keeps its places.
    pub(crate) fn serves(&self, volume: usize, life: u64) -> bool {
        let live = &self.volumes[volume];
        let is_leaving = self.removals.keys().any(|(_, of)| *of == volume);
        self.is_up && live.life == Some(life) && !live.is_away && !is_leaving
    }

    /// A session that begins now.
    pub(crate) fn open_session(&mut self) -> SessionId {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        self.disk.sessions.insert(session);
        session
    }

    pub(crate) fn start(&mut self, office: &mut Office<'_>) {
        self.life += 1;
        self.is_up = true;
        let volumes = self.volumes.len();
        self.volumes.clear();
        self.volumes
            .resize_with(volumes, || LiveVolume::new(office.now_us));
        self.removals.clear();
        self.closed_logged.clear();
        self.awaiting = self
            .disk
            .closing
            .iter()
            .map(|of| (*of, (0..volumes).collect()))
            .collect();
        let life = self.life;
        office.after(TICK_US, Event::MasterTick { life });
    }

    /// What the disk does not have is gone, or some of it.
    pub(crate) fn kill(&mut self, office: &mut Office<'_>) {
        self.is_up = false;
        let kept = office.rng.below(self.log.len() as u64 + 1);
        for _ in 0..kept {
            let (_, op) = self.log.pop_front().expect("counted");
            self.apply(op);
        }
        self.log.clear();
    }

    fn log(&mut self, office: &mut Office<'_>, op: LogOp) {
        let earliest = office.now_us + office.rng.below(self.disk_us);
        let due_us = self
            .log
            .back()
            .map_or(earliest, |(last, _)| earliest.max(*last));
        if due_us > office.now_us + 1_000_000 {
            office.counts.hit("slow log");
        }
        self.log.push_back((due_us, op));
        let life = self.life;
        office.after(due_us - office.now_us, Event::LogDue { life });
    }

    pub(crate) fn log_due(&mut self, office: &mut Office<'_>) {
        while self
            .log
            .front()
            .is_some_and(|(due_us, _)| *due_us <= office.now_us)
        {
            let (_, op) = self.log.pop_front().expect("looked at");
            self.apply(op.clone());
            self.follow_up(office, op);
        }
    }

    fn apply(&mut self, op: LogOp) {
        let table = &mut self.disk.table;
        match op {
            LogOp::Removed { chain, volume } => {
                table.version += 1;
                let chain = &mut table.chains[chain.0 as usize];
                chain
                    .members
                    .retain(|member| member.volume != Node::volume(volume));
                assert!(!chain.members.is_empty(), "the last copy stays");
                chain.epoch.0 += 1;
                chain.is_active = false;
            }
            LogOp::Active { chain, epoch } => {
                let chain = &mut table.chains[chain.0 as usize];
                if chain.epoch == epoch && !chain.is_active {
                    table.version += 1;
                    chain.is_active = true;
                }
            }
            LogOp::Life { volume, life } => {
                self.disk.lives.insert(volume, life);
            }
            LogOp::Closing(session) => {
                self.disk.closing.insert(session);
            }
            LogOp::Closed(session) => {
                self.disk.closing.remove(&session);
                self.disk.sessions.remove(&session);
            }
        }
    }

    /// What may leave now that it is on the disk.
    fn follow_up(&mut self, office: &mut Office<'_>, op: LogOp) {
        trace(office.now_us, &Place::Master, &op);
        match op {
            LogOp::Removed { chain, volume } => {
                office.counts.hit("epochs");
                self.removals.remove(&(chain, volume));
                self.publish();
                self.take_in(office, volume);
            }
            LogOp::Active { chain, epoch } => {
                self.publish();
                let head = self.members(chain)[0];
                if let Some(life) = self.volumes[head].life {
                    let message = Message::Activated { life, chain, epoch };
                    office.send(Place::Volume(head), message);
                }
            }
            // It may have gone away meanwhile, and have places to lose first.
            LogOp::Life { volume, .. } => self.take_in(office, volume),
            LogOp::Closing(session) => {
                let volumes = 0..self.volumes.len();
                let awaiting = volumes.filter(|of| !self.volumes[*of].is_away).collect();
                self.awaiting.insert(session, awaiting);
                for volume in 0..self.volumes.len() {
                    self.command(volume, fence(session));
                }
            }
            LogOp::Closed(session) => {
                self.awaiting.remove(&session);
                office.actions.push(Action::Release(session));
                for volume in 0..self.volumes.len() {
                    self.command(volume, Command::Forget(session));
                }
            }
        }
    }

    fn members(&self, chain: ChainId) -> Vec<usize> {
        let chain = &self.disk.table.chains[chain.0 as usize];
        let members = chain.members.iter();
        members
            .map(|member| Node::index_of(member.volume))
            .collect()
    }

    fn publish(&mut self) {
        for volume in 0..self.volumes.len() {
            self.command(volume, Command::Table(self.disk.table.clone()));
        }
    }

    /// One that is not taken in learns everything when it is.
    fn command(&mut self, volume: usize, command: Command) -> Option<u64> {
        let live = &mut self.volumes[volume];
        live.life?;
        let number = self.next_command;
        self.next_command += 1;
        live.commands.push_back((number, command));
        live.sent_us = 0;
        Some(number)
    }

    pub(crate) fn receive(&mut self, office: &mut Office<'_>, from: Place, message: Message) {
        match (from, message) {
            (Place::Client(_), Message::FetchTable) => {
                let table = self.disk.table.clone();
                office.send(from, Message::Table(table));
            }
            (Place::Volume(volume), Message::Register { life, attempt }) => {
                self.register(office, volume, (life, attempt));
            }
            (Place::Volume(volume), Message::Heartbeat { life, sent_us }) => {
                self.beat(office, volume, life, sent_us);
            }
            (Place::Volume(volume), Message::CommandDone { life, number }) => {
                if self.volumes[volume].life == Some(life) {
                    self.command_done(office, volume, number);
                }
            }
            (Place::Volume(volume), Message::Activate { life, chain, epoch }) => {
                let row = &self.disk.table.chains[chain.0 as usize];
                let is_head = self.members(chain)[0] == volume;
                let is_now = row.epoch == epoch && self.volumes[volume].life == Some(life);
                if is_now && is_head && row.is_active {
                    let message = Message::Activated { life, chain, epoch };
                    office.send(from, message);
                } else if is_now && is_head {
                    self.log(office, LogOp::Active { chain, epoch });
                }
            }
            (
                Place::Volume(_),
                Message::Report {
                    chain,
                    epoch,
                    suspect,
                },
            ) => {
                if self.disk.table.chains[chain.0 as usize].epoch == epoch {
                    self.begin_removal(chain, suspect, false);
                }
            }
            (from, message) => unreachable!("{from:?} sends {message:?}"),
        }
    }

    fn beat(&mut self, office: &mut Office<'_>, volume: usize, life: u64, sent_us: u64) {
        let live = &mut self.volumes[volume];
        if live.life != Some(life) || live.is_away {
            return office.send(Place::Volume(volume), Message::Unknown { life });
        }
        // One that is to leave a chain gets no lease until it has said that it did.
        let is_leaving =
            |((_, of), removal): (&(ChainId, usize), &Removal)| *of == volume && !removal.is_out;
        if self.removals.iter().any(is_leaving) {
            return;
        }
        live.heard_us = office.now_us;
        office.send(Place::Volume(volume), Message::Heard { life, sent_us });
    }

    fn register(&mut self, office: &mut Office<'_>, volume: usize, (life, attempt): (u64, u64)) {
        let live = &mut self.volumes[volume];
        let newest = live.life.max(self.disk.lives.get(&volume).copied());
        // A late word of a process that has ended says nothing of the present one.
        if newest > Some(life) || live.waiting > Some((life, attempt)) {
            return;
        }
        live.waiting = Some((life, attempt));
        self.begin_registration(office, volume);
    }

    /// A life that is not the one before has lost what it had under way, and one that was away its
    /// lease: it keeps its place only where it is the last one.
    fn begin_registration(&mut self, office: &mut Office<'_>, volume: usize) {
        if !self.is_known(volume) {
            self.remove_everywhere(volume);
        }
        self.take_in(office, volume);
    }

    fn is_known(&self, volume: usize) -> bool {
        let live = &self.volumes[volume];
        match self.disk.lives.get(&volume) {
            Some(known) => live.waiting.map(|of| of.0) == Some(*known) && !live.is_away,
            None => true,
        }
    }

    /// Takes a waiting life in, unless it still has places to lose.
    fn take_in(&mut self, office: &mut Office<'_>, volume: usize) {
        let must_wait = !self.is_known(volume) && !self.places_to_lose(volume).is_empty();
        let is_leaving = self.removals.keys().any(|(_, of)| *of == volume);
        let waiting = self.volumes[volume].waiting;
        let Some((life, _)) = waiting.filter(|_| !is_leaving && !must_wait) else {
            return;
        };
        match self.disk.lives.get(&volume) == Some(&life) {
            true => self.welcome(office, volume, life),
            false => self.log(office, LogOp::Life { volume, life }),
        }
    }

    fn welcome(&mut self, office: &mut Office<'_>, volume: usize, life: u64) {
        let live = &mut self.volumes[volume];
        let Some((_, attempt)) = live.waiting.filter(|of| of.0 == life) else {
            return;
        };
        live.waiting = None;
        if live.life != Some(life) {
            *live = LiveVolume {
                life: Some(life),
                ..LiveVolume::new(office.now_us)
            };
        }
        let registered = Registered {
            volume: Node::volume(volume),
            term: self.life,
            registration: attempt,
            chunk_size: ChunkSize::DEFAULT,
            table: self.disk.table.clone(),
            data_next: DataId(1),
            fences: self.disk.closing.iter().map(|of| number(*of)).collect(),
            live_sessions: self.disk.sessions.iter().copied().collect(),
        };
        let registered = Box::new(registered);
        office.send(
            Place::Volume(volume),
            Message::Registered {
                life,
                attempt,
                registered,
            },
        );
        for session in self.disk.closing.clone() {
            self.command(volume, fence(session));
        }
    }

    fn command_done(&mut self, office: &mut Office<'_>, volume: usize, number: u64) {
        let live = &mut self.volumes[volume];
        let at = live.commands.iter().position(|(of, _)| *of == number);
        let Some((_, command)) = at.and_then(|at| live.commands.remove(at)) else {
            return;
        };
        match command {
            Command::Fence(fence) => {
                if let Some(awaiting) = self.awaiting.get_mut(&fence.session) {
                    awaiting.remove(&volume);
                }
            }
            Command::Leave { chain, .. } => {
                if let Some(removal) = self.removals.get_mut(&(chain, volume)) {
                    removal.is_out = true;
                }
                self.log_removals(office);
            }
            Command::Table(_) | Command::Forget(_) => {}
        }
    }

    /// One place of a chain after the other: whoever has left one epoch is asked again in the next.
    /// `is_out`: the volume certainly serves nobody.
    fn begin_removal(&mut self, chain: ChainId, volume: usize, is_out: bool) {
        if let Some(removal) = self.removals.get_mut(&(chain, volume)) {
            removal.is_out |= is_out;
            return;
        }
        let members = self.members(chain);
        // One that is certainly gone goes before one that somebody cannot reach.
        self.removals
            .retain(|(of, _), removal| *of != chain || removal.is_logged || !is_out);
        let mut of_chain = self.removals.range((chain, 0)..=(chain, usize::MAX));
        if !members.contains(&volume) || members.len() == 1 || of_chain.next().is_some() {
            return;
        }
        let epoch = self.disk.table.chains[chain.0 as usize].epoch;
        self.command(volume, Command::Leave { chain, epoch });
        let removal = Removal {
            is_out,
            is_logged: false,
        };
        self.removals.insert((chain, volume), removal);
    }

    /// The volume's chains that have other members.
    fn places_to_lose(&self, volume: usize) -> Vec<ChainId> {
        let chains = (0..CHAINS as u32).map(ChainId);
        let is_one_of_several = |chain: &ChainId| {
            let members = self.members(*chain);
            members.len() > 1 && members.contains(&volume)
        };
        chains.filter(is_one_of_several).collect()
    }

    fn remove_everywhere(&mut self, volume: usize) {
        for chain in self.places_to_lose(volume) {
            self.begin_removal(chain, volume, true);
        }
    }

    fn log_removals(&mut self, office: &mut Office<'_>) {
        let mut due = Vec::new();
        for (key, removal) in &mut self.removals {
            if removal.is_out && !removal.is_logged {
                removal.is_logged = true;
                due.push(*key);
            }
        }
        for (chain, volume) in due {
            self.log(office, LogOp::Removed { chain, volume });
        }
    }

    pub(crate) fn session_silent(&mut self, office: &mut Office<'_>, session: SessionId) {
        if self.disk.sessions.contains(&session) && !self.disk.closing.contains(&session) {
            self.log(office, LogOp::Closing(session));
        }
    }

    /// A session that was silent when the master was away, or lost its record.
    pub(crate) fn is_open(&self, session: SessionId) -> bool {
        self.disk.sessions.contains(&session)
    }

    pub(crate) fn tick(&mut self, office: &mut Office<'_>) {
        let life = self.life;
        office.after(TICK_US, Event::MasterTick { life });
        for volume in 0..self.volumes.len() {
            self.expire(office, volume);
            self.resend(office, volume);
            if self.volumes[volume].waiting.is_some() && self.volumes[volume].life.is_none() {
                self.begin_registration(office, volume);
            }
        }
        self.log_removals(office);
        self.close_fenced(office);
    }

    fn expire(&mut self, office: &mut Office<'_>, volume: usize) {
        let live = &mut self.volumes[volume];
        if live.is_away {
            return self.remove_everywhere(volume);
        }
        if live.heard_us + SILENCE_US >= office.now_us {
            return;
        }
        live.is_away = true;
        trace(office.now_us, &Place::Volume(volume), &"is away");
        live.life = None;
        live.commands.clear();
        for awaiting in self.awaiting.values_mut() {
            awaiting.remove(&volume);
        }
        for removal in self
            .removals
            .iter_mut()
            .filter(|((_, of), _)| *of == volume)
        {
            removal.1.is_out = true;
        }
        self.remove_everywhere(volume);
    }

    fn resend(&mut self, office: &mut Office<'_>, volume: usize) {
        let live = &mut self.volumes[volume];
        let Some(life) = live.life else {
            return;
        };
        if live.commands.is_empty() || live.sent_us + RESEND_US > office.now_us {
            return;
        }
        live.sent_us = office.now_us;
        for (number, command) in live.commands.clone() {
            let message = Message::Command {
                life,
                number,
                command,
            };
            office.send(Place::Volume(volume), message);
        }
    }

    fn close_fenced(&mut self, office: &mut Office<'_>) {
        let fenced = self
            .awaiting
            .iter()
            .filter(|(_, awaiting)| awaiting.is_empty());
        let fenced: Vec<SessionId> = fenced.map(|(session, _)| *session).collect();
        for session in fenced {
            if self.closed_logged.insert(session) {
                self.log(office, LogOp::Closed(session));
            }
        }
    }
}

impl LiveVolume {
    fn new(heard_us: u64) -> Self {
        LiveVolume {
            life: None,
            waiting: None,
            heard_us,
            is_away: false,
            commands: VecDeque::new(),
            sent_us: 0,
        }
    }
}

fn number(session: SessionId) -> Fence {
    Fence {
        number: session.0,
        session,
    }
}

fn fence(session: SessionId) -> Command {
    Command::Fence(number(session))
}
