//! Unmounting one particular mount.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::UnmountFlags;

use crate::mount::attach::FUSERMOUNT;
use crate::mount::mountinfo;

/// Takes one mount away, and no other: the device number tells whether what is mounted at the
/// place is still the same.
#[derive(Clone, Debug)]
pub struct Detacher {
    dir: PathBuf,
    device: String,
}

impl Detacher {
    pub(super) fn new(dir: PathBuf, device: String) -> Self {
        Detacher { dir, device }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes the mount's name away at once, whoever uses it (`MNT_DETACH`, umount2(2)). Asks the
    /// filesystem nothing and takes no lock, so a panic hook may call it; failures are silent.
    pub fn detach(&self) {
        if self.is_mounted() {
            drop(self.umount(UnmountFlags::DETACH));
        }
    }

    /// Unmounts if nothing uses it. False if it is not mounted any more.
    pub(super) fn unmount(&self) -> io::Result<bool> {
        if !self.is_mounted() {
            return Ok(false);
        }
        self.umount(UnmountFlags::empty())?;
        Ok(true)
    }

    fn is_mounted(&self) -> bool {
        mountinfo::entry_at(&self.dir).is_some_and(|entry| entry.device == self.device)
    }

    fn umount(&self, flags: UnmountFlags) -> io::Result<()> {
        if rustix::process::geteuid().is_root() {
            return Ok(rustix::mount::unmount(
                &self.dir,
                flags | UnmountFlags::NOFOLLOW,
            )?);
        }
        let lazy = flags.contains(UnmountFlags::DETACH).then_some("-z");
        let mut command = Command::new(FUSERMOUNT);
        command
            .args(["-u", "-q"])
            .args(lazy)
            .arg("--")
            .arg(&self.dir);
        let status = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        Ok(())
    }
}
