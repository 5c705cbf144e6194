//! Whether there is as much RAM as is asked for.

use std::path::Path;

use vdfs_program::available_bytes;

use super::RamError;

/// Refuses `asked` bytes unless they are there, beside the `used` bytes that the asker already has.
pub(super) fn check(asked: u64, used: u64) -> Result<(), RamError> {
    let meminfo = |error| RamError::io("read", Path::new("/proc/meminfo"), error);
    let available = available_bytes().map_err(meminfo)? + used;
    if asked > available {
        return Err(RamError::TooLarge { asked, available });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_refuses_more_than_there_is() {
        assert!(check(4096, 0).is_ok());
        let refused = check(u64::MAX, 0);
        assert!(matches!(refused, Err(RamError::TooLarge { .. })));
    }
}
