//! Changing the flags of a mount that stands (`mount -o remount`).

use std::path::Path;

use rustix::mount::MountFlags;

use crate::mount::{FS_TYPE, MountError, mountinfo};

/// Flags that were named; the others stay as they are, or take their default on a new mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlagChanges {
    pub(crate) read_only: Option<bool>,
    pub(crate) no_suid: Option<bool>,
    pub(crate) no_dev: Option<bool>,
    pub(crate) no_exec: Option<bool>,
}

/// Applies the changes to the VDFS mount at `dir`. The daemon need not know: it is the kernel that
/// keeps them.
pub(crate) fn remount(dir: &Path, changes: FlagChanges) -> Result<(), MountError> {
    let not_mounted = || MountError::NotMounted {
        dir: dir.to_owned(),
    };
    let place = dir.canonicalize().map_err(|_| not_mounted())?;
    let entry = mountinfo::entry_at(&place).filter(|entry| entry.fs_type == FS_TYPE);
    let flags = changed(&entry.ok_or_else(not_mounted)?.flags, changes);
    rustix::mount::mount_remount(&place, flags, "")
        .map_err(|error| MountError::Refused(error.into()))
}

/// The flags in force (`rw,nosuid,noatime`) with the changes.
fn changed(in_force: &str, changes: FlagChanges) -> MountFlags {
    let is_set = |word: &str| in_force.split(',').any(|flag| flag == word);
    let mut flags = MountFlags::empty();
    // The daemon, which keeps access times, does as it was told when it mounted.
    let is_without_atime = is_set("noatime");
    flags.set(MountFlags::NOATIME, is_without_atime);
    flags.set(MountFlags::RELATIME, !is_without_atime);
    let words = [
        (MountFlags::RDONLY, changes.read_only, "ro"),
        (MountFlags::NOSUID, changes.no_suid, "nosuid"),
        (MountFlags::NODEV, changes.no_dev, "nodev"),
        (MountFlags::NOEXEC, changes.no_exec, "noexec"),
    ];
    for (flag, change, word) in words {
        flags.set(flag, change.unwrap_or_else(|| is_set(word)));
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_keeps_what_is_not_named() {
        let to_read_only = FlagChanges {
            read_only: Some(true),
            ..FlagChanges::default()
        };
        let flags = changed("rw,nosuid,noatime", to_read_only);
        assert_eq!(
            flags,
            MountFlags::NOATIME | MountFlags::RDONLY | MountFlags::NOSUID
        );
        let to_write = FlagChanges {
            read_only: Some(false),
            ..FlagChanges::default()
        };
        assert_eq!(changed("ro,relatime", to_write), MountFlags::RELATIME);
    }
}
