//! The process that serves in the background, and the one that waits for it to be ready.

use std::env;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::program::Failure;

/// Tells the second process what it is.
const CHILD_FLAG: &str = "--background-child";

/// Starts this program again in the background; returns when it says `ready`. What it says on
/// standard error until then is its own.
pub(super) fn start(dir: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::at(dir.display(), error);
    let mut child = spawn().map_err(failed)?;
    let stdout = child.stdout.take().expect("it was asked for a pipe");
    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .map_err(failed)?;
    if line.starts_with("ready ") {
        return Ok(());
    }
    let status = child.wait().map_err(failed)?;
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        // It has told why.
        Some(code) if code != 0 => std::process::exit(code.into()),
        _ => Err(Failure::at(
            dir.display(),
            format!("the process in the background: {status}"),
        )),
    }
}

fn spawn() -> io::Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    command.args(env::args_os().skip(1)).arg(CHILD_FLAG);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
}

/// The second process begins a session of its own, away from the terminal and from any directory
/// that somebody may want to unmount.
pub(super) fn begin() -> io::Result<()> {
    rustix::process::setsid()?;
    env::set_current_dir("/")
}

/// The first process has been told: nobody reads the standard streams any more.
pub(super) fn leave_streams() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
