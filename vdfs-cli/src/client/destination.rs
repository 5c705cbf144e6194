//! Where in the filesystem a copy goes: into a directory that is there, or under a name.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use vdfs_client::path::{resolve, resolve_parent};
use vdfs_proto::{Attr, FileKind, FileName, Ino, Status};

use crate::client::connection::Connection;

#[derive(Clone, Debug)]
pub(crate) enum Destination {
    Inside(Ino),
    Named(Ino, FileName),
}

impl Destination {
    /// `NotDirectory` if `path` must be a directory (it ends in a slash, or several things go
    /// there) and is none.
    pub(crate) async fn find(
        connection: &Connection,
        path: &Path,
        must_be_directory: bool,
    ) -> Result<Destination, Status> {
        let (fs, caller) = (&connection.fs, &connection.caller);
        match resolve(fs, caller, path, true).await {
            Ok(attr) if attr.kind == FileKind::Directory => {
                return Ok(Destination::Inside(attr.ino));
            }
            Ok(_) | Err(Status::NotFound) => {}
            Err(status) => return Err(status),
        }
        if must_be_directory || path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(Status::NotDirectory);
        }
        let (parent, name): (Attr, FileName) = resolve_parent(fs, caller, path).await?;
        Ok(Destination::Named(parent.ino, name))
    }

    /// The directory and the name for something that is called `own_name` where it comes from;
    /// `Invalid` if neither gives a name.
    pub(crate) fn of(&self, own_name: Option<FileName>) -> Result<(Ino, FileName), Status> {
        match self {
            Destination::Named(parent, name) => Ok((*parent, name.clone())),
            Destination::Inside(directory) => Ok((*directory, own_name.ok_or(Status::Invalid)?)),
        }
    }
}
