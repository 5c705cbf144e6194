//! A socket, the thread that serves it, and what lives there.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
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

use super::admission::Admission;
use super::batch_cap::BatchCap;
use super::counters::NetCounters;
use super::crowd::Crowd;
use super::profile::Transports;
use super::server::{self, Door};
use super::tls::{Tls, TlsError};
use super::udp;
use super::windows::Windows;
use super::wire::{MarkedIds, Wire};
use super::{DialFailure, StartError};
use crate::carrier::Target;
use crate::host::Host;
use crate::limits::{CARRIERS_IDLE_MAX, DATAGRAM_BYTES_MAX, HELLO_WINDOW_BYTES};
use crate::socket;

/// How long the peers are given to hear that the endpoint closes.
const FAREWELL: Duration = Duration::from_millis(100);

/// What the reactors of an endpoint have in common.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) tls: Arc<Tls>,
    pub(super) transports: Transports,
    pub(super) crowd: Arc<Crowd>,
    pub(super) cluster: ClusterId,
    pub(super) host: Host,
    pub(super) door: Arc<Door>,
    pub(super) counters: Arc<NetCounters>,
    /// Why the last dial of a target failed.
    pub(super) failures: Arc<Mutex<HashMap<Target, DialFailure>>>,
}

impl Common {
    pub(super) fn client_config(
        &self,
        target: &Target,
        addr: SocketAddr,
        wire: Wire,
    ) -> Result<ClientConfig, TlsError> {
        let mut config = ClientConfig::new(self.tls.client(target)?);
        config
            .transport_config(self.transports.for_peer(addr, HELLO_WINDOW_BYTES))
            .initial_dst_cid_provider(wire.first_ids());
        Ok(config)
    }

    pub(super) fn remember_failure(&self, target: &Target, failure: DialFailure) {
        let mut failures = self.failures.lock();
        if failures.len() >= CARRIERS_IDLE_MAX {
            failures.clear();
        }
        failures.insert(target.clone(), failure);
    }
}

/// What a reactor's tasks and its connectors share.
pub(super) struct Shared {
    /// `None` once the reactor has ended, so that its socket is closed.
    endpoint: Mutex<Option<quinn::Endpoint>>,
    pub(super) runtime: runtime::Handle,
    pub(super) admission: Admission,
    /// `None`: it only dials.
    server: Option<ServerConfig>,
    pub(super) windows: Windows,
    pub(super) common: Common,
}

impl Shared {
    pub(super) fn endpoint(&self) -> Option<quinn::Endpoint> {
        self.endpoint.lock().clone()
    }

    /// For a peer that was accepted at `peer`.
    pub(super) fn server_config(&self, peer: SocketAddr) -> Arc<ServerConfig> {
        let mut config = self.server.clone().expect("a socket that accepts");
        let transports = &self.common.transports;
        config.transport_config(transports.for_peer(peer, HELLO_WINDOW_BYTES));
        Arc::new(config)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("admission", &self.admission)
            .finish_non_exhaustive()
    }
}

/// How a reactor is told to end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// Finish replies for so long, then close.
    Within(Duration),
    /// As if the process had been killed: the peers hear nothing.
    #[cfg(test)]
    Dead,
}

/// Everything of quinn on one socket happens on one thread.
#[derive(Debug)]
pub(super) struct Reactor {
    pub(super) shared: Arc<Shared>,
    stop: Option<oneshot::Sender<Stop>>,
    thread: Option<JoinHandle<()>>,
}

impl Reactor {
    pub(super) fn start(
        common: Common,
        wire: Wire,
        socket: UdpSocket,
    ) -> Result<Reactor, StartError> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StartError::Thread)?;
        let server = common.tls.role();
        let admission = Admission { server, wire };
        let server = admission.takes_anybody();
        let server = server.then(|| common.tls.server(admission)).transpose()?;
        let buffer_bytes = socket::receive_buffer_bytes(&socket).map_err(StartError::Socket)?;
        let endpoint = open_endpoint(
            &runtime,
            socket,
            BatchCap::around,
            (&common.tls, wire),
            server.clone(),
        );
        let endpoint = endpoint.map_err(StartError::Socket)?;
        let shared = Arc::new(Shared {
            endpoint: Mutex::new(Some(endpoint.clone())),
            runtime: runtime.handle().clone(),
            admission,
            server,
            windows: Windows::of_buffer(buffer_bytes),
            common,
        });
        let (stop, stopped) = oneshot::channel();
        let thread = spawn(runtime, shared.clone(), endpoint, stopped)?;
        Ok(Reactor {
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(super) fn tell(&mut self, stop: Stop) {
        if let Some(sender) = self.stop.take() {
            // The thread has ended already if it does not listen.
            sender.send(stop).ok();
        }
    }

    /// Waits for the thread, unless it is this one.
    pub(super) fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("a network thread panicked");
        }
    }
}

pub(super) fn open_endpoint(
    runtime: &runtime::Runtime,
    socket: std::net::UdpSocket,
    wrap: impl FnOnce(Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket>,
    (tls, wire): (&Tls, Wire),
    server: Option<ServerConfig>,
) -> io::Result<quinn::Endpoint> {
    let mut config = EndpointConfig::new(Arc::new(tls.reset_key()));
    let connection_ids = tls.connection_ids();
    config
        .max_udp_payload_size(DATAGRAM_BYTES_MAX)
        .expect("within what QUIC allows")
        .cid_generator(move || -> Box<dyn ConnectionIdGenerator> {
            let inner = connection_ids();
            Box::new(MarkedIds { wire, inner })
        });
    let _in_runtime = runtime.enter();
    let socket = wrap(Arc::new(udp::Socket::new(socket)?));
    quinn::Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))
}

fn spawn(
    runtime: runtime::Runtime,
    shared: Arc<Shared>,
    endpoint: quinn::Endpoint,
    stopped: oneshot::Receiver<Stop>,
) -> Result<JoinHandle<()>, StartError> {
    let name = shared.admission.wire.thread_name();
    let run = move || {
        runtime.block_on(run(shared.clone(), endpoint, stopped));
        shared.endpoint.lock().take();
        // With the runtime go all tasks, and with them all connections and the socket.
        drop(runtime);
    };
    thread::Builder::new()
        .name(name.to_owned())
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
