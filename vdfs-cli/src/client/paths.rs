//! From data ids to names of the files that have them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use vdfs_program::{Blame, Failure};
use vdfs_proto::{DataId, FileKind, Ino, Status};

use super::connection::{self, Connection};
use super::every_file::{Named, bar, locate, look_at_every_file};
use crate::cluster::Cluster;

/// A name of each file that has one; looks at every file, unless `data` is empty. `what` is the command.
pub(crate) fn paths_of(
    cluster: &Cluster,
    what: &'static str,
    data: &HashSet<DataId>,
) -> Result<HashMap<DataId, PathBuf>, Failure> {
    let paths = RefCell::new(HashMap::new());
    if !data.is_empty() {
        connection::run_at(cluster, what, async |connection| {
            find(connection, data, &paths).await.blame(what)
        })?;
    }
    Ok(paths.into_inner())
}

async fn find(
    connection: &Connection,
    data: &HashSet<DataId>,
    paths: &RefCell<HashMap<DataId, PathBuf>>,
) -> Result<(), Status> {
    let bar = bar();
    bar.set_message("for those that are damaged");
    let fs = &connection.fs;
    let look = async |named: Named<'_>| {
        bar.inc(1);
        if named.entry.kind != FileKind::Regular {
            return Ok(());
        }
        let located = locate(fs, named.entry.ino).await?;
        let own = located.map(|(_, layout, _)| layout.data);
        if let Some(own) = own.filter(|own| data.contains(own)) {
            paths.borrow_mut().insert(own, named.path());
        }
        Ok(())
    };
    look_at_every_file(fs, (Ino::ROOT, Path::new("/")), look).await?;
    bar.finish_and_clear();
    Ok(())
}
