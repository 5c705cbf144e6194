//! Requests of many sessions at a real master, over QUIC and without a mount: what the master itself
//! can do, and how long it lets anybody wait.
//!
//! All callers are tasks on the thread of the first connection, so that what is measured is the master
//! and not hops between threads here; each further connection costs a thread.

mod samples;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use futures::future::join_all;
use tokio::runtime::Handle;
use vdfs_net::{Carrier, Identity, QuicConfig, QuicEndpoint, Target, rpc};
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::Role;
use vdfs_proto::meta::{
    Answer, Create, Lookup, MutateRequest, Mutated, Mutation, NewKind, Query, QueryRequest,
    SetAttr, Unlink,
};
use vdfs_proto::session::{NextEvents, OpenSession};
use vdfs_proto::{Attr, FileName, Ino, OpId, SessionId, Status, Timestamp};

pub use samples::{Latencies, Samples};

/// Longer than any wait that a test allows.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two requests of one caller of a steady stream.
const PAUSE: Duration = Duration::from_millis(1);

/// Sessions at one master.
#[derive(Debug)]
pub struct Load {
    callers: Arc<Callers>,
    /// Of the first connection's thread.
    runtime: Handle,
    _endpoints: Vec<QuicEndpoint>,
}

#[derive(Debug)]
struct Callers {
    sessions: Vec<Arc<Session>>,
    /// Numbers the names of files and directories.
    next_number: AtomicU64,
}

#[derive(Debug)]
struct Session {
    carrier: Arc<dyn Carrier>,
    id: SessionId,
    next_seq: AtomicU64,
}

/// One request at a time, on a slot of a session.
#[derive(Clone, Debug)]
struct Caller {
    session: Arc<Session>,
    slot: u16,
}

/// How much is asked at once.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    pub files: u64,
    /// Over all sessions.
    pub in_flight: usize,
    pub directory_files: u64,
}

/// What became of a [`Fill`].
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    pub files: u64,
    pub seconds: f64,
    /// The files did not all fit.
    pub is_full: bool,
}

impl Filled {
    pub fn per_second(&self) -> f64 {
        self.files as f64 / self.seconds
    }
}

impl Load {
    /// Panics if the master does not answer.
    pub fn open(master: SocketAddr, identity: &Path, sessions: usize, connections: usize) -> Load {
        let identity = Identity::load(identity).expect("an identity");
        let target = Target {
            addr: master,
            role: Role::Master,
            node: None,
        };
        let endpoint = || QuicEndpoint::dialler(&identity, QuicConfig::default());
        let endpoints: Vec<QuicEndpoint> = (0..connections)
            .map(|_| endpoint().expect("an endpoint"))
            .collect();
        let runtime = endpoints[0].runtime();
        let opened = (0..sessions).map(|number| {
            let carrier = endpoints[number % connections].connector().carrier(&target);
            let session = block_on(&runtime, Session::open(carrier, number));
            let session = Arc::new(session.expect("a session"));
            runtime.spawn(session.clone().stay_alive());
            session
        });
        let callers = Callers {
            sessions: opened.collect(),
            next_number: AtomicU64::new(0),
        };
        Load {
            callers: Arc::new(callers),
            runtime,
            _endpoints: endpoints,
        }
    }

    /// Makes empty files with names of 20 bytes, as fast as they are answered, until there are enough
    /// or there is no room.
    pub fn fill(&self, fill: Fill) -> Filled {
        let callers = self.callers.clone();
        let begin = Instant::now();
        let made = block_on(&self.runtime, async move { callers.fill(fill).await });
        Filled {
            files: made
                .iter()
                .map(|made| made.unwrap_or_else(|some| some))
                .sum(),
            seconds: begin.elapsed().as_secs_f64(),
            is_full: made.iter().any(Result::is_err),
        }
    }

    /// Sets attributes of the root so often.
    pub fn change(&self, changes: u64, in_flight: usize) {
        let callers = self.callers.of(in_flight);
        block_on(&self.runtime, async move {
            let left = AtomicU64::new(changes);
            let work = callers.iter().map(async |caller| {
                while take(&left, 1).is_some() {
                    caller.touch_root().await.expect("the root changes");
                }
            });
            join_all(work).await;
        });
    }

    /// Looks a name up that is there, as fast as it is answered; gives how often a second.
    pub fn lookups(&self, count: u64, in_flight: usize) -> f64 {
        let callers = self.callers.of(in_flight);
        let name = self.callers.numbered("f");
        let begin = Instant::now();
        block_on(&self.runtime, async move {
            let made = callers[0].create(Ino::ROOT, name.clone(), NewKind::Regular);
            made.await.expect("a file");
            let left = AtomicU64::new(count);
            let (left, name) = (&left, &name);
            let work = callers.iter().map(async |caller| {
                while take(left, 1).is_some() {
                    let found = caller.lookup(Ino::ROOT, name.clone()).await;
                    found.expect("is there");
                }
            });
            join_all(work).await;
        });
        count as f64 / begin.elapsed().as_secs_f64()
    }

    /// A steady stream of creates and lookups in turns, for as long as `goes_on`; how long each was
    /// waited for, apart for those during which `is_marked` was set.
    pub fn stream(
        &self,
        in_flight: usize,
        is_marked: &Arc<AtomicBool>,
        goes_on: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Samples {
        let callers = self.callers.clone();
        let is_marked = is_marked.clone();
        let all = block_on(&self.runtime, async move {
            let each = callers.of(in_flight);
            let (is_marked, goes_on) = (&*is_marked, &goes_on);
            let work = each
                .iter()
                .map(|caller| callers.stream(caller, is_marked, goes_on));
            join_all(work).await
        });
        all.into_iter().fold(Samples::default(), Samples::joined)
    }

    /// Removes what is in the directories that `fill` made; gives how many names went.
    pub fn empty(&self, in_flight: usize) -> u64 {
        let callers = self.callers.of(in_flight);
        block_on(&self.runtime, async move {
            let directories = callers[0].list(Ino::ROOT).await;
            let work = callers.iter().enumerate().map(|(first, caller)| {
                let own = directories.iter().skip(first).step_by(callers.len());
                empty_each(caller, own.copied().collect())
            });
            join_all(work).await.into_iter().sum()
        })
    }
}

/// Runs `work` on the network's thread.
fn block_on<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    let (done, outcome) = mpsc::channel();
    runtime.spawn(async move { drop(done.send(work.await)) });
    outcome.recv().expect("what was asked is answered")
}

impl Callers {
    /// For each caller how many files it made; as an error if there is no room for more.
    async fn fill(&self, fill: Fill) -> Vec<Result<u64, u64>> {
        let left = AtomicU64::new(fill.files);
        let callers = self.of(fill.in_flight);
        let made = callers
            .iter()
            .map(|caller| self.fill_directories(caller, &left, fill.directory_files));
        join_all(made).await
    }

    async fn fill_directories(
        &self,
        caller: &Caller,
        left: &AtomicU64,
        directory_files: u64,
    ) -> Result<u64, u64> {
        let mut made = 0;
        while let Some(files) = take(left, directory_files) {
            let directory = self.numbered("d");
            let directory = caller.create(Ino::ROOT, directory, NewKind::Directory);
            let directory = directory.await.map_err(|status| full(status, made))?.ino;
            for _ in 0..files {
                let file = caller.create(directory, self.numbered("f"), NewKind::Regular);
                file.await.map_err(|status| full(status, made))?;
                made += 1;
            }
        }
        Ok(made)
    }

    async fn stream(
        &self,
        caller: &Caller,
        is_marked: &AtomicBool,
        goes_on: &(impl Fn() -> bool + Sync),
    ) -> Samples {
        let mut samples = Samples::default();
        let directory = caller.create(Ino::ROOT, self.numbered("d"), NewKind::Directory);
        let directory = directory.await.expect("a directory").ino;
        while goes_on() {
            let name = self.numbered("f");
            let create = caller.create(directory, name.clone(), NewKind::Regular);
            samples.time(is_marked, create).await.expect("a file");
            let lookup = caller.lookup(directory, name);
            samples.time(is_marked, lookup).await.expect("is there");
            tokio::time::sleep(PAUSE).await;
        }
        samples
    }

    fn of(&self, in_flight: usize) -> Vec<Caller> {
        let sessions = self.sessions.len();
        let caller = |index: usize| Caller {
            session: self.sessions[index % sessions].clone(),
            slot: (index / sessions) as u16,
        };
        (0..in_flight).map(caller).collect()
    }

    /// A name of 20 bytes that nobody else has.
    fn numbered(&self, prefix: &str) -> FileName {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let text = format!("{prefix}{number:019}");
        FileName::new(text.as_bytes()).expect("a good name")
    }
}

async fn empty_each(caller: &Caller, directories: Vec<Ino>) -> u64 {
    let mut removed = 0;
    for directory in directories {
        loop {
            let names = caller.names(directory).await;
            if names.is_empty() {
                break;
            }
            for name in names {
                let gone = caller.unlink(directory, name).await;
                gone.expect("what is full can be emptied");
                removed += 1;
            }
        }
    }
    removed
}

/// Takes at most `most` of what is left.
fn take(left: &AtomicU64, most: u64) -> Option<u64> {
    let rest = |left: u64| (left > 0).then(|| left.saturating_sub(most));
    let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
    before.ok().map(|before| before.min(most))
}

fn full(status: Status, made: u64) -> u64 {
    assert_eq!(status, Status::NoSpace, "the only refusal that is meant");
    made
}

impl Session {
    async fn open(carrier: Arc<dyn Carrier>, number: usize) -> Result<Session, Status> {
        let open = OpenSession {
            identity: format!("load-{number}-{}", std::process::id()),
            after: None,
            host: "load".to_owned(),
            mount: number.to_string(),
        };
        let opened = rpc::call_operation(&*carrier, Method::Session, open, DEADLINE).await?;
        Ok(Session {
            carrier,
            id: opened.session,
            next_seq: AtomicU64::new(1),
        })
    }

    /// Waits for events, as every client does.
    async fn stay_alive(self: Arc<Self>) {
        let mut seen = 0;
        loop {
            let next = NextEvents {
                session: self.id,
                seen,
                wall: Timestamp::from_system(SystemTime::now()),
            };
            let events = rpc::call_operation(&*self.carrier, Method::Session, next, DEADLINE).await;
            let Ok(events) = events else { return };
            seen = events.events.last().map_or(seen, |(number, _)| *number);
        }
    }
}

impl Caller {
    async fn mutate(&self, mutation: Mutation) -> Result<Mutated, Status> {
        let op = OpId {
            session: self.session.id,
            slot: self.slot,
            seq: self.session.next_seq.fetch_add(1, Ordering::Relaxed),
        };
        let request = MutateRequest { op, mutation };
        rpc::call(&*self.session.carrier, Method::Mutate, &request, DEADLINE).await
    }

    async fn query(&self, query: Query) -> Result<Answer, Status> {
        let request = QueryRequest {
            session: self.session.id,
            query,
        };
        rpc::call(&*self.session.carrier, Method::Query, &request, DEADLINE).await
    }

    async fn create(&self, parent: Ino, name: FileName, kind: NewKind) -> Result<Attr, Status> {
        let create = Mutation::Create(Create {
            parent,
            name,
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            umask: 0,
            open: None,
            exclusive: true,
        });
        match self.mutate(create).await? {
            Mutated::Create(created) => Ok(created.attr),
            other => panic!("a create is answered {other:?}"),
        }
    }

    async fn lookup(&self, parent: Ino, name: FileName) -> Result<(), Status> {
        let lookup = Query::Lookup(Lookup { parent, name });
        self.query(lookup).await.map(drop)
    }

    async fn unlink(&self, parent: Ino, name: FileName) -> Result<(), Status> {
        let unlink = Mutation::Unlink(Unlink { parent, name });
        self.mutate(unlink).await.map(drop)
    }

    async fn touch_root(&self) -> Result<(), Status> {
        let set = Mutation::SetAttr(SetAttr {
            ino: Ino::ROOT,
            mode: Some(0o755),
            uid: None,
            gid: None,
            atime: None,
            mtime: None,
            kill_privileges: false,
        });
        self.mutate(set).await.map(drop)
    }

    /// Everything in a directory.
    async fn list(&self, directory: Ino) -> Vec<Ino> {
        let mut all = Vec::new();
        let mut cookie = 0;
        loop {
            let listing = self.read_dir(directory, cookie).await;
            cookie = listing.entries.last().map_or(cookie, |last| last.cookie);
            all.extend(listing.entries.iter().map(|entry| entry.ino));
            if listing.at_end {
                return all;
            }
        }
    }

    /// Some names of a directory; none if it is empty.
    async fn names(&self, directory: Ino) -> Vec<FileName> {
        let listing = self.read_dir(directory, 0).await;
        listing
            .entries
            .into_iter()
            .map(|entry| entry.name)
            .collect()
    }

    async fn read_dir(&self, ino: Ino, cookie: u64) -> vdfs_proto::meta::Listing {
        let read = vdfs_proto::meta::ReadDir {
            ino,
            cookie,
            entries_max: 1024,
            with_attrs: false,
            marks_access: false,
        };
        match self.query(Query::ReadDir(read)).await {
            Ok(Answer::ReadDir(listing)) => listing,
            other => panic!("a listing is answered {other:?}"),
        }
    }
}
