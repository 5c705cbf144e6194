//! From damaged chunks to the names of files.

use std::path::PathBuf;

use serde::Serialize;
use vdfs_program::{Failure, human};
use vdfs_proto::chunk::BLOCK_BYTES;

use super::VolumeScrub;
use crate::client::paths::paths_of;
use crate::cluster::Cluster;

/// A damaged chunk.
#[derive(Debug, Serialize)]
pub(super) struct Damage {
    /// A name of the file; none if it has none any more.
    path: Option<PathBuf>,
    /// Its place in the file.
    chunk: u32,
    volume: String,
    /// Bytes of blocks that do not match their sums.
    bad_bytes: u64,
    /// All of the chunk is gone.
    is_lost: bool,
}

impl Damage {
    pub(super) fn text(&self) -> String {
        let path = match &self.path {
            Some(path) => path.display().to_string(),
            None => "(a file without a name)".to_owned(),
        };
        let what = match self.is_lost {
            true => "is lost".to_owned(),
            false => format!("has {} of damaged blocks", human(self.bad_bytes)),
        };
        format!("{path}: chunk {} on {} {what}", self.chunk, self.volume)
    }
}

/// Looks for the files only if there are damaged chunks.
pub(super) fn find_damage(
    cluster: &Cluster,
    scrubs: &[VolumeScrub],
) -> Result<Vec<Damage>, Failure> {
    let reports = scrubs
        .iter()
        .filter_map(|scrub| Some((&scrub.volume, scrub.report.as_ref().ok()?)));
    let chunks: Vec<_> = reports
        .flat_map(|(volume, report)| report.damaged.iter().map(move |chunk| (volume, *chunk)))
        .collect();
    let data = chunks.iter().map(|(_, damaged)| damaged.chunk.data);
    let paths = paths_of(cluster, "scrub", &data.collect())?;
    let damage = chunks.into_iter().map(|(volume, damaged)| Damage {
        path: paths.get(&damaged.chunk.data).cloned(),
        chunk: damaged.chunk.index,
        volume: volume.name.clone(),
        bad_bytes: u64::from(damaged.bad_blocks) * u64::from(BLOCK_BYTES),
        is_lost: damaged.is_bad_copy,
    });
    Ok(damage.collect())
}
