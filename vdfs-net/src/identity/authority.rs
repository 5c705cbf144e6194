//! The cluster's own certificate authority.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use vdfs_proto::ClusterId;
use vdfs_proto::handshake::Role;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::files::{read_private, read_public, save};
use super::name::PeerName;
use super::{Flaw, Identity, IdentityError, certificate};

const KEY_FILE: &str = "ca-key.pem";
const CERT_FILE: &str = "ca.pem";
/// Clocks of two machines may differ by so much.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
/// Ten years: certificates are not renewed.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Issues the identities of one cluster. Whoever holds its key can be anybody in the cluster.
#[derive(Debug)]
pub struct Authority {
    cluster: ClusterId,
    key: KeyPair,
    cert_pem: String,
}

impl Authority {
    /// Makes the authority of a new cluster; it is nowhere on the disk before [`Self::save`].
    pub fn create(cluster: ClusterId) -> Result<Authority, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, format!("VDFS {cluster}"));
        params.subject_alt_names = vec![SanType::URI(trust_domain(cluster).try_into()?)];
        let validity = Validity::from_now();
        params.not_before = validity.not_before.into();
        params.not_after = validity.not_after.into();
        let cert_pem = params.self_signed(&key)?.pem();
        Ok(Authority {
            cluster,
            key,
            cert_pem,
        })
    }

    /// Reads what [`Self::save`] wrote; every error names the file.
    pub fn load(dir: &Path) -> Result<Authority, IdentityError> {
        let key_path = dir.join(KEY_FILE);
        let cert_path = dir.join(CERT_FILE);
        let key_pem = read_private(&key_path).map_err(of_authority)?;
        let key = KeyPair::from_pem(&key_pem).map_err(|_| Flaw::Key.of(&key_path))?;
        let cert_pem = read_public(&cert_path).map_err(of_authority)?;
        let cluster = read_cluster(&cert_pem, &key).map_err(|flaw| flaw.of(&cert_path))?;
        Ok(Authority {
            cluster,
            key,
            cert_pem,
        })
    }

    /// Writes `ca-key.pem` (0600) and `ca.pem` into `dir`, which is made (0700) if needed.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        let key_pem = self.key.serialize_pem();
        save(
            dir,
            &[
                (KEY_FILE, &key_pem, 0o600),
                (CERT_FILE, &self.cert_pem, 0o644),
            ],
        )
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Makes a key and a certificate for `node`, which must be unique within `role`. Valid for ten
    /// years.
    pub fn issue(&self, role: Role, node: &str) -> Result<Identity, IdentityError> {
        let name = PeerName {
            cluster: self.cluster,
            role,
            node: node.parse()?,
        };
        self.issue_for(&name, Validity::from_now())
    }

    pub(crate) fn issue_for(
        &self,
        name: &PeerName,
        validity: Validity,
    ) -> Result<Identity, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let issuer = Issuer::from_ca_cert_pem(&self.cert_pem, &self.key)?;
        let cert = leaf_params(name, validity)?.signed_by(&key, &issuer)?;
        let identity = Identity::from_pem(&key.serialize_pem(), &cert.pem(), &self.cert_pem);
        Ok(identity.expect("what was just made is well formed"))
    }
}

/// When a certificate counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Validity {
    fn from_now() -> Validity {
        let now = SystemTime::now();
        Validity {
            not_before: now - CLOCK_SKEW,
            not_after: now + LIFETIME,
        }
    }
}

fn leaf_params(name: &PeerName, validity: Validity) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, name.node.as_str());
    params.subject_alt_names = vec![
        SanType::URI(name.to_string().try_into()?),
        SanType::DnsName(name.dns_name().try_into()?),
    ];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    Ok(params)
}

/// Whoever names no authority is helped otherwise than who names no identity.
fn of_authority(error: IdentityError) -> IdentityError {
    match error {
        IdentityError::Read { path, source } => IdentityError::ReadAuthority { path, source },
        other => other,
    }
}

fn trust_domain(cluster: ClusterId) -> String {
    format!("spiffe://{cluster}")
}

/// The cluster that an authority's certificate names, which must belong to `key`.
fn read_cluster(cert_pem: &str, key: &KeyPair) -> Result<ClusterId, Flaw> {
    let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|_| Flaw::Certificate)?;
    certificate::check_key(&der, key)?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| Flaw::Certificate)?;
    let uris = certificate::uris(&parsed)?;
    let cluster = |uri: &&str| uri.strip_prefix("spiffe://")?.parse().ok();
    uris.iter().find_map(cluster).ok_or(Flaw::NoCluster)
}
