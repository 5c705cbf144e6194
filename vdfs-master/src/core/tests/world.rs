//! A core with a clock, a log and callers.

use std::collections::{BTreeMap, BTreeSet};

use vdfs_proto::handshake::Role;
use vdfs_proto::limits::VOLUME_LEASE_MS;
use vdfs_proto::meta::{
    Access, Answer, Commit, Create, Created, Extend, GetAttr, GetLayout, Lookup, MutateRequest,
    Mutated, Mutation, NewKind, Open, Opened, Query, QueryRequest, ReadDir, Release, Rename,
    RenameMode, Truncate, Unlink,
};
use vdfs_proto::operation::Operation;
use vdfs_proto::session::{
    Event, NextEvents, OpenHandle, OpenSession, RecallOutcome, Recalled, ResumeSession,
    SessionReply, SessionRequest,
};
use vdfs_proto::volume::{
    ChainNews, Command, NextCommands, Register, Registered, VolumeReply, VolumeRequest,
};
use vdfs_proto::{
    Attr, ChunkSize, ClusterId, DataId, FileName, HandleId, Ino, OpId, SessionId, Status, StoreId,
    Timestamp, VolumeId,
};

use crate::core::{
    Core, CoreReply, CoreRequest, Effect, FsConfig, Heard, Input, Now, Peer, Ticket,
};

pub(super) const CHUNK_BYTES: u64 = 64 << 10;
pub(super) const READ: Access = Access {
    read: true,
    write: false,
};
pub(super) const WRITE: Access = Access {
    read: true,
    write: true,
};

pub(super) type Outcome = Result<CoreReply, Status>;

pub(super) struct World {
    pub(super) core: Core,
    pub(super) log: Vec<Vec<u8>>,
    pub(super) now_ms: u64,
    /// Every turn is followed by a sync.
    pub(super) syncs_at_once: bool,
    /// Asserts all invariants after each step.
    pub(super) checks: bool,
    /// Records are kept for a restart.
    pub(super) keeps_log: bool,
    pub(super) replies: BTreeMap<Ticket, Outcome>,
    pub(super) sync_wanted: bool,
    /// Whose heartbeats are answered.
    leases: BTreeSet<VolumeId>,
    /// Of these, whose are not at the moment.
    withheld: BTreeSet<VolumeId>,
    /// What the next volume that asks for commands has to say.
    pub(super) news: Vec<ChainNews>,
    /// Whose requests are sent.
    pub(super) peer: Peer,
    next_ticket: u64,
    seqs: BTreeMap<(SessionId, u16), u64>,
}

pub(super) fn config() -> FsConfig {
    FsConfig {
        cluster: ClusterId(7),
        chunk_size: ChunkSize::new(CHUNK_BYTES).expect("a power of two"),
        replicas: Some(1),
        hash_key: [3; 16],
        root_uid: 0,
        root_gid: 0,
        files_max: 1 << 21,
    }
}

pub(super) fn peer(node: &str) -> Peer {
    Peer {
        role: Role::Client,
        node: node.into(),
    }
}

pub(super) fn name(text: &str) -> FileName {
    FileName::new(text.as_bytes()).expect("a good name")
}

pub(super) fn create_in(parent: Ino, text: &str, kind: NewKind) -> Create {
    Create {
        parent,
        name: name(text),
        kind,
        mode: 0o644,
        umask: 0,
        uid: 10,
        gid: 20,
        open: None,
        exclusive: true,
    }
}

pub(super) fn registration(store: u128, incarnation: u64) -> Register {
    Register {
        name: "vol".into(),
        host: "here".into(),
        addr: "127.0.0.1:7401".parse().expect("an address"),
        store: StoreId(store),
        incarnation,
        capacity_bytes: 10 * CHUNK_BYTES,
        used_bytes: CHUNK_BYTES,
        data_id_max: DataId(0),
    }
}

impl World {
    pub(super) fn new() -> Self {
        World::of(config())
    }

    pub(super) fn with_replicas(replicas: impl Into<Option<u32>>) -> Self {
        World::of(FsConfig {
            replicas: replicas.into(),
            ..config()
        })
    }

    fn of(config: FsConfig) -> Self {
        let (core, first) = Core::format(config, now(1_000));
        let mut world = World {
            core,
            log: vec![first],
            now_ms: 1_000,
            syncs_at_once: true,
            checks: true,
            keeps_log: true,
            replies: BTreeMap::new(),
            sync_wanted: false,
            leases: BTreeSet::new(),
            withheld: BTreeSet::new(),
            news: Vec::new(),
            peer: peer("c"),
            next_ticket: 1,
            seqs: BTreeMap::new(),
        };
        world.start(true);
        world
    }

    fn start(&mut self, same_boot: bool) {
        let mut effects = Vec::new();
        self.core.start(now(self.now_ms), same_boot, &mut effects);
        self.take_effects(effects);
    }

    /// Ends the process and starts it from the log alone.
    pub(super) fn restart(&mut self, same_boot: bool) {
        let mut core = Core::from_first_record(&self.log[0]).expect("a format record");
        for record in &self.log[1..] {
            core.replay(record).expect("a good record");
        }
        assert!(
            core.dump() == self.core.dump(),
            "replay gives the same state"
        );
        self.restart_with(core, same_boot);
    }

    /// Starts another process on what was restored.
    pub(super) fn restart_with(&mut self, core: Core, same_boot: bool) {
        assert_eq!(core.records(), self.log.len() as u64);
        self.core = core;
        self.sync_wanted = false;
        self.replies.clear();
        self.leases.clear();
        self.withheld.clear();
        self.news.clear();
        self.start(same_boot);
    }

    pub(super) fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.core.step(now(self.now_ms), input, &mut effects);
        self.take_effects(effects);
        if self.checks {
            self.core.check();
        }
    }

    fn take_effects(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append(record) if self.keeps_log => self.log.push(record),
                Effect::Append(_) => {}
                Effect::Reply { ticket, outcome } => drop(self.replies.insert(ticket, outcome)),
                Effect::Lease { volume, grant } => {
                    self.withheld.remove(&volume);
                    match grant {
                        Some(_) => drop(self.leases.insert(volume)),
                        None => drop(self.leases.remove(&volume)),
                    }
                }
                Effect::Withhold {
                    volume,
                    is_on: true,
                } => drop(self.withheld.insert(volume)),
                Effect::Withhold { volume, .. } => drop(self.withheld.remove(&volume)),
                Effect::Sync => self.sync_wanted = true,
            }
        }
        assert!(!self.keeps_log || self.core.records() == self.log.len() as u64);
        if self.syncs_at_once && self.sync_wanted {
            self.sync();
        }
    }

    pub(super) fn sync(&mut self) {
        self.sync_wanted = false;
        let records = self.core.records();
        self.step(Input::LogDurable { records });
    }

    /// Lets time pass in steps of the shell's timer.
    pub(super) fn pass(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.now_ms = (self.now_ms + 250).min(end_ms);
            self.step(Input::Tick);
        }
    }

    /// The same while a volume lives.
    pub(super) fn pass_with_heartbeats(&mut self, ms: u64, volume: VolumeId, incarnation: u64) {
        for _ in 0..ms / 250 {
            self.pass(250);
            self.heartbeat(volume, incarnation).expect("registered");
        }
    }

    pub(super) fn send(&mut self, request: CoreRequest) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.step(Input::Request { ticket, request });
        ticket
    }

    pub(super) fn reply(&mut self, ticket: Ticket) -> Option<Outcome> {
        self.replies.remove(&ticket)
    }

    fn call(&mut self, request: CoreRequest) -> Outcome {
        let ticket = self.send(request);
        self.reply(ticket).expect("answered at once")
    }

    pub(super) fn op(&mut self, session: SessionId, slot: u16) -> OpId {
        let seq = self.seqs.entry((session, slot)).or_default();
        *seq += 1;
        OpId {
            session,
            slot,
            seq: *seq,
        }
    }

    pub(super) fn send_mutation(&mut self, op: OpId, mutation: Mutation) -> Ticket {
        let request = MutateRequest { op, mutation };
        self.send(CoreRequest::Mutate(self.peer.clone(), request))
    }

    pub(super) fn mutated(&mut self, ticket: Ticket) -> Result<Mutated, Status> {
        match self.reply(ticket).expect("answered")? {
            CoreReply::Mutate(mutated) => Ok(mutated),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn mutate<O>(&mut self, session: SessionId, operation: O) -> Result<O::Reply, Status>
    where
        O: Operation<Request = Mutation, Envelope = Mutated>,
    {
        let op = self.op(session, 0);
        let ticket = self.send_mutation(op, operation.wrap());
        let mutated = self.mutated(ticket)?;
        Ok(O::unwrap(mutated).expect("its own reply"))
    }

    pub(super) fn send_query<O>(&mut self, session: SessionId, operation: O) -> Ticket
    where
        O: Operation<Request = Query, Envelope = Answer>,
    {
        let query = operation.wrap();
        let request = QueryRequest { session, query };
        self.send(CoreRequest::Query(self.peer.clone(), request))
    }

    pub(super) fn answered(&mut self, ticket: Ticket) -> Result<Answer, Status> {
        match self.reply(ticket).expect("answered")? {
            CoreReply::Query(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn ask<O>(&mut self, session: SessionId, operation: O) -> Result<O::Reply, Status>
    where
        O: Operation<Request = Query, Envelope = Answer>,
    {
        let ticket = self.send_query(session, operation);
        let answer = self.answered(ticket)?;
        Ok(O::unwrap(answer).expect("its own reply"))
    }

    pub(super) fn send_session<O>(&mut self, operation: O) -> Ticket
    where
        O: Operation<Request = SessionRequest, Envelope = SessionReply>,
    {
        self.send(CoreRequest::Session(self.peer.clone(), operation.wrap()))
    }

    pub(super) fn session_replied<O>(&mut self, ticket: Ticket) -> Result<O::Reply, Status>
    where
        O: Operation<Request = SessionRequest, Envelope = SessionReply>,
    {
        match self.reply(ticket).expect("answered")? {
            CoreReply::Session(reply) => Ok(O::unwrap(reply).expect("its own reply")),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn session<O>(&mut self, operation: O) -> Result<O::Reply, Status>
    where
        O: Operation<Request = SessionRequest, Envelope = SessionReply>,
    {
        let ticket = self.send_session(operation);
        self.session_replied::<O>(ticket)
    }

    pub(super) fn open_session(&mut self, identity: &str) -> SessionId {
        self.open_session_outcome(identity).expect("a new identity")
    }

    pub(super) fn open_session_outcome(&mut self, identity: &str) -> Result<SessionId, Status> {
        let opened = self.session(open_session(identity))?;
        Ok(opened.session)
    }

    /// What the session has been told and has not acknowledged.
    pub(super) fn events(&mut self, session: SessionId) -> Vec<Event> {
        let ticket = self.send_session(next_events(session, 0));
        match self.reply(ticket) {
            Some(Ok(CoreReply::Session(SessionReply::NextEvents(events)))) => {
                events.events.into_iter().map(|(_, event)| event).collect()
            }
            None => {
                self.step(Input::Abandoned(ticket));
                Vec::new()
            }
            other => panic!("{other:?}"),
        }
    }

    /// The number of the last recall that the session was sent.
    pub(super) fn last_recall(&mut self, session: SessionId) -> Option<u64> {
        let events = self.events(session);
        events.into_iter().rev().find_map(|event| match event {
            Event::Recall { recall, .. } => Some(recall),
            Event::TableChanged { .. } => None,
        })
    }

    pub(super) fn answer_recall(&mut self, session: SessionId, outcome: RecallOutcome) {
        let recall = self.last_recall(session).expect("was recalled");
        let recalled = Recalled {
            session,
            recall,
            outcome,
        };
        self.session(recalled).expect("a live session");
    }

    pub(super) fn volume(&mut self, node: &str, request: VolumeRequest) -> Outcome {
        let node = node.to_owned();
        self.call(CoreRequest::Volume { node, request })
    }

    pub(super) fn register(&mut self, node: &str, register: Register) -> Registered {
        let (node, request) = (node.to_owned(), VolumeRequest::Register(register));
        let ticket = self.send(CoreRequest::Volume { node, request });
        if !self.replies.contains_key(&ticket) {
            self.sync();
        }
        match self.reply(ticket).expect("durable") {
            Ok(CoreReply::Volume(VolumeReply::Register(registered))) => registered,
            other => panic!("{other:?}"),
        }
    }

    /// A volume whose store is gone, and which was silent for its lease.
    pub(super) fn register_without_store(&mut self, node: &str, register: Register) -> Registered {
        self.pass(VOLUME_LEASE_MS + 500);
        self.register(node, register)
    }

    pub(super) fn heartbeat(&mut self, volume: VolumeId, incarnation: u64) -> Result<(), Status> {
        let live = self.core.live.volumes.get(&volume);
        let is_present = live.is_some_and(|live| live.incarnation == Some(incarnation));
        if !self.leases.contains(&volume) || !is_present {
            return Err(Status::NotFound);
        }
        if self.withheld.contains(&volume) {
            return Err(Status::Busy);
        }
        let heard = Heard {
            volume,
            heard_ms: self.now_ms,
            capacity_bytes: 10 * CHUNK_BYTES,
            used_bytes: CHUNK_BYTES,
        };
        self.step(Input::Heard(vec![heard]));
        Ok(())
    }

    /// Commands behind `seen`, after reporting `results`.
    pub(super) fn commands(
        &mut self,
        volume: VolumeId,
        incarnation: u64,
        seen: u64,
        results: Vec<(u64, Result<(), Status>)>,
    ) -> Vec<(u64, Command)> {
        let known = self.core.live.volumes.get(&volume).expect("registered");
        let registration = known.registration;
        let info = self.core.state.table.volume(volume).expect("registered");
        let node = info.node.clone();
        let request = VolumeRequest::NextCommands(NextCommands {
            volume,
            incarnation,
            registration,
            seen,
            wall: now(self.now_ms).wall,
            net: vdfs_proto::NetTotals::default(),
            news: std::mem::take(&mut self.news),
            results,
        });
        let ticket = self.send(CoreRequest::Volume { node, request });
        match self.reply(ticket) {
            Some(Ok(CoreReply::Volume(VolumeReply::NextCommands(commands)))) => commands.commands,
            None => {
                self.step(Input::Abandoned(ticket));
                Vec::new()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Does all commands until none is left; gives them in order.
    pub(super) fn obey(&mut self, volume: VolumeId, incarnation: u64) -> Vec<Command> {
        let (mut seen, mut results, mut all) = (0, Vec::new(), Vec::new());
        loop {
            let commands = self.commands(volume, incarnation, seen, std::mem::take(&mut results));
            let Some((last, _)) = commands.last() else {
                return all;
            };
            seen = *last;
            for (number, command) in commands {
                results.push((number, Ok(())));
                all.push(command);
            }
        }
    }

    pub(super) fn create_file(&mut self, session: SessionId, text: &str) -> Ino {
        self.create(session, create_in(Ino::ROOT, text, NewKind::Regular))
            .attr
            .ino
    }

    pub(super) fn create(&mut self, session: SessionId, create: Create) -> Created {
        self.mutate(session, create).expect("can be created")
    }

    pub(super) fn unlink(&mut self, session: SessionId, text: &str) -> Result<(), Status> {
        let parent = Ino::ROOT;
        let name = name(text);
        self.mutate(session, Unlink { parent, name })
    }

    pub(super) fn rename(
        &mut self,
        session: SessionId,
        from: &str,
        to: &str,
    ) -> Result<(), Status> {
        let rename = Rename {
            parent: Ino::ROOT,
            name: name(from),
            new_parent: Ino::ROOT,
            new_name: name(to),
            mode: RenameMode::Replace,
            found: None,
        };
        self.mutate(session, rename)
    }

    pub(super) fn lookup(&mut self, session: SessionId, text: &str) -> Result<Attr, Status> {
        let parent = Ino::ROOT;
        let name = name(text);
        self.ask(session, Lookup { parent, name })
    }

    pub(super) fn attr(&mut self, session: SessionId, ino: Ino) -> Result<Attr, Status> {
        self.ask(session, GetAttr { ino })
    }

    /// The inode is not there any more, if perhaps remembered.
    pub(super) fn has_ended(&self, ino: Ino) -> bool {
        self.core.state.inode(ino).is_err()
    }

    pub(super) fn open(
        &mut self,
        session: SessionId,
        ino: Ino,
        handle: u64,
        access: Access,
    ) -> Opened {
        let handle = HandleId(handle);
        let open = Open {
            ino,
            handle,
            access,
        };
        self.ask(session, open).expect("can be opened")
    }

    pub(super) fn release(&mut self, session: SessionId, handle: u64, tail_unknown: bool) {
        let handle = HandleId(handle);
        let release = Release {
            handle,
            tail_unknown,
            read_at: None,
        };
        self.ask(session, release).expect("can be released");
    }

    pub(super) fn send_truncate(&mut self, session: SessionId, ino: Ino, size: u64) -> Ticket {
        let op = self.op(session, 1);
        self.send_mutation(op, Mutation::Truncate(truncate(ino, size)))
    }

    pub(super) fn commit(
        &mut self,
        session: SessionId,
        ino: Ino,
        end: u64,
    ) -> Result<Attr, Status> {
        let commit = self.commit_of(session, ino, end)?;
        Ok(self.mutate(session, commit)?.attr)
    }

    pub(super) fn send_commit(&mut self, session: SessionId, ino: Ino, end: u64) -> Ticket {
        let commit = self.commit_of(session, ino, end).expect("a live file");
        let op = self.op(session, 1);
        self.send_mutation(op, commit.wrap())
    }

    pub(super) fn send_extend(&mut self, session: SessionId, ino: Ino, end: u64) -> Ticket {
        let commit = self.commit_of(session, ino, end).expect("a live file");
        let op = self.op(session, 1);
        self.send_mutation(op, Extend { commit }.wrap())
    }

    pub(super) fn commit_of(
        &mut self,
        session: SessionId,
        ino: Ino,
        end: u64,
    ) -> Result<Commit, Status> {
        let layout = self.ask(session, GetLayout { ino })?;
        Ok(Commit {
            ino,
            data: layout.data,
            truncations: layout.truncations,
            end,
            holes: false,
            mtime: Timestamp { secs: 5, nanos: 0 },
            kill_privileges: false,
        })
    }

    pub(super) fn names(&mut self, session: SessionId, ino: Ino) -> Vec<String> {
        let (mut cookie, mut names) = (0, Vec::new());
        loop {
            let read = ReadDir {
                ino,
                cookie,
                entries_max: 3,
                with_attrs: true,
                marks_access: false,
            };
            let listing = self.ask(session, read).expect("a directory");
            for entry in &listing.entries {
                assert!(entry.cookie > cookie, "cookies ascend");
                cookie = entry.cookie;
                names.push(String::from_utf8_lossy(entry.name.as_bytes()).into_owned());
            }
            if listing.at_end {
                names.sort();
                return names;
            }
        }
    }
}

pub(super) fn open_session(identity: &str) -> OpenSession {
    OpenSession {
        identity: identity.into(),
        after: None,
        host: "here".into(),
        mount: "/mnt".into(),
    }
}

pub(super) fn next_events(session: SessionId, seen: u64) -> NextEvents {
    NextEvents {
        session,
        seen,
        wall: Timestamp::default(),
    }
}

pub(super) fn resume(session: SessionId, handles: Vec<OpenHandle>) -> ResumeSession {
    ResumeSession {
        session,
        handles,
        append_tokens: Vec::new(),
        complete: true,
    }
}

pub(super) fn truncate(ino: Ino, size: u64) -> Truncate {
    Truncate {
        ino,
        size,
        kill_privileges: false,
    }
}

pub(super) fn now(boot_ms: u64) -> Now {
    let wall = Timestamp {
        secs: 1_700_000_000 + (boot_ms / 1000) as i64,
        nanos: (boot_ms % 1000) as u32 * 1_000_000,
    };
    Now { wall, boot_ms }
}
