//! The budget of RAM for metadata: what grows is refused before the memory is gone.
//!
//! At the limit nothing new is made (names, attributes, symlinks); reading, changing in place and
//! removing go on. Sessions and open handles, without which nobody could remove anything, may take
//! somewhat more. While an image lives (a checkpoint, a dump), what is changed is there twice: if that
//! would take more than there is, the image is *recalled*, and whoever writes it ends.
//!
//! Invariant: metadata and its copies together stay below [`RamLimits::total_bytes`], but for what is
//! copied until a recalled image is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vdfs_proto::Status;
use vdfs_proto::meta::MetadataRam;

use super::Core;
use super::cow::take_copied_bytes;

/// An open handle, with what is known of its inode's openers.
const HANDLE_BYTES: u64 = 400;
/// What a new file takes on average, for whoever asks how many there can be: an inode, its place in a
/// directory, a name of 20 bytes.
const FILE_BYTES: u64 = 192;
/// Sessions and handles may go beyond the limit by this part of it.
const BEYOND_FRACTION: u64 = 8;

/// How much RAM there is for metadata, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamLimits {
    /// Nothing grows beyond.
    pub metadata_bytes: u64,
    /// Copies that images make necessary included.
    pub total_bytes: u64,
}

impl RamLimits {
    pub const NONE: RamLimits = RamLimits {
        metadata_bytes: u64::MAX,
        total_bytes: u64::MAX,
    };
}

/// What all images of a core have in common.
#[derive(Debug, Default)]
pub(crate) struct Images {
    recalled: AtomicBool,
}

impl Images {
    pub(crate) fn are_recalled(&self) -> bool {
        self.recalled.load(Ordering::Relaxed)
    }
}

/// Of one life of the master.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) limits: RamLimits,
    /// Shared with every image that lives.
    pub(crate) images: Arc<Images>,
    /// Copied since there was no image.
    copied_bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            limits: RamLimits::NONE,
            images: Arc::default(),
            copied_bytes: 0,
        }
    }
}

impl Core {
    /// What may be taken from now on.
    pub fn limit_ram(&mut self, limits: RamLimits) {
        self.live.budget.limits = limits;
    }

    /// `NoSpace` if nothing may be made any more.
    pub(crate) fn check_growth(&self) -> Result<(), Status> {
        let limits = &self.live.budget.limits;
        match self.metadata_bytes() < limits.metadata_bytes {
            true => Ok(()),
            false => Err(Status::NoSpace),
        }
    }

    /// The same for what is needed to remove anything.
    pub(crate) fn check_hold(&self) -> Result<(), Status> {
        let limit = self.live.budget.limits.metadata_bytes;
        match self.metadata_bytes() < limit.saturating_add(limit / BEYOND_FRACTION) {
            true => Ok(()),
            false => Err(Status::NoSpace),
        }
    }

    pub(crate) fn metadata_bytes(&self) -> u64 {
        self.state.bytes() + self.live.opens.handles() * HANDLE_BYTES
    }

    /// Takes account of what the present step has copied.
    pub(crate) fn count_copies(&mut self) {
        let copied = take_copied_bytes();
        let total = self.metadata_bytes();
        let budget = &mut self.live.budget;
        if Arc::strong_count(&budget.images) == 1 {
            budget.copied_bytes = 0;
            budget.images.recalled.store(false, Ordering::Relaxed);
            return;
        }
        budget.copied_bytes += copied;
        if total + budget.copied_bytes > budget.limits.total_bytes {
            budget.images.recalled.store(true, Ordering::Relaxed);
        }
    }

    /// Inodes that can still be made.
    pub(crate) fn files_left(&self) -> u64 {
        let room = self.live.budget.limits.metadata_bytes;
        let left = room.saturating_sub(self.metadata_bytes()) / FILE_BYTES;
        let used = self.state.inodes.counters.used;
        left.min(self.state.config.files_max.saturating_sub(used))
    }

    pub(crate) fn ram(&self) -> MetadataRam {
        let budget = &self.live.budget;
        let limit = budget.limits.metadata_bytes;
        MetadataRam {
            used_bytes: self.metadata_bytes(),
            limit_bytes: (limit < u64::MAX).then_some(limit),
            copied_bytes: budget.copied_bytes,
        }
    }
}
