//! The directory that one running program owns: its lock, its address, its identities, its log.
//!
//! Invariant: while a [`StateDir`] lives, no other process has one for the same path. The kernel
//! gives the lock back when the process ends, however it ends.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

/// A question by [`StateDir::running_pid`] holds the lock for a moment: only a lock that is held
/// longer means that a program runs.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// `pid` is `None` if the holder has not written it yet.
    #[error("{}: in use by pid {}", path.display(), pid.map_or("unknown".to_owned(), |pid| pid.to_string()))]
    InUse { path: PathBuf, pid: Option<u32> },
    #[error("{}: {source}; give another directory with --state", path.display())]
    Unusable { path: PathBuf, source: io::Error },
    #[error("{}: not an address: remove it, or start the program again", path.display())]
    BadAddress { path: PathBuf },
}

impl StateError {
    /// The process that uses the directory, if that is what is wrong.
    pub fn running_pid(&self) -> Option<u32> {
        match self {
            StateError::InUse { pid, .. } => *pid,
            StateError::Unusable { .. } | StateError::BadAddress { .. } => None,
        }
    }
}

/// A state directory that nobody uses and somebody reads.
#[derive(Debug)]
pub struct ReadLock {
    _lock: Option<File>,
}

/// A state directory, locked.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory (0700) if it is not there, and locks it.
    pub fn open(path: &Path) -> Result<StateDir, StateError> {
        make_private_dir(path).map_err(unusable(path))?;
        let lock_path = path.join("lock");
        let mut lock = open_lock(&lock_path).map_err(unusable(&lock_path))?;
        if !lock_within(&lock, LOCK_PATIENCE).map_err(unusable(&lock_path))? {
            return Err(StateError::InUse {
                path: path.to_owned(),
                pid: read_pid(&mut lock),
            });
        }
        write_pid(&mut lock).map_err(unusable(&lock_path))?;
        Ok(StateDir {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The process that uses the directory now, without taking it. `None` if there is none, or no
    /// such directory.
    pub fn running_pid(path: &Path) -> Option<u32> {
        let mut lock = File::open(path.join("lock")).ok()?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => None,
            Err(_) => read_pid(&mut lock),
        }
    }

    /// Keeps programs from using the directory while it is only read; `None` if one uses it. Writes
    /// nothing: a directory that never had a lock is nobody's.
    pub fn read_lock(path: &Path) -> Result<Option<ReadLock>, StateError> {
        let lock_path = path.join("lock");
        let lock = match File::open(&lock_path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_dir() => {
                return Ok(Some(ReadLock { _lock: None }));
            }
            Err(source) => return Err(unusable(path)(source)),
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Some(ReadLock { _lock: Some(lock) })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(unusable(&lock_path)(error.into())),
        }
    }

    /// The address that the program of the directory at `path` has written; `None` if none is there.
    pub fn read_addr(path: &Path) -> Result<Option<SocketAddr>, StateError> {
        let path = path.join("addr");
        match fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(addr) => Ok(Some(addr)),
                Err(_) => Err(StateError::BadAddress { path }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Unusable { path, source }),
        }
    }

    /// Says where the program can be reached.
    pub fn write_addr(&self, addr: SocketAddr) -> Result<(), StateError> {
        let path = self.path.join("addr");
        write_file(&path, format!("{addr}\n").as_bytes(), 0o644).map_err(unusable(&path))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The program's own identity.
    pub fn identity(&self) -> PathBuf {
        self.path.join("identity")
    }

    /// The identity for further mounts.
    pub fn identity_client(&self) -> PathBuf {
        self.path.join("identity-client")
    }

    /// The identity for whoever administers the cluster.
    pub fn identity_admin(&self) -> PathBuf {
        self.path.join("identity-admin")
    }

    /// The cluster's authority.
    pub fn ca(&self) -> PathBuf {
        self.path.join("ca")
    }

    /// The operation log.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where chunks lie: a tmpfs.
    pub fn ram(&self) -> PathBuf {
        self.path.join("ram")
    }
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Unusable { path, source }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn lock_within(lock: &File, patience: Duration) -> io::Result<bool> {
    let give_up = Instant::now() + patience;
    loop {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < give_up => {
                thread::sleep(LOCK_PAUSE);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

fn read_pid(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

/// Makes the directory for the owner alone, and what lies above it as usual: others have theirs
/// there. One that is there stays as it is.
pub(crate) fn make_private_dir(path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Replaces a file whole: a reader sees the old bytes or the new ones.
pub(crate) fn write_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    #[test]
    fn state_dir_opened_twice_names_the_holder() {
        let scratch = scratch();
        let path = scratch.path().join("state");
        let held = StateDir::open(&path).expect("free");
        let error = StateDir::open(&path).expect_err("held");
        let me = std::process::id();
        assert_eq!(error.running_pid(), Some(me));
        assert!(
            error.to_string().ends_with(&format!("in use by pid {me}")),
            "{error}"
        );
        drop(held);
        StateDir::open(&path).expect("free again");
    }

    #[test]
    fn state_dir_new_is_private() {
        let scratch = scratch();
        let path = scratch.path().join("a/b");
        let _held = StateDir::open(&path).expect("free");
        let mode = fs::metadata(&path).expect("made").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn running_pid_is_known_only_while_held() {
        let scratch = scratch();
        assert_eq!(StateDir::running_pid(scratch.path()), None);
        let held = StateDir::open(scratch.path()).expect("free");
        assert_eq!(
            StateDir::running_pid(scratch.path()),
            Some(std::process::id())
        );
        drop(held);
        assert_eq!(StateDir::running_pid(scratch.path()), None);
    }

    #[test]
    fn addr_written_is_read_back() {
        let scratch = scratch();
        assert!(matches!(StateDir::read_addr(scratch.path()), Ok(None)));
        let state = StateDir::open(scratch.path()).expect("free");
        let addr: SocketAddr = "127.0.0.1:7400".parse().expect("an address");
        state.write_addr(addr).expect("written");
        assert_eq!(
            StateDir::read_addr(scratch.path()).expect("read"),
            Some(addr)
        );
    }

    #[test]
    fn addr_that_is_no_address_is_refused_by_name() {
        let scratch = scratch();
        fs::write(scratch.path().join("addr"), "nonsense").expect("written");
        let error = StateDir::read_addr(scratch.path()).expect_err("no address");
        assert!(
            error.to_string().contains("addr: not an address"),
            "{error}"
        );
    }

    #[test]
    fn state_dir_on_a_file_names_it() {
        let scratch = scratch();
        let path = scratch.path().join("file");
        fs::write(&path, "").expect("written");
        let error = StateDir::open(&path).expect_err("a file");
        assert!(error.to_string().contains("file"), "{error}");
    }
}
