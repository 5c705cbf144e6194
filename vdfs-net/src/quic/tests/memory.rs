//! What peers can make a server keep.

use vdfs_proto::frame::FrameKind;
use vdfs_proto::limits::PAYLOAD_BYTES_MAX;

use super::raw_peer::{RawPeer, frame};
use super::*;

const DATA: u16 = Method::Data as u16;
const POOL_BYTES: usize = 2 * PAYLOAD_BYTES_MAX;

fn small(cluster: &Cluster, service: Arc<dyn Service>) -> QuicEndpoint {
    let config = QuicConfig {
        payloads_bytes: POOL_BYTES,
        stall: Duration::from_secs(2),
        ..QuicConfig::default()
    };
    serve_as(
        &cluster.identity(Role::Volume, "v-1"),
        LOCALHOST,
        service,
        config,
    )
}

/// The head of a transfer whose payload never comes whole.
fn half_a_payload() -> Vec<u8> {
    let head = frame(FrameKind::Request, DATA, PAYLOAD_BYTES_MAX as u64, b"body");
    [head.as_slice(), &[7; 1000]].concat()
}

#[tokio::test]
async fn payloads_beyond_the_allowance_are_refused_as_busy_and_others_are_served_meanwhile() {
    let cluster = Cluster::new();
    let server = small(&cluster, Echo::new().0);
    let peer = RawPeer::welcomed(&cluster, &server, Purpose::Bulk).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(peer.send(&half_a_payload()).await);
    }
    for (_, recv) in &mut held[1..] {
        let answer = recv.read_to_end(100).await.expect("answered");
        assert_eq!(answer[4], FrameKind::Error as u8);
    }
    let client = cluster.client();
    let payload = vec![1; PAYLOAD_BYTES_MAX];
    let answered = carrier(&client, &server)
        .call(bulk("body", payload), LONG)
        .await;
    answered.expect("its own half is free");
    assert!(peer.closed().await.contains("stalled"));
}

/// Whoever waits for the next volume holds none of the room that those need for whom it waits.
#[tokio::test]
async fn payloads_of_those_behind_have_room_when_clients_have_taken_all_of_theirs() {
    let cluster = Cluster::new();
    let server = small(&cluster, Echo::new().0);
    let mut held = Vec::new();
    for role in [Role::Client, Role::Volume] {
        let peer = RawPeer::welcomed_as(&cluster, &server, role, Purpose::Bulk).await;
        held.push((peer.send(&half_a_payload()).await, peer));
    }
    let volume = dial_as(
        &cluster.identity(Role::Volume, "v-2"),
        QuicConfig::default(),
    );
    let payload = vec![1; PAYLOAD_BYTES_MAX];
    for method in [Method::Peer, Method::PeerBehind] {
        let request = Request {
            method,
            ..bulk("body", payload.clone())
        };
        let answered = carrier(&volume, &server).call(request, LONG).await;
        answered.unwrap_or_else(|status| panic!("{method:?}: {status}"));
    }
    let other = cluster.client();
    let refused = carrier(&other, &server)
        .call(bulk("body", payload), LONG)
        .await;
    assert_eq!(refused.map(drop), Err(Status::Busy));
}

#[tokio::test]
async fn callers_that_send_more_than_the_allowance_are_all_served_in_the_end() {
    let cluster = Cluster::new();
    let server = small(&cluster, Echo::new().0);
    let clients: Vec<_> = (0..3)
        .map(|number| {
            dial_as(
                &cluster.identity(Role::Client, &format!("c{number}")),
                QuicConfig::default(),
            )
        })
        .collect();
    let calls = clients
        .iter()
        .flat_map(|client| std::iter::repeat_n(client, 32))
        .map(|client| {
            let carrier = carrier(client, &server);
            async move {
                let request = bulk("body", vec![3; PAYLOAD_BYTES_MAX / 2]);
                loop {
                    match carrier.call(request.clone(), LONG).await {
                        Ok(answer) => return assert_eq!(answer.payload, request.payload),
                        Err(status) => assert_eq!(status, Status::Busy),
                    }
                }
            }
        });
    futures::future::join_all(calls).await;
}

#[tokio::test]
async fn answers_that_nobody_reads_close_their_connection_and_free_their_memory() {
    struct Full;
    impl Service for Full {
        fn handle(&self, _: Arc<PeerIdentity>, request: Request) -> BoxFuture<'static, Outcome> {
            let payload = vec![7; PAYLOAD_BYTES_MAX].into();
            let body = request.body;
            std::future::ready(Ok(Response { body, payload })).boxed()
        }

        fn answer_payload_bytes(&self, _: &Request) -> usize {
            PAYLOAD_BYTES_MAX
        }
    }
    let cluster = Cluster::new();
    let server = small(&cluster, Arc::new(Full));
    let peer = RawPeer::welcomed(&cluster, &server, Purpose::Bulk).await;
    let mut unread = Vec::new();
    for _ in 0..2 {
        let (mut send, recv) = peer
            .send(&frame(FrameKind::Request, DATA, 0, b"read"))
            .await;
        send.finish().expect("open");
        unread.push(recv);
    }
    assert!(peer.closed().await.contains("stalled"));
    assert_eq!(server.counters().stalls.get(), 1);
    let answered = carrier(&cluster.client(), &server)
        .call(bulk("read", ""), LONG)
        .await;
    assert_eq!(answered.expect("served").payload.len(), PAYLOAD_BYTES_MAX);
}
