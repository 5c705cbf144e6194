//! The files in which a volume keeps its chunks.

use std::fs;
use std::path::{Path, PathBuf};

/// All in the RAM of one volume.
pub fn chunk_files(ram: &Path) -> Vec<PathBuf> {
    let mut pending = vec![ram.join("chunks")];
    let mut files = Vec::new();
    while let Some(path) = pending.pop() {
        match path.is_dir() {
            true => pending.extend(children(&path)),
            false => files.push(path),
        }
    }
    files
}

/// What is in a directory.
pub fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("lists");
    entries.map(|entry| entry.expect("a name").path()).collect()
}
