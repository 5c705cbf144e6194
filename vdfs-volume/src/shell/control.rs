//! Registration and orders: one conversation with the master, from which everything else follows.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use tokio::sync::watch;
use vdfs_net::carrier::Carrier;
use vdfs_net::quic::NetCounters;
use vdfs_net::rpc;
use vdfs_proto::frame::Method;
use vdfs_proto::limits::EVENTS_PARK_MS;
use vdfs_proto::volume::{Commands, NextCommands, Register, Registered};
use vdfs_proto::{NetTotals, Status, Timestamp, VolumeId};

use super::VolumeConfig;
use super::commands;
use super::pulse::Pulse;
use crate::limits::RESULTS_MAX;
use crate::node::Node;

const REGISTER_DEADLINE: Duration = Duration::from_secs(5);
/// Longer than the master parks a request.
const COMMANDS_DEADLINE: Duration = Duration::from_millis(EVENTS_PARK_MS + 5_000);
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Whether the master has taken the volume in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// With what the master has answered.
    Waiting(Option<Status>),
    Done,
    /// Trying again will not help; it is tried nevertheless.
    Refused {
        why: String,
    },
}

/// What the threads of a volume share beside the node.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) config: VolumeConfig,
    pub(super) node: Arc<Node>,
    pub(super) master: Arc<dyn Carrier>,
    /// Of this life of the volume.
    pub(super) incarnation: u64,
    /// As whom the master knows us now.
    pub(super) known: RwLock<Option<Known>>,
    /// The registration whose heartbeat the master has answered that it does not know it.
    pub(super) refused: watch::Sender<Option<u64>>,
    pub(super) pulse: Pulse,
    /// Of the door that clients come in by, if there is one.
    pub(super) net: OnceLock<Arc<NetCounters>>,
    registered: watch::Sender<Registration>,
}

/// As what the master has taken the volume in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) volume: VolumeId,
    pub(super) registration: u64,
}

impl Link {
    pub(super) fn new(
        config: VolumeConfig,
        node: Arc<Node>,
        master: Arc<dyn Carrier>,
        registered: watch::Sender<Registration>,
    ) -> Arc<Self> {
        Arc::new(Link {
            config,
            node,
            master,
            incarnation: rand::random(),
            known: RwLock::new(None),
            refused: watch::Sender::default(),
            pulse: Pulse::default(),
            net: OnceLock::new(),
            registered,
        })
    }

    /// Hears of each registration.
    pub(super) fn subscribe(&self) -> watch::Receiver<Registration> {
        self.registered.subscribe()
    }

    fn register_message(&self) -> Register {
        let usage = self.node.store().usage();
        Register {
            name: self.config.name.clone(),
            host: self.config.host.clone(),
            addr: self.config.addr,
            store: self.node.store().id(),
            incarnation: self.incarnation,
            capacity_bytes: usage.capacity_bytes,
            used_bytes: usage.used_bytes,
            data_id_max: self.node.store().data_id_max(),
        }
    }

    /// The master does not know this incarnation: it is to be told again.
    pub(super) fn is_unknown(status: Status) -> bool {
        matches!(
            status,
            Status::NotFound | Status::SessionExpired | Status::NotServing
        )
    }
}

/// The volume asked for what it will never get.
fn is_final(status: Status) -> bool {
    matches!(
        status,
        Status::WrongRole
            | Status::Invalid
            | Status::Malformed
            | Status::NotSupported
            | Status::Removed
    )
}

/// The control thread.
pub(super) async fn run(link: Arc<Link>, mut stopped: watch::Receiver<bool>) {
    let mut conversation = Conversation {
        link: link.clone(),
        seen: 0,
        results: VecDeque::new(),
        refused_with: None,
    };
    tokio::select! {
        () = conversation.run() => {}
        () = link.pulse.answer() => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

struct Conversation {
    link: Arc<Link>,
    /// The last command taken. Numbers go up over all terms of the master.
    seen: u64,
    /// What became of commands, until the master has heard it.
    results: VecDeque<(u64, Result<(), Status>)>,
    /// Why it will never be taken in, if that was said.
    refused_with: Option<Status>,
}

impl Conversation {
    async fn run(&mut self) {
        loop {
            self.register().await;
            self.follow().await;
            *self.link.known.write() = None;
        }
    }

    /// Ends when the master has taken this volume in.
    async fn register(&mut self) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            match self.try_register().await {
                Ok(()) => return,
                Err(status) => self.note_refusal(status),
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn note_refusal(&mut self, status: Status) {
        tracing::debug!(%status, "not registered yet");
        if is_final(status) && self.refused_with.replace(status) != Some(status) {
            tracing::error!(volume = self.link.config.name, %status, "the master does not take it in");
        }
        match is_final(status) {
            true => self.refuse(format!("the master does not take it in: {status}")),
            false => self.tell_waiting(status),
        }
    }

    fn tell_waiting(&self, status: Status) {
        self.link.registered.send_if_modified(|state| {
            let is_waiting = matches!(state, Registration::Waiting(_));
            if is_waiting {
                *state = Registration::Waiting(Some(status));
            }
            is_waiting
        });
    }

    /// Heard by whoever waits for the first registration.
    fn refuse(&self, why: String) {
        let refused = Registration::Refused { why };
        self.link.registered.send_if_modified(|state| {
            let is_first = matches!(state, Registration::Waiting(_));
            if is_first {
                *state = refused;
            }
            is_first
        });
    }

    async fn try_register(&mut self) -> Result<(), Status> {
        let link = &self.link;
        let message = link.register_message();
        let method = Method::Volume;
        let registered =
            rpc::call_operation(&*link.master, method, message, REGISTER_DEADLINE).await?;
        self.take_in(&registered)
    }

    /// From here on the volume serves what the table gives it.
    fn take_in(&mut self, registered: &Registered) -> Result<(), Status> {
        let link = &self.link;
        if let Err(error) = link.node.store().adopt_chunk_size(registered.chunk_size) {
            tracing::error!(volume = link.config.name, %error, "cannot serve this filesystem");
            self.refuse(format!("its RAM is of another filesystem: {error}"));
            return Err(Status::Invalid);
        }
        link.node.engine.register(registered.clone());
        *link.known.write() = Some(Known {
            volume: registered.volume,
            registration: registered.registration,
        });
        link.registered.send_replace(Registration::Done);
        tracing::info!(volume = link.config.name, id = %registered.volume, "registered");
        Ok(())
    }

    /// Executes commands until the master does not know this volume any more.
    async fn follow(&mut self) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            match self.next_commands().await {
                Ok(commands) => {
                    backoff = BACKOFF_FIRST;
                    if let Some(commands) = commands {
                        self.execute(commands);
                    }
                }
                Err(status) if Link::is_unknown(status) => return,
                Err(status) => {
                    tracing::debug!(%status, "the master does not answer");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// None if there are results to tell the master first.
    async fn next_commands(&mut self) -> Result<Option<Commands>, Status> {
        let link = self.link.clone();
        let known = link.known.read().expect("registered before it follows");
        self.note_done();
        let reported = self.results.len();
        let message = NextCommands {
            volume: known.volume,
            incarnation: link.incarnation,
            registration: known.registration,
            seen: self.seen,
            wall: Timestamp::from_system(SystemTime::now()),
            net: link
                .net
                .get()
                .map_or_else(NetTotals::default, |net| net.totals()),
            news: link.node.engine.news(),
            results: self.results.iter().copied().collect(),
        };
        let call = rpc::call_operation(&*link.master, Method::Volume, message, COMMANDS_DEADLINE);
        let mut refused = link.refused.subscribe();
        let commands = tokio::select! {
            answer = call => answer?,
            () = link.node.engine.wait_told() => return Ok(None),
            _ = refused.wait_for(|of| *of == Some(known.registration)) => return Err(Status::NotFound),
        };
        self.results.drain(..reported);
        Ok(Some(commands))
    }

    fn note_done(&mut self) {
        for (number, result) in self.link.node.engine.take_done() {
            self.note_result(number, result);
        }
    }

    fn note_result(&mut self, number: u64, result: Result<(), Status>) {
        self.results.push_back((number, result));
        if self.results.len() > RESULTS_MAX {
            self.results.pop_front();
        }
    }

    fn execute(&mut self, commands: Commands) {
        if !self.link.node.engine.accepts_term(commands.term) {
            tracing::warn!(term = commands.term, "commands of an earlier master");
            return;
        }
        for (number, command) in commands.commands {
            if number <= self.seen {
                continue;
            }
            self.seen = number;
            if let Some(result) = commands::execute(&self.link.node, number, command) {
                self.note_result(number, result);
            }
        }
    }
}
