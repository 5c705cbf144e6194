//! `vdfs rm`: takes names away; with `-r` directories with all that is in them.

use std::path::Path;

use vdfs_client::path::resolve_parent;
use vdfs_proto::acl::Perms;
use vdfs_proto::{Attr, FileKind, FileName, Status};

use crate::args::RmArgs;
use crate::client::connection::{self, Connection};
use crate::client::listing::list;
use vdfs_program::Failure;

pub(crate) fn run(args: &RmArgs) -> Result<(), Failure> {
    connection::run(&args.cluster, "rm", async |connection| {
        for path in &args.paths {
            let what = format!("rm {}", path.display());
            let removed = remove(connection, path, args.recursive).await;
            removed.map_err(|status| match status {
                Status::IsDirectory => Failure::new(what, status).way_out("remove it with -r"),
                other => Failure::new(what, other),
            })?;
        }
        Ok(())
    })
}

/// A name on the way to being removed.
struct Doomed {
    parent: Attr,
    name: FileName,
    attr: Attr,
    /// A directory whose entries have been put above it.
    is_listed: bool,
}

async fn remove(connection: &Connection, path: &Path, recursive: bool) -> Result<(), Status> {
    let Connection { fs, caller } = connection;
    let (parent, name) = resolve_parent(fs, caller, path).await?;
    let attr = fs.lookup(parent.ino, &name).await?;
    if attr.kind == FileKind::Directory && !recursive {
        return Err(Status::IsDirectory);
    }
    // A stack instead of recursion: paths may be deeper than a thread's stack.
    let mut doomed = vec![Doomed {
        parent,
        name,
        attr,
        is_listed: false,
    }];
    while let Some(next) = doomed.pop() {
        if next.attr.kind == FileKind::Directory && !next.is_listed {
            put_contents_on_top(connection, next, &mut doomed).await?;
        } else {
            remove_one(connection, next).await?;
        }
    }
    Ok(())
}

async fn put_contents_on_top(
    connection: &Connection,
    directory: Doomed,
    doomed: &mut Vec<Doomed>,
) -> Result<(), Status> {
    let parent = directory.attr;
    let wanted = Perms::READ.and(Perms::EXECUTE);
    let Connection { fs, caller } = connection;
    caller.check(fs, &parent, wanted).await?;
    doomed.push(Doomed {
        is_listed: true,
        ..directory
    });
    for (entry, attr) in list(fs, parent.ino).await? {
        doomed.push(Doomed {
            parent,
            name: entry.name,
            attr,
            is_listed: false,
        });
    }
    Ok(())
}

async fn remove_one(connection: &Connection, doomed: Doomed) -> Result<(), Status> {
    let Connection { fs, caller } = connection;
    caller
        .check_removal(fs, &doomed.parent, &doomed.attr)
        .await?;
    match doomed.attr.kind {
        FileKind::Directory => {
            let found = Some(doomed.attr.ino);
            let parent = doomed.parent.ino;
            fs.rmdir(parent, doomed.name, found).await
        }
        _ => fs.unlink(doomed.parent.ino, doomed.name).await,
    }
}
