//! Beginning anew: `up --fresh` and `down --destroy`.

use std::path::Path;

use vdfs_net::{StateDir, StateError};
use vdfs_volume::Ram;

use crate::places;
use crate::state_files;
use vdfs_program::Failure;

use super::mounted_dir;

/// Frees the RAM, then keeps the log under another name: a start that is killed in between finds
/// names without bytes, never bytes of another log.
pub(super) fn set_aside(state: &StateDir) -> Result<(), Failure> {
    Ram::destroy(&state.ram()).map_err(Failure::of)?;
    let log = state.log();
    match std::fs::rename(&log, state_files::next_old_log(state.path())) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(log.display(), error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Frees the RAM and removes all that `up` has made in the state directory.
pub(crate) fn destroy(path: &Path) -> Result<(), Failure> {
    if !path.join("lock").exists() {
        return Err(Failure::new(
            path.display(),
            "no `vdfs up` has run with this state directory",
        ));
    }
    let state = StateDir::open(path).map_err(|error: StateError| Failure::of(error))?;
    if let Some(dir) = mounted_dir(path)? {
        // What else may be wrong with the place is no business of ours any more.
        drop(vdfs_fuse::detach_dead_mounts(&dir));
    }
    Ram::destroy(&state.ram()).map_err(Failure::of)?;
    state_files::remove_all(path)?;
    places::forget(path);
    Ok(())
}
