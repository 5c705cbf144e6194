//! From the arguments to a mount that stands, and to its end.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tracing::{info, warn};
use vdfs_client::{ClientConfig, Fs};
use vdfs_net::host::Host;
use vdfs_net::{Identity, QuicConfig, QuicEndpoint, Target};
use vdfs_program::{LogLevel, LogTarget, StopSignals, human, logs, notify, say_ready};
use vdfs_proto::Status;

use crate::kernel_notifier::KernelNotifier;
use crate::mount::{Mount, MountOptions, Unmounted, become_io_flusher, prepare_mountpoint};
use crate::program::arguments::Arguments;
use crate::program::options::Options;
use crate::program::{Failure, background};

/// How long a stop may take, unmounting and flushing together.
const STOP_MAX: Duration = Duration::from_secs(9);
/// The part of it that programs get to let go of the mount.
const UNMOUNT_MAX: Duration = Duration::from_secs(3);
/// How long a mount waits for its first word from a master, if no `timeout` says otherwise: it may
/// be starting as well.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// Between two looks at whether the masters refuse this client.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long peers get to hear that this end closes.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Serves until the mount ends or a signal asks for it.
pub(super) fn serve(
    arguments: &Arguments,
    options: Options,
    masters: Vec<Target>,
) -> Result<(), Failure> {
    // Before the directory changes under relative paths.
    let dir = std::path::absolute(&arguments.dir)
        .map_err(|error| Failure::at(arguments.dir.display(), error))?;
    let options = with_absolute_paths(options)?;
    start_logs(arguments, &options)?;
    if arguments.background_child {
        background::begin().map_err(|error| Failure::at("background", error))?;
    }
    become_io_flusher();
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::at("runtime", error))?;
    let served = Served::start(&runtime, &arguments.source, options, dir, masters)?;
    detach_on_panic(&served.mount);
    // Whoever has read the line may ask for the end at once.
    let signals = runtime.block_on(async { StopSignals::watch() })?;
    tell_ready(arguments, &runtime.block_on(served.ready_line())?)?;
    let ended = runtime.block_on(served.wait_for_end(signals));
    let stopped = served.stop(&runtime);
    runtime.shutdown_background();
    ended.and(stopped)
}

fn with_absolute_paths(options: Options) -> Result<Options, Failure> {
    let absolute = |path: &Path| -> Result<PathBuf, Failure> {
        std::path::absolute(path).map_err(|error| Failure::at(path.display(), error))
    };
    let identity = options.identity.as_deref().map(absolute).transpose()?;
    let log = options.log.as_deref().map(absolute).transpose()?;
    Ok(Options {
        identity,
        log,
        ..options
    })
}

fn start_logs(arguments: &Arguments, options: &Options) -> Result<(), Failure> {
    let target = match &options.log {
        Some(path) => LogTarget::File(path),
        None if arguments.background_child => LogTarget::Syslog("mount.vdfs"),
        None => LogTarget::StandardError,
    };
    let level = if arguments.verbose {
        LogLevel::Info
    } else {
        LogLevel::Warn
    };
    Ok(logs::start(target, level)?)
}

/// A panic on a thread of ours leaves the mount as it is: the request is answered `EIO`. One that
/// ends the process must not leave a dead mount behind.
fn detach_on_panic(mount: &Mount) {
    let (detacher, main) = (mount.detacher(), std::thread::current().id());
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().id() == main {
            detacher.detach();
        }
        before(panic);
    }));
}

fn tell_ready(arguments: &Arguments, line: &str) -> Result<(), Failure> {
    say_ready(line)?;
    if arguments.background_child {
        background::leave_streams().map_err(|error| Failure::at("standard output", error))?;
    }
    Ok(())
}

/// A mount with what stands behind it.
struct Served {
    endpoint: QuicEndpoint,
    fs: Fs,
    mount: Mount,
}

impl Served {
    fn start(
        runtime: &Runtime,
        source: &str,
        options: Options,
        dir: PathBuf,
        masters: Vec<Target>,
    ) -> Result<Served, Failure> {
        // Before anybody is asked anything.
        prepare_mountpoint(&dir).map_err(Failure::not_mounted)?;
        let dir_of_identity = options.identity.as_deref().expect("has a default");
        let identity = Identity::load(dir_of_identity).map_err(Failure::not_mounted)?;
        let endpoint = QuicEndpoint::dialler(&identity, QuicConfig::default())
            .map_err(|error| Failure::at("network", error))?;
        let kernel_cache =
            KernelNotifier::start().map_err(|error| Failure::at("notifier", error))?;
        let config = client_config(&endpoint, &options, &dir, masters, kernel_cache.clone())?;
        let fs = connect(runtime, &endpoint, config)?;
        let options = mount_options(options, dir, source, kernel_cache);
        let mount = Mount::start(fs.clone(), options, endpoint.runtime());
        let mount = mount.map_err(Failure::not_mounted)?;
        Ok(Served {
            endpoint,
            fs,
            mount,
        })
    }

    async fn ready_line(&self) -> Result<String, Failure> {
        let dir = self.mount.dir().display();
        let stats = self
            .fs
            .stat_fs()
            .await
            .map_err(|status| Failure::at(dir, status))?;
        let (dir, size) = (self.mount.dir().display(), human(stats.capacity_bytes));
        Ok(format!(
            "ready {dir} {size}, stop with Ctrl-C or: umount {dir}"
        ))
    }

    async fn wait_for_end(&self, mut signals: StopSignals) -> Result<(), Failure> {
        let ended = tokio::select! {
            () = signals.next() => {
                info!("asked to stop");
                Ok(())
            }
            () = self.mount.ended() => {
                info!("unmounted");
                Ok(())
            }
            () = self.fs.replaced() => {
                Err(Failure::at(self.mount.dir().display(), Status::Replaced))
            }
        };
        notify::stopping();
        ended
    }

    /// Unmounts first: the kernel then writes back what mappings have made dirty, and nothing new
    /// arrives.
    fn stop(self, runtime: &Runtime) -> Result<(), Failure> {
        let until = Instant::now() + STOP_MAX;
        let dir = self.mount.dir().display().to_string();
        if let Unmounted::Detached { holders } = self.mount.unmount(UNMOUNT_MAX) {
            let names: Vec<String> = holders.iter().map(ToString::to_string).collect();
            let names = names.join(", ");
            warn!(dir, names, "in use; detached");
            eprintln!("mount.vdfs: {dir}: was in use by {names}; detached");
        }
        let rest = until.saturating_duration_since(Instant::now());
        let flushed = runtime.block_on(self.fs.shutdown(rest));
        self.endpoint.shutdown(FAREWELL_MAX);
        flushed.map_err(|error| Failure {
            line: format!("{dir}: {error}"),
            status: 1,
        })
    }
}

fn connect(
    runtime: &Runtime,
    endpoint: &QuicEndpoint,
    config: ClientConfig,
) -> Result<Fs, Failure> {
    let masters = config.master.clone();
    let limit = config.timeout.unwrap_or(CONNECT_MAX);
    let connecting = endpoint.runtime().spawn(Fs::connect(config));
    let connected = runtime.block_on(async {
        tokio::select! {
            connected = timeout(limit, connecting) => Some(connected),
            () = wait_refused(endpoint, &masters) => None,
        }
    });
    let why = match connected {
        Some(Ok(Ok(Ok(fs)))) => return Ok(fs),
        Some(Ok(Ok(Err(status)))) => status.to_string(),
        Some(Ok(Err(error))) => error.to_string(),
        Some(Err(_)) => format!("no answer within {} s", limit.as_secs_f32()),
        None => "refused".to_owned(),
    };
    let reason = |master| {
        let failure = endpoint.last_failure(master);
        failure.map_or_else(|| why.clone(), |failure| failure.why)
    };
    let reasons: Vec<String> = masters
        .iter()
        .map(|master| format!("master {}: {}", master.addr, reason(master)))
        .collect();
    Err(Failure::not_mounted(reasons.join("; ")))
}

/// Ends when no master will ever let this client in.
async fn wait_refused(endpoint: &QuicEndpoint, masters: &[Target]) {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    while !endpoint.is_refused_by(masters) {
        looks.tick().await;
    }
}

fn client_config(
    endpoint: &QuicEndpoint,
    options: &Options,
    dir: &Path,
    master: Vec<Target>,
    kernel_cache: Arc<KernelNotifier>,
) -> Result<ClientConfig, Failure> {
    let host = Host::here().map_err(|error| Failure::at("/proc", error))?;
    let mount = dir.display().to_string();
    Ok(ClientConfig {
        identity: identity_of(&host, &mount)?,
        host: host.name,
        mount,
        master,
        connector: endpoint.connector(),
        timeout: options.timeout,
        kernel_cache,
        // The kernel refuses changes of a mount that is `ro`, and `remount` may make it `rw`.
        read_only: false,
    })
}

/// The same mountpoint on the same host is the same mount. A host's name does not tell hosts apart:
/// machines may be copies of one another, containers and network namespaces share it.
fn identity_of(host: &Host, mount: &str) -> Result<String, Failure> {
    let mounts = std::fs::metadata("/proc/self/ns/mnt");
    let mounts = mounts.map_err(|error| Failure::at("/proc", error))?.ino();
    let Host {
        boot_id,
        net_namespace,
        ..
    } = host;
    Ok(format!("{boot_id}/{net_namespace}/{mounts}:{mount}"))
}

fn mount_options(
    options: Options,
    dir: PathBuf,
    source: &str,
    kernel_cache: Arc<KernelNotifier>,
) -> MountOptions {
    let default = MountOptions::new(dir, source.to_owned(), kernel_cache);
    MountOptions {
        read_only: options.flags.read_only.unwrap_or(default.read_only),
        allow_other: options.allow_other || default.allow_other,
        no_suid: options.flags.no_suid.unwrap_or(default.no_suid),
        no_dev: options.flags.no_dev.unwrap_or(default.no_dev),
        no_exec: options.flags.no_exec.unwrap_or(default.no_exec),
        no_atime: options.no_atime,
        ..default
    }
}
