//! Peers that mean ill, against a real master and a real volume: closed, counted, and their memory
//! stays as it is.

mod raw_peer;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::stream::{self, StreamExt};
use quinn::Connection;
use rand::RngExt;
use raw_peer::{Dialler, frame, header};
use vdfs_net::{Authority, Identity};
use vdfs_proto::ClusterId;
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::{Purpose, Role};
use vdfs_proto::limits::PAYLOAD_BYTES_MAX;
use vdfs_tests::part::Part;
use vdfs_tests::{Cluster, Network, Options, eventually, mount_tests_skipped};

/// Longer than a peer may stall.
const LONG: Duration = Duration::from_secs(30);
const GARBAGE_DATAGRAMS: usize = 20_000;
const STRANGERS: usize = 1_000;
const STRANGERS_AT_ONCE: usize = 32;
/// What all of it may leave behind in a server that has seen the same before, in KiB.
const GROWTH_KIB_MAX: u64 = 2 << 10;
/// Peers that each begin as many payloads as they can.
const FLOODING_PEERS: usize = 6;
const STREAMS: usize = 32;
const FLOOD: Duration = Duration::from_secs(2);
/// What a volume of 256 MiB may hold of them, in KiB: 8 MiB of payloads, what is sent ahead, and the
/// receive buffers.
const FLOOD_KIB_MAX: u64 = 24 << 10;

const DATA: u16 = Method::Data as u16;
const QUERY: u16 = Method::Query as u16;

struct Scene {
    cluster: Cluster,
    client: Dialler,
    stranger: Dialler,
    master: SocketAddr,
    volume: SocketAddr,
}

/// How a server's door has counted what was wrong with its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    refused: u64,
    broken_frames: u64,
    stalls: u64,
}

impl Scene {
    fn new() -> Scene {
        let options = Options {
            ram_mib: 256,
            volumes: 1,
            chunk_size: "1MiB",
            ..Options::default()
        };
        let cluster = Cluster::start(options, Network::Loopback, 0);
        let own = cluster.master_state().join("identity-client");
        let id = Identity::load(&own)
            .expect("made at the first start")
            .cluster();
        let others = Authority::create(ClusterId(9)).expect("made");
        let theirs = cluster.outside().join("stranger");
        let stranger = others.issue(Role::Client, "stranger").expect("issued");
        stranger.save(&theirs).expect("saved");
        Scene {
            client: Dialler::new(&own, id),
            stranger: Dialler::new(&theirs, id),
            master: addr(cluster.master_state()),
            volume: addr(cluster.volume_state(0)),
            cluster,
        }
    }

    fn servers(&self) -> [(SocketAddr, Purpose); 2] {
        [
            (self.master, Purpose::Control),
            (self.volume, Purpose::Bulk),
        ]
    }

    fn rss_kib(&self) -> [u64; 2] {
        [&self.cluster.master, &self.cluster.volumes[0]].map(rss_kib)
    }

    /// What an operator sees: of the master and of the volume.
    fn counts(&self) -> [Counts; 2] {
        let output = self.cluster.vdfs(&["status", "--json"]);
        assert!(output.status.success(), "{output:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        [&json["net"], &json["volumes"][0]["net"]].map(|net| {
            let number = |key: &str| {
                net[key]
                    .as_u64()
                    .unwrap_or_else(|| panic!("{key} in {net}"))
            };
            Counts {
                refused: number("accepts_refused"),
                broken_frames: number("frames_malformed") + number("frames_oversized"),
                stalls: number("stalls"),
            }
        })
    }

    /// A volume tells its numbers every two seconds.
    fn assert_counted(&self, before: [Counts; 2], more: [Counts; 2]) {
        let mut now = before;
        let expected = [0, 1].map(|server| Counts {
            refused: before[server].refused + more[server].refused,
            broken_frames: before[server].broken_frames + more[server].broken_frames,
            stalls: before[server].stalls + more[server].stalls,
        });
        let begun = Instant::now();
        while now != expected {
            assert!(begun.elapsed() < LONG, "{now:?}, expected {expected:?}");
            now = self.counts();
        }
    }
}

fn addr(state: PathBuf) -> SocketAddr {
    let text = fs::read_to_string(state.join("addr")).expect("it serves");
    text.trim().parse().expect("an address")
}

fn rss_kib(part: &Part) -> u64 {
    let path = format!("/proc/{}/status", part.pid().as_raw_nonzero());
    let status = fs::read_to_string(path).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse().ok()).expect("a number")
}

fn send_garbage(to: SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let mut datagram = [0u8; 1400];
    for _ in 0..GARBAGE_DATAGRAMS {
        rand::rng().fill(&mut datagram[..]);
        let len = rand::rng().random_range(1..datagram.len());
        // A full socket buffer is the sender's own affair.
        socket.send_to(&datagram[..len], to).ok();
    }
}

/// Certificates of another authority.
async fn knock(scene: &Scene, to: SocketAddr, times: usize) {
    let knocking = stream::iter(0..times).for_each_concurrent(STRANGERS_AT_ONCE, |_| async {
        // This end's part of the handshake ends first.
        if let Ok(connection) = scene.stranger.connect(to).await {
            connection.closed().await;
        }
    });
    knocking.await;
}

/// What is wrong with each connection, and how its server closes it.
fn frames() -> Vec<(Vec<u8>, &'static str)> {
    let mut garbage = vec![0; 4000];
    rand::rng().fill(&mut garbage[..]);
    // Not by chance a frame that has to be waited for.
    garbage[4] = 0xff;
    vec![
        (header(u32::MAX, QUERY, 1).to_vec(), "oversized"),
        (header((1 << 20) + 1, DATA, 1).to_vec(), "oversized"),
        (garbage, "malformed"),
        (frame(999, 0, b"no such method"), "malformed"),
        (
            b"GET / HTTP/1.1\r\nHost: vdfs\r\n\r\n".to_vec(),
            "malformed",
        ),
    ]
}

async fn assert_closes(connection: &Connection, why: &str) {
    let closed = tokio::time::timeout(LONG, connection.closed()).await;
    let reason = closed.expect("closed in time").to_string();
    assert!(reason.contains(why), "{reason}, not {why}");
}

/// Frames that cannot be read. Gives how many connections that cost each server.
async fn break_frames(scene: &Scene) -> u64 {
    let cases = frames();
    for (to, purpose) in scene.servers() {
        for (bytes, why) in &cases {
            let connection = scene.client.welcomed(to, purpose).await;
            let (mut send, _recv) = connection.open_bi().await.expect("a stream");
            send.write_all(bytes).await.expect("written");
            assert_closes(&connection, why).await;
        }
    }
    // Of a payload, only a volume may take any; with the master the tag is but a number.
    let huge = frame(DATA, u64::MAX, b"body");
    let connection = scene.client.welcomed(scene.volume, Purpose::Bulk).await;
    let (mut send, _recv) = connection.open_bi().await.expect("a stream");
    send.write_all(&huge).await.expect("written");
    assert_closes(&connection, "oversized").await;
    cases.len() as u64
}

/// Half a header, half a body; all at the same time. Gives how many.
async fn stall(scene: &Scene) -> u64 {
    let whole = frame(QUERY, 1, &[0; 1000]);
    let halves = [&whole[..7], &whole[..FRAME_HALF]];
    let stalls = scene.servers().into_iter().flat_map(|(to, purpose)| {
        halves.map(|half| async move {
            let connection = scene.client.welcomed(to, purpose).await;
            let (mut send, _recv) = connection.open_bi().await.expect("a stream");
            send.write_all(half).await.expect("written");
            assert_closes(&connection, "stalled").await;
        })
    });
    join_all(stalls).await;
    halves.len() as u64
}

const FRAME_HALF: usize = 500;

/// More lanes than there are, and all payloads that a volume lets begin, each without its last byte.
/// Gives how much the volume has grown meanwhile, in KiB.
async fn flood(scene: &Scene) -> u64 {
    let lanes = scene.client.welcomed(scene.master, Purpose::Control).await;
    let mut streams = Vec::new();
    for tag in 0..3 {
        let (mut send, recv) = lanes.open_bi().await.expect("a stream");
        send.write_all(&frame(QUERY, tag, b"")).await.ok();
        streams.push((send, recv));
    }
    assert_closes(&lanes, "malformed").await;

    let [_, before_kib] = scene.rss_kib();
    let mut grown_kib = 0;
    let peers = (0..FLOODING_PEERS).map(|_| scene.client.welcomed(scene.volume, Purpose::Bulk));
    let peers = join_all(peers).await;
    let floods = join_all(peers.iter().map(begin_payloads));
    let watch = async {
        loop {
            let [_, now_kib] = scene.rss_kib();
            grown_kib = grown_kib.max(now_kib.saturating_sub(before_kib));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        _ = floods => {}
        () = watch => {}
    }
    grown_kib
}

async fn begin_payloads(peer: &Connection) {
    let head = frame(DATA, PAYLOAD_BYTES_MAX as u64, b"body");
    let begun = (0..STREAMS).map(|_| async {
        let (mut send, _recv) = peer.open_bi().await.ok()?;
        send.write_all(&head).await.ok()?;
        send.write_all(&vec![7; PAYLOAD_BYTES_MAX - 1]).await.ok()?;
        tokio::time::sleep(FLOOD).await;
        Some(())
    });
    let mut begun = pin!(join_all(begun));
    tokio::time::timeout(FLOOD, &mut begun).await.ok();
    // Before the streams are dropped, which would end them. Whoever holds a payload back is closed for
    // it; who was told `Busy` is not.
    peer.close(0u32.into(), b"");
}

/// Everything once; peers that stall take the longest. Gives the growth of the volume in the flood, in KiB.
async fn attack(scene: &Scene, strangers: usize, may_stall: bool) -> u64 {
    let before = scene.counts();
    for (to, _) in scene.servers() {
        send_garbage(to);
        knock(scene, to, strangers).await;
    }
    let broken = break_frames(scene).await;
    let stalls = if may_stall { stall(scene).await } else { 0 };
    let refused = strangers as u64;
    let counts = |broken_frames| Counts {
        refused,
        broken_frames,
        stalls,
    };
    // The flood of lanes comes later; the claim of a payload is a volume's alone.
    scene.assert_counted(before, [counts(broken), counts(broken + 1)]);
    flood(scene).await
}

#[test]
fn peers_that_mean_ill_are_closed_and_counted_and_leave_no_memory_behind() {
    if mount_tests_skipped() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let _in_runtime = runtime.enter();
    let mut scene = Scene::new();
    runtime.block_on(attack(&scene, STRANGERS, false));
    let before_kib = scene.rss_kib();
    let flooded_kib = runtime.block_on(attack(&scene, STRANGERS, true));
    println!("the volume grew by {flooded_kib} KiB in the flood");
    assert!(flooded_kib < FLOOD_KIB_MAX, "{flooded_kib} KiB");
    let mut after_kib = [0; 2];
    eventually("memory is as it was", LONG, || {
        after_kib = scene.rss_kib();
        let is_flat = |(after, before): (&u64, &u64)| *after <= before + GROWTH_KIB_MAX;
        after_kib.iter().zip(&before_kib).all(is_flat)
    });
    println!("master and volume: {before_kib:?} KiB before, {after_kib:?} KiB after");
    let dir = scene.cluster.add_mount().dir();
    fs::write(dir.join("f"), "served").expect("others are served");
    assert_eq!(fs::read(dir.join("f")).expect("served"), b"served");
}
