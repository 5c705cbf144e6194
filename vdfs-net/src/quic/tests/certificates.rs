//! Who is let in.

use std::time::SystemTime;

use vdfs_proto::codec::decode;
use vdfs_proto::frame::FrameKind;

use super::raw_peer::{RawPeer, hello};
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

/// One call from `client` to `server`, both given by their certificates; what a refusal leaves behind
/// at both ends is checked.
async fn try_call(server: &Identity, client: &Identity) -> Result<(), (Status, String)> {
    let (echo, _watch) = Echo::new();
    let server = serve_as(server, LOCALHOST, echo.clone(), QuicConfig::default());
    let client = dial_as(client, QuicConfig::default());
    let target = master_at(server.local_addr());
    let call = client.connector().carrier(&target);
    let Err(status) = call.call(control("hello"), LONG).await else {
        return Ok(());
    };
    let refused = || server.counters().accepts_refused.get() == 1;
    eventually("the refusal is counted", refused).await;
    assert!(echo.peers.lock().is_empty(), "a request got through");
    assert_eq!(server.counters().requests.get(), 0);
    assert_eq!(server.counters().accepts.get(), 0);
    assert_eq!(client.counters().dials.get(), 0);
    assert_eq!(client.counters().dials_failed.get(), 1);
    let failure = client.last_failure(&target).expect("a reason");
    assert!(failure.is_final, "{failure:?}");
    Err((status, failure.why))
}

async fn assert_refused(what: &str, server: &Identity, client: &Identity, why: &str) {
    let (status, reason) = try_call(server, client).await.expect_err(what);
    assert_eq!(status, Status::Disconnected, "{what}");
    assert!(reason.contains(why), "{what}: {reason}");
}

const REFUSES: &str = "the peer refuses this certificate: ";
const REFUSED: &str = "the peer's certificate is refused: ";

#[tokio::test]
async fn certificate_that_is_wrong_is_refused_at_either_end_for_its_reason() {
    let ours = Authority::create(ClusterId(1)).expect("made");
    let theirs = Authority::create(ClusterId(1)).expect("made");
    let good = |role| issue(&ours, ClusterId(1), role, [-1, 1]);
    let (server, client) = (good(Role::Master), good(Role::Client));
    try_call(&server, &client).await.expect("both are right");

    let bad = |what: &'static str, role| match what {
        "of another CA" => issue(&theirs, ClusterId(1), role, [-1, 1]),
        "expired" => issue(&ours, ClusterId(1), role, [-2, -1]),
        "of tomorrow" => issue(&ours, ClusterId(1), role, [1, 2]),
        _ => issue(&ours, ClusterId(2), role, [-1, 1]),
    };
    for (what, to_client) in [
        ("expired", "it has expired, or is not valid yet"),
        ("of tomorrow", "it has expired, or is not valid yet"),
    ] {
        let why = format!("{REFUSES}{to_client}");
        assert_refused(what, &server, &bad(what, Role::Client), &why).await;
    }
    let (what, why) = (
        "of another CA",
        format!("{REFUSED}it is of another cluster"),
    );
    assert_refused(what, &server, &bad(what, Role::Client), &why).await;
    assert_refused(what, &bad(what, Role::Master), &client, &why).await;
    let (status, reason) = try_call(&bad("expired", Role::Master), &client)
        .await
        .expect_err("expired");
    assert_eq!(status, Status::Disconnected);
    assert!(reason.contains("expired"), "{reason}");
    let (_, reason) = try_call(&bad("of tomorrow", Role::Master), &client)
        .await
        .expect_err("of tomorrow");
    assert!(reason.contains("not valid yet"), "{reason}");
    let what = "of another cluster";
    let why = |seen: u128| format!("{REFUSED}the peer is {what}, {}", ClusterId(seen));
    assert_refused(what, &server, &bad(what, Role::Client), &why(1)).await;
    assert_refused(what, &bad(what, Role::Master), &client, &why(2)).await;
    let why = "the peer is a volume, not a master";
    assert_refused("volume as master", &good(Role::Volume), &client, why).await;
}

/// Everybody at every kind of server for every purpose: who is not on the list sends no request.
#[tokio::test]
async fn roles_and_purposes_that_are_not_on_the_list_are_refused() {
    use Purpose::{Bulk, Control, Heartbeat};
    let cluster = Cluster::new();
    let (echo, _watch) = Echo::new();
    let servers = [
        cluster.serve(echo.clone()),
        cluster.serve_volume(echo.clone()),
    ];
    let lists = [
        [
            (Role::Client, &[Control][..]),
            (Role::Admin, &[Control]),
            (Role::Volume, &[Control, Heartbeat]),
            (Role::Master, &[]),
        ],
        [
            (Role::Client, &[Control, Bulk]),
            (Role::Admin, &[Control, Bulk]),
            (Role::Volume, &[Bulk]),
            (Role::Master, &[]),
        ],
    ];
    for (server, list) in servers.iter().zip(lists) {
        let (mut welcomed, mut refused) = (0, 0);
        for (role, purposes) in list {
            for purpose in [Control, Bulk, Heartbeat] {
                let peer = RawPeer::connect_as(&cluster, server, role).await;
                let what = format!("{role:?} for {purpose:?}");
                if purposes.contains(&purpose) {
                    let (kind, _) = peer.greet(&hello(&cluster, purpose)).await;
                    assert_eq!(kind, FrameKind::Response, "{what}");
                    welcomed += 1;
                    continue;
                }
                refused += 1;
                if purposes.is_empty() {
                    let reason = peer.closed().await;
                    assert!(reason.contains("error 49"), "{what}: {reason}");
                } else {
                    let (kind, body) = peer.greet(&hello(&cluster, purpose)).await;
                    assert_eq!(kind, FrameKind::Error, "{what}");
                    assert_eq!(decode::<Status>(&body), Ok(Status::WrongRole), "{what}");
                }
            }
        }
        let counters = server.counters();
        let is_counted = || counters.accepts_refused.get() == refused;
        eventually("all refusals are counted", is_counted).await;
        assert_eq!(counters.accepts.get(), welcomed);
        assert_eq!(counters.requests.get(), 0);
    }
    assert!(echo.peers.lock().is_empty());
}

#[tokio::test]
async fn role_without_business_at_a_server_is_told_so() {
    let cluster = Cluster::new();
    let server = cluster.serve_volume(Echo::new().0);
    let master = dial_as(
        &cluster.identity(Role::Master, "m-2"),
        QuicConfig::default(),
    );
    let refused = carrier(&master, &server).call(control("hello"), LONG).await;
    assert_eq!(refused.expect_err("no business"), Status::Disconnected);
    let failure = master.last_failure(&target_of(&server)).expect("a reason");
    assert_eq!(
        failure.why,
        format!("{REFUSES}its role has no business there")
    );
    assert!(failure.is_final);
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

/// A dialler that takes our servers as they are: only the server can refuse it.
#[tokio::test]
async fn client_with_no_certificate_or_one_of_another_authority_is_refused_by_the_server() {
    let theirs = Authority::create(ClusterId(1)).expect("made");
    let foreign = issue(&theirs, ClusterId(1), Role::Client, [-1, 1]);
    for shown in [None, Some(&foreign)] {
        let cluster = Cluster::new();
        let (echo, _watch) = Echo::new();
        let server = cluster.serve(echo.clone());
        let target = master_at(server.local_addr());
        let config = showing(shown, &cluster, &target);
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
        let alert = match shown {
            None => "error 116",
            Some(_) => "error 48",
        };
        assert!(reason.to_string().contains(alert), "{reason}");
        eventually("the refusal is counted", || {
            server.counters().accepts_refused.get() == 1
        })
        .await;
        assert!(echo.peers.lock().is_empty());
    }
}

/// Checks the server as it should, and shows what it is told to.
fn showing(shown: Option<&Identity>, cluster: &Cluster, target: &Target) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for root in cluster.identity(Role::Client, "any").roots() {
        roots.add(root).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let id = cluster.authority.cluster();
    let verifier =
        super::super::verifier::ServerVerifier::new(roots.into(), algorithms, id, target);
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut tls = match shown {
        None => tls.with_no_client_auth(),
        Some(identity) => tls
            .with_client_auth_cert(identity.chain(), identity.key())
            .expect("a key"),
    };
    tls.alpn_protocols = vec![vdfs_proto::handshake::ALPN.to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("good ciphers");
    ClientConfig::new(Arc::new(tls))
}
