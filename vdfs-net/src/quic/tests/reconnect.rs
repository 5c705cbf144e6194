//! Servers that go and come back.

use super::*;

fn restart(cluster: &Cluster, addr: SocketAddr) -> QuicEndpoint {
    let identity = cluster.identity(Role::Master, "m-1");
    serve_as(&identity, addr, Echo::new().0, QuicConfig::default())
}

/// Retries as a caller would, at most `LONG`.
async fn call_until_answered(carrier: &Arc<dyn Carrier>, request: &Request) {
    let give_up = Instant::now() + LONG;
    while let Err(status) = carrier.call(request.clone(), LONG).await {
        assert_eq!(status, Status::Disconnected);
        assert!(Instant::now() < give_up, "never answered");
    }
}

#[tokio::test]
async fn calls_in_flight_end_at_once_when_the_server_stops() {
    let cluster = Cluster::new();
    let (echo, mut watch) = Echo::new();
    let (server, client) = (cluster.serve_volume(echo), cluster.client());
    let carrier = carrier(&client, &server);
    for request in [parked(1), bulk(parked(2).body, "payload")] {
        let carrier = carrier.clone();
        tokio::spawn(async move { carrier.call(request, LONG).await });
        watch.parked.recv().await.expect("parked");
    }
    let lost = carrier.call(parked(3), LONG);
    let stop = async {
        assert_eq!(watch.parked.recv().await, Some(3));
        let started = Instant::now();
        drop(server);
        started
    };
    let (lost, started) = tokio::join!(lost, stop);
    assert_eq!(lost.expect_err("the server has gone"), Status::Disconnected);
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn server_killed_and_started_again_is_reached_again_without_the_idle_timeout() {
    let cluster = Cluster::new();
    let identity = cluster.identity(Role::Volume, "v-1");
    let (echo, mut watch) = Echo::new();
    let server = serve_as(&identity, LOCALHOST, echo, QuicConfig::default());
    let client = cluster.client();
    let addr = server.local_addr();
    let carrier = carrier(&client, &server);
    carrier
        .call(control("hello"), LONG)
        .await
        .expect("answered");
    let lost = carrier.call(parked(1), LONG);
    let kill = async {
        assert_eq!(watch.parked.recv().await, Some(1));
        server.kill();
        serve_as(&identity, addr, Echo::new().0, QuicConfig::default())
    };
    let started = Instant::now();
    let (lost, _server) = tokio::join!(lost, kill);
    assert_eq!(lost.expect_err("killed"), Status::Disconnected);
    call_until_answered(&carrier, &control("hello again")).await;
    call_until_answered(&carrier, &bulk("hello again", "payload")).await;
    assert!(
        started.elapsed() < crate::limits::IDLE_TIMEOUT,
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn server_away_is_reached_when_it_comes_back() {
    let cluster = Cluster::new();
    let server = cluster.serve(Echo::new().0);
    let client = cluster.client();
    let addr = server.local_addr();
    let carrier = carrier(&client, &server);
    carrier
        .call(control("hello"), LONG)
        .await
        .expect("answered");
    drop(server);
    let lost = carrier.call(control("hello"), LONG).await;
    assert_eq!(lost.expect_err("nobody there"), Status::Disconnected);
    let lost = carrier
        .call(control("hello"), Duration::from_millis(100))
        .await;
    let expected = [Status::DeadlineExceeded, Status::Disconnected];
    assert!(expected.contains(&lost.expect_err("nobody there")));
    assert!(client.last_failure(&master_at(addr)).is_some());
    let _server = restart(&cluster, addr);
    call_until_answered(&carrier, &control("hello again")).await;
}

#[tokio::test]
async fn failed_dial_ends_all_who_wait_for_it() {
    let cluster = Cluster::new();
    let client = cluster.client();
    let silent = std::net::UdpSocket::bind(LOCALHOST).expect("bound");
    let target = master_at(silent.local_addr().expect("bound"));
    let carrier = client.connector().carrier(&target);
    let calls = (0..50).map(|_| carrier.call(control("hello"), LONG));
    for outcome in futures::future::join_all(calls).await {
        assert_eq!(outcome.expect_err("nobody answers"), Status::Disconnected);
    }
    assert_eq!(client.counters().dials_failed.get(), 1);
    let why = client.last_failure(&target).expect("a reason").why;
    assert!(why.contains("no answer within"), "{why}");
}

#[tokio::test]
async fn carrier_of_an_endpoint_that_is_gone_is_disconnected() {
    let cluster = Cluster::new();
    let server = cluster.serve_volume(Echo::new().0);
    let client = cluster.client();
    let carrier = carrier(&client, &server);
    carrier
        .call(control("hello"), LONG)
        .await
        .expect("answered");
    drop(client);
    for request in [control("hello"), bulk("hello", "")] {
        let lost = carrier.call(request, LONG).await;
        assert_eq!(lost.expect_err("no endpoint"), Status::Disconnected);
    }
}
