//! A command's session: begun at the master, ended with everything flushed.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::timeout;
use vdfs_client::{Caller, ClientConfig, Fs, NoKernelCache};
use vdfs_net::host::Host;
use vdfs_proto::Status;

use crate::args::ClusterArgs;
use crate::cluster::{Cluster, Line, MASTER_WAIT};
use vdfs_program::{Blame, Failure};

/// How long a command that is done waits for its last bytes and the end of its session.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(30);
/// Blocking reads of files, and the session's own tasks, beside the command itself.
const WORKER_THREADS: usize = 2;

/// The filesystem, as the user who runs the command.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) fs: Fs,
    pub(crate) caller: Caller,
}

/// Runs `command` in a session of its own at the cluster that `args` name.
pub(crate) fn run(
    args: &ClusterArgs,
    name: &str,
    command: impl AsyncFnOnce(&Connection) -> Result<(), Failure>,
) -> Result<(), Failure> {
    run_at(&Cluster::find(args)?, name, command)
}

pub(crate) fn run_at(
    cluster: &Cluster,
    name: &str,
    command: impl AsyncFnOnce(&Connection) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let line = Line::open(cluster)?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let connection = Connection::open(cluster, &line, name).await?;
        let outcome = command(&connection).await;
        outcome.and(connection.close().await)
    });
    line.close();
    // A read of standard input may be under way and may never end.
    runtime.shutdown_background();
    outcome
}

pub(crate) fn runtime() -> Result<Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .blame("runtime")
}

impl Connection {
    async fn open(cluster: &Cluster, line: &Line, name: &str) -> Result<Connection, Failure> {
        let config = ClientConfig {
            identity: format!("{name}-{:032x}", rand::random::<u128>()),
            host: Host::here().blame("/proc")?.name,
            mount: format!("vdfs {name}"),
            master: cluster.targets(),
            connector: line.connector(),
            timeout: None,
            kernel_cache: Arc::new(NoKernelCache),
            read_only: false,
        };
        match timeout(MASTER_WAIT, Fs::connect(config)).await {
            Ok(Ok(fs)) => Ok(Connection {
                fs,
                caller: this_user()?,
            }),
            Ok(Err(Status::Disconnected | Status::DeadlineExceeded)) | Err(_) => {
                Err(line.unanswered(cluster))
            }
            Ok(Err(status)) => Err(Failure::new(
                format!("master {}", cluster.masters_text()),
                status,
            )),
        }
    }

    async fn close(self) -> Result<(), Failure> {
        self.fs
            .shutdown(SHUTDOWN_WAIT)
            .await
            .blame("end of the session")
    }
}

fn this_user() -> Result<Caller, Failure> {
    let groups = rustix::process::getgroups().blame("supplementary groups")?;
    Ok(Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        groups: groups
            .into_iter()
            .map(rustix::process::Gid::as_raw)
            .collect(),
    })
}
