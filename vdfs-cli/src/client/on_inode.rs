//! Commands on one inode, which is named by a path in the filesystem or on a mount of it.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use vdfs_client::path::resolve;
use vdfs_proto::Ino;

use crate::args::ClusterArgs;
use crate::client::connection::{self, Connection};
use crate::cluster::Cluster;
use crate::places;
use vdfs_program::{Blame, Failure};

/// Runs `command` on the inode of the path, in a session of its own.
pub(crate) fn run_on_inode(
    path: &Path,
    cluster: &ClusterArgs,
    name: &str,
    command: impl AsyncFnOnce(&Connection, Ino) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let what = &path.display();
    match find_on_mount(path, cluster)? {
        Some((cluster, ino)) => connection::run_at(&cluster, name, async |connection| {
            command(connection, ino).await
        }),
        None if path.is_absolute() => connection::run(cluster, name, async |connection| {
            let Connection { fs, caller } = connection;
            let attr = resolve(fs, caller, path, true).await.blame(what)?;
            command(connection, attr.ino).await
        }),
        None => Err(Failure::new(what, "is not on a mount of VDFS")
            .way_out("name a path on one, or an absolute path in the filesystem")),
    }
}

/// The filesystem and the inode of a path on a mount; `None` if it is on none.
fn find_on_mount(path: &Path, named: &ClusterArgs) -> Result<Option<(Cluster, Ino)>, Failure> {
    let Ok(path) = path.canonicalize() else {
        return Ok(None);
    };
    let mount = vdfs_fuse::mount_of(&path).blame("/proc/self/mountinfo")?;
    let Some(mount) = mount.filter(|mount| mount.fs_type.starts_with("fuse")) else {
        return Ok(None);
    };
    let Some(masters) = parse_source(&mount.source) else {
        return Ok(None);
    };
    let metadata = path.metadata().blame(path.display())?;
    Ok(Some((
        cluster_of_mount(named, &mount.mountpoint, masters)?,
        Ino(metadata.ino()),
    )))
}

/// The source of a mount is its masters' addresses.
fn parse_source(source: &str) -> Option<Vec<SocketAddr>> {
    source.split(',').map(|addr| addr.parse().ok()).collect()
}

/// The mount says where the master is; as whom to speak to it is found as for every command.
fn cluster_of_mount(
    named: &ClusterArgs,
    mountpoint: &Path,
    masters: Vec<SocketAddr>,
) -> Result<Cluster, Failure> {
    let is_named = named.state.is_some() || named.identity.is_some();
    let of_mount = places::state_of(mountpoint).filter(|_| !is_named);
    let found = match of_mount
        .map(|state| Cluster::of_state(&state))
        .transpose()?
    {
        Some(Some(cluster)) => cluster,
        Some(None) | None => Cluster::find(named)?,
    };
    Ok(Cluster { masters, ..found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_source_takes_addresses_only() {
        assert_eq!(
            parse_source("127.0.0.1:1,[::1]:2").map(|all| all.len()),
            Some(2)
        );
        assert_eq!(parse_source("sshfs#host:"), None);
    }
}
