//! The cluster of an `up`: its authority and who its parts are.
//!
//! Each directory is made under another name and renamed, so a start that is killed leaves none
//! half-made. Identities that are about to expire are issued again: the authority is at hand.

use std::path::Path;
use std::time::{Duration, SystemTime};

use vdfs_net::{Authority, Identity, IdentityError, StateDir};
use vdfs_proto::handshake::Role;
use vdfs_proto::{ClusterId, Status};

use crate::failure::{Blame, Failure};

const RENEW_BEFORE: Duration = Duration::from_secs(60 * 24 * 3600);

#[derive(Debug)]
pub(super) struct Identities {
    authority: Authority,
}

impl Identities {
    /// The cluster of the state directory, made on the first start, with the identities that
    /// others use.
    pub(super) fn open(state: &StateDir) -> Result<Identities, Failure> {
        let ca = state.ca();
        if !ca.is_dir() {
            let authority = Authority::create(ClusterId(rand::random())).map_err(Failure::of)?;
            save_whole(&ca, |dir| authority.save(dir))?;
        }
        let identities = Identities {
            authority: Authority::load(&ca).map_err(Failure::of)?,
        };
        identities.get(Role::Client, "client", &state.identity_client())?;
        identities.get(Role::Admin, "admin", &state.identity_admin())?;
        Ok(identities)
    }

    pub(super) fn cluster(&self) -> ClusterId {
        self.authority.cluster()
    }

    /// The identity in `dir`, issued if it is not there.
    pub(super) fn get(&self, role: Role, node: &str, dir: &Path) -> Result<Identity, Failure> {
        if dir.is_dir() {
            let identity = Identity::load(dir).map_err(Failure::of)?;
            if identity.cluster() != self.cluster() {
                return Err(Failure::new(dir.display(), Status::WrongCluster)
                    .way_out("remove it: it is made again"));
            }
            if identity.not_after() > SystemTime::now() + RENEW_BEFORE {
                return Ok(identity);
            }
            std::fs::remove_dir_all(dir).blame(dir.display())?;
        }
        let identity = self.authority.issue(role, node).map_err(Failure::of)?;
        save_whole(dir, |dir| identity.save(dir))?;
        Ok(identity)
    }
}

fn save_whole(
    dir: &Path,
    save: impl FnOnce(&Path) -> Result<(), IdentityError>,
) -> Result<(), Failure> {
    let beside = dir.with_extension("new");
    match std::fs::remove_dir_all(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::new(beside.display(), error));
        }
        Ok(()) | Err(_) => {}
    }
    save(&beside).map_err(Failure::of)?;
    std::fs::rename(&beside, dir).blame(dir.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_made_once_and_belong_to_one_cluster() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let state = StateDir::open(&scratch.path().join("state")).expect("a state directory");
        let cluster = Identities::open(&state).expect("made").cluster();
        let again = Identities::open(&state).expect("loaded");
        assert_eq!(again.cluster(), cluster);
        let client = Identity::load(&state.identity_client()).expect("is there");
        assert_eq!((client.cluster(), client.role()), (cluster, Role::Client));
        let admin = Identity::load(&state.identity_admin()).expect("is there");
        assert_eq!(admin.role(), Role::Admin);
    }

    #[test]
    fn identity_of_another_cluster_is_refused() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let state = StateDir::open(&scratch.path().join("state")).expect("a state directory");
        let other = Authority::create(ClusterId(1)).expect("made");
        let stranger = other.issue(Role::Client, "client").expect("issued");
        stranger.save(&state.identity_client()).expect("saved");
        let line = Identities::open(&state).expect_err("refused").to_string();
        assert!(line.contains("another cluster"), "{line}");
    }
}
