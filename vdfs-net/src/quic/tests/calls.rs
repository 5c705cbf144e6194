//! Control calls, the same over both carriers.

use futures::future::join_all;

use super::*;
use crate::in_process::Switchboard;

/// Calls `echo` under both carriers; each time the test body gets a carrier and the watch.
async fn with_each_carrier<F>(body: impl Fn(Arc<dyn Carrier>, EchoWatch) -> F)
where
    F: Future<Output = ()>,
{
    let (echo, watch) = Echo::new();
    let switchboard = Switchboard::default();
    switchboard.attach(Role::Master, "m-1", echo);
    let identity = PeerIdentity {
        cluster: ClusterId(1),
        role: Role::Client,
        node: "mount".to_owned(),
        addr: None,
        same_host: true,
        certificate_ends: None,
    };
    let connector = switchboard.connector(identity);
    body(connector.carrier(&master_at(LOCALHOST)), watch).await;

    let (echo, watch) = Echo::new();
    let cluster = Cluster::new();
    let (server, client) = (cluster.serve_volume(echo), cluster.client());
    body(carrier(&client, &server), watch).await;
}

#[tokio::test]
async fn call_is_answered_with_body_and_payload() {
    with_each_carrier(|carrier, _| async move {
        let answer = carrier
            .call(control("hello"), LONG)
            .await
            .expect("answered");
        assert_eq!(answer.body, "hello");
        assert!(answer.payload.is_empty());
        let answer = carrier
            .call(bulk("head", "payload"), LONG)
            .await
            .expect("answered");
        assert_eq!(answer.body, "head");
        assert_eq!(answer.payload, "payload");
    })
    .await;
}

#[tokio::test]
async fn call_that_is_refused_gives_the_status() {
    with_each_carrier(|carrier, _| async move {
        let refused = vec![REFUSE];
        let control = carrier.call(control(refused.clone()), LONG).await;
        assert_eq!(control.expect_err("refused"), Status::NotEmpty);
        let bulk = carrier.call(bulk(refused, "payload"), LONG).await;
        assert_eq!(bulk.expect_err("refused"), Status::NotEmpty);
    })
    .await;
}

#[tokio::test]
async fn calls_are_answered_out_of_order() {
    with_each_carrier(|carrier, mut watch| async move {
        let slow = carrier.call(parked(1), LONG);
        let fast = async {
            assert_eq!(watch.parked.recv().await, Some(1));
            let answer = carrier.call(control("fast"), LONG).await.expect("answered");
            watch.release.add_permits(1);
            answer
        };
        let (slow, fast) = tokio::join!(slow, fast);
        assert_eq!(slow.expect("answered").body, parked(1).body);
        assert_eq!(fast.body, "fast");
    })
    .await;
}

#[tokio::test]
async fn call_beyond_its_deadline_ends_and_is_cancelled_at_the_service() {
    with_each_carrier(|carrier, mut watch| async move {
        let late = carrier.call(parked(3), Duration::from_millis(300)).await;
        assert_eq!(late.expect_err("parked"), Status::DeadlineExceeded);
        assert_eq!(watch.parked.recv().await, Some(3));
        assert_eq!(watch.dropped.recv().await, Some(3));
        let answer = carrier.call(control("next"), LONG).await.expect("answered");
        assert_eq!(answer.body, "next");
    })
    .await;
}

#[tokio::test]
async fn call_that_is_dropped_is_cancelled_at_the_service() {
    with_each_carrier(|carrier, mut watch| async move {
        for request in [parked(4), bulk(parked(4).body, "payload")] {
            let mut call = carrier.call(request, LONG);
            tokio::select! {
                outcome = &mut call => panic!("parked, but {outcome:?}"),
                name = watch.parked.recv() => assert_eq!(name, Some(4)),
            }
            drop(call);
            assert_eq!(watch.dropped.recv().await, Some(4));
        }
    })
    .await;
}

#[tokio::test]
async fn calls_by_the_thousand_are_each_given_their_own_answer() {
    with_each_carrier(|carrier, _| async move {
        let call = |number: u32| {
            let carrier = carrier.clone();
            async move {
                let body = Bytes::from(format!("b{number}").into_bytes());
                let answer = carrier
                    .call(control(body.clone()), LONG)
                    .await
                    .expect("answered");
                assert_eq!(answer.body, body);
            }
        };
        join_all((0..5000).map(call)).await;
    })
    .await;
}

#[tokio::test]
async fn call_with_the_longest_body_is_answered() {
    with_each_carrier(|carrier, _| async move {
        let body = Bytes::from(vec![b'x'; vdfs_proto::limits::FRAME_BODY_BYTES_MAX]);
        let calls = (0..40).map(|_| carrier.call(control(body.clone()), LONG));
        for answer in join_all(calls).await {
            assert_eq!(answer.expect("answered").body, body);
        }
    })
    .await;
}

#[tokio::test]
async fn call_beyond_a_bound_is_refused_before_it_is_sent() {
    with_each_carrier(|carrier, _| async move {
        let long_body = vec![0; vdfs_proto::limits::FRAME_BODY_BYTES_MAX + 1];
        let long_payload = vec![0; vdfs_proto::limits::PAYLOAD_BYTES_MAX + 1];
        let payload_on_a_lane = Request {
            payload: "payload".into(),
            ..control("body")
        };
        for request in [
            control(long_body),
            bulk("body", long_payload),
            payload_on_a_lane,
        ] {
            let refused = carrier.call(request, LONG).await;
            assert_eq!(refused.expect_err("too large"), Status::TooLarge);
        }
    })
    .await;
}

#[tokio::test]
async fn flood_of_parked_calls_waits_for_credit_and_leaves_the_other_lane_free() {
    let (echo, mut watch) = Echo::new();
    let cluster = Cluster::new();
    let (server, client) = (cluster.serve(echo), cluster.client());
    let carrier = carrier(&client, &server);
    let flood = 2 * crate::limits::LANE_CREDITS;
    let calls: Vec<_> = (0..flood)
        .map(|_| {
            let carrier = carrier.clone();
            tokio::spawn(async move { carrier.call(parked(5), LONG).await })
        })
        .collect();
    for _ in 0..crate::limits::LANE_CREDITS {
        assert_eq!(watch.parked.recv().await, Some(5));
    }
    let recall_answer = Request {
        method: Method::Session,
        ..control("recalled")
    };
    assert_eq!(
        carrier
            .call(recall_answer, LONG)
            .await
            .expect("answered")
            .body,
        "recalled"
    );
    assert!(
        watch.parked.try_recv().is_err(),
        "more begun than there are credits"
    );
    watch.release.add_permits(flood);
    for call in join_all(calls).await {
        call.expect("not panicked").expect("answered");
    }
}

#[tokio::test]
async fn cancelled_calls_give_their_credit_back() {
    let (echo, mut watch) = Echo::new();
    let cluster = Cluster::new();
    let (server, client) = (cluster.serve(echo), cluster.client());
    let carrier = carrier(&client, &server);
    let flood = crate::limits::LANE_CREDITS;
    for _ in 0..3 {
        let calls = join_all((0..flood).map(|_| carrier.call(parked(6), LONG)));
        let begun = async {
            for _ in 0..flood {
                assert_eq!(watch.parked.recv().await, Some(6));
            }
        };
        tokio::select! {
            _ = calls => panic!("parked"),
            () = begun => {}
        }
        let answer = carrier.call(control("next"), LONG).await.expect("answered");
        assert_eq!(answer.body, "next");
    }
    for _ in 0..3 * flood {
        assert_eq!(watch.dropped.recv().await, Some(6));
    }
}

#[tokio::test]
async fn peer_is_known_by_its_certificate_and_its_host() {
    let (echo, _watch) = Echo::new();
    let cluster = Cluster::new();
    let (server, client) = (cluster.serve(echo.clone()), cluster.client());
    carrier(&client, &server)
        .call(control("hello"), LONG)
        .await
        .expect("answered");
    let peers = echo.peers.lock();
    assert_eq!(peers[0].cluster, ClusterId(0x5eed));
    assert_eq!(peers[0].role, Role::Client);
    assert_eq!(peers[0].node, "mount");
    assert_eq!(peers[0].addr, Some(client.local_addr()));
    assert!(peers[0].same_host);
    assert_eq!(
        crate::rpc::require_role(&peers[0], &[Role::Admin, Role::Client]),
        Ok(())
    );
    let refused = crate::rpc::require_role(&peers[0], &[Role::Volume]);
    assert_eq!(refused, Err(Status::WrongRole));
}

#[tokio::test]
async fn connector_asked_twice_gives_the_same_carrier() {
    let client = Cluster::new().client();
    let connector = client.connector();
    let target = master_at(LOCALHOST);
    let first = connector.carrier(&target);
    assert!(Arc::ptr_eq(&first, &connector.carrier(&target)));
    let any = Target {
        node: None,
        ..target
    };
    assert!(!Arc::ptr_eq(&first, &connector.carrier(&any)));
}

#[tokio::test]
async fn round_trips_timed() {
    const CALLS: u32 = 2000;
    let (echo, _watch) = Echo::new();
    let cluster = Cluster::new();
    let (server, client) = (cluster.serve(echo), cluster.client());
    let carrier = carrier(&client, &server);
    carrier.call(control("warm"), LONG).await.expect("answered");
    let start = Instant::now();
    for _ in 0..CALLS {
        carrier
            .call(control("64 bytes or so"), LONG)
            .await
            .expect("answered");
    }
    println!("{:?} a round trip", start.elapsed() / CALLS);
}
