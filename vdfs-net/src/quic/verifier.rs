//! Whose certificate is accepted in the TLS handshake.
//!
//! webpki checks chain and validity; on top of it the URI must name this cluster and, at the
//! dialler, the role and node that were dialled. So a wrong peer is refused before a byte of the
//! protocol is read.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use vdfs_proto::ClusterId;
use vdfs_proto::handshake::Role;

use super::admission::Admission;
use crate::carrier::Target;
use crate::identity::{Leaf, LeafError, PeerName};

/// What is wrong with a certificate that webpki has accepted.
#[derive(thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Leaf(#[from] LeafError),
    #[error("the peer is of another cluster, {0}")]
    Cluster(ClusterId),
    #[error("the peer is a {0}, not a {1}")]
    Role(&'static str, &'static str),
    #[error("the peer is {0}, not {1}")]
    Node(String, String),
}

impl fmt::Debug for Refusal {
    /// rustls shows people the `Debug` of what it does not know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
    }
}

fn read_name(certificate: &CertificateDer<'_>, cluster: ClusterId) -> Result<PeerName, Refusal> {
    let name = Leaf::read(certificate)?.name;
    match name.cluster == cluster {
        true => Ok(name),
        false => Err(Refusal::Cluster(name.cluster)),
    }
}

/// At the dialler: the server must be what was dialled.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    cluster: ClusterId,
    role: Role,
    /// `None`: any node of the role.
    node: Option<String>,
}

impl ServerVerifier {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        algorithms: WebPkiSupportedAlgorithms,
        cluster: ClusterId,
        target: &Target,
    ) -> ServerVerifier {
        let (role, node) = (target.role, target.node.clone());
        ServerVerifier {
            roots,
            algorithms,
            cluster,
            role,
            node,
        }
    }

    fn check_name(&self, certificate: &CertificateDer<'_>) -> Result<(), Refusal> {
        let name = read_name(certificate, self.cluster)?;
        if name.role != self.role {
            return Err(Refusal::Role(name.role.as_str(), self.role.as_str()));
        }
        match &self.node {
            Some(node) if node != name.node.as_str() => {
                Err(Refusal::Node(name.node.to_string(), node.clone()))
            }
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        self.check_name(end_entity)?;
        if self.node.is_some() {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// At the server: the dialler must be of this cluster, in a role that has to do with the server.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    cluster: ClusterId,
    admission: Admission,
}

impl ClientVerifier {
    /// `chain` checks chain and validity.
    pub(super) fn new(
        chain: Arc<dyn ClientCertVerifier>,
        cluster: ClusterId,
        admission: Admission,
    ) -> ClientVerifier {
        ClientVerifier {
            chain,
            cluster,
            admission,
        }
    }

    /// The alert that it becomes says that the role is the reason.
    fn check_role(&self, name: &PeerName) -> Result<(), Error> {
        if self.admission.takes_role(name.role) {
            return Ok(());
        }
        let (role, node) = (name.role.as_str(), name.node.as_str());
        tracing::warn!(role, node, "a peer in this role has no business here");
        Err(CertificateError::ApplicationVerificationFailure.into())
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        self.check_role(&read_name(end_entity, self.cluster)?)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
