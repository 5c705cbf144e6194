//! Peers that only begin: nobody who has no certificate keeps others out.

use std::net::UdpSocket;

use super::raw_peer::{RawPeer, hello};
use super::*;
use crate::limits::{CONNECTIONS_PER_CERTIFICATE_MAX, HALF_OPEN_UNPROVEN_MAX, HELLO_BYTES_MAX};
use vdfs_proto::codec::decode;
use vdfs_proto::frame::FrameKind;

/// The first datagram of a handshake that nobody goes on with.
async fn knock_and_leave(cluster: &Cluster, server: &QuicEndpoint) {
    let listener = UdpSocket::bind(LOCALHOST).expect("bound");
    let target = Target {
        addr: listener.local_addr().expect("bound"),
        ..target_of(server)
    };
    let client = cluster.client();
    let carrier = client.connector().carrier(&target);
    let call = carrier.call(control("hello"), Duration::from_millis(50));
    call.await.expect_err("nobody answers");
    let mut first = [0; 9000];
    let len = listener.recv(&mut first).expect("it dialled");
    let addr = server.local_addr();
    listener.send_to(&first[..len], addr).expect("sent");
}

#[tokio::test]
async fn handshake_that_nobody_goes_on_with_is_given_up() {
    let cluster = Cluster::new();
    let server = cluster.serve(Echo::new().0);
    knock_and_leave(&cluster, &server).await;
    let counters = server.counters();
    let given_up = || counters.stalls.get() + counters.accepts_refused.get() == 1;
    eventually("it is given up", given_up).await;
}

#[tokio::test]
async fn half_open_peers_make_others_prove_their_address_and_keep_nobody_out() {
    let cluster = Cluster::new();
    let server = cluster.serve(Echo::new().0);
    let crowd = &server.traffic.shared.common.crowd;
    let half_open = |number: usize| crowd.knock([10, 0, 0, number as u8].into(), false);
    let _many: Vec<_> = (0..HALF_OPEN_UNPROVEN_MAX).map(half_open).collect();
    let client = cluster.client();
    let answered = carrier(&client, &server).call(control("hello"), LONG).await;
    answered.expect("let in");
    let proofs = server.counters().address_proofs.get();
    assert!(proofs > 0);
    // A heartbeat finds its way to its own socket with the proof, too.
    let volume = dial_as(&cluster.identity(Role::Volume, "v"), QuicConfig::default());
    let beat = Request {
        purpose: Purpose::Heartbeat,
        ..control("beat")
    };
    let answered = carrier(&volume, &server).call(beat, LONG).await;
    answered.expect("let in");
    assert!(server.counters().address_proofs.get() > proofs);
}

#[tokio::test]
async fn connections_of_one_certificate_are_bounded_and_others_come_in() {
    let cluster = Cluster::new();
    let server = cluster.serve(Echo::new().0);
    let crowd = &server.traffic.shared.common.crowd;
    let mut seats: Vec<_> = (0..CONNECTIONS_PER_CERTIFICATE_MAX)
        .map(|_| crowd.seat(Role::Client, "raw").expect("room"))
        .collect();
    let peer = RawPeer::connect(&cluster, &server).await;
    let (kind, body) = peer.greet(&hello(&cluster, Purpose::Control)).await;
    assert_eq!(kind, FrameKind::Error);
    assert_eq!(decode::<Status>(&body), Ok(Status::Busy));
    carrier(&cluster.client(), &server)
        .call(control("hello"), LONG)
        .await
        .expect("another certificate");
    seats.pop();
    let peer = RawPeer::connect(&cluster, &server).await;
    let (kind, _) = peer.greet(&hello(&cluster, Purpose::Control)).await;
    assert_eq!(kind, FrameKind::Response);
}

#[tokio::test]
async fn hello_that_is_long_is_refused_at_its_header() {
    let cluster = Cluster::new();
    let server = cluster.serve(Echo::new().0);
    let peer = RawPeer::connect(&cluster, &server).await;
    let long = super::raw_peer::frame(FrameKind::Request, 0, 0, &[0; HELLO_BYTES_MAX + 1]);
    let _stream = peer.send(&long[..16]).await;
    assert!(peer.closed().await.contains("oversized"));
    assert_eq!(server.counters().frames_oversized.get(), 1);
}
