//! Where programs keep things by default.

use std::path::PathBuf;

use crate::failure::Failure;

/// Where a machine's own identity is kept.
pub const IDENTITY: &str = "/etc/vdfs/identity";

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The default state directory of `part` (`up`, `master`, `volume`): `/var/lib/vdfs/PART` for root,
/// else `$XDG_STATE_HOME/vdfs/PART`.
pub fn default_state(part: &str) -> Result<PathBuf, Failure> {
    if is_root() {
        return Ok(PathBuf::from("/var/lib/vdfs").join(part));
    }
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    base.map(|base| base.join("vdfs").join(part))
        .ok_or_else(|| {
            Failure::new("state directory", "neither XDG_STATE_HOME nor HOME is set")
                .way_out("name one with --state DIR")
        })
}
