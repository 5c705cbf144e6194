//! Random sessions, files, faults: every step keeps the invariants, and when all is well again
//! everybody gets an answer.

use proptest::prelude::*;
use vdfs_proto::limits::VOLUME_LEASE_MS;
use vdfs_proto::meta::{
    Access, AcquireAppend, Commit, Create, Extend, GetLayout, Lock, LockAsked, LockPlace, Mutation,
    NewKind, Open, Query, Release, Unlink, Unlock, WaitLock,
};
use vdfs_proto::operation::Operation;
use vdfs_proto::session::{
    Event, OpenHandle, RecallOutcome, Recalled, ResumeSession, SessionReply,
};
use vdfs_proto::volume::Command;
use vdfs_proto::{
    ChainId, HandleId, Ino, LockKind, LockOwner, LockRange, SessionId, Status, Timestamp,
};

use super::cluster::Cluster;
use super::world::{CHUNK_BYTES, READ, WRITE, create_in, name, next_events, now, truncate};
use crate::core::{CoreReply, Input, Ticket};

const FILES: [&str; 3] = ["x", "y", "z"];
const SLOTS: u16 = 8;

#[derive(Clone, Debug)]
enum Step {
    Create {
        by: usize,
        file: usize,
    },
    Unlink {
        by: usize,
        file: usize,
    },
    Open {
        by: usize,
        file: usize,
        handle: u64,
        write: bool,
    },
    Release {
        by: usize,
        handle: u64,
        tail_unknown: bool,
    },
    Truncate {
        by: usize,
        file: usize,
        size: u64,
    },
    Commit {
        by: usize,
        file: usize,
        end: u64,
    },
    Extend {
        by: usize,
        file: usize,
        end: u64,
    },
    Append {
        by: usize,
        file: usize,
    },
    Lock {
        by: usize,
        file: usize,
        lock: LockAsked,
        waits: bool,
    },
    Unlock {
        by: usize,
        file: usize,
        lock: LockAsked,
    },
    AnswerRecalls {
        by: usize,
        done: bool,
    },
    Reopen {
        by: usize,
    },
    Obey {
        all: bool,
    },
    NewVolume {
        volume: usize,
        other_store: bool,
    },
    Sync,
    Pass {
        ms: u64,
    },
    LogFull(bool),
    Restart {
        same_boot: bool,
    },
}

fn steps() -> impl Strategy<Value = Step> {
    let (by, file, handle) = (0usize..3, 0usize..3, 1u64..3);
    let size = prop_oneof![Just(0), 1..4 * CHUNK_BYTES];
    prop_oneof![
        4 => (by.clone(), file.clone()).prop_map(|(by, file)| Step::Create { by, file }),
        2 => (by.clone(), file.clone()).prop_map(|(by, file)| Step::Unlink { by, file }),
        6 => (by.clone(), file.clone(), handle.clone(), any::<bool>())
            .prop_map(|(by, file, handle, write)| Step::Open { by, file, handle, write }),
        3 => (by.clone(), handle, any::<bool>())
            .prop_map(|(by, handle, tail_unknown)| Step::Release { by, handle, tail_unknown }),
        6 => (by.clone(), file.clone(), size.clone())
            .prop_map(|(by, file, size)| Step::Truncate { by, file, size }),
        6 => (by.clone(), file.clone(), size.clone())
            .prop_map(|(by, file, end)| Step::Commit { by, file, end }),
        4 => (by.clone(), file.clone(), size)
            .prop_map(|(by, file, end)| Step::Extend { by, file, end }),
        3 => (by.clone(), file.clone()).prop_map(|(by, file)| Step::Append { by, file }),
        6 => (by.clone(), file.clone(), locks(), any::<bool>())
            .prop_map(|(by, file, lock, waits)| Step::Lock { by, file, lock, waits }),
        3 => (by.clone(), file.clone(), locks())
            .prop_map(|(by, file, lock)| Step::Unlock { by, file, lock }),
        4 => (by.clone(), any::<bool>())
            .prop_map(|(by, done)| Step::AnswerRecalls { by, done }),
        1 => by.prop_map(|by| Step::Reopen { by }),
        4 => any::<bool>().prop_map(|all| Step::Obey { all }),
        1 => (0usize..2, any::<bool>())
            .prop_map(|(volume, other_store)| Step::NewVolume { volume, other_store }),
        3 => Just(Step::Sync),
        2 => (1u64..4_000).prop_map(|ms| Step::Pass { ms }),
        1 => any::<bool>().prop_map(Step::LogFull),
        1 => any::<bool>().prop_map(|same_boot| Step::Restart { same_boot }),
    ]
}

fn locks() -> impl Strategy<Value = LockAsked> {
    let kind = prop_oneof![Just(LockKind::Read), Just(LockKind::Write)];
    (1u64..3, kind, 0u64..6, 0u64..6).prop_map(|(owner, kind, first, len)| LockAsked {
        owner: LockOwner(owner),
        pid: 7,
        kind,
        range: LockRange::new(first, first + len).expect("ascends"),
    })
}

/// A client that does what it is told, when it is told.
struct Client {
    session: Option<SessionId>,
    slot: u16,
    handles: Vec<OpenHandle>,
}

struct Chaos {
    cluster: Cluster,
    clients: Vec<Client>,
    waiting: Vec<Ticket>,
}

impl Chaos {
    /// With so many volumes, and as many copies.
    fn new(volumes: usize) -> Self {
        let mut cluster = Cluster::new(volumes, volumes as u32);
        let world = &mut cluster.world;
        let mut clients = Vec::new();
        for identity in ["0", "1", "2"] {
            let session = Some(world.open_session(identity));
            clients.push(Client {
                session,
                slot: 0,
                handles: Vec::new(),
            });
        }
        world.syncs_at_once = false;
        Chaos {
            cluster,
            clients,
            waiting: Vec::new(),
        }
    }

    fn ino(&mut self, file: usize) -> Option<Ino> {
        let found = self
            .cluster
            .world
            .core
            .state
            .lookup(Ino::ROOT, &name(FILES[file]));
        found.ok()
    }

    fn mutate(&mut self, by: usize, mutation: Mutation) {
        let client = &mut self.clients[by];
        client.slot = (client.slot + 1) % SLOTS;
        let (Some(session), slot) = (client.session, client.slot) else {
            return;
        };
        let op = self.cluster.world.op(session, slot);
        let ticket = self.cluster.world.send_mutation(op, mutation);
        self.waiting.push(ticket);
    }

    fn ask<O>(&mut self, by: usize, operation: O)
    where
        O: Operation<Request = Query, Envelope = vdfs_proto::meta::Answer>,
    {
        if let Some(session) = self.clients[by].session {
            let ticket = self.cluster.world.send_query(session, operation);
            self.waiting.push(ticket);
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Create { by, file } => {
                let create = create_in(Ino::ROOT, FILES[file], NewKind::Regular);
                let open = Some((HandleId(9), WRITE));
                self.mutate(
                    by,
                    Mutation::Create(Create {
                        open,
                        exclusive: false,
                        ..create
                    }),
                );
            }
            Step::Unlink { by, file } => {
                let (parent, name) = (Ino::ROOT, name(FILES[file]));
                self.mutate(by, Mutation::Unlink(Unlink { parent, name }));
            }
            Step::Open {
                by,
                file,
                handle,
                write,
            } => self.open(by, file, handle, write),
            Step::Release {
                by,
                handle,
                tail_unknown,
            } => self.release(by, HandleId(handle), tail_unknown),
            Step::Truncate { by, file, size } => {
                if let Some(ino) = self.ino(file) {
                    self.mutate(by, Mutation::Truncate(truncate(ino, size)));
                }
            }
            Step::Commit { by, file, end } => {
                if let Some(commit) = self.commit(file, end) {
                    self.mutate(by, Mutation::Commit(commit));
                }
            }
            Step::Extend { by, file, end } => {
                if let Some(commit) = self.commit(file, end) {
                    self.mutate(by, Mutation::Extend(Extend { commit }));
                }
            }
            Step::Append { by, file } => {
                if let Some(ino) = self.ino(file) {
                    self.ask(
                        by,
                        AcquireAppend {
                            ino,
                            handle: HandleId(1),
                        },
                    );
                    self.ask(by, GetLayout { ino });
                }
            }
            Step::AnswerRecalls { by, done } => self.answer_recalls(by, done),
            step => self.take_lock_step(step),
        }
    }

    fn take_lock_step(&mut self, step: Step) {
        match step {
            Step::Lock {
                by,
                file,
                lock,
                waits,
            } => {
                let Some(ino) = self.ino(file) else {
                    return;
                };
                let queued = waits.then_some(LockPlace::LAST);
                self.mutate(by, Mutation::Lock(Lock { ino, lock, queued }));
                if let Some(place) = queued {
                    self.ask(by, WaitLock { ino, lock, place });
                }
            }
            Step::Unlock { by, file, lock } => {
                if let Some(ino) = self.ino(file) {
                    let LockAsked { owner, range, .. } = lock;
                    self.mutate(by, Mutation::Unlock(Unlock { ino, owner, range }));
                }
            }
            step => self.take_fault(step),
        }
    }

    fn release(&mut self, by: usize, handle: HandleId, tail_unknown: bool) {
        let handles = &mut self.clients[by].handles;
        handles.retain(|open| open.handle != handle);
        let release = Release {
            handle,
            tail_unknown,
            read_at: Some(now(self.cluster.world.now_ms).wall),
        };
        self.ask(by, release);
    }

    fn take_fault(&mut self, step: Step) {
        match step {
            Step::Reopen { by } => self.reopen(by),
            Step::Obey { all } => self.obey(all),
            Step::NewVolume {
                volume,
                other_store,
            } => self.begin_life(volume % self.cluster.lives.len(), other_store),
            Step::Sync => self.cluster.world.sync(),
            Step::Pass { ms } => self.cluster.world.pass(ms),
            Step::LogFull(true) => self
                .cluster
                .world
                .step(Input::LogFull { why: "full".into() }),
            Step::LogFull(false) => self.cluster.world.step(Input::LogHasRoom),
            Step::Restart { same_boot } => {
                self.cluster.world.restart(same_boot);
                self.waiting.clear();
                (0..3).for_each(|by| self.resume(by));
            }
            step => unreachable!("{step:?} is no fault"),
        }
    }

    fn open(&mut self, by: usize, file: usize, handle: u64, write: bool) {
        let Some(ino) = self.ino(file) else {
            return;
        };
        let access: Access = match write {
            true => WRITE,
            false => READ,
        };
        let handle = HandleId(handle);
        let known = self.clients[by]
            .handles
            .iter()
            .any(|open| open.handle == handle);
        if !known {
            self.clients[by].handles.push(OpenHandle {
                handle,
                ino,
                access,
                is_shared: false,
            });
            self.ask(
                by,
                Open {
                    ino,
                    handle,
                    access,
                },
            );
        }
    }

    fn commit(&mut self, file: usize, end: u64) -> Option<Commit> {
        let ino = self.ino(file)?;
        let body = *self.cluster.world.core.state.file(ino).expect("a file");
        Some(Commit {
            ino,
            data: body.data,
            truncations: body.truncations,
            end,
            holes: true,
            mtime: Timestamp::default(),
            kill_privileges: true,
        })
    }

    fn answer_recalls(&mut self, by: usize, done: bool) {
        let Some(session) = self.clients[by].session else {
            return;
        };
        let outcome = match done {
            true => RecallOutcome::Done,
            false => RecallOutcome::Held {
                waits_for: Some(ChainId(0)),
            },
        };
        let ticket = self.cluster.world.send_session(next_events(session, 0));
        let events = match self.cluster.world.reply(ticket) {
            Some(Ok(CoreReply::Session(SessionReply::NextEvents(events)))) => events.events,
            Some(Err(Status::SessionExpired)) => return self.reopen(by),
            _ => return self.cluster.world.step(Input::Abandoned(ticket)),
        };
        for (_, event) in events {
            if let Event::Recall { recall, .. } = event {
                let recalled = Recalled {
                    session,
                    recall,
                    outcome,
                };
                let ticket = self.cluster.world.send_session(recalled);
                self.waiting.push(ticket);
            }
        }
    }

    fn reopen(&mut self, by: usize) {
        self.clients[by].session = None;
        self.clients[by].handles.clear();
        self.cluster.world.syncs_at_once = true;
        self.cluster.world.sync();
        let opening = super::world::open_session(["0", "1", "2"][by]);
        let ticket = self.cluster.world.send_session(opening);
        for _ in 0..20 {
            match self.cluster.world.reply(ticket) {
                Some(Ok(CoreReply::Session(SessionReply::OpenSession(opened)))) => {
                    self.clients[by].session = Some(opened.session);
                }
                None => {
                    self.cluster.world.pass(250);
                    continue;
                }
                Some(_) => {}
            }
            break;
        }
        self.cluster.world.syncs_at_once = false;
    }

    fn resume(&mut self, by: usize) {
        let Some(session) = self.clients[by].session else {
            return;
        };
        let resume = ResumeSession {
            session,
            handles: self.clients[by].handles.clone(),
            append_tokens: Vec::new(),
            complete: true,
        };
        if self.cluster.world.session(resume).is_err() {
            self.clients[by].session = None;
            self.clients[by].handles.clear();
        }
    }

    fn begin_life(&mut self, volume: usize, other_store: bool) {
        if other_store {
            self.cluster.world.pass(VOLUME_LEASE_MS + 500);
            self.cluster.replace(volume);
        } else {
            self.cluster.respawn(volume);
        }
        // It may have to wait for others, and tries again.
        self.cluster.try_register(volume).ok();
    }

    /// Each volume does the next commands, or all; registers first if it has to.
    fn obey(&mut self, all: bool) {
        for volume in 0..self.cluster.lives.len() {
            self.obey_as(volume, all);
        }
    }

    fn obey_as(&mut self, volume: usize, all: bool) {
        if self.cluster.beat(volume).is_err() && !self.cluster.is_known(volume) {
            self.begin_life(volume, false);
        }
        if !self.cluster.is_known(volume) {
            return;
        }
        if all {
            let news = self.cluster.duties(volume);
            self.cluster.obey(volume, news);
            return;
        }
        let commands = self.cluster.commands(volume, vec![]);
        if let Some((number, Command::Trim { .. })) = commands.first() {
            let failed = vec![(*number, Err(Status::Busy))];
            self.cluster.commands(volume, failed);
        }
    }

    /// All faults end, everybody does his duty: everybody must have got an answer.
    fn heal(&mut self) {
        self.cluster.world.step(Input::LogHasRoom);
        self.cluster.world.syncs_at_once = true;
        for _ in 0..40 {
            self.cluster.world.sync();
            self.obey(true);
            for by in 0..3 {
                if self.clients[by].session.is_none() {
                    self.reopen(by);
                    self.cluster.world.syncs_at_once = true;
                }
                self.answer_recalls(by, true);
                self.cluster.world.syncs_at_once = true;
            }
            self.cluster.world.pass(500);
        }
        for ticket in std::mem::take(&mut self.waiting) {
            let answered = self.cluster.world.reply(ticket).is_some();
            // An append token goes only when its holder gives it back: nobody does here.
            assert!(
                answered || !self.cluster.world.core.live.append_waiters.is_empty(),
                "{ticket:?}"
            );
        }
        assert!(
            self.cluster.world.core.live.works.is_empty(),
            "truncations have ended"
        );
        assert!(
            self.cluster.world.core.state.trims.is_empty(),
            "trims have ended"
        );
        assert!(
            self.cluster.world.core.state.reaps.is_empty(),
            "reaps have ended"
        );
    }
}

proptest! {
    #[test]
    fn core_keeps_its_invariants_and_answers_everybody(
        volumes in 1usize..3,
        steps in proptest::collection::vec(steps(), 1..120),
    ) {
        let mut chaos = Chaos::new(volumes);
        steps.into_iter().for_each(|step| chaos.take(step));
        chaos.heal();
        chaos.cluster.world.restart(true);
    }
}
