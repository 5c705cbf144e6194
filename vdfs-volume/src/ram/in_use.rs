//! How much RAM the files of a place hold, whether or not anything runs.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Unit of `st_blocks` (stat(2)), in bytes.
const STAT_BLOCK_BYTES: u64 = 512;

/// Bytes held below `ram`: by a tmpfs of its own, or by the files in a directory of a shared one.
/// Nothing there is 0.
pub fn in_use_bytes(ram: &Path) -> u64 {
    measured(ram).unwrap_or_else(|error| {
        tracing::debug!(%error, ram = %ram.display(), "RAM in use not measured");
        0
    })
}

fn measured(ram: &Path) -> io::Result<u64> {
    if !is_mountpoint(ram)? {
        return files_bytes(ram);
    }
    let stats = rustix::fs::statvfs(ram)?;
    Ok((stats.f_blocks - stats.f_bfree) * stats.f_frsize)
}

fn is_mountpoint(ram: &Path) -> io::Result<bool> {
    let own = ram.symlink_metadata()?;
    let Some(above) = ram.parent() else {
        return Ok(true);
    };
    Ok(own.is_dir() && own.dev() != above.metadata()?.dev())
}

pub(super) fn files_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += metadata.blocks() * STAT_BLOCK_BYTES;
        if metadata.is_dir() {
            bytes += files_bytes(&entry.path())?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_in_use_follows_a_link_and_counts_all_files_below() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let shared = scratch.path().join("shared");
        std::fs::create_dir_all(shared.join("volume-1")).expect("directories");
        std::fs::write(shared.join("volume-1/a"), vec![1; 100_000]).expect("writes");
        let link = scratch.path().join("ram");
        std::os::unix::fs::symlink(&shared, &link).expect("a link");
        assert!(in_use_bytes(&link) >= 100_000);
        assert_eq!(in_use_bytes(&scratch.path().join("missing")), 0);
    }
}
