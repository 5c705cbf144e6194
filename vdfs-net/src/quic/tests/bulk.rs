//! Transfers with payload, and the losses under them.

use futures::StreamExt;
use futures::stream;

use super::*;

const MIB: usize = 1 << 20;

fn pattern(len: usize) -> Bytes {
    (0..len)
        .map(|index| (index * 31 % 251) as u8)
        .collect::<Vec<_>>()
        .into()
}

#[tokio::test]
async fn payload_of_any_length_comes_back_whole() {
    let (echo, _watch) = Echo::new();
    let cluster = Cluster::new();
    let (server, client) = (cluster.serve_volume(echo), cluster.client());
    let carrier = carrier(&client, &server);
    for len in [
        0,
        1,
        4096,
        64 << 10,
        (64 << 10) + 1,
        MIB,
        3 * MIB + 7,
        4 * MIB,
    ] {
        let payload = pattern(len);
        let answer = carrier
            .call(bulk("body", payload.clone()), LONG)
            .await
            .expect("answered");
        assert_eq!(answer.body, "body");
        assert!(answer.payload == payload, "{len} bytes");
    }
}

#[tokio::test]
async fn transfers_beyond_the_stream_limit_all_end() {
    let (echo, _watch) = Echo::new();
    let cluster = Cluster::new();
    let (server, client) = (cluster.serve_volume(echo), cluster.client());
    let carrier = carrier(&client, &server);
    let payload = pattern(MIB);
    let calls = (0..3 * crate::limits::BULK_STREAMS_MAX)
        .map(|_| carrier.call(bulk("body", payload.clone()), LONG));
    for answer in futures::future::join_all(calls).await {
        assert!(answer.expect("answered").payload == payload);
    }
}

#[tokio::test]
async fn transfers_cancelled_on_the_way_leave_the_connection_whole() {
    let (echo, _watch) = Echo::new();
    let cluster = Cluster::new();
    let (server, client) = (cluster.serve_volume(echo), cluster.client());
    let carrier = carrier(&client, &server);
    let payload = pattern(4 * MIB);
    carrier
        .call(bulk("body", payload.clone()), LONG)
        .await
        .expect("answered");
    for round in 0..50 {
        let deadline = Duration::from_micros(100 * round);
        drop(carrier.call(bulk("body", payload.clone()), deadline).await);
    }
    let answer = carrier
        .call(bulk("body", payload.clone()), LONG)
        .await
        .expect("answered");
    assert!(answer.payload == payload);
    assert_eq!(client.counters().dials.get(), 1);
    assert_eq!(server.counters().frames_malformed.get(), 0);
}

fn early(payload: Bytes) -> Request {
    Request {
        method: Method::PeerEarly,
        ..bulk("", payload)
    }
}

#[tokio::test]
async fn early_payload_is_the_request_of_its_later_body() {
    let (echo, _watch) = Echo::new();
    let cluster = Cluster::new();
    let (server, client) = (cluster.serve_volume(echo.clone()), cluster.client());
    let carrier = carrier(&client, &server);
    for len in [1, 64 << 10, 4 * MIB] {
        let payload = pattern(len);
        let (tell_sent, sent) = oneshot::channel();
        let (order, ordered) = oneshot::channel();
        let message = async move {
            tell_sent.send(()).expect("it is waited for");
            ordered.await.ok()
        };
        let call = carrier.call_early(early(payload.clone()), message.boxed(), LONG);
        let later = async {
            sent.await.expect("the payload is sent without a body");
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(echo.peers.lock().is_empty(), "nothing is known of it");
            order.send("body".into()).expect("it waits");
        };
        let (answer, ()) = tokio::join!(call, later);
        let answer = answer.expect("answered");
        assert_eq!(answer.body, "body");
        assert!(answer.payload == payload, "{len} bytes");
        echo.peers.lock().clear();
    }
}

#[tokio::test]
async fn early_payloads_without_a_body_are_forgotten_and_the_connection_stays() {
    let (echo, _watch) = Echo::new();
    let cluster = Cluster::new();
    let (server, client) = (cluster.serve_volume(echo.clone()), cluster.client());
    let carrier = carrier(&client, &server);
    // More than there are streams, or room.
    for round in 0..3 * crate::limits::BULK_STREAMS_MAX {
        let nothing = std::future::ready(None).boxed();
        let given_up = carrier.call_early(early(pattern(4 * MIB)), nothing, LONG);
        assert_eq!(given_up.await.err(), Some(Status::Disconnected));
        let never = std::future::pending().boxed();
        let dropped = carrier.call_early(early(pattern(MIB)), never, LONG);
        let deadline = Duration::from_micros(200 * round as u64);
        assert!(tokio::time::timeout(deadline, dropped).await.is_err());
    }
    assert!(echo.peers.lock().is_empty());
    let answer = carrier.call(bulk("body", pattern(4 * MIB)), LONG).await;
    assert!(answer.expect("answered").payload == pattern(4 * MIB));
    assert_eq!(client.counters().dials.get(), 1);
    assert_eq!(server.counters().frames_malformed.get(), 0);
}

#[tokio::test]
async fn early_payloads_leave_room_to_those_that_come_with_their_bodies() {
    let (echo, _watch) = Echo::new();
    let cluster = Cluster::new();
    let (server, client) = (cluster.serve_volume(echo), cluster.client());
    let carrier = carrier(&client, &server);
    // As many as may be, of which some find no room.
    let wait = || {
        carrier.call_early(
            early(pattern(4 * MIB)),
            std::future::pending().boxed(),
            LONG,
        )
    };
    let waiting =
        futures::future::join_all((0..crate::limits::BULK_STREAMS_MAX / 2).map(|_| wait()));
    let others = async {
        for method in [Method::Peer, Method::PeerBehind, Method::Data] {
            let request = Request {
                method,
                ..bulk("body", pattern(4 * MIB))
            };
            let answer = carrier.call(request, LONG).await;
            assert!(answer.expect("answered").payload == pattern(4 * MIB));
        }
    };
    tokio::select! {
        _ = waiting => panic!("nobody has told them their bodies"),
        () = others => {}
    }
}

#[tokio::test]
async fn early_payloads_leave_a_stream_to_others_however_few_there_are() {
    let cluster = Cluster::new();
    let config = QuicConfig {
        socket_buffer_bytes: 256 << 10,
        ..QuicConfig::default()
    };
    let identity = cluster.identity(Role::Volume, "v-1");
    let server = serve_as(&identity, LOCALHOST, Echo::new().0, config);
    let client = cluster.client();
    let carrier = carrier(&client, &server);
    let wait = || carrier.call_early(early(pattern(4096)), std::future::pending().boxed(), LONG);
    for _ in 0..3 {
        let early = async {
            futures::future::join_all((0..crate::limits::BULK_STREAMS_MAX).map(|_| wait())).await;
            std::future::pending::<()>().await;
        };
        let other = carrier.call(bulk("body", pattern(MIB)), Duration::from_secs(5));
        tokio::select! {
            () = early => {}
            answer = other => assert!(answer.expect("answered").payload == pattern(MIB)),
        }
    }
}

/// Sends and fetches 256 MiB; gives both ends' counters (sent, lost).
async fn losses(config: QuicConfig) -> [(u64, u64); 2] {
    let cluster = Cluster::new();
    let (echo, _watch) = Echo::new();
    let server = serve_as(
        &cluster.identity(Role::Volume, "v-1"),
        LOCALHOST,
        echo,
        config,
    );
    let client = dial_as(&cluster.identity(Role::Client, "mount"), config);
    let carrier = carrier(&client, &server);
    let payload = pattern(4 * MIB);
    stream::iter(0..64)
        .for_each_concurrent(4, |_| async {
            let answer = carrier.call(bulk("body", payload.clone()), LONG).await;
            assert!(answer.expect("answered").payload == payload);
        })
        .await;
    [client, server].map(|endpoint| {
        let common = endpoint.traffic.shared.common.clone();
        endpoint.shutdown(LONG);
        (
            common.counters.packets_sent.get(),
            common.counters.packets_lost.get(),
        )
    })
}

#[tokio::test]
async fn datagrams_of_every_size_are_not_lost() {
    for mtu in [1452, 6500, 8952, 16_336] {
        let config = QuicConfig {
            mtu: Some(mtu),
            ..QuicConfig::default()
        };
        for (sent, lost) in losses(config).await {
            assert!(
                sent * u64::from(mtu) > 256 * MIB as u64,
                "{sent} packets of {mtu} bytes"
            );
            assert!(
                lost * 10_000 < sent,
                "{lost} of {sent} packets of {mtu} bytes"
            );
        }
    }
}

#[tokio::test]
async fn lan_profile_finds_its_datagram_and_loses_none() {
    let config = QuicConfig {
        profile: Profile::Lan,
        ..QuicConfig::default()
    };
    for (sent, lost) in losses(config).await {
        assert!(
            sent < 256 * MIB as u64 / 4000,
            "{sent} packets: they never grew"
        );
        assert!(lost * 10_000 < sent, "{lost} of {sent} packets");
    }
}

/// Half of what a program without privileges gets where nobody has raised the kernel's limit.
const SMALL_BUFFER_BYTES: usize = 104 << 10;

/// Windows follow what the kernel gives: otherwise each burst would overflow the receiver's buffer.
#[tokio::test]
async fn small_socket_buffers_lose_little() {
    for profile in [Profile::Loopback, Profile::Lan] {
        let config = QuicConfig {
            profile,
            socket_buffer_bytes: SMALL_BUFFER_BYTES,
            ..QuicConfig::default()
        };
        for (sent, lost) in losses(config).await {
            println!("{profile:?}: {lost} of {sent} packets");
            assert!(lost * 1000 < sent, "{profile:?}: {lost} of {sent} packets");
        }
    }
}

#[tokio::test]
async fn throughput_timed() {
    const TRANSFERS: usize = 64;
    let (echo, _watch) = Echo::new();
    let cluster = Cluster::new();
    let (server, client) = (cluster.serve_volume(echo), cluster.client());
    let carrier = carrier(&client, &server);
    let start = Instant::now();
    stream::iter(0..TRANSFERS)
        .for_each_concurrent(4, |_| async {
            let answer = carrier.call(bulk(vec![FILL, 4], Bytes::new()), LONG).await;
            assert_eq!(answer.expect("answered").payload.len(), 4 * MIB);
        })
        .await;
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.0} MiB/s read", (TRANSFERS * 4) as f64 / seconds);
}
