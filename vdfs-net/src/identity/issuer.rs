//! A cluster's authority in a state directory, and whom it has issued identities to.
//!
//! Invariants: a name is issued once a role, noted before its key is made (`ca/issued/ROLE-NAME`,
//! made exclusively, so that programs may issue side by side), and only what was issued is renewed;
//! each directory of a state is made under another name and renamed, so a program that is killed
//! leaves none half-made. What was renewed stays valid until its own end: nothing is revoked.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use vdfs_proto::ClusterId;
use vdfs_proto::handshake::Role;

use super::{Authority, CA_FILE, CERT_FILE, Flaw, Identity, IdentityError, KEY_FILE, NodeName};
use crate::state_dir::{StateDir, make_private_dir};

/// The node name of a cluster's only master.
pub const MASTER_NODE: &str = "master";
/// An identity of the authority's own state directory that ends earlier is issued again.
const RENEW_BEFORE: Duration = Duration::from_secs(60 * 24 * 3600);

/// Issues the identities of one cluster, each name once.
#[derive(Debug)]
pub struct Issuer {
    authority: Authority,
    issued: PathBuf,
}

impl Issuer {
    /// The authority of a state directory, made with the first start, and the identities there that
    /// others use.
    pub fn open_or_make(state: &StateDir) -> Result<Issuer, IdentityError> {
        let ca = state.ca();
        if !ca.is_dir() {
            let authority = Authority::create(ClusterId(rand::random()))?;
            save_whole(&ca, |dir| authority.save(dir))?;
        }
        let issuer = Issuer::open(&ca)?;
        issuer.keep(Role::Client, "client", &state.identity_client())?;
        issuer.keep(Role::Admin, "admin", &state.identity_admin())?;
        Ok(issuer)
    }

    /// The authority in the directory `ca`, whether or not its master runs.
    pub fn open(ca: &Path) -> Result<Issuer, IdentityError> {
        let authority = Authority::load(ca)?;
        let issued = ca.join("issued");
        make_private_dir(&issued).map_err(write_error(&issued))?;
        Ok(Issuer { authority, issued })
    }

    pub fn cluster(&self) -> ClusterId {
        self.authority.cluster()
    }

    /// The identity in `dir`, a place of the authority's own state directory: issued if it is not
    /// there, and again before it ends.
    pub fn keep(&self, role: Role, node: &str, dir: &Path) -> Result<Identity, IdentityError> {
        match self.note(role, &node.parse()?) {
            Ok(_) | Err(IdentityError::Issued { .. }) => {}
            Err(error) => return Err(error),
        }
        if dir.is_dir() {
            if let Some(identity) = self.load_lasting(dir)? {
                return Ok(identity);
            }
            fs::remove_dir_all(dir).map_err(write_error(dir))?;
        }
        let identity = self.authority.issue(role, node)?;
        save_whole(dir, |dir| identity.save(dir))?;
        Ok(identity)
    }

    /// The identity in `dir`; `None` if it has ended or ends soon.
    fn load_lasting(&self, dir: &Path) -> Result<Option<Identity>, IdentityError> {
        let identity = match Identity::load(dir) {
            Err(IdentityError::Flawed {
                flaw: Flaw::Expired { .. },
                ..
            }) => return Ok(None),
            loaded => loaded?,
        };
        if identity.cluster() != self.cluster() {
            return Err(Flaw::OtherCluster.of(dir));
        }
        let is_lasting = identity.not_after() > SystemTime::now() + RENEW_BEFORE;
        Ok(is_lasting.then_some(identity))
    }

    /// Issues an identity into `out`, which is made (0700) if needed; a name that the role has
    /// already, and files that are there, are refused.
    pub fn issue(&self, role: Role, node: &str, out: &Path) -> Result<Identity, IdentityError> {
        let name: NodeName = node.parse()?;
        refuse_present(out)?;
        let note = self.note(role, &name)?;
        let saved = self.make(role, node, out);
        if saved.is_err() {
            // Nobody has it.
            drop(fs::remove_file(note));
        }
        saved
    }

    /// Issues once more, into `out`, the identity of a name that was issued before; files that are
    /// there are refused.
    pub fn renew(&self, role: Role, node: &str, out: &Path) -> Result<Identity, IdentityError> {
        let name: NodeName = node.parse()?;
        refuse_present(out)?;
        if !self.note_path(role, &name).is_file() {
            let (role, node) = (role.as_str(), name);
            return Err(IdentityError::NeverIssued { role, node });
        }
        self.make(role, node, out)
    }

    fn make(&self, role: Role, node: &str, out: &Path) -> Result<Identity, IdentityError> {
        let identity = self.authority.issue(role, node)?;
        identity.save(out)?;
        Ok(identity)
    }

    fn note_path(&self, role: Role, name: &NodeName) -> PathBuf {
        self.issued.join(format!("{}-{name}", role.as_str()))
    }

    fn note(&self, role: Role, name: &NodeName) -> Result<PathBuf, IdentityError> {
        let note = self.note_path(role, name);
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&note);
        match made {
            Ok(_) => Ok(note),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let (role, node) = (role.as_str(), name.clone());
                Err(IdentityError::Issued { role, node })
            }
            Err(error) => Err(write_error(&note)(error)),
        }
    }
}

/// Keys and certificates are never overwritten.
fn refuse_present(out: &Path) -> Result<(), IdentityError> {
    let files = [KEY_FILE, CERT_FILE, CA_FILE].map(|file| out.join(file));
    let present = files
        .into_iter()
        .find(|path| path.symlink_metadata().is_ok());
    present.map_or(Ok(()), |path| Err(IdentityError::Present { path }))
}

fn save_whole(
    dir: &Path,
    save: impl FnOnce(&Path) -> Result<(), IdentityError>,
) -> Result<(), IdentityError> {
    let beside = dir.with_extension("new");
    match fs::remove_dir_all(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(write_error(&beside)(error));
        }
        Ok(()) | Err(_) => {}
    }
    save(&beside)?;
    fs::rename(&beside, dir).map_err(write_error(dir))
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Write { path, source }
}

#[cfg(test)]
mod tests {
    use super::super::PeerName;
    use super::super::authority::Validity;
    use super::*;

    fn scratch_state() -> (tempfile::TempDir, StateDir) {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let state = StateDir::open(&scratch.path().join("state")).expect("a state directory");
        (scratch, state)
    }

    #[test]
    fn identities_of_a_state_are_made_once_and_belong_to_one_cluster() {
        let (_scratch, state) = scratch_state();
        let cluster = Issuer::open_or_make(&state).expect("made").cluster();
        let again = Issuer::open_or_make(&state).expect("loaded");
        assert_eq!(again.cluster(), cluster);
        let client = Identity::load(&state.identity_client()).expect("is there");
        assert_eq!((client.cluster(), client.role()), (cluster, Role::Client));
        let admin = Identity::load(&state.identity_admin()).expect("is there");
        assert_eq!(admin.role(), Role::Admin);
    }

    #[test]
    fn keep_of_another_clusters_identity_is_refused() {
        let (_scratch, state) = scratch_state();
        let other = Authority::create(ClusterId(1)).expect("made");
        let stranger = other.issue(Role::Client, "client").expect("issued");
        stranger.save(&state.identity_client()).expect("saved");
        let line = Issuer::open_or_make(&state)
            .expect_err("refused")
            .to_string();
        assert!(line.contains("another cluster"), "{line}");
    }

    #[test]
    fn issue_of_a_name_works_once_a_role() {
        let (scratch, state) = scratch_state();
        let issuer = Issuer::open_or_make(&state).expect("made");
        let issue =
            |role, name: &str, out: &str| issuer.issue(role, name, &scratch.path().join(out));
        let identity = issue(Role::Volume, "a", "1").expect("free");
        assert_eq!((identity.role(), identity.node()), (Role::Volume, "a"));
        let line = issue(Role::Volume, "a", "2")
            .expect_err("taken")
            .to_string();
        assert!(line.contains("was issued before"), "{line}");
        assert!(!scratch.path().join("2").exists());
        issue(Role::Client, "a", "3").expect("free in this role");
        let line = issue(Role::Client, "client", "4")
            .expect_err("taken")
            .to_string();
        assert!(line.contains("was issued before"), "{line}");
    }

    #[test]
    fn renew_of_what_was_issued_makes_another_beside_it() {
        let (scratch, state) = scratch_state();
        let issuer = Issuer::open_or_make(&state).expect("made");
        let out = |name: &str| scratch.path().join(name);
        let line = issuer.renew(Role::Volume, "a", &out("1"));
        let line = line.expect_err("not issued").to_string();
        assert!(line.contains("was never issued"), "{line}");
        issuer.issue(Role::Volume, "a", &out("1")).expect("free");
        let line = issuer.renew(Role::Volume, "a", &out("1"));
        let line = line.expect_err("never overwritten").to_string();
        assert!(line.contains("is there already"), "{line}");
        issuer.renew(Role::Volume, "a", &out("2")).expect("renewed");
        let renewed = Identity::load(&out("2")).expect("saved");
        assert_eq!((renewed.role(), renewed.node()), (Role::Volume, "a"));
        assert_eq!(renewed.cluster(), issuer.cluster());
        issuer
            .renew(Role::Client, "a", &out("3"))
            .expect_err("of another role");
    }

    #[test]
    fn keep_of_an_expired_identity_makes_another() {
        let (_scratch, state) = scratch_state();
        let issuer = Issuer::open_or_make(&state).expect("made");
        let name = PeerName {
            cluster: issuer.cluster(),
            role: Role::Client,
            node: "client".parse().expect("a label"),
        };
        let now = SystemTime::now();
        let validity = Validity {
            not_before: now - 2 * RENEW_BEFORE,
            not_after: now - RENEW_BEFORE,
        };
        let expired = issuer.authority.issue_for(&name, validity);
        let dir = state.identity_client();
        expired.expect("issued").save(&dir).expect("saved");
        Identity::load(&dir).expect_err("expired");
        Issuer::open_or_make(&state).expect("made again");
        let renewed = Identity::load(&dir).expect("valid");
        assert!(renewed.not_after() > now + RENEW_BEFORE);
    }

    #[test]
    fn issue_never_overwrites_and_gives_the_name_back() {
        let (scratch, state) = scratch_state();
        let issuer = Issuer::open_or_make(&state).expect("made");
        let out = scratch.path().join("out");
        fs::create_dir(&out).expect("a directory");
        fs::write(out.join("key.pem"), "precious").expect("writes");
        let line = issuer
            .issue(Role::Volume, "a", &out)
            .expect_err("refused")
            .to_string();
        assert!(line.contains("key.pem: is there already"), "{line}");
        let file = scratch.path().join("file");
        fs::write(&file, "").expect("writes");
        issuer
            .issue(Role::Volume, "a", &file.join("x"))
            .expect_err("no directory");
        issuer
            .issue(Role::Volume, "a", &scratch.path().join("new"))
            .expect("still free");
    }
}
