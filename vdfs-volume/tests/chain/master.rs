//! A master as far as chains need it: who is a member, who is gone, whose session ends. What it must
//! not forget lies in a log that reaches its disk late.
//!
//! It stands in for the master's own core, whose rules it has: a volume loses its place only once it
//! has said that it serves the chain no more, or a full lease after it was last heard, or with its
//! process; one that serves stays, and when all of several have gone, all wait until one of them
//! has the best copy of everything. It decides by what it has logged, and tells only what is on the disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use vdfs_proto::volume::{Fence, Registered};
use vdfs_proto::{
    Chain, ChainId, ChainTable, ChunkSize, DataId, Epoch, Member, MemberState, SessionId, StoreId,
};

use crate::message::{Action, CHAINS, Command, Event, Message, Place};
use crate::node::Node;
use crate::report::{Counts, trace};
use crate::rng::Rng;

/// Chances of a settled chain that a place is moved, in a thousand ticks.
const MOVES_PERMILLE: u64 = 30;
/// Members of a chain.
const MEMBERS_MAX: usize = 3;
/// Before a chain is given a member again.
const HEAL_AFTER_US: u64 = 500_000;
/// Since the first of a chain's members is back, all of which had gone.
const COPIES_WAIT_US: u64 = 4_000_000;
/// T of the protocol.
const SILENCE_US: u64 = 2_500_000;
const TICK_US: u64 = 100_000;
const RESEND_US: u64 = 200_000;

#[derive(Clone, Copy, Debug)]
enum Change {
    Removed(usize),
    /// The same, and its copy is not the chain's.
    Left(usize),
    Activated,
    Added(usize),
    Synced,
    Suspended,
    Resumed(usize),
}

#[derive(Clone, Debug)]
enum LogOp {
    Changed {
        chain: ChainId,
        change: Change,
    },
    /// A life of a volume was taken in, and what it has.
    Life {
        volume: usize,
        life: u64,
        store: StoreId,
        is_new: bool,
    },
    Closing(SessionId),
    Closed(SessionId),
}

/// What the log tells.
#[derive(Clone, Debug, Default)]
struct State {
    table: ChainTable,
    /// Of chains that are not active: who served when they were last.
    in_sync: BTreeMap<ChainId, Vec<Member>>,
    lives: BTreeMap<usize, u64>,
    stores: Vec<StoreId>,
    sessions: BTreeSet<SessionId>,
    closing: BTreeSet<SessionId>,
}

#[derive(Debug)]
struct LiveVolume {
    /// The life that is served; none until it registers.
    life: Option<u64>,
    /// The life that waits to be taken in, and its attempt.
    waiting: Option<(u64, u64)>,
    /// The life that is being logged.
    is_logging: Option<u64>,
    heard_us: u64,
    is_away: bool,
    commands: VecDeque<(u64, Command)>,
    sent_us: u64,
}

/// A volume that is asked to leave a chain.
#[derive(Clone, Copy, Debug)]
struct Removal {
    volume: usize,
    epoch: Epoch,
    /// It has said that it serves the chain no more.
    has_left: bool,
}

#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) life: u64,
    is_up: bool,
    /// What is on the disk.
    disk: State,
    /// With what is to come there.
    state: State,
    log: VecDeque<(u64, LogOp)>,
    volumes: Vec<LiveVolume>,
    removals: BTreeMap<ChainId, Removal>,
    /// Members that each chain shall have.
    targets: Vec<usize>,
    lost_member_us: u64,
    last_removed: BTreeMap<ChainId, usize>,
    waiting_since_us: BTreeMap<ChainId, u64>,
    /// Go on with what one volume has, and whether all that were in sync are there.
    resumed: BTreeMap<ChainId, bool>,
    /// A member's RAM was lost since they were active: nobody has promised what it alone has shown.
    bereft: BTreeSet<ChainId>,
    /// Volumes that may still take changes of a closing session.
    awaiting: BTreeMap<SessionId, BTreeSet<usize>>,
    closed_logged: BTreeSet<SessionId>,
    next_command: u64,
    next_session: u64,
    /// The worst delay of the disk, in microseconds.
    pub(crate) disk_us: u64,
    /// Whether places are moved to other volumes though nobody is missing.
    pub(crate) moves: bool,
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
            store: Node::first_store(*index),
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
        let disk = State {
            table,
            stores: (0..volumes).map(Node::first_store).collect(),
            ..State::default()
        };
        let mut master = Master {
            life: 0,
            is_up: false,
            state: disk.clone(),
            disk,
            log: VecDeque::new(),
            volumes: Vec::new(),
            removals: BTreeMap::new(),
            targets: chains.iter().map(Vec::len).collect(),
            lost_member_us: 0,
            last_removed: BTreeMap::new(),
            waiting_since_us: BTreeMap::new(),
            resumed: BTreeMap::new(),
            bereft: BTreeSet::new(),
            awaiting: BTreeMap::new(),
            closed_logged: BTreeSet::new(),
            next_command: 1,
            next_session: 1,
            disk_us: 20_000,
            moves: false,
        };
        master.volumes.resize_with(volumes, || LiveVolume::new(0));
        master
    }

    pub(crate) fn table(&self) -> &ChainTable {
        &self.disk.table
    }

    /// As it will be if nothing of the log is lost.
    pub(crate) fn table_to_come(&self) -> &ChainTable {
        &self.state.table
    }

    pub(crate) fn is_up(&self) -> bool {
        self.is_up
    }

    /// All that the volume has is elsewhere too.
    pub(crate) fn may_lose_ram(&self, volume: usize) -> bool {
        let has_copies = |chain: ChainId| {
            let row = self.disk.row(chain);
            row.is_active && serving(row).any(|of| of != volume)
        };
        self.is_up && self.log.is_empty() && chains().all(has_copies)
    }

    /// What the volume had when it was taken in last.
    pub(crate) fn store_of(&self, volume: usize) -> StoreId {
        self.state.stores[volume]
    }

    /// This life of the volume is taken in, and keeps its places.
    pub(crate) fn serves(&self, volume: usize, life: u64) -> bool {
        let live = &self.volumes[volume];
        let is_leaving = self.removals.values().any(|of| of.volume == volume);
        self.is_up && live.life == Some(life) && !live.is_away && !is_leaving
    }

    /// Each chain has all the members that it shall have.
    pub(crate) fn is_whole(&self) -> bool {
        let mut chains = self.disk.table.chains.iter().zip(&self.targets);
        chains.all(|(row, target)| {
            let mut members = row.members.iter();
            let are_serving = members.all(|of| of.state == MemberState::Serving);
            row.is_active && are_serving && row.members.len() == *target
        })
    }

    /// A session that begins now.
    pub(crate) fn open_session(&mut self) -> SessionId {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        self.disk.sessions.insert(session);
        self.state.sessions.insert(session);
        session
    }

    pub(crate) fn start(&mut self, office: &mut Office<'_>) {
        self.life += 1;
        self.is_up = true;
        self.state = self.disk.clone();
        self.last_removed.clear();
        self.waiting_since_us.clear();
        self.lost_member_us = 0;
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
            self.reach_disk(office, &op);
        }
        self.log.clear();
    }

    fn change(&mut self, office: &mut Office<'_>, chain: ChainId, change: Change) {
        trace(office.now_us, &Place::Master, &("decides", chain, change));
        if let Change::Removed(volume) | Change::Left(volume) = change {
            self.lost_member_us = office.now_us;
            self.last_removed.insert(chain, volume);
        }
        self.log(office, LogOp::Changed { chain, change });
        self.forget_removals();
    }

    fn forget_removals(&mut self) {
        let state = &self.state;
        self.removals.retain(|of, removal| {
            let row = state.row(*of);
            row.epoch == removal.epoch && state_of(row, removal.volume).is_some()
        });
    }

    fn log(&mut self, office: &mut Office<'_>, op: LogOp) {
        self.state.apply(&op);
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
            self.reach_disk(office, &op);
            self.follow_up(office, op);
        }
    }

    fn reach_disk(&mut self, office: &mut Office<'_>, op: &LogOp) {
        match *op {
            LogOp::Changed { chain, change } => self.note_resumed(office, chain, change),
            LogOp::Life { volume, store, .. } if store != self.disk.stores[volume] => {
                let was_last = |of: &ChainId| self.disk.last_in_sync(*of) == Some(volume);
                self.bereft.extend(chains().filter(was_last));
            }
            LogOp::Life {
                volume,
                is_new: true,
                ..
            } => self.note_new_life(volume),
            _ => {}
        }
        self.disk.apply(op);
        let disk = &self.disk;
        self.resumed.retain(|chain, is_complete| {
            let row = disk.row(*chain);
            if row.is_active {
                office.actions.push(Action::Resumed {
                    chain: *chain,
                    volume: serving(row).next().expect("it is active"),
                    epoch: row.epoch,
                    is_complete: *is_complete,
                });
            }
            !row.is_active
        });
        self.bereft.retain(|chain| !disk.row(*chain).is_active);
    }

    /// A chain goes on with what one volume has from here on: once it is active it does not go back.
    fn note_resumed(&mut self, office: &mut Office<'_>, chain: ChainId, change: Change) {
        let row = self.disk.row(chain);
        match change {
            Change::Resumed(_) => {
                self.resumed.insert(chain, true);
            }
            Change::Activated => {
                let mut in_sync = self.disk.in_sync_of(chain);
                let are_there = in_sync.all(|of| state_of(row, of).is_some());
                let are_there = are_there && !self.bereft.contains(&chain);
                if let Some(is_complete) = self.resumed.get_mut(&chain) {
                    *is_complete = are_there;
                    let members = row.members.len();
                    match (are_there, members > 1) {
                        (true, true) => office.counts.hit("chains that go on with all back"),
                        (true, false) => {}
                        (false, _) => office.counts.hit("chains that go on without some"),
                    }
                }
            }
            _ => {}
        }
    }

    fn note_new_life(&mut self, volume: usize) {
        for chain in chains() {
            let mut members = serving(self.disk.row(chain));
            if members.next() == Some(volume) && members.next().is_none() {
                self.resumed.entry(chain).or_insert(true);
            }
        }
    }

    /// What may leave now that it is on the disk.
    fn follow_up(&mut self, office: &mut Office<'_>, op: LogOp) {
        trace(office.now_us, &Place::Master, &op);
        match op {
            LogOp::Changed { chain, change } => self.changed(office, chain, change),
            LogOp::Life { volume, life, .. } => {
                self.publish();
                self.volumes[volume].is_logging = None;
                // What was decided of it meanwhile goes first.
                let is_chain = |(_, op): &(u64, LogOp)| matches!(op, LogOp::Changed { .. });
                let is_newest = self.state.lives.get(&volume) == Some(&life);
                match self.log.iter().any(is_chain) && is_newest {
                    true => self.log_life(office, volume, (life, self.state.stores[volume]), false),
                    false => self.welcome(office, volume, life),
                }
            }
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

    fn changed(&mut self, office: &mut Office<'_>, chain: ChainId, change: Change) {
        self.publish();
        let row = self.disk.row(chain);
        let epoch = row.epoch;
        match change {
            Change::Activated => {
                let head = serving(row).next().expect("it was active");
                if let Some(life) = self.volumes[head].life {
                    let message = Message::Activated { life, chain, epoch };
                    office.send(Place::Volume(head), message);
                }
                return;
            }
            Change::Removed(_) | Change::Left(_) => {}
            Change::Added(_) => office.counts.hit("members added"),
            Change::Synced => office.counts.hit("members in sync"),
            Change::Suspended => office.counts.hit("chains that wait"),
            Change::Resumed(volume) => {
                trace(
                    office.now_us,
                    &Place::Master,
                    &(chain, "goes on with", volume),
                );
                office.counts.hit("waiting chains decided");
            }
        }
        office.counts.hit("epochs");
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
            (
                Place::Volume(volume),
                Message::Register {
                    life,
                    attempt,
                    store,
                },
            ) => self.register(office, volume, (life, attempt), store),
            (Place::Volume(volume), Message::Heartbeat { life, sent_us }) => {
                self.beat(office, volume, life, sent_us);
            }
            (Place::Volume(volume), Message::CommandDone { life, number }) => {
                if self.volumes[volume].life == Some(life) {
                    self.command_done(office, volume, number);
                }
            }
            (Place::Volume(volume), Message::Activate { life, chain, epoch }) => {
                let row = self.state.row(chain);
                let is_now = row.epoch == epoch && self.volumes[volume].life == Some(life);
                if !is_now || serving(row).next() != Some(volume) {
                    return;
                }
                let on_disk = self.disk.row(chain);
                if !row.is_active {
                    self.change(office, chain, Change::Activated);
                } else if on_disk.epoch == epoch && on_disk.is_active {
                    let message = Message::Activated { life, chain, epoch };
                    office.send(from, message);
                }
            }
            (Place::Volume(volume), Message::InSync { chain, epoch, peer }) => {
                let row = self.state.row(chain);
                let is_from_last = serving(row).next_back() == Some(volume);
                let is_syncing = state_of(row, peer) == Some(MemberState::Syncing);
                let is_news = row.epoch == epoch && row.is_active && is_from_last && is_syncing;
                if is_news && self.is_alive(peer) {
                    self.change(office, chain, Change::Synced);
                }
            }
            (
                Place::Volume(volume),
                Message::Report {
                    chain,
                    epoch,
                    suspect,
                    has_diverged,
                },
            ) => self.reported(office, volume, (chain, epoch), (suspect, has_diverged)),
            (from, message) => unreachable!("{from:?} sends {message:?}"),
        }
    }

    /// `volume` says that the suspect, perhaps itself, must lose its place.
    fn reported(
        &mut self,
        office: &mut Office<'_>,
        volume: usize,
        (chain, epoch): (ChainId, Epoch),
        (suspect, has_diverged): (usize, bool),
    ) {
        let row = self.state.row(chain);
        if row.epoch != epoch || state_of(row, volume).is_none() {
            return;
        }
        if volume != suspect {
            self.begin_removal(chain, suspect);
        } else if serving(row).any(|other| other != volume) {
            let change = match has_diverged {
                true => Change::Left(volume),
                false => Change::Removed(volume),
            };
            self.change(office, chain, change);
        }
    }

    fn beat(&mut self, office: &mut Office<'_>, volume: usize, life: u64, sent_us: u64) {
        let live = &mut self.volumes[volume];
        if live.life != Some(life) || live.is_away {
            return office.send(Place::Volume(volume), Message::Unknown { life });
        }
        // One that is to leave a chain gets no lease until it has said that it did.
        let is_leaving = |of: &Removal| of.volume == volume && !of.has_left;
        if self.removals.values().any(is_leaving) {
            return;
        }
        let live = &mut self.volumes[volume];
        live.heard_us = office.now_us;
        office.send(Place::Volume(volume), Message::Heard { life, sent_us });
    }

    fn is_alive(&self, volume: usize) -> bool {
        let live = &self.volumes[volume];
        live.life.is_some() && !live.is_away
    }

    /// Somebody else serves the chain, and is alive.
    fn has_other(&self, row: &Chain, volume: usize) -> bool {
        serving(row).any(|other| other != volume && self.is_alive(other))
    }

    fn register(
        &mut self,
        office: &mut Office<'_>,
        volume: usize,
        (life, attempt): (u64, u64),
        store: StoreId,
    ) {
        let has_lost_ram = store != self.state.stores[volume];
        // The one that has what it had may still be there.
        if has_lost_ram && !self.volumes[volume].is_away {
            return;
        }
        let live = &mut self.volumes[volume];
        let known = self.state.lives.get(&volume).copied();
        // A late word of a process that has ended says nothing of the present one.
        if live.life.max(known) > Some(life) || live.waiting > Some((life, attempt)) {
            return;
        }
        live.waiting = Some((life, attempt));
        if live.is_logging == Some(life) {
            return;
        }
        if known == Some(life) && self.log.is_empty() {
            return self.welcome(office, volume, life);
        }
        if known.is_some_and(|known| known != life) && !has_lost_ram {
            match self.plan_new_life(volume) {
                Some(changes) => {
                    for (chain, change) in changes {
                        self.change(office, chain, change);
                    }
                }
                None => {
                    office.counts.hit("registrations that had to wait");
                    self.volumes[volume].waiting = None;
                    return;
                }
            }
        }
        self.log_life(office, volume, (life, store), known != Some(life));
        if has_lost_ram {
            self.lost_member_us = office.now_us;
            self.forget_removals();
        }
    }

    fn log_life(
        &mut self,
        office: &mut Office<'_>,
        volume: usize,
        (life, store): (u64, StoreId),
        is_new: bool,
    ) {
        self.volumes[volume].is_logging = Some(life);
        let life = LogOp::Life {
            volume,
            life,
            store,
            is_new,
        };
        self.log(office, life);
    }

    /// A new life has lost what the last one had under way. None as long as it is not known whether
    /// other members are alive.
    fn plan_new_life(&self, volume: usize) -> Option<Vec<(ChainId, Change)>> {
        let mut changes = Vec::new();
        for chain in chains() {
            let row = self.state.row(chain);
            let change = match state_of(row, volume) {
                Some(MemberState::Serving) => self.plan_new_life_in((chain, row), volume)?,
                Some(MemberState::Syncing) => Some(Change::Removed(volume)),
                Some(MemberState::Waiting) | None => None,
            };
            changes.extend(change.map(|change| (chain, change)));
        }
        Some(changes)
    }

    fn plan_new_life_in(
        &self,
        (chain, row): (ChainId, &Chain),
        volume: usize,
    ) -> Option<Option<Change>> {
        let mut others = serving(row).filter(|other| *other != volume).peekable();
        if others.peek().is_none() {
            if self.state.in_sync_of(chain).any(|of| of != volume) {
                return Some(Some(Change::Suspended));
            }
            let mut members = row.members.iter().map(|of| Node::index_of(of.volume));
            return Some(members.find(|of| *of != volume).map(Change::Removed));
        }
        if self.has_other(row, volume) {
            return Some(Some(Change::Removed(volume)));
        }
        let are_away = others.all(|other| self.volumes[other].is_away);
        are_away.then_some(Some(Change::Suspended))
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
        for chain in chains() {
            self.send_leave(chain, Some(volume));
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
            Command::Leave { chain, epoch } => {
                let removal = self.removals.get_mut(&chain);
                if let Some(removal) = removal.filter(|of| (of.volume, of.epoch) == (volume, epoch))
                {
                    removal.has_left = true;
                }
                self.finish_removals(office);
            }
            Command::Table(_) | Command::Forget(_) => {}
        }
    }

    /// Asks the member to leave. Nothing if it is the last one that serves, or another one is asked.
    fn begin_removal(&mut self, chain: ChainId, volume: usize) {
        let row = self.state.row(chain);
        let may_be = self.may_lose(row, volume) && !self.volumes[volume].is_away;
        if !may_be || self.removals.contains_key(&chain) {
            return;
        }
        let removal = Removal {
            volume,
            epoch: row.epoch,
            has_left: false,
        };
        self.removals.insert(chain, removal);
        trace(0, &Place::Master, &(chain, removal));
        self.send_leave(chain, None);
    }

    fn may_lose(&self, row: &Chain, volume: usize) -> bool {
        match state_of(row, volume) {
            Some(MemberState::Serving | MemberState::Waiting) => self.has_other(row, volume),
            Some(MemberState::Syncing) => true,
            None => false,
        }
    }

    fn send_leave(&mut self, chain: ChainId, only: Option<usize>) {
        let Some(removal) = self.removals.get(&chain).copied() else {
            return;
        };
        let is_asked = only.is_none_or(|only| only == removal.volume);
        if is_asked && !removal.has_left {
            let epoch = removal.epoch;
            self.command(removal.volume, Command::Leave { chain, epoch });
        }
    }

    /// Logs the removal of those who have left, while somebody else serves.
    fn finish_removals(&mut self, office: &mut Office<'_>) {
        for (chain, removal) in self.removals.clone() {
            if removal.has_left && self.may_lose(self.state.row(chain), removal.volume) {
                self.change(office, chain, Change::Removed(removal.volume));
            }
        }
    }

    fn tend_chains(&mut self, office: &mut Office<'_>) {
        for chain in chains() {
            self.remove_the_gone(office, chain);
            self.end_wait(office, chain);
            self.go_back(office, chain);
        }
        if self.lost_member_us + HEAL_AFTER_US <= office.now_us {
            for chain in chains() {
                self.heal(office, chain);
            }
        }
        for chain in chains() {
            self.balance(office, chain);
        }
    }

    fn remove_the_gone(&mut self, office: &mut Office<'_>, chain: ChainId) {
        for volume in 0..self.volumes.len() {
            let row = self.state.row(chain);
            if self.volumes[volume].is_away && self.may_lose(row, volume) {
                self.change(office, chain, Change::Removed(volume));
            }
        }
    }

    /// A head that went before it had taken over leaves the chain to others in sync.
    fn go_back(&mut self, office: &mut Office<'_>, chain: ChainId) {
        let row = self.state.row(chain);
        let heads: Vec<usize> = serving(row).collect();
        let is_headless = !heads.is_empty() && heads.iter().all(|of| self.volumes[*of].is_away);
        let is_there = self.state.in_sync_of(chain).any(|of| self.is_alive(of));
        if !row.is_active && is_headless && is_there {
            office
                .counts
                .hit("chains that go back from a head that is away");
            self.change(office, chain, Change::Suspended);
        }
    }

    fn end_wait(&mut self, office: &mut Office<'_>, chain: ChainId) {
        let row = self.state.row(chain);
        let waiting = row.members.iter().enumerate();
        let waiting = waiting.map(|(at, of)| (at, Node::index_of(of.volume)));
        let mut back = waiting.filter(|(_, volume)| self.is_alive(*volume));
        let last = back.next_back().filter(|_| serving(row).next().is_none());
        let Some((at, winner)) = last else {
            self.waiting_since_us.remove(&chain);
            return;
        };
        let since_us = *self.waiting_since_us.entry(chain).or_insert(office.now_us);
        let mut members = row.members.iter().map(|of| Node::index_of(of.volume));
        let are_all_back = members.all(|of| self.is_alive(of));
        if are_all_back || since_us + COPIES_WAIT_US <= office.now_us {
            if at + 1 < row.members.len() {
                office
                    .counts
                    .hit("waiting chains decided for one not the last");
            }
            self.waiting_since_us.remove(&chain);
            self.change(office, chain, Change::Resumed(winner));
        }
    }

    /// All its members serve and are there, and nothing is being done about it.
    fn is_settled(&self, chain: ChainId) -> bool {
        let row = self.state.row(chain);
        let serves = |of: &Member| {
            of.state == MemberState::Serving && self.is_alive(Node::index_of(of.volume))
        };
        let is_quiet = row.is_active && !self.removals.contains_key(&chain);
        is_quiet && row.members.iter().all(serves)
    }

    fn possible_members(&self, chain: ChainId) -> Vec<usize> {
        let row = self.state.row(chain);
        let may_be = |of: &usize| self.is_alive(*of) && state_of(row, *of).is_none();
        (0..self.volumes.len()).filter(may_be).collect()
    }

    /// A chain that is longer than it shall be loses a member; and some get one that they need not have, or
    /// give one up, so that a place moves.
    fn balance(&mut self, office: &mut Office<'_>, chain: ChainId) {
        if !self.is_settled(chain) {
            return;
        }
        let members: Vec<usize> = serving(self.state.row(chain)).collect();
        let possible = self.possible_members(chain);
        let target = self.targets[chain.0 as usize];
        if members.len() > target {
            office.counts.hit("chains longer than they shall be");
            return self.begin_removal(chain, *office.rng.pick(&members));
        }
        let moves = self.moves && office.rng.permille(MOVES_PERMILLE) && !possible.is_empty();
        if !moves || members.len() < target {
            return;
        }
        office.counts.hit("places moved");
        let (old, new) = (*office.rng.pick(&members), *office.rng.pick(&possible));
        match members.len() {
            MEMBERS_MAX => self.begin_removal(chain, old),
            _ => self.change(office, chain, Change::Added(new)),
        }
    }

    /// Mostly with the one that was there last.
    fn heal(&mut self, office: &mut Office<'_>, chain: ChainId) {
        let is_short = self.state.row(chain).members.len() < self.targets[chain.0 as usize];
        let possible = self.possible_members(chain);
        if !is_short || !self.is_settled(chain) || possible.is_empty() {
            return;
        }
        let last = self.last_removed.get(&chain).copied();
        let last = last.filter(|of| possible.contains(of) && office.rng.permille(700));
        let volume = last.unwrap_or_else(|| *office.rng.pick(&possible));
        self.change(office, chain, Change::Added(volume));
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
        }
        self.finish_removals(office);
        self.tend_chains(office);
        self.close_fenced(office);
    }

    fn expire(&mut self, office: &mut Office<'_>, volume: usize) {
        let live = &mut self.volumes[volume];
        if live.is_away {
            return;
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

impl State {
    fn apply(&mut self, op: &LogOp) {
        match *op {
            LogOp::Changed { chain, change } => {
                self.table.version += 1;
                self.change_chain(chain, change);
            }
            LogOp::Life {
                volume,
                life,
                store,
                ..
            } => {
                self.lives.insert(volume, life);
                if self.stores[volume] != store {
                    self.stores[volume] = store;
                    self.lose_copies(volume);
                }
            }
            LogOp::Closing(session) => {
                self.closing.insert(session);
            }
            LogOp::Closed(session) => {
                self.closing.remove(&session);
                self.sessions.remove(&session);
            }
        }
    }

    /// The one that shows what the others have, and may show more.
    fn last_in_sync(&self, chain: ChainId) -> Option<usize> {
        let row = self.row(chain);
        match row.is_active {
            true => serving(row).next_back(),
            false => self.in_sync_of(chain).last(),
        }
    }

    /// Its machine has lost its RAM.
    fn lose_copies(&mut self, volume: usize) {
        self.table.version += 1;
        for chain in chains() {
            let row = self.row(chain);
            let Some(state) = state_of(row, volume) else {
                continue;
            };
            let mut others = row.members.iter();
            let has_other = others
                .any(|of| Node::index_of(of.volume) != volume && of.state != MemberState::Syncing);
            let goes_back = self.in_sync_of(chain).any(|of| of != volume);
            let change = match state == MemberState::Syncing || has_other {
                true => Change::Left(volume),
                false if goes_back => Change::Suspended,
                false => panic!("the last copy of {chain:?} is lost"),
            };
            self.change_chain(chain, change);
        }
    }

    fn change_chain(&mut self, chain: ChainId, change: Change) {
        let row = &mut self.table.chains[chain.0 as usize];
        if row.is_active {
            self.in_sync.insert(chain, row.serving().copied().collect());
        }
        let in_sync = self.in_sync.entry(chain).or_default();
        if let Change::Left(volume) = change {
            in_sync.retain(|of| Node::index_of(of.volume) != volume);
        }
        let stores = &self.stores;
        let is_there = |of: &&Member| stores[Node::index_of(of.volume)] == of.store;
        let in_sync: Vec<Member> = in_sync.iter().filter(is_there).copied().collect();
        change_row(row, change, (&in_sync, stores));
        if row.is_active {
            self.in_sync.remove(&chain);
        }
    }

    fn row(&self, chain: ChainId) -> &Chain {
        &self.table.chains[chain.0 as usize]
    }

    /// Of a chain that is not active; those whose RAM is there yet.
    fn in_sync_of(&self, chain: ChainId) -> impl Iterator<Item = usize> {
        let members = self.in_sync.get(&chain).into_iter().flatten();
        let there = members.filter(|of| self.stores[Node::index_of(of.volume)] == of.store);
        there.map(|of| Node::index_of(of.volume))
    }
}

fn change_row(row: &mut Chain, change: Change, (in_sync, stores): (&[Member], &[StoreId])) {
    let members = &mut row.members;
    match change {
        Change::Activated => {
            members.retain(|of| of.state != MemberState::Waiting);
            row.is_active = true;
            return;
        }
        Change::Removed(volume) | Change::Left(volume) => {
            members.retain(|of| Node::index_of(of.volume) != volume);
        }
        Change::Added(volume) => members.push(Member {
            volume: Node::volume(volume),
            store: stores[volume],
            state: MemberState::Syncing,
        }),
        Change::Synced => {
            members.last_mut().expect("it has members").state = MemberState::Serving;
        }
        Change::Suspended => {
            *members = in_sync.to_vec();
            for member in members {
                member.state = MemberState::Waiting;
            }
        }
        Change::Resumed(volume) => {
            let is_head = |of: &Member| Node::index_of(of.volume) == volume;
            let at = members.iter().position(is_head).expect("it waits");
            let head = members.remove(at);
            let state = MemberState::Serving;
            members.insert(0, Member { state, ..head });
        }
    }
    assert!(!row.members.is_empty(), "the last copy stays");
    row.epoch.0 += 1;
    row.is_active = false;
}

fn serving(row: &Chain) -> impl DoubleEndedIterator<Item = usize> {
    row.serving().map(|of| Node::index_of(of.volume))
}

fn state_of(row: &Chain, volume: usize) -> Option<MemberState> {
    let mut members = row.members.iter();
    let member = members.find(|of| Node::index_of(of.volume) == volume)?;
    Some(member.state)
}

impl LiveVolume {
    fn new(heard_us: u64) -> Self {
        LiveVolume {
            life: None,
            waiting: None,
            is_logging: None,
            heard_us,
            is_away: false,
            commands: VecDeque::new(),
            sent_us: 0,
        }
    }
}

fn chains() -> impl Iterator<Item = ChainId> {
    (0..CHAINS as u32).map(ChainId)
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
