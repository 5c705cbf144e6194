//! The QUIC carrier: mutual TLS 1.3 between processes, tuned by where the peer is.
//!
//! An endpoint is one UDP socket, one thread and one runtime of that thread; everything of quinn
//! lives there, and callers reach it through queues. A peer has a connection for each purpose, so
//! that control and heartbeats never queue behind bulk. Control and heartbeat requests travel on a
//! few long-lived *lanes*; each bulk transfer has a stream of its own.
//!
//! Invariant: before a frame of a service is read, the peer's chain, validity, cluster and (at the
//! dialler) role and node have been verified in the TLS handshake, and its hello was accepted.
//! Which operation a role may use is the service's business ([`crate::rpc::require_role`]).
//!
//! Left out: 0-RTT and session tickets (a replayed mutation, a ticket that outlives its
//! certificate), migration, and more than one thread an endpoint.

mod batch_cap;
mod bulk;
mod close;
mod connector;
mod counters;
mod frames;
mod handshake;
mod lane;
mod lane_server;
mod link;
mod loopback_window;
mod profile;
mod server;
#[cfg(test)]
mod tests;
mod tls;
mod transfer;
mod verifier;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use quinn::{AsyncUdpSocket, ClientConfig, EndpointConfig, ServerConfig, TokioRuntime};
use quinn_proto::ConnectionIdGenerator;
use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use vdfs_proto::ClusterId;

use crate::carrier::{Connector, Service, Target};
use crate::host::Host;
use crate::identity::Identity;
use crate::limits::{CARRIERS_IDLE_MAX, DATAGRAM_BYTES_MAX, STALL_TIMEOUT};
use crate::{address, socket};
use batch_cap::BatchCap;
use connector::QuicConnector;
use profile::Transports;
use server::Door;
use tls::Tls;

pub use counters::{Counter, NetCounters};
pub use profile::Profile;
pub use tls::TlsError;

/// How long the peers are given to hear that the endpoint closes.
const FAREWELL: Duration = Duration::from_millis(100);

/// How an endpoint is tuned.
#[derive(Clone, Copy, Debug)]
pub struct QuicConfig {
    pub profile: Profile,
    /// Fixes the datagram, in bytes, from 1200 to 16,384, whatever the profile says; the path must
    /// carry it.
    pub mtu: Option<u16>,
    /// How long a peer may leave a frame half sent, or a reply unread.
    pub stall: Duration,
}

impl Default for QuicConfig {
    fn default() -> Self {
        QuicConfig {
            profile: Profile::default(),
            mtu: None,
            stall: STALL_TIMEOUT,
        }
    }
}

/// Why an endpoint does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {addr}: {source}")]
    Bind { addr: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot start a thread for the network: {0}")]
    Thread(io::Error),
    #[error("cannot read what host this is: {0}")]
    Host(io::Error),
}

/// Why a peer could not be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialFailure {
    /// For people.
    pub why: String,
    /// The peer answers, and one of the two is the wrong one: trying again will not help.
    pub is_final: bool,
}

/// What the endpoint's tasks and its connectors share.
struct Shared {
    /// `None` once the endpoint has ended, so that its socket is closed.
    endpoint: Mutex<Option<quinn::Endpoint>>,
    runtime: runtime::Handle,
    tls: Tls,
    server_config: ServerConfig,
    transports: Transports,
    cluster: ClusterId,
    host: Host,
    door: Arc<Door>,
    counters: Arc<NetCounters>,
    /// Why the last dial of a target failed.
    failures: Mutex<HashMap<Target, DialFailure>>,
}

impl Shared {
    fn endpoint(&self) -> Option<quinn::Endpoint> {
        self.endpoint.lock().clone()
    }

    fn server_config(&self, peer: SocketAddr) -> Arc<ServerConfig> {
        let mut config = self.server_config.clone();
        config.transport_config(self.transports.for_peer(peer));
        Arc::new(config)
    }

    fn client_config(&self, target: &Target, addr: SocketAddr) -> Result<ClientConfig, TlsError> {
        let mut config = ClientConfig::new(self.tls.client(target)?);
        config.transport_config(self.transports.for_peer(addr));
        Ok(config)
    }

    fn remember_failure(&self, target: &Target, failure: DialFailure) {
        let mut failures = self.failures.lock();
        if failures.len() >= CARRIERS_IDLE_MAX {
            failures.clear();
        }
        failures.insert(target.clone(), failure);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// How an endpoint is told to end.
#[derive(Debug)]
enum Stop {
    /// Finish replies for so long, then close.
    Within(Duration),
    /// As if the process had been killed: the peers hear nothing.
    #[cfg(test)]
    Dead,
}

/// One UDP socket with its thread: serves, dials, or both.
#[derive(Debug)]
pub struct QuicEndpoint {
    shared: Arc<Shared>,
    connector: Arc<QuicConnector>,
    local_addr: SocketAddr,
    stop: Option<oneshot::Sender<Stop>>,
    thread: Option<JoinHandle<()>>,
}

impl QuicEndpoint {
    /// An endpoint that only dials, from whichever local address leads to the peer.
    pub fn dialler(identity: &Identity, config: QuicConfig) -> Result<QuicEndpoint, StartError> {
        QuicEndpoint::start(identity, address::anywhere(0), None, config)
    }

    /// Binds `listen` and starts the thread. Without a `service` connections are refused; the
    /// endpoint can still dial whatever `listen` is, if the peers can be reached from there:
    /// [`address::anywhere`] reaches all.
    pub fn start(
        identity: &Identity,
        listen: SocketAddr,
        service: Option<Arc<dyn Service>>,
        config: QuicConfig,
    ) -> Result<QuicEndpoint, StartError> {
        let bind_error = |source| StartError::Bind {
            addr: listen,
            source,
        };
        let tls = Tls::new(identity)?;
        let server_config = tls.server()?;
        let host = Host::here().map_err(StartError::Host)?;
        let socket = socket::bind(listen).map_err(bind_error)?;
        let local_addr = socket.local_addr().map_err(bind_error)?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StartError::Thread)?;
        let endpoint = open_endpoint(
            &runtime,
            socket,
            BatchCap::around,
            &tls,
            server_config.clone(),
        );
        let endpoint = endpoint.map_err(bind_error)?;
        let counters = Arc::new(NetCounters::default());
        let shared = Arc::new(Shared {
            endpoint: Mutex::new(Some(endpoint.clone())),
            runtime: runtime.handle().clone(),
            server_config,
            transports: Transports::new(config.profile, config.mtu),
            cluster: identity.cluster(),
            host,
            door: Arc::new(Door::new(service, counters.clone(), config.stall)),
            counters,
            tls,
            failures: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let thread = spawn(runtime, shared.clone(), endpoint, stopped)?;
        Ok(QuicEndpoint {
            connector: Arc::new(QuicConnector::new(Arc::downgrade(&shared))),
            shared,
            local_addr,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What the socket is bound to; may be the wildcard.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where other programs of this machine reach it.
    pub fn dialable_addr(&self) -> SocketAddr {
        address::dialable(self.local_addr)
    }

    /// Gives the ways to peers, and remembers them. Its carriers are called within any tokio
    /// runtime with a timer.
    pub fn connector(&self) -> Arc<dyn Connector> {
        self.connector.clone()
    }

    /// Serves from now on, or replaces what served before.
    pub fn set_service(&self, service: Arc<dyn Service>) {
        self.shared.door.set_service(service);
    }

    pub fn counters(&self) -> &NetCounters {
        &self.shared.counters
    }

    /// Why the last failed dial of `target` failed.
    pub fn last_failure(&self, target: &Target) -> Option<DialFailure> {
        self.shared.failures.lock().get(target).cloned()
    }

    /// Accepts nothing more, finishes the replies that are begun, closes, and waits for the thread.
    /// What is not done within `deadline` is dropped. Blocks for at most `deadline` and a moment.
    pub fn shutdown(mut self, deadline: Duration) {
        self.end(Stop::Within(deadline));
    }

    #[cfg(test)]
    fn kill(mut self) {
        self.end(Stop::Dead);
    }

    fn end(&mut self, stop: Stop) {
        if let Some(sender) = self.stop.take() {
            // The thread has ended already if it does not listen.
            sender.send(stop).ok();
        }
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the network thread panicked");
        }
    }
}

impl Drop for QuicEndpoint {
    /// Closes without waiting for replies.
    fn drop(&mut self) {
        self.end(Stop::Within(Duration::ZERO));
    }
}

fn open_endpoint(
    runtime: &runtime::Runtime,
    socket: std::net::UdpSocket,
    wrap: impl FnOnce(Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket>,
    tls: &Tls,
    server_config: ServerConfig,
) -> io::Result<quinn::Endpoint> {
    let mut config = EndpointConfig::new(Arc::new(tls.reset_key()));
    let connection_ids = tls.connection_ids();
    config
        .max_udp_payload_size(DATAGRAM_BYTES_MAX)
        .expect("within what QUIC allows")
        .cid_generator(move || -> Box<dyn ConnectionIdGenerator> { Box::new(connection_ids()) });
    let _in_runtime = runtime.enter();
    let tokio = Arc::new(TokioRuntime);
    let socket = quinn::Runtime::wrap_udp_socket(&*tokio, socket)?;
    quinn::Endpoint::new_with_abstract_socket(config, Some(server_config), wrap(socket), tokio)
}

fn spawn(
    runtime: runtime::Runtime,
    shared: Arc<Shared>,
    endpoint: quinn::Endpoint,
    stopped: oneshot::Receiver<Stop>,
) -> Result<JoinHandle<()>, StartError> {
    let run = move || {
        runtime.block_on(run(shared.clone(), endpoint, stopped));
        shared.endpoint.lock().take();
        // With the runtime go all tasks, and with them all connections and the socket.
        drop(runtime);
    };
    thread::Builder::new()
        .name("vdfs-net".to_owned())
        .spawn(run)
        .map_err(StartError::Thread)
}

async fn run(shared: Arc<Shared>, endpoint: quinn::Endpoint, stopped: oneshot::Receiver<Stop>) {
    let (stop_serving, serving_stops) = watch::channel(false);
    let accepting = tokio::spawn(server::accept(shared, endpoint.clone(), serving_stops));
    let deadline = match stopped.await {
        Ok(Stop::Within(deadline)) => deadline,
        Err(_) => Duration::ZERO,
        #[cfg(test)]
        Ok(Stop::Dead) => return,
    };
    stop_serving.send_replace(true);
    if timeout(deadline, accepting).await.is_err() {
        tracing::debug!("some replies were not finished");
    }
    endpoint.close(quinn::VarInt::from_u32(1), b"shutting down");
    timeout(FAREWELL, endpoint.wait_idle()).await.ok();
}
