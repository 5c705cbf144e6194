//! The carrier over real sockets on the loopback.

mod bulk;
mod calls;
mod certificates;
mod heartbeats;
mod hosts;
mod knocking;
mod memory;
mod raw_peer;
mod reconnect;
mod shutdown;
mod speed;
mod violations;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use quinn::{AsyncUdpSocket, ClientConfig};
use tokio::runtime;
use tokio::sync::{Semaphore, mpsc, oneshot};
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::{Purpose, Role};
use vdfs_proto::{ClusterId, Status};

use super::batch_cap::BatchCap;
use super::reactor::open_endpoint;
use super::*;
use crate::carrier::{Carrier, Outcome, PeerIdentity, Request, Response};
use crate::identity::Authority;
use crate::socket;

const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Longer than anything takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// Answers each request with what came, by the first byte of the body.
struct Echo {
    peers: Mutex<Vec<Arc<PeerIdentity>>>,
    /// Begun requests that asked to be parked; each waits for a permit of `release`.
    parked: mpsc::UnboundedSender<u8>,
    release: Arc<Semaphore>,
    /// Parked requests whose futures were dropped before they were released.
    dropped: mpsc::UnboundedSender<u8>,
}

/// First byte of a body that waits for `release`; the second names it.
const PARK: u8 = b'P';
/// First byte of a body that is refused.
const REFUSE: u8 = b'R';
/// First byte of a body whose answer has a payload of as many MiB as the second byte says.
const FILL: u8 = b'F';

/// What a test sees of an [`Echo`].
struct EchoWatch {
    parked: mpsc::UnboundedReceiver<u8>,
    release: Arc<Semaphore>,
    dropped: mpsc::UnboundedReceiver<u8>,
}

impl Echo {
    fn new() -> (Arc<Echo>, EchoWatch) {
        let (parked, parked_seen) = mpsc::unbounded_channel();
        let (dropped, dropped_seen) = mpsc::unbounded_channel();
        let release = Arc::new(Semaphore::new(0));
        let echo = Echo {
            peers: Mutex::default(),
            parked,
            release: release.clone(),
            dropped,
        };
        (
            Arc::new(echo),
            EchoWatch {
                parked: parked_seen,
                release,
                dropped: dropped_seen,
            },
        )
    }

    fn park(&self, request: Request) -> BoxFuture<'static, Outcome> {
        let name = request.body[1];
        // Some tests do not watch.
        self.parked.send(name).ok();
        let report = ReportDrop {
            name,
            dropped: Some(self.dropped.clone()),
        };
        let release = self.release.clone();
        async move {
            release.acquire().await.expect("never closed").forget();
            report.disarm();
            Ok(Response {
                body: request.body,
                payload: request.payload,
            })
        }
        .boxed()
    }
}

struct ReportDrop {
    name: u8,
    dropped: Option<mpsc::UnboundedSender<u8>>,
}

impl ReportDrop {
    fn disarm(mut self) {
        self.dropped = None;
    }
}

impl Drop for ReportDrop {
    fn drop(&mut self) {
        if let Some(dropped) = &self.dropped {
            dropped.send(self.name).ok();
        }
    }
}

impl Service for Echo {
    fn handle(&self, peer: Arc<PeerIdentity>, request: Request) -> BoxFuture<'static, Outcome> {
        self.peers.lock().push(peer);
        match request.body.first() {
            Some(&PARK) => self.park(request),
            Some(&REFUSE) => std::future::ready(Err(Status::NotEmpty)).boxed(),
            Some(&FILL) => {
                let payload = vec![7; usize::from(request.body[1]) << 20].into();
                std::future::ready(Ok(Response {
                    body: request.body,
                    payload,
                }))
                .boxed()
            }
            _ => {
                let Request { body, payload, .. } = request;
                std::future::ready(Ok(Response { body, payload })).boxed()
            }
        }
    }
}

/// A cluster's authority, and endpoints made from it.
struct Cluster {
    authority: Authority,
}

impl Cluster {
    fn new() -> Cluster {
        Cluster {
            authority: Authority::create(ClusterId(0x5eed)).expect("made"),
        }
    }

    fn identity(&self, role: Role, node: &str) -> Identity {
        self.authority.issue(role, node).expect("issued")
    }

    /// A master takes control and heartbeats.
    fn serve(&self, service: Arc<dyn Service>) -> QuicEndpoint {
        let identity = self.identity(Role::Master, "m-1");
        serve_as(&identity, LOCALHOST, service, QuicConfig::default())
    }

    /// A volume takes control and bulk.
    fn serve_volume(&self, service: Arc<dyn Service>) -> QuicEndpoint {
        let identity = self.identity(Role::Volume, "v-1");
        serve_as(&identity, LOCALHOST, service, QuicConfig::default())
    }

    fn client(&self) -> QuicEndpoint {
        dial_as(&self.identity(Role::Client, "mount"), QuicConfig::default())
    }
}

fn serve_as(
    identity: &Identity,
    listen: SocketAddr,
    service: Arc<dyn Service>,
    config: QuicConfig,
) -> QuicEndpoint {
    QuicEndpoint::start(identity, listen, Some(service), config).expect("started")
}

fn dial_as(identity: &Identity, config: QuicConfig) -> QuicEndpoint {
    QuicEndpoint::start(identity, LOCALHOST, None, config).expect("started")
}

fn master_at(addr: SocketAddr) -> Target {
    Target {
        addr,
        role: Role::Master,
        node: Some("m-1".to_owned()),
    }
}

fn carrier(client: &QuicEndpoint, server: &QuicEndpoint) -> Arc<dyn Carrier> {
    client.connector().carrier(&target_of(server))
}

/// What dials `server`, and nothing else.
fn target_of(server: &QuicEndpoint) -> Target {
    let tls = &server.traffic.shared.common.tls;
    Target {
        addr: server.local_addr(),
        role: tls.role(),
        node: Some(tls.node().to_owned()),
    }
}

fn control(body: impl Into<Bytes>) -> Request {
    let (body, payload) = (body.into(), Bytes::new());
    Request {
        method: Method::Query,
        body,
        payload,
        purpose: Purpose::Control,
    }
}

fn bulk(body: impl Into<Bytes>, payload: impl Into<Bytes>) -> Request {
    let (body, payload) = (body.into(), payload.into());
    Request {
        method: Method::Data,
        body,
        payload,
        purpose: Purpose::Bulk,
    }
}

fn parked(name: u8) -> Request {
    control(vec![PARK, name])
}

/// Waits until `condition` holds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < give_up, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
