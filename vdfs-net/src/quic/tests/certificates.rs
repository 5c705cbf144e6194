//! Who is let in.

use std::time::SystemTime;

use super::*;
use crate::identity::{PeerName, Validity};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn issue(authority: &Authority, cluster: ClusterId, role: Role, days: [i32; 2]) -> Identity {
    let node = if role == Role::Master { "m-1" } else { "mount" };
    let name = PeerName {
        cluster,
        role,
        node: node.parse().expect("a label"),
    };
    let at = |days: i32| match u32::try_from(days) {
        Ok(days) => SystemTime::now() + days * DAY,
        Err(_) => SystemTime::now() - days.unsigned_abs() * DAY,
    };
    let validity = Validity {
        not_before: at(days[0]),
        not_after: at(days[1]),
    };
    authority.issue_for(&name, validity).expect("issued")
}

/// One call from `client` to `server`, both given by their certificates.
async fn try_call(server: &Identity, client: &Identity) -> Result<(), (Status, String)> {
    let (echo, _watch) = Echo::new();
    let server = serve_as(server, LOCALHOST, echo.clone(), QuicConfig::default());
    let client = dial_as(client, QuicConfig::default());
    let target = master_at(server.local_addr());
    let outcome = client
        .connector()
        .carrier(&target)
        .call(control("hello"), LONG)
        .await;
    match outcome {
        Ok(_) => Ok(()),
        Err(status) => {
            assert!(echo.peers.lock().is_empty(), "a request got through");
            Err((status, client.last_failure(&target).expect("a reason").why))
        }
    }
}

async fn assert_refused(what: &str, server: &Identity, client: &Identity, why: &str) {
    let (status, reason) = try_call(server, client).await.expect_err(what);
    assert_eq!(status, Status::Disconnected, "{what}");
    assert!(reason.contains(why), "{what}: {reason}");
}

#[tokio::test]
async fn certificate_that_is_wrong_is_refused() {
    let ours = Authority::create(ClusterId(1)).expect("made");
    let theirs = Authority::create(ClusterId(1)).expect("made");
    let good = |role| issue(&ours, ClusterId(1), role, [-1, 1]);
    let (server, client) = (good(Role::Master), good(Role::Client));
    try_call(&server, &client).await.expect("both are right");

    let other_ca = |role| issue(&theirs, ClusterId(1), role, [-1, 1]);
    assert_refused("client of another CA", &server, &other_ca(Role::Client), "").await;
    assert_refused("server of another CA", &other_ca(Role::Master), &client, "").await;

    let expired = |role| issue(&ours, ClusterId(1), role, [-2, -1]);
    assert_refused("expired client", &server, &expired(Role::Client), "xpired").await;
    assert_refused("expired server", &expired(Role::Master), &client, "expired").await;

    let future = |role| issue(&ours, ClusterId(1), role, [1, 2]);
    assert_refused("client of tomorrow", &server, &future(Role::Client), "").await;
    assert_refused(
        "server of tomorrow",
        &future(Role::Master),
        &client,
        "not valid yet",
    )
    .await;

    let other_cluster = |role| issue(&ours, ClusterId(2), role, [-1, 1]);
    assert_refused(
        "client of another cluster",
        &server,
        &other_cluster(Role::Client),
        "",
    )
    .await;
    let why = "of another cluster";
    assert_refused(
        "server of another cluster",
        &other_cluster(Role::Master),
        &client,
        why,
    )
    .await;

    let why = "the peer is a client, not a master";
    assert_refused("client as server", &good(Role::Client), &client, why).await;
    let why = "the peer is a volume, not a master";
    assert_refused("volume as master", &good(Role::Volume), &client, why).await;
}

#[tokio::test]
async fn node_that_was_not_dialled_is_refused_and_any_node_is_taken_if_none_was_named() {
    let cluster = Cluster::new();
    let (echo, _watch) = Echo::new();
    let (server, client) = (cluster.serve(echo), cluster.client());
    let call = |node: Option<&str>| {
        let node = node.map(str::to_owned);
        let target = Target {
            node,
            ..master_at(server.local_addr())
        };
        let carrier = client.connector().carrier(&target);
        async move { carrier.call(control("hello"), LONG).await }
    };
    assert_eq!(
        call(Some("m-2")).await.expect_err("another node"),
        Status::Disconnected
    );
    call(Some("m-1")).await.expect("the node");
    call(None).await.expect("any node");
}

#[tokio::test]
async fn volume_is_let_in_but_fails_the_role_check_of_an_operation() {
    struct ForClients;
    impl Service for ForClients {
        fn handle(&self, peer: Arc<PeerIdentity>, _: Request) -> BoxFuture<'static, Outcome> {
            let checked = crate::rpc::require_role(&peer, &[Role::Client]);
            std::future::ready(checked.map(|()| Response::default())).boxed()
        }
    }
    let cluster = Cluster::new();
    let server = cluster.serve(Arc::new(ForClients));
    let call = |role| {
        let client = dial_as(&cluster.identity(role, "n"), QuicConfig::default());
        let carrier = carrier(&client, &server);
        async move {
            let outcome = carrier.call(control("hello"), LONG).await;
            drop(client);
            outcome
        }
    };
    call(Role::Client).await.expect("a client");
    assert_eq!(
        call(Role::Volume).await.expect_err("a volume"),
        Status::WrongRole
    );
}

#[tokio::test]
async fn client_without_a_certificate_is_refused() {
    let cluster = Cluster::new();
    let (echo, _watch) = Echo::new();
    let server = cluster.serve(echo.clone());
    let target = master_at(server.local_addr());
    let config = anonymous(&cluster, &target);
    let endpoint = quinn::Endpoint::client(LOCALHOST).expect("bound");
    let name = crate::identity::dns_name(Role::Master, Some("m-1"));
    let connecting = endpoint
        .connect_with(config, target.addr, &name)
        .expect("dialled");
    // The dialler's part of a TLS 1.3 handshake ends before its certificate is looked at.
    let reason = match connecting.await {
        Ok(connection) => connection.closed().await,
        Err(error) => error,
    };
    assert!(reason.to_string().contains("certificate"), "{reason}");
    eventually("the refusal is counted", || {
        server.counters().accepts_refused.get() == 1
    })
    .await;
    assert!(echo.peers.lock().is_empty());
}

/// Checks the server as it should, and shows no certificate.
fn anonymous(cluster: &Cluster, target: &Target) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for root in cluster.identity(Role::Client, "any").roots() {
        roots.add(root).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let id = cluster.authority.cluster();
    let verifier =
        super::super::verifier::ServerVerifier::new(roots.into(), algorithms, id, target);
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![vdfs_proto::handshake::ALPN.to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("good ciphers");
    ClientConfig::new(Arc::new(tls))
}
