//! The QUIC carrier: mutual TLS 1.3 between processes, tuned by where the peer is.
//!
//! An endpoint is one UDP port. A thread with a runtime of its own does everything of quinn there, and
//! callers reach it through queues; heartbeats have a second one ([`wire`]). A peer has a connection for each purpose, so
//! that control and heartbeats never queue behind bulk. Control and heartbeat requests travel on a
//! few long-lived *lanes*; each bulk transfer has a stream of its own.
//!
//! Invariant: before a frame of a service is read, the peer's chain, validity, cluster and role (at the
//! dialler the node too) have been verified in the TLS handshake, and its hello was accepted:
//! [`admission`] says who may come for what.
//! Which operation a role may use is the service's business ([`crate::rpc::require_role`]).
//!
//! Left out: 0-RTT and session tickets (a replayed mutation, a ticket that outlives its
//! certificate), migration, and more than one thread an endpoint.

mod admission;
mod allowance;
mod batch_cap;
mod bulk;
mod close;
mod connector;
mod counters;
mod crowd;
mod frames;
mod handshake;
mod lane;
mod lane_server;
mod link;
mod loopback_window;
mod profile;
mod reactor;
mod server;
#[cfg(test)]
mod tests;
mod tls;
mod transfer;
mod udp;
mod verifier;
mod windows;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::address;
use crate::carrier::{Connector, Service, Target};
use crate::host::Host;
use crate::identity::Identity;
use crate::limits::{PAYLOADS_BYTES, SOCKET_BUFFER_BYTES, STALL_TIMEOUT};
use connector::QuicConnector;
use crowd::Crowd;
use profile::Transports;
use reactor::{Common, Reactor, Stop};
use server::Door;
use tls::Tls;
use wire::Wire;

pub use counters::{Counter, NetCounters};
pub use profile::Profile;
pub use tls::TlsError;

/// How an endpoint is tuned.
#[derive(Clone, Copy, Debug)]
pub struct QuicConfig {
    pub profile: Profile,
    /// Fixes the datagram, in bytes, from 1200 to 16,384, whatever the profile says; the path must
    /// carry it.
    pub mtu: Option<u16>,
    /// How long a peer may leave a frame half sent, or a reply unread.
    pub stall: Duration,
    /// Payloads of clients that a server reads or answers at once, in bytes; at least two of the longest.
    /// Half as many each of what heads and later members of chains pass on, but two of the longest.
    pub payloads_bytes: usize,
    /// What is asked for the socket's buffers, in bytes; the kernel may give less.
    pub socket_buffer_bytes: usize,
}

impl Default for QuicConfig {
    fn default() -> Self {
        QuicConfig {
            profile: Profile::default(),
            mtu: None,
            stall: STALL_TIMEOUT,
            payloads_bytes: PAYLOADS_BYTES,
            socket_buffer_bytes: SOCKET_BUFFER_BYTES,
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
    #[error("cannot use the socket: {0}")]
    Socket(io::Error),
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

/// A UDP port with its threads: serves, dials, or both.
#[derive(Debug)]
pub struct QuicEndpoint {
    traffic: Reactor,
    /// Where this role has to do with heartbeats.
    heartbeats: Option<Reactor>,
    connector: Arc<QuicConnector>,
    local_addr: SocketAddr,
}

impl QuicEndpoint {
    /// An endpoint that only dials, from whichever local address leads to the peer.
    pub fn dialler(identity: &Identity, config: QuicConfig) -> Result<QuicEndpoint, StartError> {
        QuicEndpoint::start(identity, address::anywhere(0), None, config)
    }

    /// Binds `listen` and starts the thread. Masters and volumes accept there, and refuse as long as
    /// there is no `service`; clients and admins only dial. An endpoint dials whatever `listen` is, if
    /// the peers can be reached from there: [`address::anywhere`] reaches all.
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
        let host = Host::here().map_err(StartError::Host)?;
        let (socket, beside) = wire::sockets(identity.role(), listen, config.socket_buffer_bytes)
            .map_err(bind_error)?;
        let local_addr = socket.local_addr().map_err(bind_error)?;
        let counters = Arc::new(NetCounters::default());
        let common = Common {
            transports: Transports::new(config.profile, config.mtu),
            crowd: Arc::new(Crowd::new()),
            cluster: identity.cluster(),
            host,
            door: Arc::new(Door::new(service, counters.clone(), &config)),
            counters,
            tls: Arc::new(tls),
            failures: Arc::default(),
        };
        let react = |wire, socket| Reactor::start(common.clone(), wire, socket);
        let traffic = react(Wire::Traffic, socket)?;
        let heartbeats = beside
            .map(|socket| react(Wire::Heartbeats, socket))
            .transpose()?;
        let dials = [&traffic, heartbeats.as_ref().unwrap_or(&traffic)];
        let [traffic_dials, heartbeat_dials] = dials.map(|way| Arc::downgrade(&way.shared));
        Ok(QuicEndpoint {
            connector: Arc::new(QuicConnector::new(traffic_dials, heartbeat_dials)),
            traffic,
            heartbeats,
            local_addr,
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

    /// Of the endpoint's own thread. What is spawned there calls peers without a hop between threads,
    /// and holds up all else that the thread does.
    pub fn runtime(&self) -> tokio::runtime::Handle {
        self.traffic.shared.runtime.clone()
    }

    /// Serves from now on, or replaces what served before.
    pub fn set_service(&self, service: Arc<dyn Service>) {
        self.traffic.shared.common.door.set_service(service);
    }

    pub fn counters(&self) -> &Arc<NetCounters> {
        &self.traffic.shared.common.counters
    }

    /// Why the last failed dial of `target` failed.
    pub fn last_failure(&self, target: &Target) -> Option<DialFailure> {
        self.traffic
            .shared
            .common
            .failures
            .lock()
            .get(target)
            .cloned()
    }

    /// Each of `targets` has refused for good: to try again will not help.
    pub fn is_refused_by(&self, targets: &[Target]) -> bool {
        let mut failures = targets.iter().map(|target| self.last_failure(target));
        failures.all(|failure| failure.is_some_and(|failure| failure.is_final))
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
        let mut reactors = vec![&mut self.traffic];
        reactors.extend(&mut self.heartbeats);
        reactors.iter_mut().for_each(|reactor| reactor.tell(stop));
        reactors.iter_mut().for_each(|reactor| reactor.join());
    }
}

impl Drop for QuicEndpoint {
    /// Closes without waiting for replies.
    fn drop(&mut self) {
        self.end(Stop::Within(Duration::ZERO));
    }
}
