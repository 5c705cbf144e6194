//! `vdfs volume wipe`: frees the RAM that a volume of this machine has left.

use std::path::{Path, PathBuf};

use serde::Serialize;
use vdfs_net::StateDir;
use vdfs_program::{Blame, Failure, human, places};
use vdfs_volume::{Ram, ram};

use super::confirm;
use crate::args::VolumeWipeArgs;
use crate::output::Output;

#[derive(Debug, Serialize)]
struct WipedJson {
    state: PathBuf,
    freed_bytes: u64,
}

pub(super) fn run(args: &VolumeWipeArgs) -> Result<(), Failure> {
    let state = match &args.state {
        Some(state) => std::path::absolute(state).blame(state.display())?,
        None => places::default_state("volume")?,
    };
    let wiped = wipe(&state, args.yes)?;
    let mut output = Output::open();
    if args.json {
        output.json(&wiped)?;
    } else {
        let freed = human(wiped.freed_bytes);
        output.line(format!("{freed} of RAM freed in {}", state.display()))?;
    }
    output.finish()
}

fn wipe(state: &Path, is_confirmed: bool) -> Result<WipedJson, Failure> {
    if !state.is_dir() {
        let failure = Failure::new(
            state.display(),
            "no volume has run with this state directory",
        );
        return Err(failure.way_out("name it with --state DIR"));
    }
    // Held to the end: no volume starts on what is being taken away.
    let locked = StateDir::open(state).map_err(|error| {
        Failure::of(error).way_out("stop the volume first; what it serves is in use")
    })?;
    let path = locked.ram();
    let held_bytes = ram::in_use_bytes(&path);
    if !is_confirmed {
        let question = format!(
            "Free {} of RAM in {}, with all that the volume holds?",
            human(held_bytes),
            state.display()
        );
        confirm(&state.display().to_string(), &question)?;
    }
    Ram::wipe(&path).map_err(Failure::of)?;
    Ok(WipedJson {
        state: state.to_owned(),
        freed_bytes: held_bytes.saturating_sub(ram::in_use_bytes(&path)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wipe_refuses_a_state_that_is_in_use_and_one_that_is_not_there() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let state = scratch.path().join("state");
        let missing = wipe(&state, true).expect_err("not there").to_string();
        assert!(missing.contains("--state DIR"), "{missing}");
        let running = StateDir::open(&state).expect("locks");
        let in_use = wipe(&state, true).expect_err("in use").to_string();
        assert!(in_use.contains("in use by pid"), "{in_use}");
        drop(running);
        assert_eq!(wipe(&state, true).expect("nothing to free").freed_bytes, 0);
    }
}
