//! TLS 1.3 with certificates on both sides, and what else is made from an identity's key.

use std::sync::Arc;

use quinn::ServerConfig;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn_proto::HashedConnectionIdGenerator;
use quinn_proto::crypto::{CryptoError, HmacKey};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::crypto::tls13::{Hkdf, OkmBlock};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{RootCertStore, SupportedCipherSuite};
use vdfs_proto::handshake::{ALPN, Role};

use super::admission::Admission;
use super::verifier::{ClientVerifier, ServerVerifier};
use crate::carrier::Target;
use crate::identity::Identity;
use crate::limits::{HALF_OPEN_MAX, KNOCK_BYTES_MAX};

/// Why an identity cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the authority's certificate cannot be used: {0}")]
    Authority(rustls::Error),
    #[error("the authority's certificate cannot be used: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("key and certificate cannot be used: {0}")]
    Certificate(#[from] rustls::Error),
    #[error(transparent)]
    Cipher(#[from] NoInitialCipherSuite),
}

/// An identity, ready for handshakes.
#[derive(Debug)]
pub(super) struct Tls {
    identity: Identity,
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
}

impl Tls {
    pub(super) fn new(identity: &Identity) -> Result<Tls, TlsError> {
        let mut roots = RootCertStore::empty();
        for root in identity.roots() {
            roots.add(root).map_err(TlsError::Authority)?;
        }
        Ok(Tls {
            identity: identity.clone(),
            provider: provider(),
            roots: Arc::new(roots),
        })
    }

    pub(super) fn role(&self) -> Role {
        self.identity.role()
    }

    #[cfg(test)]
    pub(super) fn node(&self) -> &str {
        self.identity.node()
    }

    /// Accepts the roles of this cluster that `admission` takes.
    pub(super) fn server(&self, admission: Admission) -> Result<ServerConfig, TlsError> {
        let chain_verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
                .build()?;
        let verifier = ClientVerifier::new(chain_verifier, self.identity.cluster(), admission);
        let mut tls = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(self.identity.chain(), self.identity.key())?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        // Connections live long, and a ticket would outlive its certificate.
        tls.send_tls13_tickets = 0;
        tls.max_early_data_size = 0;
        let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        server
            .migration(false)
            .max_incoming(HALF_OPEN_MAX)
            .incoming_buffer_size(KNOCK_BYTES_MAX)
            .incoming_buffer_size_total(HALF_OPEN_MAX as u64 * KNOCK_BYTES_MAX);
        Ok(server)
    }

    /// Accepts only what `target` asks for.
    pub(super) fn client(&self, target: &Target) -> Result<Arc<QuicClientConfig>, TlsError> {
        let verifier = ServerVerifier::new(
            self.roots.clone(),
            self.provider.signature_verification_algorithms,
            self.identity.cluster(),
            target,
        );
        let mut tls = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.identity.chain(), self.identity.key())?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.resumption = Resumption::disabled();
        tls.enable_early_data = false;
        Ok(Arc::new(QuicClientConfig::try_from(tls)?))
    }

    /// Signs stateless resets. It comes from the identity's key, so that a process that was killed
    /// and started again at the same address tells its peers at once that their connections are
    /// gone, and they need not wait for the idle timeout.
    pub(super) fn reset_key(&self) -> ResetKey {
        ResetKey {
            hkdf: hkdf(),
            key: self.derive(b"vdfs stateless reset"),
        }
    }

    /// Makes connection ids that this identity recognises after a restart.
    pub(super) fn connection_ids(&self) -> impl Fn() -> HashedConnectionIdGenerator + use<> {
        let block = self.derive(b"vdfs connection id");
        let bytes = block
            .as_ref()
            .first_chunk()
            .expect("a hash is longer than eight bytes");
        let key = u64::from_le_bytes(*bytes);
        move || HashedConnectionIdGenerator::from_key(key)
    }

    fn derive(&self, purpose: &[u8]) -> OkmBlock {
        let key = self.identity.key();
        hkdf()
            .extract_from_secret(None, key.secret_der())
            .expand_block(&[purpose])
    }
}

/// AES-128 first: it is as safe and the fastest where there is hardware for it.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

fn hkdf() -> &'static dyn Hkdf {
    match cipher_suite::TLS13_AES_128_GCM_SHA256 {
        SupportedCipherSuite::Tls13(suite) => suite.hkdf_provider,
        #[allow(
            unreachable_patterns,
            reason = "TLS 1.2 is there if another crate asks for it"
        )]
        _ => unreachable!("a TLS 1.3 suite"),
    }
}

/// HMAC-SHA256.
pub(super) struct ResetKey {
    hkdf: &'static dyn Hkdf,
    key: OkmBlock,
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        signature.copy_from_slice(self.hkdf.hmac_sign(&self.key, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        self.hkdf.hmac_sign(&self.key, &[]).as_ref().len()
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = self.hkdf.hmac_sign(&self.key, data);
        let differing = expected
            .as_ref()
            .iter()
            .zip(signature)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        match expected.as_ref().len() == signature.len() && differing == 0 {
            true => Ok(()),
            false => Err(CryptoError),
        }
    }
}
