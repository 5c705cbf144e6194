//! A memory limit for one process, as the kernel enforces it: at the limit it kills.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::getpid;

use crate::mount::path_text;

/// A memory cgroup (v1 or v2); removed when dropped, once its processes have ended.
#[derive(Debug)]
pub struct MemoryCgroup {
    dir: PathBuf,
    is_v2: bool,
}

impl MemoryCgroup {
    /// Makes a cgroup limited to `bytes`, swap included. Panics where that cannot be done: a budget
    /// test without a limit proves nothing.
    pub fn with_limit(bytes: u64) -> MemoryCgroup {
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
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = root.join(format!("vdfs-{}-{number}", getpid().as_raw_nonzero()));
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

    /// Words before a command that make it begin in this cgroup, before its program's first
    /// instruction.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let enter = r#"echo $$ > "$0" && exec "$@""#;
        let procs = path_text(&self.dir.join("cgroup.procs"));
        vec!["sh".into(), "-c".into(), enter.into(), procs]
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
