//! The master as its callers meet it, on a disk that can lose, fill up and fail.

use std::pin::pin;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::runtime::Runtime;
use vdfs_net::in_process::Switchboard;
use vdfs_net::{Carrier, Connector, PeerIdentity, Target, rpc};
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::Role;
use vdfs_proto::limits::{HEARTBEAT_MS, VOLUME_LEASE_MS};
use vdfs_proto::meta::{
    Answer, Create, Created, GetStatus, GetXattr, Lookup, MutateRequest, Mutated, Mutation,
    NewKind, Query, QueryRequest, SetXattr, StatusReport, SyncLog, XattrMode,
};
use vdfs_proto::session::{NextEvents, OpenSession};
use vdfs_proto::volume::{Heartbeat, Register};
use vdfs_proto::{
    Attr, ChunkSize, ClusterId, DataId, FileName, Ino, OpId, SessionId, Status, StoreId, Timestamp,
    VolumeId, XattrName,
};

use super::*;
use crate::checkpoint;
use crate::disk::fake::FakeDisk;

const DEADLINE: Duration = Duration::from_secs(20);

fn config() -> MasterConfig {
    let format = FsConfig {
        cluster: ClusterId(5),
        chunk_size: ChunkSize::DEFAULT,
        replicas: Some(1),
        hash_key: [3; 16],
        root_uid: 0,
        root_gid: 0,
        files_max: 1_000_000,
    };
    MasterConfig {
        log_dir: PathBuf::from("/fake"),
        format,
        sync_log: false,
        checkpoint_log_bytes: None,
        ram_bytes: None,
        before_abort: None,
    }
}

fn start_with(disk: &FakeDisk, config: MasterConfig, boot: &str) -> Result<Master, MasterError> {
    Master::start_on(Arc::new(disk.clone()), config, boot.to_owned())
}

fn start(disk: &FakeDisk) -> Master {
    start_with(disk, config(), "boot").expect("starts")
}

/// One session, as a mount has it.
struct Client {
    runtime: Runtime,
    carrier: Arc<dyn Carrier>,
    session: SessionId,
    seq: u64,
}

fn carrier(master: &Master) -> Arc<dyn Carrier> {
    carrier_of(master, Role::Client, "c")
}

fn carrier_of(master: &Master, role: Role, node: &str) -> Arc<dyn Carrier> {
    let switchboard = Switchboard::default();
    switchboard.attach(Role::Master, "m", master.service());
    let identity = PeerIdentity {
        cluster: ClusterId(5),
        role,
        node: node.to_owned(),
        addr: None,
        same_host: true,
        certificate_ends: None,
    };
    let addr = "127.0.0.1:1".parse().expect("an address");
    let target = Target {
        addr,
        role: Role::Master,
        node: None,
    };
    switchboard.connector(identity).carrier(&target)
}

impl Client {
    fn open(master: &Master, identity: &str) -> Client {
        let mut client = Client::resume(master, SessionId(0), 0);
        let open = OpenSession {
            identity: identity.to_owned(),
            after: None,
            host: "h".to_owned(),
            mount: "/mnt".to_owned(),
        };
        let carrier = client.carrier.clone();
        let opened = rpc::call_operation(&*carrier, Method::Session, open, DEADLINE);
        client.session = client.runtime.block_on(opened).expect("opens").session;
        client
    }

    fn resume(master: &Master, session: SessionId, seq: u64) -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = runtime.expect("a runtime");
        Client {
            runtime,
            carrier: carrier(master),
            session,
            seq,
        }
    }

    /// The request of the next op id.
    fn mutation(&mut self, mutation: Mutation) -> MutateRequest {
        self.seq += 1;
        let op = OpId {
            session: self.session,
            slot: 0,
            seq: self.seq,
        };
        MutateRequest { op, mutation }
    }

    fn send(&self, request: &MutateRequest, deadline: Duration) -> Result<Mutated, Status> {
        self.runtime
            .block_on(rpc::call(&*self.carrier, Method::Mutate, request, deadline))
    }

    fn mutate(&mut self, mutation: Mutation) -> Result<Mutated, Status> {
        let request = self.mutation(mutation);
        self.send(&request, DEADLINE)
    }

    fn mkdir(&mut self, name: &str) -> Result<Mutated, Status> {
        self.mutate(mkdir(name))
    }

    fn query(&self, query: Query) -> Result<Answer, Status> {
        let request = QueryRequest {
            session: self.session,
            query,
        };
        self.runtime
            .block_on(rpc::call(&*self.carrier, Method::Query, &request, DEADLINE))
    }

    fn lookup(&self, name: &str) -> Result<Attr, Status> {
        match self.query(Query::Lookup(Lookup {
            parent: Ino::ROOT,
            name: file_name(name),
        }))? {
            Answer::Lookup(attr) => Ok(attr),
            other => panic!("{other:?}"),
        }
    }

    fn sync(&self) {
        self.query(Query::SyncLog(SyncLog {})).expect("syncs");
    }
}

fn file_name(name: &str) -> FileName {
    FileName::new(name.as_bytes()).expect("a good name")
}

fn mkdir(name: &str) -> Mutation {
    Mutation::Create(Create {
        parent: Ino::ROOT,
        name: file_name(name),
        kind: NewKind::Directory,
        mode: 0o755,
        umask: 0,
        uid: 0,
        gid: 0,
        open: None,
        exclusive: true,
    })
}

fn set_xattr(bytes: usize, fill: u8) -> Mutation {
    Mutation::SetXattr(SetXattr {
        ino: Ino::ROOT,
        name: XattrName::new(b"user.big").expect("a good name"),
        value: vec![fill; bytes],
        mode: XattrMode::Set,
    })
}

/// Tries until it works, within the deadline.
fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(Instant::now() < until, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn master_killed_and_restarted_has_every_acknowledged_change() {
    let disk = FakeDisk::default();
    for round in 0..3 {
        let master = start(&disk);
        assert_eq!(master.is_new(), round == 0);
        let mut client = Client::open(&master, "a");
        for number in 0..50 {
            client.mkdir(&format!("{round}-{number}")).expect("made");
        }
        drop(master);
        let master = start(&disk);
        let client = Client::open(&master, "b");
        for number in 0..50 {
            client
                .lookup(&format!("{round}-{number}"))
                .expect("acknowledged");
        }
    }
}

#[test]
fn master_restarted_answers_a_retry_with_the_first_reply() {
    let disk = FakeDisk::default();
    let master = start(&disk);
    let mut client = Client::open(&master, "a");
    let request = client.mutation(mkdir("once"));
    let first = client.send(&request, DEADLINE).expect("made");
    assert!(matches!(
        &first,
        Mutated::Create(Created { is_new: true, .. })
    ));
    drop(master);
    let master = start(&disk);
    let client = Client::resume(&master, client.session, client.seq);
    assert_eq!(client.send(&request, DEADLINE), Ok(first));
}

#[test]
fn master_after_a_crash_of_the_machine_has_what_was_synced_and_ends_the_sessions() {
    let disk = FakeDisk::default();
    let master = start(&disk);
    let mut client = Client::open(&master, "a");
    client.mkdir("synced").expect("made");
    client.sync();
    let crashed = disk.state().crash(|_| false, 0);
    let rebooted = start_with(&crashed, config(), "another boot").expect("starts");
    Client::open(&rebooted, "b")
        .lookup("synced")
        .expect("synced");
    let before = Client::resume(&rebooted, client.session, client.seq);
    assert_eq!(before.lookup("synced"), Err(Status::SessionExpired));
}

#[test]
fn master_with_sync_log_acknowledges_only_what_is_on_the_disk() {
    let disk = FakeDisk::default();
    let synced = MasterConfig {
        sync_log: true,
        ..config()
    };
    let master = start_with(&disk, synced.clone(), "boot").expect("starts");
    let mut client = Client::open(&master, "a");
    for number in 0..5 {
        client.mkdir(&number.to_string()).expect("made");
        let crashed = disk.state().crash(|_| false, 0);
        let rebooted = start_with(&crashed, synced.clone(), "another boot").expect("starts");
        let same = Client::resume(&rebooted, client.session, client.seq);
        same.lookup(&number.to_string())
            .expect("the session and the name are still there");
    }
}

#[test]
fn master_with_sync_log_acknowledges_nothing_while_the_disk_does_not_sync() {
    let disk = FakeDisk::default();
    let synced = MasterConfig {
        sync_log: true,
        ..config()
    };
    let master = start_with(&disk, synced, "boot").expect("starts");
    let mut client = Client::open(&master, "a");
    disk.set_holds_log_syncs(true);
    let request = client.mutation(mkdir("x"));
    let early = client.send(&request, Duration::from_millis(200));
    assert_eq!(early, Err(Status::DeadlineExceeded));
    disk.set_holds_log_syncs(false);
    assert!(matches!(
        client.send(&request, DEADLINE),
        Ok(Mutated::Create(_))
    ));
}

#[test]
fn master_without_room_refuses_changes_serves_reads_and_goes_on_when_there_is_room() {
    let disk = FakeDisk::default();
    disk.set_room(Some(TURN_BYTES_MAX + 8192));
    let master = start(&disk);
    let mut client = Client::open(&master, "a");
    client.mkdir("before").expect("there is room");
    let refused = eventually("full", || client.mutate(set_xattr(1000, 1)).err());
    assert_eq!(refused, Status::NoSpace);
    assert_eq!(client.mkdir("refused"), Err(Status::NoSpace));
    client.lookup("before").expect("reads are served");
    assert_eq!(client.lookup("refused"), Err(Status::NotFound));
    drop(master);
    let master = start(&disk);
    let mut client = Client::resume(&master, client.session, client.seq);
    client
        .lookup("before")
        .expect("reads are served after a restart, too");
    assert_eq!(client.mkdir("refused"), Err(Status::NoSpace));
    disk.set_room(None);
    eventually("room", || client.mkdir("after").ok());
    drop(master);
    let master = start(&disk);
    let client = Client::open(&master, "b");
    client.lookup("after").expect("acknowledged");
    assert_eq!(client.lookup("refused"), Err(Status::NotFound));
}

#[test]
fn master_that_loses_its_reserved_room_waits_and_acknowledges_when_it_is_back() {
    let disk = FakeDisk::default();
    let master = start(&disk);
    let mut client = Client::open(&master, "a");
    disk.set_room(Some(20));
    let request = client.mutation(mkdir("late"));
    let early = client.send(&request, Duration::from_millis(300));
    assert_eq!(
        early,
        Err(Status::DeadlineExceeded),
        "nothing is acknowledged unwritten"
    );
    let trouble = status(&master).log_trouble.expect("the status is answered");
    assert!(
        !trouble.serves_reads && trouble.why.contains("no room"),
        "{trouble:?}"
    );
    disk.set_room(None);
    let attempt = || client.send(&request, Duration::from_secs(1)).ok();
    assert!(matches!(eventually("room", attempt), Mutated::Create(_)));
    assert_eq!(status(&master).log_trouble, None);
}

fn status(master: &Master) -> StatusReport {
    let carrier = carrier_of(master, Role::Admin, "admin");
    let call = rpc::call_operation(&*carrier, Method::Admin, GetStatus {}, DEADLINE);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let report = runtime.expect("a runtime").block_on(call);
    *report.expect("answered")
}

#[test]
fn master_stopped_while_it_waits_for_room_ends() {
    let disk = FakeDisk::default();
    let master = start(&disk);
    let mut client = Client::open(&master, "a");
    client.sync();
    disk.set_room(Some(20));
    let request = client.mutation(mkdir("never"));
    assert!(client.send(&request, Duration::from_millis(200)).is_err());
    master.stop();
    disk.set_room(None);
    let master = start(&disk);
    let client = Client::open(&master, "b");
    assert_eq!(client.lookup("never"), Err(Status::NotFound));
}

#[test]
fn master_started_on_a_full_disk_says_so_and_goes_on_when_there_is_room() {
    let disk = FakeDisk::default();
    let master = start(&disk);
    let mut client = Client::open(&master, "a");
    client.mkdir("before").expect("there is room");
    drop(master);
    disk.set_room(Some(20));
    for boot in ["boot", "another boot"] {
        let master = start_with(&disk, config(), boot).expect("starts");
        let trouble = status(&master).log_trouble.expect("the status is answered");
        assert!(trouble.why.contains("no room"), "{trouble:?}");
        assert!(!trouble.serves_reads, "its start may be lost again");
    }
    let master = start(&disk);
    disk.set_room(None);
    eventually("room", || {
        status(&master).log_trouble.is_none().then_some(())
    });
    let client = Client::resume(&master, client.session, client.seq);
    client.lookup("before").expect("it is there");
}

#[test]
fn filesystem_is_not_made_on_a_full_disk() {
    let disk = FakeDisk::default();
    disk.set_room(Some(100_000));
    let error = start_with(&disk, config(), "boot").expect_err("no room");
    assert!(matches!(error, MasterError::NoRoom(_)), "{error}");
    assert!(error.to_string().contains("no room on the disk"), "{error}");
}

fn small_checkpoints() -> MasterConfig {
    MasterConfig {
        checkpoint_log_bytes: Some(2 * TURN_BYTES_MAX),
        ..config()
    }
}

/// Logs enough for `count` checkpoints, each of which is waited for.
fn write_checkpoints(disk: &FakeDisk, client: &mut Client, count: u8) {
    for number in 0..count {
        let before = checkpoint::list(disk).expect("lists").first().copied();
        let written = || {
            client.mutate(set_xattr(60_000, number)).expect("set");
            let newest = checkpoint::list(disk).expect("lists").first().copied();
            (newest > before).then_some(())
        };
        eventually("a checkpoint", written);
    }
}

#[test]
fn checkpoint_does_not_count_before_the_log_on_the_disk_has_reached_it() {
    let disk = FakeDisk::default();
    let master = start_with(&disk, small_checkpoints(), "boot").expect("starts");
    let mut client = Client::open(&master, "a");
    disk.set_holds_log_syncs(true);
    eventually("a checkpoint in the making", || {
        client.mutate(set_xattr(60_000, 1)).expect("set");
        disk.open("checkpoint.tmp").ok()
    });
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        client.lookup("none").expect_err("time passes");
        assert_eq!(checkpoint::list(&disk).expect("lists"), Vec::<u64>::new());
    }
    disk.set_holds_log_syncs(false);
    let newest = || checkpoint::list(&disk).expect("lists").first().copied();
    eventually("a checkpoint", newest);
}

fn log_segments(disk: &FakeDisk) -> usize {
    disk.names()
        .expect("lists")
        .iter()
        .filter(|name| name.starts_with("wal-"))
        .count()
}

fn checkpoint_names(disk: &FakeDisk) -> Vec<String> {
    let list = checkpoint::list(disk).expect("lists");
    list.iter()
        .map(|records| format!("checkpoint-{records:020}"))
        .collect()
}

#[test]
fn master_restarts_from_a_checkpoint_and_the_log_behind_it() {
    let disk = FakeDisk::default();
    let master = start_with(&disk, small_checkpoints(), "boot").expect("starts");
    let mut client = Client::open(&master, "a");
    client.mkdir("old").expect("made");
    write_checkpoints(&disk, &mut client, 4);
    client.mkdir("new").expect("made");
    eventually("a purge", || {
        (checkpoint_names(&disk).len() == 2).then_some(())
    });
    eventually("a purge", || (log_segments(&disk) <= 3).then_some(()));
    drop(master);
    assert!(
        disk.open("wal-00000000000000000001").is_err(),
        "the first segment is purged"
    );
    let master = start_with(&disk, small_checkpoints(), "boot").expect("starts");
    let client = Client::resume(&master, client.session, client.seq);
    client.lookup("old").expect("from the checkpoint");
    client.lookup("new").expect("from the log");
    let name = XattrName::new(b"user.big").expect("a good name");
    match client.query(Query::GetXattr(GetXattr {
        ino: Ino::ROOT,
        name,
    })) {
        Ok(Answer::GetXattr(value)) => assert_eq!(value, [3; 60_000]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn master_with_a_damaged_checkpoint_takes_the_older_one_and_without_any_refuses() {
    let disk = FakeDisk::default();
    let master = start_with(&disk, small_checkpoints(), "boot").expect("starts");
    let mut client = Client::open(&master, "a");
    write_checkpoints(&disk, &mut client, 3);
    client.mkdir("new").expect("made");
    eventually("a purge", || {
        (checkpoint_names(&disk).len() == 2).then_some(())
    });
    drop(master);
    let newest = checkpoint_names(&disk)[0].clone();
    disk.damage(&newest, |bytes| *bytes.last_mut().expect("not empty") ^= 1);
    let master = start_with(&disk, small_checkpoints(), "boot").expect("the older one is good");
    Client::open(&master, "b")
        .lookup("new")
        .expect("from the log");
    drop(master);
    assert!(
        disk.open(&newest).is_err(),
        "it does not count as a generation any more"
    );
    disk.open(&format!("{newest}.damaged"))
        .expect("it is set aside");
    let left = checkpoint_names(&disk);
    left.iter()
        .for_each(|name| disk.damage(name, |bytes| bytes.truncate(100)));
    let error = start_with(&disk, small_checkpoints(), "boot").expect_err("no checkpoint");
    assert!(matches!(error, MasterError::NoCheckpoint(_)), "{error}");
    assert!(
        left.iter().any(|name| error.to_string().contains(name)),
        "{error}"
    );
}

#[test]
fn master_stopped_cleanly_leaves_a_checkpoint_if_the_log_is_long() {
    let disk = FakeDisk::default();
    let master = start(&disk);
    let mut client = Client::open(&master, "a");
    client.mkdir("short").expect("made");
    master.stop();
    assert_eq!(checkpoint_names(&disk).len(), 0);
    let master = start(&disk);
    let mut client = Client::open(&master, "b");
    for _ in 0..20 {
        client.mutate(set_xattr(60_000, 1)).expect("set");
    }
    master.stop();
    assert_eq!(checkpoint_names(&disk).len(), 1);
    assert_eq!(client.lookup("short"), Err(Status::ShuttingDown));
    let crashed = disk.state().crash(|_| false, 0);
    let master = start(&crashed);
    Client::open(&master, "c")
        .lookup("short")
        .expect("everything is on the disk");
}

#[test]
fn master_stopped_answers_those_who_wait_for_the_disk() {
    let disk = FakeDisk::default();
    let master = start(&disk);
    let client = Client::open(&master, "a");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.query(Query::SyncLog(SyncLog {})));
        eventually("it arrives", || {
            master.metrics().snapshot().get("OpenSession").copied()
        });
        master.stop();
        let outcome = waiting.join().expect("no panic");
        assert!(matches!(
            outcome,
            Ok(Answer::SyncLog(())) | Err(Status::ShuttingDown)
        ));
    });
}

#[test]
fn master_with_a_damaged_log_refuses_and_names_file_and_offset() {
    let disk = FakeDisk::default();
    let master = start(&disk);
    let mut client = Client::open(&master, "a");
    client.mkdir("x").expect("made");
    master.stop();
    let name = "wal-00000000000000000001";
    disk.damage(name, |bytes| bytes[60] ^= 4);
    let error = start_with(&disk, config(), "boot")
        .expect_err("damaged")
        .to_string();
    assert!(
        error.contains(name) && error.contains("offset 0:"),
        "{error}"
    );
    disk.damage(name, |bytes| {
        bytes[60] ^= 4;
        bytes.truncate(bytes.len() - 3);
    });
    let error = start_with(&disk, config(), "boot")
        .expect_err("truncated")
        .to_string();
    assert!(
        error.contains(name) && error.contains("truncated"),
        "{error}"
    );
    assert!(error.contains("copy"), "a way out: {error}");
}

#[test]
fn master_whose_disk_fails_to_sync_ends_the_process() {
    let disk = FakeDisk::default();
    let (master, tells) = start_mortal(&disk, config());
    let mut client = Client::open(&master, "a");
    disk.set_fails_sync(true);
    client.mkdir("x").expect("written, not synced");
    let why = tells.recv_timeout(DEADLINE).expect("in time");
    assert!(why.contains("cannot be synced"), "{why}");
    std::mem::forget(master);
}

/// A master that says why it would end the process, and never comes back from that.
fn start_mortal(disk: &FakeDisk, config: MasterConfig) -> (Master, mpsc::Receiver<String>) {
    let (told, tells) = mpsc::channel();
    let hook = AbortHook(Arc::new(move |why| {
        told.send(why.to_owned()).expect("the test listens");
        loop {
            std::thread::park();
        }
    }));
    let config = MasterConfig {
        before_abort: Some(hook),
        ..config
    };
    (start_with(disk, config, "boot").expect("starts"), tells)
}

#[test]
fn master_whose_directory_fails_to_sync_under_a_checkpoint_ends_the_process() {
    let disk = FakeDisk::default();
    let (master, tells) = start_mortal(&disk, small_checkpoints());
    let mut client = Client::open(&master, "a");
    disk.set_fails_rename_syncs(true);
    let told = || {
        // Until the log is long enough for a checkpoint.
        let request = client.mutation(set_xattr(60_000, 1));
        client.send(&request, Duration::from_secs(1)).ok();
        tells.try_recv().ok()
    };
    let why = eventually("the end", told);
    assert!(why.contains("cannot be synced"), "{why}");
    std::mem::forget(master);
}

#[test]
fn master_killed_at_any_acknowledgement_has_what_was_acknowledged() {
    const CALLERS: usize = 4;
    const CHANGES: usize = 12;
    let disk = FakeDisk::default();
    let master = start(&disk);
    disk.set_write_time(Duration::from_millis(2));
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (master, disk) = (&master, &disk);
            scope.spawn(move || {
                let mut client = Client::open(master, &caller.to_string());
                for number in 0..CHANGES {
                    let name = format!("{caller}-{number}");
                    client.mkdir(&name).expect("made");
                    let state = disk.state();
                    let killed = state.crash(|_| true, state.unsynced_names());
                    let killed: Arc<dyn Disk> = Arc::new(killed);
                    let restored =
                        restore::restore(&killed, &config().format, 64 << 20, keeper::now());
                    let core = restored.expect("nothing is torn").core;
                    let is_there = core.dump().contains(&format!("{:?}", file_name(&name)));
                    assert!(is_there, "{name} was acknowledged and not written");
                }
            });
        }
    });
}

#[test]
fn master_counts_operations_and_their_errors() {
    let disk = FakeDisk::default();
    let master = start(&disk);
    let mut client = Client::open(&master, "a");
    client.mkdir("x").expect("made");
    assert_eq!(client.mkdir("x"), Err(Status::Exists));
    let counts = master.metrics().snapshot();
    assert_eq!((counts["Create"].count, counts["Create"].errors), (2, 1));
    assert_eq!(counts["OpenSession"].count, 1);
}

#[test]
fn master_forgets_a_caller_that_has_gone() {
    let disk = FakeDisk::default();
    let master = start(&disk);
    let client = Client::open(&master, "a");
    let next = NextEvents {
        session: client.session,
        seen: 0,
        wall: Timestamp::default(),
    };
    for _ in 0..20 {
        let call = rpc::call_operation(
            &*client.carrier,
            Method::Session,
            next.clone(),
            Duration::from_millis(10),
        );
        let outcome = client.runtime.block_on(call);
        assert_eq!(outcome.expect_err("parked"), Status::DeadlineExceeded);
    }
    assert_eq!(master.inbox.waiting(), 0);
    client.lookup("none").expect_err("it still serves");
}

#[test]
fn master_that_is_free_answers_on_the_thread_of_the_caller() {
    let disk = FakeDisk::default();
    let master = start(&disk);
    let mut client = Client::open(&master, "a");
    // The master's own thread has a turn now and then.
    let is_at_once = (0..100).any(|number| {
        let request = client.mutation(mkdir(&number.to_string()));
        let _inside = client.runtime.enter();
        let mut called = pin!(rpc::call(
            &*client.carrier,
            Method::Mutate,
            &request,
            DEADLINE
        ));
        let at_once: Option<Result<Mutated, Status>> = called.as_mut().now_or_never();
        let is_at_once = at_once.is_some();
        let answer = at_once.unwrap_or_else(|| client.runtime.block_on(called));
        answer.expect("made");
        is_at_once
    });
    assert!(is_at_once, "each answer waited for another thread");
}

#[test]
fn master_on_a_real_directory_serves_many_callers_and_restarts() {
    const CALLERS: usize = 8;
    const CHANGES: usize = 500;
    let dir = tempfile::tempdir().expect("a directory");
    let config = MasterConfig {
        log_dir: dir.path().join("log"),
        ..config()
    };
    let master = Master::start(config.clone()).expect("starts");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let master = &master;
            scope.spawn(move || {
                let mut client = Client::open(master, &caller.to_string());
                for number in 0..CHANGES {
                    client.mkdir(&format!("{caller}-{number}")).expect("made");
                }
            });
        }
    });
    let rate = (CALLERS * CHANGES) as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} mkdir/s from {CALLERS} callers");
    drop(master);
    let master = Master::start(config).expect("starts again");
    let client = Client::open(&master, "z");
    for caller in 0..CALLERS {
        client
            .lookup(&format!("{caller}-{}", CHANGES - 1))
            .expect("acknowledged");
    }
}

/// A volume that does nothing but live.
struct QuietVolume {
    runtime: Runtime,
    carrier: Arc<dyn Carrier>,
    volume: VolumeId,
    registration: u64,
}

impl QuietVolume {
    fn register(master: &Master) -> QuietVolume {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = runtime.expect("a runtime");
        let carrier = carrier_of(master, Role::Volume, "v");
        let register = Register {
            name: "v".to_owned(),
            host: "h".to_owned(),
            addr: "127.0.0.1:7401".parse().expect("an address"),
            store: StoreId(1),
            incarnation: 1,
            capacity_bytes: 1 << 30,
            used_bytes: 0,
            data_id_max: DataId(0),
        };
        let registered = rpc::call_operation(&*carrier, Method::Volume, register, DEADLINE);
        let registered = runtime.block_on(registered).expect("registered");
        QuietVolume {
            runtime,
            carrier,
            volume: registered.volume,
            registration: registered.registration,
        }
    }

    fn beat(&self, deadline: Duration) -> Result<(), Status> {
        let heartbeat = Heartbeat {
            volume: self.volume,
            registration: self.registration,
            capacity_bytes: 1 << 30,
            used_bytes: 0,
        };
        let ack = rpc::call_operation(&*self.carrier, Method::Volume, heartbeat, deadline);
        self.runtime.block_on(ack).map(drop)
    }
}

#[test]
fn disk_that_blocks_a_write_for_two_leases_costs_no_volume_its_lease() {
    let disk = FakeDisk::default();
    let master = start(&disk);
    let volume = QuietVolume::register(&master);
    let mut client = Client::open(&master, "a");
    disk.set_holds_writes(true);
    let blocked = std::thread::spawn(move || client.mkdir("made-late"));
    let end = Instant::now() + 2 * Duration::from_millis(VOLUME_LEASE_MS);
    while Instant::now() < end {
        volume
            .beat(Duration::from_millis(VOLUME_LEASE_MS / 2))
            .expect("answered from memory");
        std::thread::sleep(Duration::from_millis(HEARTBEAT_MS));
    }
    assert!(!blocked.is_finished(), "the disk did not block");
    disk.set_holds_writes(false);
    blocked.join().expect("ran").expect("made");
    // The core has looked at everybody's silence meanwhile.
    let other = Client::open(&master, "b");
    other.lookup("made-late").expect("is there");
    volume.beat(DEADLINE).expect("not away");
    master.stop();
}
