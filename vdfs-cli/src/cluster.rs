//! Which filesystem a command talks to, and the way to its master.
//!
//! The first that is given counts: `--master` with `--identity`, `--state`,
//! `/etc/vdfs/client.toml`, the default state directory of `up`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use vdfs_net::address::named_by;
use vdfs_net::{Carrier, Connector, Identity, QuicConfig, QuicEndpoint, Target};
use vdfs_proto::handshake::Role;
use vdfs_proto::meta::{VolumeState, VolumeStatus};
use vdfs_proto::{Status, VolumeInfo};

use crate::args::ClusterArgs;
use crate::places;
use vdfs_program::client::ClientFile;
use vdfs_program::{Blame, Failure, masters};

/// How long a command waits for the master before it gives up.
pub(crate) const MASTER_WAIT: Duration = Duration::from_secs(3);
/// How long a command waits for its connections to close.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// For what clients are refused.
pub(crate) const AS_ADMIN: &str =
    "use --identity with an identity of the role admin, or --state of the master";

const FOUR_WAYS: &str = "name it with --master ADDR --identity DIR, with --state DIR, in \
    /etc/vdfs/client.toml, or start the default one: vdfs up DIR";

/// A filesystem: where its master is and as whom to speak to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(crate) masters: Vec<SocketAddr>,
    pub(crate) identity: PathBuf,
}

impl Cluster {
    pub(crate) fn find(args: &ClusterArgs) -> Result<Cluster, Failure> {
        if let (false, Some(identity)) = (args.master.is_empty(), &args.identity) {
            return Ok(Cluster {
                masters: masters::resolve(&args.master)?,
                identity: identity.clone(),
            });
        }
        match &args.state {
            Some(state) => Cluster::of_state(state)?.ok_or_else(|| {
                let why = "neither `vdfs up` nor `vdfs-master` has run with this state directory";
                Failure::new(state.display(), why).way_out(FOUR_WAYS)
            }),
            None => Cluster::find_unnamed(None, &places::default_state()?),
        }
    }

    /// `client_file` stands for the usual one.
    fn find_unnamed(client_file: Option<&Path>, default_state: &Path) -> Result<Cluster, Failure> {
        if let Some(file) = ClientFile::load(client_file)? {
            return Ok(Cluster {
                masters: file.masters()?,
                identity: file.identity(),
            });
        }
        Cluster::of_state(default_state)?
            .ok_or_else(|| Failure::new("filesystem", "none found").way_out(FOUR_WAYS))
    }

    /// The filesystem of a running or stopped `up` or master; `None` if there is none.
    pub(crate) fn of_state(state: &Path) -> Result<Option<Cluster>, Failure> {
        let path = state.join("addr");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&path, &error)),
        };
        let addr: SocketAddr = text.trim().parse().blame(path.display())?;
        let admin = state.join("identity-admin");
        let identity = if admin.is_dir() {
            admin
        } else {
            state.join("identity-client")
        };
        Ok(Some(Cluster {
            masters: vec![addr],
            identity,
        }))
    }

    pub(crate) fn targets(&self) -> Vec<Target> {
        let target = |addr: &SocketAddr| Target {
            addr: *addr,
            role: Role::Master,
            node: None,
        };
        self.masters.iter().map(target).collect()
    }

    /// The masters' addresses as they are typed.
    pub(crate) fn masters_text(&self) -> String {
        let addrs: Vec<String> = self.masters.iter().map(SocketAddr::to_string).collect();
        addrs.join(",")
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::new(path.display(), error);
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            failure.way_out("run this as the user of `up` or of the master")
        }
        _ => failure,
    }
}

/// A command's own end of its connections, under mutual TLS.
#[derive(Debug)]
pub(crate) struct Line {
    endpoint: QuicEndpoint,
}

impl Line {
    pub(crate) fn open(cluster: &Cluster) -> Result<Line, Failure> {
        let identity = Identity::load(&cluster.identity).map_err(Failure::of)?;
        let endpoint = QuicEndpoint::dialler(&identity, QuicConfig::default());
        Ok(Line {
            endpoint: endpoint.map_err(Failure::of)?,
        })
    }

    pub(crate) fn connector(&self) -> Arc<dyn Connector> {
        self.endpoint.connector()
    }

    /// The way to a volume that the cluster's master has named.
    pub(crate) fn way_to(&self, cluster: &Cluster, volume: &VolumeInfo) -> Arc<dyn Carrier> {
        let master = cluster.masters.first().map(SocketAddr::ip);
        self.connector().carrier(&Target {
            addr: master.map_or(volume.addr, |master| named_by(master, volume.addr)),
            role: Role::Volume,
            node: Some(volume.node.clone()),
        })
    }

    /// Asks each volume that is not away; that one serves nothing.
    pub(crate) async fn ask_volumes<T>(
        &self,
        cluster: &Cluster,
        volumes: &[VolumeStatus],
        ask: impl AsyncFn(Arc<dyn Carrier>) -> Result<T, Status>,
    ) -> Vec<Result<T, Status>> {
        join_all(volumes.iter().map(async |volume| match volume.state {
            VolumeState::Away => Err(Status::NotServing),
            VolumeState::Serving => ask(self.way_to(cluster, &volume.info)).await,
        }))
        .await
    }

    /// What to say when none of the cluster's masters answers.
    pub(crate) fn unanswered(&self, cluster: &Cluster) -> Failure {
        let mut why = format!("no answer within {} s", MASTER_WAIT.as_secs());
        let mut failures = cluster
            .targets()
            .into_iter()
            .filter_map(|target| self.endpoint.last_failure(&target));
        if let Some(failure) = failures.next() {
            why += &format!(" ({})", failure.why);
        }
        Failure::new(format!("master {}", cluster.masters_text()), why)
            .way_out("is it running? start it with: vdfs up DIR, or vdfs-master")
    }

    pub(crate) fn close(self) {
        self.endpoint.shutdown(CLOSE_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_with_nothing_there_names_the_four_ways() {
        let empty = tempfile::tempdir().expect("a scratch directory");
        let found = Cluster::find_unnamed(None, empty.path());
        let line = found.expect_err("nothing is there").to_string();
        for way in [
            "--master ADDR --identity DIR",
            "--state DIR",
            "/etc/vdfs/client.toml",
            "vdfs up DIR",
        ] {
            assert!(line.contains(way), "{line}");
        }
    }

    #[test]
    fn find_prefers_the_client_file_over_the_default_state() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let file = scratch.path().join("client.toml");
        std::fs::write(scratch.path().join("addr"), "127.0.0.1:1\n").expect("writes");
        let of_state = Cluster::find_unnamed(None, scratch.path()).expect("the state's");
        assert_eq!(of_state.masters_text(), "127.0.0.1:1");
        std::fs::write(&file, "master = [\"192.0.2.7\"]\nidentity = \"/i\"\n").expect("writes");
        let of_file = Cluster::find_unnamed(Some(&file), scratch.path()).expect("the file's");
        assert_eq!(of_file.masters_text(), "192.0.2.7:7400");
    }
}
