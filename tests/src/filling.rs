//! Files of one size until there is no room.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::pattern;

/// Writes files until there is no room; gives how many are whole.
pub fn fill(dir: &Path, file_bytes: usize) -> u64 {
    for number in 0u64.. {
        let path = dir.join(number.to_string());
        if let Err(error) = write_whole(&path, &pattern::bytes(number, 0, file_bytes)) {
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
            drop(fs::remove_file(path));
            return number;
        }
    }
    unreachable!("the loop ends with the room")
}

/// ENOSPC may come from write, or at the latest from fsync.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// So many of them are as they were written.
pub fn verify(dir: &Path, files: u64, file_bytes: usize) {
    for number in 0..files {
        let bytes = fs::read(dir.join(number.to_string())).expect("an acknowledged file reads");
        assert_eq!(bytes.len(), file_bytes);
        pattern::assert_matches(number, 0, &bytes);
    }
}
