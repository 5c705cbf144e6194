//! Peers that break the protocol lose their connection, and nobody else notices.

use vdfs_proto::frame::FrameKind;
use vdfs_proto::limits::{FRAME_BODY_BYTES_MAX, PAYLOAD_BYTES_MAX};

use super::raw_peer::{RawPeer, frame};
use super::*;

const QUERY: u16 = Method::Query as u16;
const DATA: u16 = Method::Data as u16;

/// A server that does not wait long, and a good client beside the bad one.
struct Scene {
    cluster: Cluster,
    master: QuicEndpoint,
    volume: QuicEndpoint,
    bystander: QuicEndpoint,
}

impl Scene {
    async fn new() -> Scene {
        let cluster = Cluster::new();
        let config = QuicConfig {
            stall: Duration::from_millis(300),
            ..QuicConfig::default()
        };
        let serve = |role, node| {
            let identity = cluster.identity(role, node);
            serve_as(&identity, LOCALHOST, Echo::new().0, config)
        };
        let [master, volume] =
            [(Role::Master, "m-1"), (Role::Volume, "v-1")].map(|(role, node)| serve(role, node));
        let bystander = cluster.client();
        let scene = Scene {
            cluster,
            master,
            volume,
            bystander,
        };
        scene.assert_others_are_served().await;
        scene
    }

    async fn assert_others_are_served(&self) {
        for server in [&self.master, &self.volume] {
            let carrier = carrier(&self.bystander, server);
            let answered = carrier.call(control("hello"), LONG).await;
            answered.expect("answered");
        }
        assert_eq!(self.bystander.counters().dials.get(), 2);
    }

    fn server(&self, purpose: Purpose) -> &QuicEndpoint {
        match purpose {
            Purpose::Control | Purpose::Heartbeat => &self.master,
            Purpose::Bulk => &self.volume,
        }
    }

    /// A count of both servers.
    fn count(&self, counter: impl Fn(&NetCounters) -> &Counter) -> u64 {
        [&self.master, &self.volume]
            .map(|server| counter(server.counters()).get())
            .iter()
            .sum()
    }

    /// Sends `bytes` on a stream of a welcomed connection, and leaves it open.
    async fn assert_closed(&self, purpose: Purpose, bytes: &[u8], why: &str) {
        let peer = RawPeer::welcomed(&self.cluster, self.server(purpose), purpose).await;
        let _stream = peer.send(bytes).await;
        let reason = peer.closed().await;
        assert!(reason.contains(why), "{reason}");
        self.assert_others_are_served().await;
    }
}

fn header_of(body_bytes: u32) -> Vec<u8> {
    let mut header = frame(FrameKind::Request, QUERY, 1, &[]);
    header[..4].copy_from_slice(&body_bytes.to_le_bytes());
    header
}

#[tokio::test]
async fn oversized_frame_closes_its_connection() {
    let scene = Scene::new().await;
    let header = header_of(FRAME_BODY_BYTES_MAX as u32 + 1);
    scene
        .assert_closed(Purpose::Control, &header, "oversized")
        .await;
    scene
        .assert_closed(Purpose::Heartbeat, &header, "oversized")
        .await;
    scene
        .assert_closed(Purpose::Bulk, &header, "oversized")
        .await;
    let payload = frame(
        FrameKind::Request,
        DATA,
        PAYLOAD_BYTES_MAX as u64 + 1,
        b"body",
    );
    scene
        .assert_closed(Purpose::Bulk, &payload, "oversized")
        .await;
    let payload = frame(FrameKind::Request, DATA, u64::MAX, b"body");
    scene
        .assert_closed(Purpose::Bulk, &payload, "oversized")
        .await;
    assert_eq!(scene.count(|all| &all.frames_oversized), 5);
}

#[tokio::test]
async fn malformed_frame_closes_its_connection() {
    let scene = Scene::new().await;
    let mut reserved = frame(FrameKind::Request, QUERY, 1, b"body");
    reserved[5] = 1;
    let mut kind = frame(FrameKind::Request, QUERY, 1, b"body");
    kind[4] = 77;
    let method = frame(FrameKind::Request, 999, 1, b"body");
    let response = frame(FrameKind::Response, 0, 1, b"body");
    let frames = [reserved, kind, method, response];
    for bytes in &frames {
        scene
            .assert_closed(Purpose::Control, bytes, "malformed")
            .await;
        scene.assert_closed(Purpose::Bulk, bytes, "malformed").await;
    }
    let twice = frame(FrameKind::Request, QUERY, 1, &[PARK, 1]).repeat(2);
    scene
        .assert_closed(Purpose::Control, &twice, "malformed")
        .await;
    assert_eq!(
        scene.count(|all| &all.frames_malformed),
        2 * frames.len() as u64 + 1
    );
}

#[tokio::test]
async fn transfer_with_more_or_fewer_bytes_than_it_said_closes_its_connection() {
    let scene = Scene::new().await;
    for payload in [b"short".as_slice(), b"longer than it said"] {
        let peer = RawPeer::welcomed(&scene.cluster, &scene.volume, Purpose::Bulk).await;
        let head = frame(FrameKind::Request, DATA, 10, b"body");
        let (mut send, _recv) = peer.send(&[&head, payload].concat()).await;
        send.finish().expect("open");
        assert!(peer.closed().await.contains("malformed"));
    }
    scene.assert_others_are_served().await;
}

#[tokio::test]
async fn early_payload_with_another_body_than_one_behind_it_closes_its_connection() {
    let scene = Scene::new().await;
    let early = Method::PeerEarly as u16;
    let before = |body: &[u8]| {
        let head = frame(FrameKind::Request, early, 3, body);
        [head.as_slice(), b"abc"].concat()
    };
    let behind = |method, tag| frame(FrameKind::Request, method, tag, b"body");
    let transfers = [
        [before(b"body"), behind(early, 0)],
        [before(b""), behind(DATA, 0)],
        [before(b""), behind(early, 1)],
    ];
    for bytes in transfers.map(|parts| parts.concat()) {
        scene
            .assert_closed(Purpose::Bulk, &bytes, "malformed")
            .await;
    }
}

#[tokio::test]
async fn garbage_after_the_tls_handshake_closes_its_connection() {
    let scene = Scene::new().await;
    let peer = RawPeer::connect(&scene.cluster, &scene.master).await;
    let _stream = peer.send(&[0xff; 4000]).await;
    let reason = peer.closed().await;
    assert!(
        reason.contains("oversized") || reason.contains("malformed"),
        "{reason}"
    );
    let peer = RawPeer::connect(&scene.cluster, &scene.master).await;
    let _stream = peer.send(b"GET / HTTP/1.1\r\n\r\n").await;
    peer.closed().await;
    scene.assert_others_are_served().await;
}

#[tokio::test]
async fn frame_that_stays_half_sent_closes_its_connection() {
    let scene = Scene::new().await;
    let whole = frame(FrameKind::Request, QUERY, 1, b"body");
    scene
        .assert_closed(Purpose::Control, &whole[..7], "stalled")
        .await;
    scene
        .assert_closed(Purpose::Control, &whole[..18], "stalled")
        .await;
    let whole = frame(FrameKind::Request, DATA, 1 << 20, b"body");
    scene
        .assert_closed(Purpose::Bulk, &whole[..7], "stalled")
        .await;
    scene.assert_closed(Purpose::Bulk, &whole, "stalled").await;
    assert_eq!(scene.count(|all| &all.stalls), 4);
}

#[tokio::test]
async fn lane_that_is_quiet_between_frames_stays() {
    let scene = Scene::new().await;
    let peer = RawPeer::welcomed(&scene.cluster, &scene.master, Purpose::Control).await;
    let whole = frame(FrameKind::Request, QUERY, 1, b"body");
    let (mut send, mut recv) = peer.send(&whole).await;
    let mut answer = vec![0; whole.len()];
    recv.read_exact(&mut answer).await.expect("answered");
    let quiet = tokio::time::timeout(Duration::from_secs(1), peer.connection.closed());
    assert!(quiet.await.is_err(), "closed");
    send.write_all(&whole).await.expect("written");
    recv.read_exact(&mut answer).await.expect("answered");
}

#[tokio::test]
async fn flood_of_streams_is_held_back_by_the_transport() {
    let scene = Scene::new().await;
    let peer = RawPeer::welcomed(&scene.cluster, &scene.volume, Purpose::Bulk).await;
    let limit = crate::limits::BULK_STREAMS_MAX as usize;
    let park = frame(FrameKind::Request, DATA, 0, &[PARK, 1]);
    let mut streams = Vec::new();
    while let Ok(stream) =
        tokio::time::timeout(Duration::from_secs(1), peer.connection.open_bi()).await
    {
        let (mut send, recv) = stream.expect("open");
        send.write_all(&park).await.expect("written");
        send.finish().expect("open");
        streams.push((send, recv));
        assert!(streams.len() <= limit, "{} streams", streams.len());
    }
    assert!(streams.len() >= limit - 1, "{} streams", streams.len());
    scene.assert_others_are_served().await;
}

#[tokio::test]
async fn flood_of_requests_beyond_the_credits_is_not_read() {
    let cluster = Cluster::new();
    let (echo, mut watch) = Echo::new();
    let server = cluster.serve(echo);
    let peer = RawPeer::welcomed(&cluster, &server, Purpose::Control).await;
    let credits = crate::limits::LANE_CREDITS as u64;
    let request = |tag| frame(FrameKind::Request, QUERY, tag, &[PARK, 1]);
    let requests: Vec<_> = (0..2 * credits).map(request).collect();
    let _stream = peer.send(&requests.concat()).await;
    for _ in 0..=credits {
        assert_eq!(watch.parked.recv().await, Some(1));
    }
    let more = tokio::time::timeout(Duration::from_millis(300), watch.parked.recv()).await;
    assert!(more.is_err(), "read beyond its credits");
    watch.release.add_permits(requests.len());
    for _ in credits + 1..2 * credits {
        assert_eq!(watch.parked.recv().await, Some(1));
    }
}

#[tokio::test]
async fn lane_beyond_the_limit_closes_its_connection() {
    let scene = Scene::new().await;
    let peer = RawPeer::welcomed(&scene.cluster, &scene.master, Purpose::Heartbeat).await;
    let whole = frame(FrameKind::Request, QUERY, 1, b"body");
    let _first = peer.send(&whole).await;
    let _second = peer.send(&whole).await;
    assert!(peer.closed().await.contains("malformed"));
    scene.assert_others_are_served().await;
}

#[tokio::test]
async fn handler_that_panics_closes_its_connection_only() {
    struct Fragile;
    impl Service for Fragile {
        fn handle(&self, _: Arc<PeerIdentity>, request: Request) -> BoxFuture<'static, Outcome> {
            assert!(request.body != "panic", "asked for");
            std::future::ready(Ok(Response::default())).boxed()
        }
    }
    let cluster = Cluster::new();
    let server = cluster.serve_volume(Arc::new(Fragile));
    let (one, other) = (cluster.client(), cluster.client());
    let (one, other) = (carrier(&one, &server), carrier(&other, &server));
    other.call(control("fine"), LONG).await.expect("answered");
    for request in [control("panic"), bulk("panic", "")] {
        let lost = one.call(request, LONG).await;
        assert_eq!(lost.expect_err("panicked"), Status::Disconnected);
    }
    other.call(control("fine"), LONG).await.expect("answered");
    one.call(control("fine"), LONG)
        .await
        .expect("connected again");
}
