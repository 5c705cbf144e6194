//! `vdfs down`: stops the `up` of a state directory, and frees its RAM if asked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use vdfs_net::StateDir;

use crate::args::DownArgs;
use crate::output::Output;
use crate::places;
use crate::up::{destroy, mounted_dir, mountpoint};
use vdfs_program::{Blame, Failure, human};
use vdfs_volume::ram;

/// An `up` stops within 10 s; what is beyond is patience with a busy machine.
const STOP_WAIT: Duration = Duration::from_secs(20);

pub(crate) fn run(args: &DownArgs) -> Result<(), Failure> {
    let dir = args
        .dir
        .as_deref()
        .map(places::absolute_mountpoint)
        .transpose()?;
    let state = find_state(args, dir.as_deref())?;
    let known_dir = mounted_dir(&state)?;
    if let (Some(dir), Some(known)) = (&dir, &known_dir)
        && dir != known
    {
        let why = format!("{} is mounted at {}", state.display(), known.display());
        return Err(Failure::new(dir.display(), why).way_out("name that directory"));
    }
    let was_running = stop_running(&state)?;
    if args.destroy {
        return destroy(&state);
    }
    let Some(dir) = dir.or(known_dir) else {
        return Err(Failure::new(
            state.display(),
            "no `vdfs up` has run with this state directory",
        ));
    };
    if !was_running && !detach_if_dead(&dir) {
        return Err(Failure::new(dir.display(), "no `vdfs up` is running on it"));
    }
    say_what_stays(&state, &dir)
}

/// Takes away the mount that an `up` that was killed has left at `dir`; false if there is none.
fn detach_if_dead(dir: &Path) -> bool {
    mountpoint::is_dead_mount(dir) && vdfs_fuse::detach_dead_mounts(dir).is_ok()
}

fn find_state(args: &DownArgs, dir: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(state) = &args.state {
        return std::path::absolute(state).blame(state.display());
    }
    match dir.and_then(places::state_of) {
        Some(state) => Ok(state),
        None => places::default_state(),
    }
}

/// True if something was running; it has ended now.
fn stop_running(state: &Path) -> Result<bool, Failure> {
    let Some(pid) = StateDir::running_pid(state) else {
        return Ok(false);
    };
    let what = format!("stop of pid {pid}");
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let raw = raw.ok_or_else(|| Failure::new(&what, "is no process id"))?;
    let process = pidfd_open(raw, PidfdFlags::empty()).blame(&what)?;
    // The descriptor is of the process that has the lock only if it still has it.
    if StateDir::running_pid(state) != Some(pid) {
        return Ok(true);
    }
    pidfd_send_signal(&process, Signal::TERM).blame(&what)?;
    let limit = Timespec {
        tv_sec: STOP_WAIT.as_secs() as i64,
        tv_nsec: 0,
    };
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    match poll(&mut ended, Some(&limit)).blame(&what)? {
        0 => Err(Failure::new(
            what,
            format!("still running after {} s", STOP_WAIT.as_secs()),
        )
        .way_out(format!("end it with: kill -9 {pid}"))),
        _ => Ok(true),
    }
}

fn say_what_stays(state: &Path, dir: &Path) -> Result<(), Failure> {
    let mut output = Output::open();
    output.line(stays_line(ram::in_use_bytes(&state.join("ram")), dir))?;
    output.finish()
}

/// The last line of a stop.
pub(crate) fn stays_line(bytes: u64, dir: &Path) -> String {
    let bytes = human(bytes);
    format!(
        "{bytes} stay in RAM; free them with: vdfs down --destroy {}",
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_line_names_the_command_that_frees_the_ram() {
        assert_eq!(
            stays_line((12 << 30) / 10, Path::new("/mnt/vdfs")),
            "1.2 GiB stay in RAM; free them with: vdfs down --destroy /mnt/vdfs"
        );
    }

    #[test]
    fn stop_running_of_a_state_that_nobody_uses_is_false() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        assert_eq!(stop_running(scratch.path()), Ok(false));
    }
}
