//! What a certificate says about its holder.

use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::Flaw;
use super::name::{InvalidPeerName, PeerName};

/// The part of a leaf certificate that VDFS goes by. Reading it verifies nothing.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) name: PeerName,
    pub(crate) not_after: SystemTime,
}

/// Why a certificate names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    #[error("not an X.509 certificate")]
    NotX509,
    #[error("the certificate carries {0} URIs, not one")]
    UriCount(usize),
    #[error(transparent)]
    Name(#[from] InvalidPeerName),
}

impl Leaf {
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Result<Leaf, LeafError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| LeafError::NotX509)?;
        let uris = uris(&parsed)?;
        let [uri] = uris.as_slice() else {
            return Err(LeafError::UriCount(uris.len()));
        };
        Ok(Leaf {
            name: uri.parse()?,
            not_after: not_after(&parsed),
        })
    }
}

/// Whether the certificate is that of `key`.
pub(super) fn check_key(certificate: &CertificateDer<'_>, key: &KeyPair) -> Result<(), Flaw> {
    let parsed = X509Certificate::from_der(certificate)
        .map_err(|_| LeafError::NotX509)?
        .1;
    match *parsed.public_key().subject_public_key.data == *key.der_bytes() {
        true => Ok(()),
        false => Err(Flaw::KeyMismatch),
    }
}

/// All URIs among the alternative names of the subject.
pub(crate) fn uris<'a>(certificate: &X509Certificate<'a>) -> Result<Vec<&'a str>, LeafError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| LeafError::NotX509)?;
    let Some(names) = names else {
        return Ok(Vec::new());
    };
    let uri = |name: &GeneralName<'a>| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    };
    Ok(names.value.general_names.iter().filter_map(uri).collect())
}

fn not_after(certificate: &X509Certificate<'_>) -> SystemTime {
    let seconds = certificate.validity().not_after.timestamp();
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
