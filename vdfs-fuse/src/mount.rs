//! The mount itself: made, verified, tuned, ended.
//!
//! The door makes the mount by itself and gives fuser only the device: fuser 0.18 mixes up "gone"
//! and "still mounted" when it looks at the device, may unmount what somebody else has mounted there
//! since, and takes a comma in the source for the next option.
//!
//! Invariant: nothing is unmounted but the mount that was made here (its device number is compared
//! first), or a dead VDFS mount that stood in its place.

mod attach;
mod detach;
mod holders;
mod mountinfo;
mod mountpoint;
mod remount;
mod tuning;

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{Config, Session, SessionACL};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{info, warn};
use vdfs_client::Fs;

use crate::dispatch::Dispatcher;
use crate::door::Door;
use crate::kernel_notifier::KernelNotifier;
use crate::limits::{FIRST_ANSWER_MAX, HOLDERS_WAIT, LOOP_THREADS_MAX, LOOP_THREADS_MIN};
use crate::watch::Watch;

pub use crate::mount::detach::Detacher;
pub use crate::mount::holders::Holder;
pub use crate::mount::mountinfo::{MountEntry, mount_of};
pub use crate::mount::mountpoint::detach_dead_mounts;
pub(crate) use crate::mount::mountpoint::prepare as prepare_mountpoint;
pub(crate) use crate::mount::remount::{FlagChanges, remount};

/// Type of the mount in `/proc/mounts`; by it a dead one is recognised.
const FS_TYPE: &str = "fuse.vdfs";
const SUBTYPE: &str = "vdfs";
/// How often an unmount that was refused because something is open is tried again.
const RETRY_UNMOUNT: Duration = Duration::from_millis(50);

/// What to mount where.
#[derive(Clone, Debug)]
pub struct MountOptions {
    pub dir: PathBuf,
    /// The first column of `/proc/mounts`.
    pub source: String,
    pub read_only: bool,
    /// Other users may use the mount. An ordinary user needs `user_allow_other` in
    /// `/etc/fuse.conf` for it.
    pub allow_other: bool,
    pub no_suid: bool,
    pub no_dev: bool,
    pub no_exec: bool,
    /// Reads leave access times as they are; otherwise they move them as `relatime` says (mount(8)).
    pub no_atime: bool,
    /// The one that the client was given in its `ClientConfig::kernel_cache`.
    pub kernel_cache: Arc<KernelNotifier>,
}

impl MountOptions {
    /// Read and write; as root for everybody and with suid and devices, else for the user alone and
    /// without.
    pub fn new(dir: PathBuf, source: String, kernel_cache: Arc<KernelNotifier>) -> Self {
        let is_root = rustix::process::geteuid().is_root();
        MountOptions {
            dir,
            source,
            read_only: false,
            allow_other: is_root,
            no_suid: !is_root,
            no_dev: !is_root,
            no_exec: false,
            no_atime: false,
            kernel_cache,
        }
    }
}

/// Why there is no mount, with the way out.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("{0}: no such directory; make it with: mkdir -p {0}", dir.display())]
    Missing { dir: PathBuf },
    #[error("{0}: not a directory; name a directory to mount on", dir.display())]
    NotDirectory { dir: PathBuf },
    #[error("{0}: the directory is not empty; name an empty one, or move what is in it away", dir.display())]
    NotEmpty { dir: PathBuf },
    #[error(
        "{0}: {source_name} ({fs_type}) is mounted there; unmount it with: umount {0}",
        dir.display()
    )]
    AlreadyMounted {
        dir: PathBuf,
        source_name: String,
        fs_type: String,
    },
    #[error("{0}: {why}", dir.display())]
    Unusable { dir: PathBuf, why: io::Error },
    #[error("/dev/fuse: {0}; load the module with: modprobe fuse")]
    NoDevice(io::Error),
    #[error(
        "/dev/fuse: {0}; an ordinary user needs it open to all: chmod 666 /dev/fuse, or run as root"
    )]
    DeviceClosed(io::Error),
    #[error(
        "fusermount3 is missing: an ordinary user mounts through it; install the package fuse3"
    )]
    NoFusermount,
    #[error("fusermount3: {0}")]
    Fusermount(String),
    #[error("mount(2): {0}")]
    Refused(io::Error),
    #[error("{0}: no VDFS is mounted there", dir.display())]
    NotMounted { dir: PathBuf },
    #[error("FUSE: {0}")]
    Session(io::Error),
    #[error("{0}: mounted, but it does not answer ({why})", dir.display())]
    NoAnswer { dir: PathBuf, why: String },
}

/// How an unmount went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmounted {
    Clean,
    /// It was in use until the deadline, and is detached now: it has no name any more and ends with
    /// its last user.
    Detached {
        holders: Vec<Holder>,
    },
    /// Somebody else had unmounted it.
    Gone,
}

/// A live mount. Dropping it detaches the mount lazily.
#[derive(Debug)]
pub struct Mount {
    detacher: Detacher,
    entry: MountEntry,
    kernel_cache: Arc<KernelNotifier>,
    ended: watch::Receiver<bool>,
}

impl Mount {
    /// Mounts `fs`, and returns when `stat(2)` of the directory answers. Operations that wait run on
    /// `runtime`.
    ///
    /// Blocks: within `runtime`, call it through `spawn_blocking`.
    pub fn start(fs: Fs, options: MountOptions, runtime: Handle) -> Result<Mount, MountError> {
        let dir = mountpoint::prepare(&options.dir)?;
        let device = attach::attach(&dir, &options)?;
        let Some(entry) = mountinfo::entry_at(&dir).filter(|entry| entry.fs_type == FS_TYPE) else {
            let why = "it is not in /proc/self/mountinfo".into();
            return Err(MountError::NoAnswer { dir, why });
        };
        let detacher = Detacher::new(dir, entry.device.clone());
        let ended = serve(fs, device, &options, runtime).map_err(|error| {
            detacher.detach();
            MountError::Session(error)
        })?;
        let mount = Mount {
            detacher,
            entry,
            kernel_cache: options.kernel_cache,
            ended,
        };
        mount.verify()?;
        tuning::tune(&mount.entry.device);
        info!(dir = %mount.dir().display(), device = mount.entry.device, "mounted");
        Ok(mount)
    }

    /// Where it is mounted, with links resolved.
    pub fn dir(&self) -> &Path {
        self.detacher.dir()
    }

    /// For a panic hook: detaches the mount without taking a lock or asking the filesystem.
    pub fn detacher(&self) -> Detacher {
        self.detacher.clone()
    }

    /// Ends when the kernel has let go of the mount: it was unmounted, by whomever.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error is a session thread that is gone: ended as well.
        drop(ended.wait_for(|ended| *ended).await);
    }

    /// Unmounts, and waits until the kernel has written back what was dirty. What is still in use
    /// at the deadline is detached.
    ///
    /// Blocks for at most about `deadline`; the filesystem must still be served meanwhile.
    pub fn unmount(&self, deadline: Duration) -> Unmounted {
        let until = Instant::now() + deadline;
        let unmounted = self.unmount_until(until);
        self.kernel_cache.detach();
        if unmounted != Unmounted::Gone {
            self.wait_ended(until);
        }
        unmounted
    }

    fn unmount_until(&self, until: Instant) -> Unmounted {
        loop {
            match self.detacher.unmount() {
                Ok(true) => return Unmounted::Clean,
                Ok(false) => return Unmounted::Gone,
                Err(error) if Instant::now() >= until => {
                    warn!(%error, "the mount is in use: it is detached");
                    let holders = holders::of_mount(&self.entry, HOLDERS_WAIT);
                    self.detacher.detach();
                    return Unmounted::Detached { holders };
                }
                Err(_) => thread::sleep(RETRY_UNMOUNT),
            }
        }
    }

    fn wait_ended(&self, until: Instant) {
        while !*self.ended.borrow() && Instant::now() < until {
            thread::sleep(RETRY_UNMOUNT / 10);
        }
    }

    /// Asks for the root directory from a thread of its own: the answer may never come.
    fn verify(&self) -> Result<(), MountError> {
        let (dir, device) = (self.dir().to_owned(), self.entry.device.clone());
        let root = stat_within(&dir, FIRST_ANSWER_MAX);
        let no_answer = |why: String| MountError::NoAnswer {
            dir: dir.clone(),
            why,
        };
        let root = root.map_err(|error| no_answer(error.to_string()))?;
        if mountinfo::device_name(root.dev()) != device {
            return Err(no_answer("something else is mounted over it".into()));
        }
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.kernel_cache.detach();
        self.detacher.detach();
    }
}

/// Puts the calling thread, and all that it starts from now on, on the kernel's list of those who
/// write its dirty pages: they are never made to wait for dirty pages to be written, which would be
/// to wait for themselves (`PR_SET_IO_FLUSHER`, prctl(2)). For root; others go without.
pub fn become_io_flusher() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    if let Err(error) = rustix::process::configure_io_flusher_behavior(true) {
        // Wants CAP_SYS_RESOURCE, which a container's root may lack.
        info!(%error, "PR_SET_IO_FLUSHER");
    }
}

/// Starts the loops on `device`; says when they have ended.
fn serve(
    fs: Fs,
    device: std::os::fd::OwnedFd,
    options: &MountOptions,
    runtime: Handle,
) -> io::Result<watch::Receiver<bool>> {
    let watch = Arc::new(Watch::start()?);
    let kernel_cache = &options.kernel_cache;
    let no_atime = options.no_atime || options.read_only;
    let dispatcher = Dispatcher::new(runtime, watch);
    let door = Door::new(fs, dispatcher, kernel_cache.clone(), no_atime);
    // Who may use the mount is the kernel's affair (allow_other).
    let session = Session::from_fd(door, device, SessionACL::All, session_config())?;
    kernel_cache.attach(session.notifier());
    let (ended, is_ended) = watch::channel(false);
    thread::Builder::new()
        .name("vdfs-fuse".into())
        .spawn(move || {
            become_io_flusher();
            if let Err(error) = session.run() {
                warn!(%error, "the loop on /dev/fuse has ended");
            }
            ended.send_replace(true);
        })?;
    Ok(is_ended)
}

fn session_config() -> Config {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(cores.clamp(LOOP_THREADS_MIN, LOOP_THREADS_MAX));
    config.clone_fd = true;
    config
}

/// `stat(2)` of what may be a mount that nobody serves: `TimedOut` if it does not answer in time.
fn stat_within(dir: &Path, limit: Duration) -> io::Result<Metadata> {
    let (sender, receiver) = mpsc::channel();
    let dir = dir.to_owned();
    thread::Builder::new()
        .name("vdfs-stat".into())
        .spawn(move || {
            // Nobody waits any more if it is refused.
            sender.send(fs::metadata(&dir)).unwrap_or(());
        })?;
    receiver
        .recv_timeout(limit)
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
