//! What operators do with a master's files while no master runs on them: check them, write everything
//! out as text, and make them from such a text.
//!
//! Invariant: checking and dumping open files for reading alone. A load makes a directory that has its
//! name only when it is whole.

mod files;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use vdfs_proto::meta::Finding;
use vdfs_proto::{ClusterId, Timestamp};

use crate::checkpoint::{self, CheckpointError};
use crate::core::{Core, LoadError, Loader};
use crate::disk::{DirectoryDisk, Disk, ReadOnlyDisk};
use crate::log::{self, LogOpenError};

pub use crate::core::Progress;
pub(crate) use files::{check_checkpoints, check_log, flaw};

/// A line of a dump, in bytes, taken as an error when longer: an attribute of 64 KiB in which each byte
/// is three.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Why a dump cannot be written or loaded.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    #[error("{}: {why}", path.display())]
    Io { path: PathBuf, why: io::Error },
    #[error("{}: there is no filesystem in it", dir.display())]
    Nothing { dir: PathBuf },
    #[error("{}: {}; {}", dir.display(), finding.what, finding.way_out)]
    Unreadable { dir: PathBuf, finding: Finding },
    #[error("{0}")]
    Load(#[from] LoadError),
    #[error("the dump is of cluster {found}, and the authority here is of cluster {expected}")]
    OtherCluster {
        found: ClusterId,
        expected: ClusterId,
    },
    #[error("{}: is there already; move it aside, or load into another state directory", dir.display())]
    Present { dir: PathBuf },
    #[error("{0}")]
    Log(#[from] LogOpenError),
    #[error("{0}")]
    Checkpoint(#[from] CheckpointError),
}

/// What a check has looked at, and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub findings: Vec<Finding>,
    /// What is worth knowing and nothing wrong.
    pub notes: Vec<String>,
    /// Inodes in use.
    pub files: u64,
    /// Changes since the log was made.
    pub records: u64,
    pub checkpoints: u32,
}

/// Checks everything in the log directory of a master that does not run.
pub fn check(log_dir: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Checked, MetaError> {
    let disk = open(log_dir)?;
    let (core, mut checked) = files::restore(&disk)?;
    if let Some(core) = core {
        let image = core.image();
        (checked.files, checked.records) = (image.files(), image.records());
        let flaws = image.check(progress).into_iter();
        checked.findings.extend(flaws.map(files::flaw));
    } else if checked.findings.is_empty() {
        return Err(MetaError::Nothing {
            dir: log_dir.to_owned(),
        });
    }
    Ok(checked)
}

/// Writes the state that a start would restore. Gives the inodes in use.
pub fn dump(
    log_dir: &Path,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<u64, MetaError> {
    let disk = open(log_dir)?;
    let (core, checked) = files::restore(&disk)?;
    let dir = log_dir.to_owned();
    let Some(core) = core else {
        return Err(match checked.findings.into_iter().next() {
            Some(finding) => MetaError::Unreadable { dir, finding },
            None => MetaError::Nothing { dir },
        });
    };
    let image = core.image();
    let written = image.dump(out, progress);
    written.map_err(|why| MetaError::Io {
        path: "output".into(),
        why,
    })?;
    Ok(image.files())
}

/// Makes the log directory of a new master from a dump of `cluster`. Gives the inodes in use;
/// `progress` is told of lines.
pub fn load(
    log_dir: &Path,
    cluster: ClusterId,
    input: &mut dyn BufRead,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, MetaError> {
    refuse_present(log_dir)?;
    let mut core = read_dump(input, progress)?;
    let found = core.config().cluster;
    if found != cluster {
        return Err(MetaError::OtherCluster {
            found,
            expected: cluster,
        });
    }
    core.outlive(Timestamp::from_system(SystemTime::now()));
    let beside = log_dir.with_extension("loading");
    let in_beside = |why| MetaError::Io {
        path: beside.clone(),
        why,
    };
    match std::fs::remove_dir_all(&beside) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(in_beside(why)),
        Ok(()) | Err(_) => {}
    }
    let disk = DirectoryDisk::open(&beside).map_err(in_beside)?;
    log::begin_behind(&disk, core.records())?;
    checkpoint::write(&disk, cluster, core.image())?.publish()?;
    std::fs::rename(&beside, log_dir).map_err(in_beside)?;
    Ok(core.image().files())
}

/// An empty directory is as good as none.
fn refuse_present(log_dir: &Path) -> Result<(), MetaError> {
    match std::fs::read_dir(log_dir).map(|mut names| names.next().is_some()) {
        Ok(false) => Ok(()),
        Ok(true) => Err(MetaError::Present {
            dir: log_dir.to_owned(),
        }),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(why) => Err(MetaError::Io {
            path: log_dir.to_owned(),
            why,
        }),
    }
}

fn read_dump(input: &mut dyn BufRead, progress: &mut dyn FnMut(u64)) -> Result<Core, MetaError> {
    let mut loader = Loader::default();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut bounded = io::Read::take(&mut *input, LINE_BYTES_MAX);
        let read = bounded.read_until(b'\n', &mut line);
        read.map_err(|why| MetaError::Io {
            path: "input".into(),
            why,
        })?;
        if line.is_empty() {
            break;
        }
        loader.take_line(&line)?;
        progress(number);
    }
    Ok(loader.finish()?)
}

fn open(log_dir: &Path) -> Result<Arc<dyn Disk>, MetaError> {
    let disk = ReadOnlyDisk::of(log_dir);
    disk.names().map_err(|why| MetaError::Io {
        path: log_dir.to_owned(),
        why,
    })?;
    Ok(Arc::new(disk))
}
