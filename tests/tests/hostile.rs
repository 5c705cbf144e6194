//! Peers that mean ill, against a real master: refused, and its memory stays as it is.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use vdfs_net::{Authority, Identity, Outcome, QuicConfig, QuicEndpoint, Request, Target};
use vdfs_proto::codec::encode;
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::{Purpose, Role};
use vdfs_proto::meta::{AdminRequest, GetStatus};
use vdfs_proto::volume::{Heartbeat, VolumeRequest};
use vdfs_proto::{ClusterId, Status, VolumeId};
use vdfs_tests::programs::vdfs_master;

const LONG: Duration = Duration::from_secs(30);
const GARBAGE_DATAGRAMS: usize = 50_000;
const STRANGERS: usize = 200;
/// What the floods may leave behind in the master's memory, in KiB: receive buffers that are touched
/// for the first time, and less than one page for each of the peers.
const GROWTH_KIB_MAX: u64 = 16 << 10;

struct Master {
    child: Child,
    addr: SocketAddr,
}

impl Master {
    fn start(state: &Path) -> Master {
        let mut child = Command::new(vdfs_master())
            .args(["--listen", "127.0.0.1:0", "--state"])
            .arg(state)
            .stdout(Stdio::piped())
            .spawn()
            .expect("vdfs-master runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let addr = line.trim().strip_prefix("ready master ");
        let addr = addr.and_then(|addr| addr.parse().ok());
        Master {
            child,
            addr: addr.unwrap_or_else(|| panic!("not ready: {line:?}")),
        }
    }

    fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// One request under `identity`, over connections of its own.
    fn ask(&self, identity: &Identity, method: Method, body: Bytes) -> Outcome {
        let endpoint = QuicEndpoint::dialler(identity, QuicConfig::default()).expect("started");
        let target = Target {
            addr: self.addr,
            role: Role::Master,
            node: None,
        };
        let request = Request {
            method,
            body,
            payload: Bytes::new(),
            purpose: Purpose::Control,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(endpoint.connector().carrier(&target).call(request, LONG))
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn status_request() -> Bytes {
    encode(&AdminRequest::GetStatus(GetStatus {}))
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

#[test]
fn strangers_garbage_and_wrong_roles_are_refused_and_leave_no_memory_behind() {
    let scratch = tempfile::tempdir().expect("a directory");
    let state = scratch.path().join("master");
    let master = Master::start(&state);
    let client = Identity::load(&state.join("identity-client")).expect("made at the first start");
    master
        .ask(&client, Method::Admin, status_request())
        .expect("a good client is served");
    send_garbage(master.addr);
    let before_kib = master.rss_kib();

    send_garbage(master.addr);
    let others = Authority::create(ClusterId(9)).expect("made");
    let stranger = others.issue(Role::Client, "stranger").expect("issued");
    for _ in 0..STRANGERS {
        let refused = master.ask(&stranger, Method::Admin, status_request());
        assert_eq!(refused.expect_err("a stranger"), Status::Disconnected);
    }
    let heartbeat = VolumeRequest::Heartbeat(Heartbeat {
        volume: VolumeId(1),
        incarnation: 1,
        capacity_bytes: 0,
        used_bytes: 0,
    });
    let refused = master.ask(&client, Method::Volume, encode(&heartbeat));
    assert_eq!(refused.expect_err("not a volume"), Status::WrongRole);

    let after_kib = master.rss_kib();
    println!("the master's memory: {before_kib} KiB before, {after_kib} KiB after");
    assert!(
        after_kib < before_kib + GROWTH_KIB_MAX,
        "{before_kib} KiB before, {after_kib} KiB after"
    );
    master
        .ask(&client, Method::Admin, status_request())
        .expect("still served");
}
