//! A mount in a process of its own, over QUIC.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::hosts::Host;
use crate::part::Part;
use crate::programs;

/// What a mount needs to know of the filesystem, and where it runs.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// `HOST:PORT` of the master.
    pub(crate) master: String,
    /// Directory of a client's identity.
    pub(crate) identity: PathBuf,
    pub(crate) host: Option<Host>,
    /// Further ones, as after `-o`; may be empty.
    pub(crate) options: String,
}

/// A `mount-vdfs --foreground` on a directory of its own; unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    pub part: Part,
    dir: PathBuf,
}

impl Mount {
    /// Mounts on `base/NAME`, and logs to `base/NAME.log`.
    pub(crate) fn start(base: &Path, name: &str, access: Access) -> Mount {
        let dir = base.join(name);
        std::fs::create_dir(&dir).expect("a mountpoint");
        let identity = path_text(&access.identity);
        let options = format!("identity={identity},{}", access.options);
        let arguments = [&access.master, &path_text(&dir), "--foreground", "-v", "-o"];
        let mut arguments: Vec<String> = arguments.map(String::from).to_vec();
        arguments.push(options);
        let log = base.join(format!("{name}.log"));
        let mut part = Part::new(programs::mount_vdfs(), arguments, log).on(access.host);
        part.start();
        Mount { part, dir }
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    /// `kill -9` of the mount's process; its directory answers `ENOTCONN`.
    pub fn kill9(&mut self) {
        self.part.kill9();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount_lazily(&self.dir);
    }
}

/// Detaches what is mounted at `dir`, if anything is.
pub fn unmount_lazily(dir: &Path) {
    let quiet = Command::new("umount")
        .arg("-l")
        .arg(dir)
        .stderr(Stdio::null())
        .status();
    drop(quiet);
}

/// True if something is mounted at `dir`, dead or alive.
pub fn is_mountpoint(dir: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("reads");
    let dir = path_text(dir);
    let mut places = mounts.lines().map(|line| line.split(' ').nth(1));
    places.any(|place| place == Some(&dir))
}

pub(crate) fn path_text(path: &Path) -> String {
    path.to_str().expect("scratch paths are plain").to_owned()
}
