//! The end of an endpoint.

use super::*;

#[tokio::test]
async fn shutdown_finishes_the_replies_that_were_begun() {
    let cluster = Cluster::new();
    let (echo, mut watch) = Echo::new();
    let (server, client) = (cluster.serve_volume(echo), cluster.client());
    let carrier = carrier(&client, &server);
    let calls = [parked(1), bulk(parked(2).body, vec![0; 1 << 20])].map(|request| {
        let carrier = carrier.clone();
        tokio::spawn(async move { carrier.call(request, LONG).await })
    });
    for _ in &calls {
        watch.parked.recv().await.expect("parked");
    }
    let release = watch.release.clone();
    let shutdown = tokio::task::spawn_blocking(move || server.shutdown(LONG));
    tokio::time::sleep(Duration::from_millis(100)).await;
    release.add_permits(2);
    for call in calls {
        call.await.expect("not panicked").expect("answered");
    }
    shutdown.await.expect("ended");
}

#[tokio::test]
async fn shutdown_waits_no_longer_than_its_deadline() {
    let cluster = Cluster::new();
    let (echo, mut watch) = Echo::new();
    let (server, client) = (cluster.serve(echo), cluster.client());
    let carrier = carrier(&client, &server);
    let call = tokio::spawn(async move { carrier.call(parked(1), LONG).await });
    watch.parked.recv().await.expect("parked");
    let started = Instant::now();
    let shutdown = move || server.shutdown(Duration::from_millis(200));
    tokio::task::spawn_blocking(shutdown).await.expect("ended");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    let lost = call.await.expect("not panicked");
    assert_eq!(lost.expect_err("cut off"), Status::Disconnected);
    assert_eq!(watch.dropped.recv().await, Some(1));
}

#[tokio::test]
async fn address_is_free_after_shutdown() {
    let cluster = Cluster::new();
    let (server, client) = (cluster.serve(Echo::new().0), cluster.client());
    let addr = server.local_addr();
    let carrier = carrier(&client, &server);
    carrier
        .call(control("hello"), LONG)
        .await
        .expect("answered");
    server.shutdown(LONG);
    std::net::UdpSocket::bind(addr).expect("free");
}

#[tokio::test]
async fn endpoint_without_a_service_refuses_until_it_has_one() {
    let cluster = Cluster::new();
    let identity = cluster.identity(Role::Master, "m-1");
    let server =
        QuicEndpoint::start(&identity, LOCALHOST, None, QuicConfig::default()).expect("started");
    let client = cluster.client();
    let carrier = carrier(&client, &server);
    let refused = carrier.call(control("hello"), LONG).await;
    assert_eq!(refused.expect_err("no service"), Status::Disconnected);
    server.set_service(Echo::new().0);
    carrier
        .call(control("hello"), LONG)
        .await
        .expect("answered");
    eventually("the refusal is counted", || {
        server.counters().accepts_refused.get() >= 1
    })
    .await;
}

#[test]
fn address_that_is_taken_is_named() {
    let cluster = Cluster::new();
    let taken = std::net::UdpSocket::bind(LOCALHOST).expect("bound");
    let addr = taken.local_addr().expect("bound");
    let identity = cluster.identity(Role::Master, "m-1");
    let error = QuicEndpoint::start(&identity, addr, None, QuicConfig::default());
    let error = error.expect_err("taken").to_string();
    assert!(error.contains(&addr.to_string()), "{error}");
}
