//! A memory limit for one process, as the kernel enforces it: at the limit it kills.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::getpid;

/// A memory cgroup (v1 or v2); removed when dropped, once its processes have ended.
#[derive(Debug)]
pub struct MemoryCgroup {
    dir: PathBuf,
    is_v2: bool,
}

impl MemoryCgroup {
    /// Makes a cgroup limited to `bytes`, swap included. Panics where that cannot be done: a budget
    /// test without a limit proves nothing.
    pub fn with_limit(name: &str, bytes: u64) -> MemoryCgroup {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let is_v2 = !v1.is_dir();
        let root = if is_v2 {
            Path::new("/sys/fs/cgroup")
        } else {
            v1
        };
        if is_v2 {
            let enabled = fs::write(root.join("cgroup.subtree_control"), "+memory");
            enabled.expect("the memory controller can be delegated");
        }
        let dir = root.join(format!("vdfs-{name}-{}", getpid().as_raw_nonzero()));
        fs::create_dir(&dir).expect("a memory cgroup can be made");
        let group = MemoryCgroup { dir, is_v2 };
        let limit = if is_v2 {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        fs::write(group.dir.join(limit), bytes.to_string()).expect("the limit is taken");
        group
    }

    /// A command that begins in this cgroup, before its program's first instruction.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        let procs = self.dir.join("cgroup.procs");
        command
            .args(["-c", r#"echo $$ > "$0" && exec "$@""#])
            .arg(procs)
            .arg(program);
        command
    }

    /// How often the kernel killed a process for this limit.
    pub fn kills(&self) -> u64 {
        let file = if self.is_v2 {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let text = fs::read_to_string(self.dir.join(file)).expect("a cgroup counts its kills");
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.trim().parse().ok())
            .expect("an oom_kill line")
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.dir));
    }
}
