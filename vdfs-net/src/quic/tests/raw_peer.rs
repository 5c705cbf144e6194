//! A peer that has a certificate but keeps no rule: quinn without the carrier.

use quinn::{Connection, RecvStream, SendStream};
use vdfs_proto::codec::{decode, encode};
use vdfs_proto::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use vdfs_proto::handshake::{Hello, PROTOCOL_VERSION};

use super::*;
use crate::quic::tls::Tls;
use crate::quic::wire::Wire;

/// A connection of its own endpoint, which lives as long as this does.
pub(super) struct RawPeer {
    _endpoint: quinn::Endpoint,
    pub(super) connection: Connection,
}

pub(super) fn hello(cluster: &Cluster, purpose: Purpose) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        cluster: cluster.authority.cluster(),
        purpose,
        boot_id: "a boot".to_owned(),
        net_namespace: 1,
    }
}

pub(super) fn frame(kind: FrameKind, method: u16, tag: u64, body: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        body_bytes: body.len() as u32,
        kind,
        method,
        tag,
    };
    [header.encode().as_slice(), body].concat()
}

impl RawPeer {
    /// As far as the end of the TLS handshake, as a client.
    pub(super) async fn connect(cluster: &Cluster, server: &QuicEndpoint) -> RawPeer {
        RawPeer::connect_as(cluster, server, Role::Client).await
    }

    /// As far as the dialler's part of the TLS handshake, which ends before the other one's.
    pub(super) async fn connect_as(
        cluster: &Cluster,
        server: &QuicEndpoint,
        role: Role,
    ) -> RawPeer {
        let tls = Tls::new(&cluster.identity(role, "raw")).expect("a good identity");
        let endpoint = quinn::Endpoint::client(LOCALHOST).expect("bound");
        let target = target_of(server);
        let mut config = ClientConfig::new(tls.client(&target).expect("a good identity"));
        let mut transport = quinn::TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_millis(500)));
        config
            .transport_config(Arc::new(transport))
            .initial_dst_cid_provider(Wire::Traffic.first_ids());
        let name = crate::identity::dns_name(target.role, target.node.as_deref());
        let connecting = endpoint
            .connect_with(config, target.addr, &name)
            .expect("dialled");
        let connection = connecting.await.expect("the handshake is right");
        RawPeer {
            _endpoint: endpoint,
            connection,
        }
    }

    /// As far as the welcome.
    pub(super) async fn welcomed(
        cluster: &Cluster,
        server: &QuicEndpoint,
        purpose: Purpose,
    ) -> RawPeer {
        let role = match purpose {
            Purpose::Heartbeat => Role::Volume,
            Purpose::Control | Purpose::Bulk => Role::Client,
        };
        RawPeer::welcomed_as(cluster, server, role, purpose).await
    }

    pub(super) async fn welcomed_as(
        cluster: &Cluster,
        server: &QuicEndpoint,
        role: Role,
        purpose: Purpose,
    ) -> RawPeer {
        let peer = RawPeer::connect_as(cluster, server, role).await;
        let answer = peer.greet(&hello(cluster, purpose)).await;
        assert_eq!(answer.0, FrameKind::Response);
        peer
    }

    /// Sends `hello`; gives kind and body of the answer.
    pub(super) async fn greet(&self, hello: &Hello) -> (FrameKind, Vec<u8>) {
        let (mut send, mut recv) = self.open().await;
        let frame = frame(FrameKind::Request, 0, 0, &encode(hello));
        send.write_all(&frame).await.expect("written");
        send.finish().expect("open");
        let answer = recv.read_to_end(1000).await.expect("answered");
        let header = answer
            .first_chunk::<FRAME_HEADER_BYTES>()
            .expect("a header");
        let header = FrameHeader::decode(header).expect("a header");
        (header.kind, answer[FRAME_HEADER_BYTES..].to_vec())
    }

    pub(super) async fn open(&self) -> (SendStream, RecvStream) {
        self.connection.open_bi().await.expect("a stream")
    }

    /// A stream with `bytes` on it, not finished.
    pub(super) async fn send(&self, bytes: &[u8]) -> (SendStream, RecvStream) {
        let (mut send, recv) = self.open().await;
        send.write_all(bytes).await.expect("written");
        (send, recv)
    }

    /// What the server says when it closes.
    pub(super) async fn closed(&self) -> String {
        let closed = tokio::time::timeout(LONG, self.connection.closed());
        closed.await.expect("the server closes").to_string()
    }
}

#[tokio::test]
async fn hello_of_another_version_or_cluster_is_refused_with_its_status() {
    let cluster = Cluster::new();
    let server = cluster.serve(Echo::new().0);
    let good = hello(&cluster, Purpose::Control);
    let cases = [
        (
            Hello {
                version: 99,
                ..good.clone()
            },
            Status::WrongVersion,
        ),
        (
            Hello {
                cluster: ClusterId(9),
                ..good
            },
            Status::WrongCluster,
        ),
    ];
    for (hello, expected) in cases {
        let peer = RawPeer::connect(&cluster, &server).await;
        let (kind, body) = peer.greet(&hello).await;
        assert_eq!(kind, FrameKind::Error);
        assert_eq!(decode::<Status>(&body), Ok(expected));
        assert!(peer.closed().await.contains("refused"));
    }
}
