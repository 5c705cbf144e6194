//! From damaged chunks to the names of files.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use vdfs_program::{Blame, Failure, human};
use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::{DataId, FileKind, Ino, Status};

use super::VolumeScrub;
use crate::client::connection::{self, Connection};
use crate::client::every_file::{Named, bar, look_at_every_file};
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
    if chunks.is_empty() {
        return Ok(Vec::new());
    }
    let mut paths: HashMap<DataId, Option<PathBuf>> = HashMap::new();
    paths.extend(chunks.iter().map(|(_, damaged)| (damaged.chunk.data, None)));
    let paths = RefCell::new(paths);
    connection::run_at(cluster, "scrub", async |connection| {
        name(connection, &paths).await.blame("scrub")
    })?;
    let paths = paths.into_inner();
    let damage = chunks.into_iter().map(|(volume, damaged)| Damage {
        path: paths[&damaged.chunk.data].clone(),
        chunk: damaged.chunk.index,
        volume: volume.name.clone(),
        bad_bytes: u64::from(damaged.bad_blocks) * u64::from(BLOCK_BYTES),
        is_lost: damaged.is_bad_copy,
    });
    Ok(damage.collect())
}

async fn name(
    connection: &Connection,
    paths: &RefCell<HashMap<DataId, Option<PathBuf>>>,
) -> Result<(), Status> {
    let bar = bar();
    bar.set_message("for those that are damaged");
    let fs = &connection.fs;
    let look = async |named: Named<'_>| {
        bar.inc(1);
        if named.entry.kind != FileKind::Regular {
            return Ok(());
        }
        match fs.locate(named.entry.ino).await {
            Ok((_, layout, _)) => {
                if let Some(path) = paths.borrow_mut().get_mut(&layout.data) {
                    *path = Some(named.path());
                }
                Ok(())
            }
            // Somebody has removed it meanwhile.
            Err(Status::StaleInode | Status::NotFound) => Ok(()),
            Err(status) => Err(status),
        }
    };
    look_at_every_file(fs, (Ino::ROOT, Path::new("/")), look).await?;
    bar.finish_and_clear();
    Ok(())
}
