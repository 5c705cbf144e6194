//! The master, as far as a volume can see it: answers what the test has set, and remembers what it
//! was told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use vdfs_net::carrier::{Carrier, Outcome, Request, Response};
use vdfs_proto::codec::{decode, encode};
use vdfs_proto::volume::{
    ChainEvent, ChainNews, Command, Commands, Fence, HeartbeatAck, NextCommands, Register,
    Registered, VolumeReply, VolumeRequest,
};
use vdfs_proto::{
    Chain, ChainId, ChainTable, ChunkSize, DataId, Epoch, Member, MemberState, SessionId, Status,
    StoreId, VolumeId, VolumeInfo,
};

#[derive(Debug)]
pub(crate) struct Master {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    is_away: bool,
    knows_volume: bool,
    acks_heartbeats: bool,
    /// How late the next acknowledgement is; it is the last one.
    last_ack_late: Option<Duration>,
    /// Commands are sent again although they were taken.
    repeats_commands: bool,
    term: u64,
    live_sessions: Vec<SessionId>,
    fences: Vec<Fence>,
    /// What registrations are told; one chain of the volume alone, unless a test says so.
    table: Option<ChainTable>,
    registrations: Vec<Register>,
    heartbeats: u64,
    commands: Vec<(u64, Command)>,
    results: Vec<(u64, Result<(), Status>)>,
    news: BTreeSet<ChainNews>,
}

impl Master {
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            is_away: false,
            knows_volume: false,
            acks_heartbeats: true,
            last_ack_late: None,
            repeats_commands: false,
            term: 1,
            live_sessions: vec![SessionId(1)],
            fences: Vec::new(),
            table: None,
            registrations: Vec::new(),
            heartbeats: 0,
            commands: Vec::new(),
            results: Vec::new(),
            news: BTreeSet::new(),
        };
        Arc::new(Master {
            state: Mutex::new(state),
        })
    }

    pub(crate) fn set_away(&self, is_away: bool) {
        self.state.lock().is_away = is_away;
    }

    pub(crate) fn stop_leases(&self) {
        self.state.lock().acks_heartbeats = false;
    }

    /// The next acknowledgement is so late, and the last one. Gives when its heartbeat has come.
    pub(crate) fn stop_leases_late(&self, late: Duration) -> Instant {
        self.state.lock().last_ack_late = Some(late);
        wait(|| self.state.lock().last_ack_late.is_none());
        Instant::now()
    }

    pub(crate) fn repeat_commands(&self) {
        self.state.lock().repeats_commands = true;
    }

    /// Another life of the master: it knows the volume only once it registers again.
    pub(crate) fn restart(&self, term: u64) {
        let mut state = self.state.lock();
        state.term = term;
        state.knows_volume = false;
    }

    pub(crate) fn set_term(&self, term: u64) {
        self.state.lock().term = term;
    }

    /// What registrations are told from now on.
    pub(crate) fn set_registered(&self, table: ChainTable, fences: Vec<Fence>) {
        let mut state = self.state.lock();
        (state.table, state.fences) = (Some(table), fences);
    }

    pub(crate) fn registrations(&self) -> Vec<Register> {
        self.state.lock().registrations.clone()
    }

    /// Waits until the volume has registered `count` times and has a lease.
    pub(crate) fn wait_registered(&self, count: usize) {
        wait(|| self.state.lock().registrations.len() >= count);
        let before = self.state.lock().heartbeats;
        wait(|| self.state.lock().heartbeats > before);
    }

    pub(crate) fn order(&self, command: Command) -> u64 {
        let mut state = self.state.lock();
        let number = (state.term << 32) + state.commands.len() as u64 + 1;
        state.commands.push((number, command));
        number
    }

    /// Orders and waits for the result.
    pub(crate) fn order_done(&self, command: Command) -> Result<(), Status> {
        let number = self.order(command);
        let result = || {
            let state = self.state.lock();
            let found = state.results.iter().find(|(of, _)| *of == number);
            found.map(|(_, result)| *result)
        };
        wait(|| result().is_some());
        result().expect("waited for")
    }

    pub(crate) fn has_result(&self, number: u64) -> bool {
        self.state
            .lock()
            .results
            .iter()
            .any(|(of, _)| *of == number)
    }

    /// Of the first chain.
    pub(crate) fn has_heard(&self, epoch: Epoch, what: ChainEvent) -> bool {
        let chain = ChainId(0);
        let news = ChainNews { chain, epoch, what };
        self.state.lock().news.contains(&news)
    }

    fn lateness_of(&self, reply: &VolumeReply) -> Option<Duration> {
        let mut state = self.state.lock();
        match reply {
            VolumeReply::Heartbeat(_) => {
                let late = state.last_ack_late.take();
                state.acks_heartbeats &= late.is_none();
                late
            }
            // As from any network.
            VolumeReply::NextCommands(_) if state.repeats_commands => {
                Some(Duration::from_millis(2))
            }
            _ => None,
        }
    }

    fn answer(&self, request: VolumeRequest) -> Result<Option<VolumeReply>, Status> {
        let mut state = self.state.lock();
        if state.is_away {
            return Err(Status::Disconnected);
        }
        match request {
            VolumeRequest::Register(register) => {
                state.knows_volume = true;
                let registered = registered(&state, &register);
                state.registrations.push(register);
                Ok(Some(VolumeReply::Register(registered)))
            }
            _ if !state.knows_volume => Err(Status::NotFound),
            VolumeRequest::Heartbeat(_) if !state.acks_heartbeats => Err(Status::Disconnected),
            VolumeRequest::Heartbeat(_) => {
                state.heartbeats += 1;
                Ok(Some(VolumeReply::Heartbeat(HeartbeatAck {
                    term: state.term,
                    lease_ms: 2500,
                })))
            }
            VolumeRequest::NextCommands(next) => Ok(next_commands(&mut state, next)),
        }
    }
}

fn registered(state: &State, register: &Register) -> Registered {
    let known = state.table.clone();
    Registered {
        volume: VolumeId(1),
        registration: state.registrations.len() as u64,
        term: state.term,
        chunk_size: ChunkSize::MIN,
        table: known.unwrap_or_else(|| table(1, Epoch(1), register)),
        fences: state.fences.clone(),
        data_next: DataId(1),
        live_sessions: state.live_sessions.clone(),
        session_next: SessionId(2),
    }
}

/// One chain, of this volume alone.
pub(crate) fn table(version: u64, epoch: Epoch, register: &Register) -> ChainTable {
    let member = Member {
        volume: VolumeId(1),
        store: register.store,
        state: MemberState::Serving,
    };
    let chain = Chain {
        epoch,
        members: vec![member],
        lost_below: DataId(0),
        is_active: true,
    };
    ChainTable {
        version,
        chains: vec![chain],
        volumes: Vec::new(),
    }
}

/// Of another volume in the chains of this one.
pub(crate) fn another(state: MemberState) -> Member {
    Member {
        volume: VolumeId(2),
        store: StoreId(2),
        state,
    }
}

/// Where that one is reached, by its node.
pub(crate) fn another_at(node: &str) -> VolumeInfo {
    VolumeInfo {
        id: VolumeId(2),
        name: String::new(),
        host: String::new(),
        addr: "127.0.0.1:1".parse().expect("an address"),
        node: node.to_owned(),
    }
}

/// `None`: nothing to say yet.
fn next_commands(state: &mut State, next: NextCommands) -> Option<VolumeReply> {
    state.results.extend(next.results);
    state.news.extend(next.news);
    let commands: Vec<_> = state
        .commands
        .iter()
        .filter(|(number, _)| *number > next.seen || state.repeats_commands)
        .cloned()
        .collect();
    if commands.is_empty() {
        return None;
    }
    Some(VolumeReply::NextCommands(Commands {
        term: state.term,
        commands,
    }))
}

#[derive(Debug)]
pub(crate) struct MasterCarrier(pub(crate) Arc<Master>);

impl Carrier for MasterCarrier {
    fn call(&self, request: Request, deadline: Duration) -> BoxFuture<'_, Outcome> {
        let master = self.0.clone();
        async move {
            let message: VolumeRequest = decode(&request.body)?;
            let begun = Instant::now();
            while begun.elapsed() < deadline {
                if let Some(reply) = master.answer(message.clone())? {
                    if let Some(late) = master.lateness_of(&reply) {
                        tokio::time::sleep(late).await;
                    }
                    return Ok(Response {
                        body: encode(&reply),
                        payload: Bytes::new(),
                    });
                }
                // The results were taken; the poll itself waits for commands.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(Status::DeadlineExceeded)
        }
        .boxed()
    }
}

/// Waits for a condition that must come true.
pub(crate) fn wait(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "it does not come true");
        std::thread::sleep(Duration::from_millis(1));
    }
}
