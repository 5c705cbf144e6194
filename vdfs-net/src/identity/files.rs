//! Keys and certificates on the disk.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Flaw, IdentityError};
use crate::state_dir::{make_private_dir, write_file};

/// Bits of a mode that let group and others in.
const MODE_OTHERS: u32 = 0o077;

/// Writes the files (name, text, mode) into `dir`, which is made (0700) if needed.
pub(super) fn save(dir: &Path, files: &[(&str, &str, u32)]) -> Result<(), IdentityError> {
    make_private_dir(dir).map_err(write_error(dir))?;
    for (name, text, mode) in files {
        let path = dir.join(name);
        write_file(&path, text.as_bytes(), *mode).map_err(write_error(&path))?;
    }
    Ok(())
}

pub(super) fn read_public(path: &Path) -> Result<String, IdentityError> {
    fs::read_to_string(path).map_err(read_error(path))
}

/// Refuses a key that others can read.
pub(super) fn read_private(path: &Path) -> Result<String, IdentityError> {
    let mode = fs::metadata(path).map_err(read_error(path))?.mode();
    if mode & MODE_OTHERS != 0 {
        return Err(Flaw::TooOpen(mode & 0o777).of(path));
    }
    read_public(path)
}

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Read { path, source }
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Write { path, source }
}
