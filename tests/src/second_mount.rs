//! Another mount of a running `up`, in a process of its own, over QUIC.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::programs;
use crate::up::{Up, first_line, path_text, unmount_lazily};

/// A `mount-vdfs --foreground` of its own directory; unmounted when dropped.
#[derive(Debug)]
pub struct SecondMount {
    scratch: TempDir,
    child: Child,
}

impl SecondMount {
    pub fn of(up: &Up) -> SecondMount {
        let scratch = tempfile::Builder::new().prefix("vdfs-mount-").tempdir();
        let scratch = scratch.expect("a scratch directory");
        let dir = scratch.path().join("mnt");
        std::fs::create_dir(&dir).expect("a mountpoint");
        let addr = std::fs::read_to_string(up.state().join("addr")).expect("up wrote its address");
        let identity = format!(
            "identity={}",
            path_text(&up.state().join("identity-client"))
        );
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "TERM", "--"])
            .arg(programs::mount_vdfs());
        command.args([
            addr.trim(),
            &path_text(&dir),
            "--foreground",
            "-o",
            &identity,
        ]);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("mount-vdfs starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let ready = first_line(stdout).recv_timeout(Duration::from_secs(20));
        let mount = SecondMount { scratch, child };
        assert!(
            ready.as_ref().is_ok_and(|line| line.starts_with("ready ")),
            "{ready:?}"
        );
        mount
    }

    pub fn dir(&self) -> PathBuf {
        self.scratch.path().join("mnt")
    }

    /// `kill -9` of the mount's process.
    pub fn kill9(&mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("a child can be waited for");
    }
}

impl Drop for SecondMount {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        unmount_lazily(&self.dir());
    }
}
