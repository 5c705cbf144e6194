//! A peer that speaks QUIC and TLS as it must and keeps no other rule: quinn without the carrier.

use std::fs::read_to_string;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, ConnectionId, Endpoint, TransportConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use vdfs_proto::ClusterId;
use vdfs_proto::codec::encode;
use vdfs_proto::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use vdfs_proto::handshake::{ALPN, Hello, PROTOCOL_VERSION, Purpose};

/// A pair of key and certificate, by its directory.
#[derive(Clone)]
pub(crate) struct Dialler {
    endpoint: Endpoint,
    config: ClientConfig,
    cluster: ClusterId,
}

impl Dialler {
    /// With the identity in `dir`, whose owner claims to be of `cluster`.
    pub(crate) fn new(dir: &Path, cluster: ClusterId) -> Dialler {
        let pem = |file| read_to_string(dir.join(file)).expect("an identity");
        let chain = CertificateDer::pem_slice_iter(pem("cert.pem").as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .expect("certificates");
        let key = PrivateKeyDer::from_pem_slice(pem("key.pem").as_bytes()).expect("a key");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible(provider)))
            .with_client_auth_cert(chain, key)
            .expect("a pair");
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let tls = QuicClientConfig::try_from(tls).expect("good ciphers");
        let mut config = ClientConfig::new(Arc::new(tls));
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_secs(1)));
        config
            .transport_config(Arc::new(transport))
            .initial_dst_cid_provider(Arc::new(traffic_id));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Dialler {
            endpoint: Endpoint::client(any).expect("bound"),
            config,
            cluster,
        }
    }

    /// As far as this end's part of the TLS handshake.
    pub(crate) async fn connect(&self, to: SocketAddr) -> Result<Connection, ConnectionError> {
        let config = self.config.clone();
        let connecting = self.endpoint.connect_with(config, to, "any.vdfs.internal");
        connecting.expect("dials").await
    }

    /// As far as the welcome.
    pub(crate) async fn welcomed(&self, to: SocketAddr, purpose: Purpose) -> Connection {
        let connection = self.connect(to).await.expect("a good certificate");
        let hello = Hello {
            version: PROTOCOL_VERSION,
            cluster: self.cluster,
            purpose,
            boot_id: "a boot".to_owned(),
            net_namespace: 1,
        };
        let (mut send, mut recv) = connection.open_bi().await.expect("a stream");
        let hello = frame(0, 0, &encode(&hello));
        send.write_all(&hello).await.expect("written");
        send.finish().expect("open");
        let answer = recv.read_to_end(1000).await.expect("answered");
        assert_eq!(answer[4], FrameKind::Response as u8, "not welcomed");
        connection
    }
}

/// Leads to the socket that takes everything but heartbeats.
fn traffic_id() -> ConnectionId {
    let mut id: [u8; 20] = rand::random();
    id[0] &= !1;
    ConnectionId::new(&id)
}

/// A request.
pub(crate) fn frame(method: u16, tag: u64, body: &[u8]) -> Vec<u8> {
    [header(body.len() as u32, method, tag).as_slice(), body].concat()
}

/// The header of a request with a body of so many bytes, or more than there may be.
pub(crate) fn header(body_bytes: u32, method: u16, tag: u64) -> [u8; FRAME_HEADER_BYTES] {
    let header = FrameHeader {
        body_bytes,
        kind: FrameKind::Request,
        method,
        tag,
    };
    header.encode()
}

/// Takes anybody for a server.
#[derive(Debug)]
struct Gullible(Arc<CryptoProvider>);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
