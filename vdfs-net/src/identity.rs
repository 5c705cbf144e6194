//! Who a process is: a key, a certificate of the cluster's authority, and that authority's own.
//!
//! The identity of a certificate is one URI, `spiffe://<cluster>/<role>/<node>`; the DNS name beside
//! it, `<node>.<role>.vdfs.internal`, only serves the TLS handshake. Addresses are in no
//! certificate, so that machines may move. Renewal and revocation are left out: certificates last
//! ten years.

mod authority;
mod certificate;
mod files;
mod issuer;
mod name;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::KeyPair;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use vdfs_proto::ClusterId;
use vdfs_proto::handshake::Role;

pub use authority::Authority;
#[cfg(test)]
pub(crate) use authority::Validity;
pub(crate) use certificate::Leaf;
pub use certificate::LeafError;
pub use issuer::{Issuer, MASTER_NODE};
pub(crate) use name::dns_name;
pub use name::{InvalidNodeName, InvalidPeerName, NodeName, PeerName};

const KEY_FILE: &str = "key.pem";
const CERT_FILE: &str = "cert.pem";
const CA_FILE: &str = "ca.pem";

/// Why there is no identity. Every message names the file, and the way out where there is one.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{}: cannot read: {source}; name the directory of an identity (--identity, -o identity=)", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{}: cannot read: {source}; a cluster's authority is in the state directory of its master, \
         for its owner alone",
        path.display()
    )]
    ReadAuthority { path: PathBuf, source: io::Error },
    #[error("{}: is there already; name another directory", path.display())]
    Present { path: PathBuf },
    #[error(
        "{role} {node}: was issued before; take another name, or, to replace that certificate by one \
         that ends later, add --renew"
    )]
    Issued { role: &'static str, node: NodeName },
    #[error("{role} {node}: was never issued; leave --renew away")]
    NeverIssued { role: &'static str, node: NodeName },
    #[error("{}: cannot write: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: {flaw}{}", path.display(), flaw.way_out(path))]
    Flawed { path: PathBuf, flaw: Flaw },
    #[error(transparent)]
    Name(#[from] InvalidNodeName),
    #[error("cannot make a key or certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// What is wrong with the contents of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("mode {0:04o} lets others read the key")]
    TooOpen(u32),
    #[error("not a private key")]
    Key,
    #[error("not a certificate")]
    Certificate,
    #[error("the certificate is of another key")]
    KeyMismatch,
    #[error("the certificate names no cluster")]
    NoCluster,
    #[error("the certificate of {} {node} has expired", role.as_str())]
    Expired { role: Role, node: NodeName },
    #[error("the certificate is of another cluster")]
    OtherCluster,
    #[error(transparent)]
    Leaf(#[from] LeafError),
}

impl Flaw {
    fn of(self, path: &Path) -> IdentityError {
        IdentityError::Flawed {
            path: path.to_owned(),
            flaw: self,
        }
    }

    fn way_out(&self, path: &Path) -> String {
        match self {
            Flaw::TooOpen(_) => format!("; chmod 600 {}", path.display()),
            Flaw::Expired { role, node } => format!(
                "; make another with: vdfs cert issue --renew --ca MASTER_STATE --role {} --name \
                 {node} --out DIR",
                role.as_str()
            ),
            Flaw::OtherCluster => "; remove it: it is made again".to_owned(),
            _ => String::new(),
        }
    }
}

/// A key, its certificate, and the authority that it trusts.
#[derive(Clone)]
pub struct Identity {
    leaf: Leaf,
    key_pem: String,
    cert_pem: String,
    ca_pem: String,
}

impl Identity {
    /// Reads `key.pem`, `cert.pem` and `ca.pem`; refuses what is malformed, expired, or readable by
    /// others.
    pub fn load(dir: &Path) -> Result<Identity, IdentityError> {
        let key_pem = files::read_private(&dir.join(KEY_FILE))?;
        let cert_pem = files::read_public(&dir.join(CERT_FILE))?;
        let ca_pem = files::read_public(&dir.join(CA_FILE))?;
        let identity = Identity::from_pem(&key_pem, &cert_pem, &ca_pem)
            .map_err(|(file, flaw)| flaw.of(&dir.join(file)))?;
        match identity.not_after() < SystemTime::now() {
            true => Err(identity.expired().of(&dir.join(CERT_FILE))),
            false => Ok(identity),
        }
    }

    fn expired(&self) -> Flaw {
        let PeerName { role, node, .. } = self.leaf.name.clone();
        Flaw::Expired { role, node }
    }

    /// Writes `key.pem` (0600), `cert.pem` and `ca.pem` into `dir`, which is made (0700) if needed.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        files::save(
            dir,
            &[
                (KEY_FILE, &self.key_pem, 0o600),
                (CERT_FILE, &self.cert_pem, 0o644),
                (CA_FILE, &self.ca_pem, 0o644),
            ],
        )
    }

    /// An error is the file and what is wrong with it.
    fn from_pem(
        key_pem: &str,
        cert_pem: &str,
        ca_pem: &str,
    ) -> Result<Identity, (&'static str, Flaw)> {
        let key = KeyPair::from_pem(key_pem).map_err(|_| (KEY_FILE, Flaw::Key))?;
        let cert = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .map_err(|_| (CERT_FILE, Flaw::Certificate))?;
        CertificateDer::from_pem_slice(ca_pem.as_bytes())
            .map_err(|_| (CA_FILE, Flaw::Certificate))?;
        certificate::check_key(&cert, &key).map_err(|flaw| (CERT_FILE, flaw))?;
        let leaf = Leaf::read(&cert).map_err(|error| (CERT_FILE, error.into()))?;
        Ok(Identity {
            leaf,
            key_pem: key_pem.to_owned(),
            cert_pem: cert_pem.to_owned(),
            ca_pem: ca_pem.to_owned(),
        })
    }

    pub fn cluster(&self) -> ClusterId {
        self.leaf.name.cluster
    }

    pub fn role(&self) -> Role {
        self.leaf.name.role
    }

    pub fn node(&self) -> &str {
        self.leaf.name.node.as_str()
    }

    /// From then on every peer refuses the certificate.
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("checked when it was read")
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        certificates(&self.cert_pem)
    }

    pub(crate) fn roots(&self) -> Vec<CertificateDer<'static>> {
        certificates(&self.ca_pem)
    }
}

impl fmt::Debug for Identity {
    /// The key is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.leaf.name.to_string())
            .finish_non_exhaustive()
    }
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .filter_map(Result::ok)
        .collect()
}

#[cfg(test)]
mod tests;
