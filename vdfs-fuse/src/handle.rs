//! What the door remembers of an open file, all of it within the number it gives to the kernel.

use fuser::FileHandle;
use vdfs_proto::HandleId;

/// An open file as the kernel names it: the client's handle, and whether this open bypasses the
/// page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DoorHandle {
    pub(crate) id: HandleId,
    /// Opened with `FOPEN_DIRECT_IO`. The flags that come with a write cannot tell: `fcntl(2)`
    /// changes `O_APPEND` of an open file.
    pub(crate) uncached: bool,
}

impl DoorHandle {
    pub(crate) fn to_kernel(self) -> FileHandle {
        assert!(
            self.id.0 < 1 << 63,
            "clients count handles from 1: {:?}",
            self.id
        );
        FileHandle(self.id.0 << 1 | u64::from(self.uncached))
    }

    pub(crate) fn from_kernel(handle: FileHandle) -> Self {
        DoorHandle {
            id: HandleId(handle.0 >> 1),
            uncached: handle.0 & 1 == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn door_handle_survives_the_kernel() {
        for uncached in [false, true] {
            for id in [0, 1, (1 << 63) - 1] {
                let handle = DoorHandle {
                    id: HandleId(id),
                    uncached,
                };
                assert_eq!(DoorHandle::from_kernel(handle.to_kernel()), handle);
            }
        }
    }
}
