//! The file `boot_id` beside the log: under which boot of the machine it is written.
//!
//! If the machine has rebooted since, the unsynced end of the log may be gone although it was
//! acknowledged; unless every reply waited for the disk, which the second word says.

use std::io;
use std::sync::Arc;

use crate::disk::{self, Disk};
use crate::log::LogError;

const NAME: &str = "boot_id";
const SYNCED: &str = "synced";

/// How a log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boot {
    /// `/proc/sys/kernel/random/boot_id`.
    pub(super) id: String,
    /// Every reply waits for the disk.
    pub(super) is_synced: bool,
}

/// Says, durably, how the log is written from now on.
#[derive(Debug)]
pub(super) struct BootNote {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) boot: Boot,
    /// It says so already.
    pub(super) is_noted: bool,
}

impl BootNote {
    /// Needs no room where nothing has changed.
    pub(super) fn write(&self) -> Result<(), LogError> {
        if self.is_noted {
            return Ok(());
        }
        let written = self.boot.write(&*self.disk);
        written.map_err(|why| LogError::writing(&*self.disk, NAME, why))
    }
}

impl Boot {
    /// How the log was written last; `None` if it never was, or if the file is not whole.
    pub(super) fn read(disk: &dyn Disk) -> io::Result<Option<Boot>> {
        let text = disk::read_text(disk, NAME)?;
        Ok(text.as_deref().and_then(Boot::parse))
    }

    fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        let second = if self.is_synced { SYNCED } else { "deferred" };
        disk::replace(disk, NAME, format!("{} {second}\n", self.id).as_bytes())
    }

    fn parse(text: &str) -> Option<Boot> {
        let (id, second) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Boot {
            id: id.to_owned(),
            is_synced: second == SYNCED,
        })
    }

    /// Whether a log written under `before` has all that was acknowledged, now that the machine
    /// runs under `self`.
    pub(super) fn has_everything(&self, before: Option<&Boot>) -> bool {
        before.is_some_and(|before| before.is_synced || before.id == self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::fake::FakeDisk;

    fn boot(id: &str, is_synced: bool) -> Boot {
        Boot {
            id: id.to_owned(),
            is_synced,
        }
    }

    #[test]
    fn boot_reads_back_what_was_written() {
        let disk = FakeDisk::default();
        assert_eq!(Boot::read(&disk).expect("reads"), None);
        for written in [boot("a-b", false), boot("c-d", true)] {
            written.write(&disk).expect("writes");
            let crashed = disk.state().crash(|_| false, 0);
            assert_eq!(Boot::read(&crashed).expect("reads"), Some(written));
        }
    }

    #[test]
    fn boot_changed_keeps_everything_only_if_replies_waited_for_the_disk() {
        let now = boot("new", false);
        assert!(now.has_everything(Some(&boot("new", false))));
        assert!(now.has_everything(Some(&boot("old", true))));
        assert!(!now.has_everything(Some(&boot("old", false))));
        assert!(!now.has_everything(None));
    }
}
