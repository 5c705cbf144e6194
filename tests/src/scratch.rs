//! A directory of one test's own, and the promise that nothing of the test outlives it.
//!
//! A second process, the janitor, waits for the end of a pipe that this one holds: when the test
//! lets go, and also when the runner is killed, it detaches every mount below the directory, deletes
//! the test's network namespaces and removes the directory.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::getpid;
use tempfile::TempDir;

/// `$1` is the directory, `$2` what the names of its network namespaces begin with. What is mounted
/// last is detached first.
const JANITOR: &str = r#"
cat > /dev/null
awk -v dir="$1/" 'index($2, dir) == 1 { print $2 }' /proc/self/mounts | tac |
    while read -r mount; do umount -l "$mount"; done
for space in /run/netns/"$2"-*; do
    test ! -e "$space" || ip netns del "${space##*/}"
done
rm -rf --one-file-system "$1"
"#;

#[derive(Debug)]
pub struct Scratch {
    dir: TempDir,
    net_prefix: String,
    janitor: Child,
}

impl Scratch {
    pub fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::Builder::new().prefix("vdfs-test-").tempdir();
        let dir = dir.expect("a scratch directory");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let net_prefix = format!("vt{}-{number}", getpid().as_raw_nonzero());
        let mut janitor = Command::new("setsid");
        janitor.args(["sh", "-c", JANITOR, "janitor"]);
        janitor.arg(dir.path()).arg(&net_prefix);
        janitor.stdin(Stdio::piped());
        let janitor = janitor.spawn().expect("the janitor starts");
        Scratch {
            dir,
            net_prefix,
            janitor,
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What the names of this test's network namespaces begin with, before a `-`.
    pub(crate) fn net_prefix(&self) -> &str {
        &self.net_prefix
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        drop(self.janitor.wait());
    }
}
