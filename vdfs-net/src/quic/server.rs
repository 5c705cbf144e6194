//! Accepts connections and serves them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use quinn::{Connection, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use vdfs_proto::Status;
use vdfs_proto::handshake::Purpose;
use vdfs_proto::limits::PAYLOAD_BYTES_MAX;

use super::QuicConfig;
use super::allowance::Allowances;
use super::bulk;
use super::close::{CloseReason, Closing};
use super::counters::NetCounters;
use super::crowd::{Counted, Knock};
use super::handshake::{self, Guest};
use super::lane_server::LaneServer;
use super::reactor::Shared;
use crate::address;
use crate::carrier::{Begun, Outcome, PeerIdentity, Request, Service};
use crate::limits::{CONNECTIONS_MAX, CONTROL_LANES, HELLO_TIMEOUT, PARKED_BYTES_MAX};

/// The way from a connection to the service, which may be replaced while connections live.
pub(super) struct Door {
    service: RwLock<Option<Arc<dyn Service>>>,
    counters: Arc<NetCounters>,
    stall: Duration,
    pub(super) allowances: Allowances,
    /// For the bodies of control requests that wait.
    parked: Arc<Semaphore>,
}

impl Door {
    pub(super) fn new(
        service: Option<Arc<dyn Service>>,
        counters: Arc<NetCounters>,
        config: &QuicConfig,
    ) -> Door {
        Door {
            service: RwLock::new(service),
            counters,
            stall: config.stall,
            // Those who wait for their turn must not be taken for stalled.
            allowances: Allowances::new(config.payloads_bytes, config.stall / 2),
            parked: Arc::new(Semaphore::new(PARKED_BYTES_MAX)),
        }
    }

    pub(super) fn set_service(&self, service: Arc<dyn Service>) {
        *self.service.write() = Some(service);
    }

    pub(super) fn is_open(&self) -> bool {
        self.service.read().is_some()
    }

    /// How long a peer may leave a frame half sent, or a reply unread.
    pub(super) fn stall(&self) -> Duration {
        self.stall
    }

    /// Room for a request with a body of `body_bytes` to wait in; `None` if there is none.
    pub(super) fn park(&self, body_bytes: usize) -> Option<OwnedSemaphorePermit> {
        let parked = self.parked.clone();
        parked.try_acquire_many_owned(body_bytes as u32).ok()
    }

    /// Bytes of payload that the answer may have.
    pub(super) fn answer_payload_bytes(&self, request: &Request) -> usize {
        let service = self.service.read();
        let bytes = service
            .as_ref()
            .map_or(0, |service| service.answer_payload_bytes(request));
        bytes.min(PAYLOAD_BYTES_MAX)
    }

    pub(super) fn handle(
        &self,
        peer: Arc<PeerIdentity>,
        request: Request,
    ) -> BoxFuture<'static, Outcome> {
        self.counters.requests.add(1);
        match &*self.service.read() {
            Some(service) => service.handle(peer, request),
            None => std::future::ready(Err(Status::NotServing)).boxed(),
        }
    }

    pub(super) fn handle_batch(
        &self,
        peer: &Arc<PeerIdentity>,
        requests: Vec<Request>,
    ) -> Vec<Begun> {
        self.counters.requests.add(requests.len() as u64);
        match &*self.service.read() {
            Some(service) => service.handle_batch(peer, requests),
            None => {
                let refuse = |_| Begun::Done(Err(Status::NotServing));
                requests.into_iter().map(refuse).collect()
            }
        }
    }
}

/// Accepts until told to stop, then waits for the connections to finish their replies.
pub(super) async fn accept(
    shared: Arc<Shared>,
    endpoint: quinn::Endpoint,
    stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(incoming) = endpoint.accept() => {
                if let Some(knocking) = admit(&shared, incoming, connections.len()) {
                    connections.spawn(serve(shared.clone(), knocking, stop.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
            () = told_to_stop(stop.clone()) => break,
        }
    }
    endpoint.set_server_config(None);
    while connections.join_next().await.is_some() {}
}

/// A peer on its way in.
struct Knocking {
    incoming: Incoming,
    since: Instant,
    half_open: Counted<IpAddr>,
}

fn admit(shared: &Shared, incoming: Incoming, connections: usize) -> Option<Knocking> {
    let peer = address::plain(incoming.remote_address());
    let counters = &shared.common.counters;
    let has_proven = incoming.remote_address_validated();
    let knock = match shared.common.door.is_open() && connections < CONNECTIONS_MAX {
        true => shared.common.crowd.knock(peer.ip(), has_proven),
        false => Knock::Full,
    };
    match knock {
        Knock::Enter(half_open) => {
            return Some(Knocking {
                incoming,
                since: Instant::now(),
                half_open,
            });
        }
        Knock::Prove => {
            counters.address_proofs.add(1);
            incoming.retry().expect("it has not proven its address yet");
        }
        Knock::Full => {
            tracing::warn!(%peer, connections, "connection refused");
            counters.accepts_refused.add(1);
            incoming.refuse();
        }
    }
    None
}

async fn serve(shared: Arc<Shared>, knocking: Knocking, stop: watch::Receiver<bool>) {
    let Knocking {
        incoming,
        since,
        half_open,
    } = knocking;
    let peer = address::plain(incoming.remote_address());
    let config = shared.server_config(peer);
    let welcome_until = since + HELLO_TIMEOUT;
    let accepted = match incoming.accept_with(config) {
        Ok(connecting) => timeout_at(welcome_until, connecting).await,
        Err(error) => Ok(Err(error)),
    };
    let counters = &shared.common.counters;
    match accepted {
        Ok(Ok(connection)) => {
            let hosting = Hosting {
                shared: &shared,
                connection: &connection,
                stop,
            };
            hosting.run(welcome_until, half_open).await;
        }
        Ok(Err(error)) => {
            counters.accepts_refused.add(1);
            tracing::warn!(%peer, %error, "handshake failed");
        }
        Err(_) => {
            counters.stalls.add(1);
            tracing::warn!(%peer, "handshake stalled");
        }
    }
}

/// A connection that is being served.
struct Hosting<'a> {
    shared: &'a Shared,
    connection: &'a Connection,
    stop: watch::Receiver<bool>,
}

impl Hosting<'_> {
    async fn run(self, welcome_until: Instant, half_open: Counted<IpAddr>) {
        let (connection, counters) = (self.connection, &self.shared.common.counters);
        let _closing = Closing {
            connection,
            counters,
        };
        let reason = tokio::select! {
            // What was decided of a peer counts even if it has gone meanwhile.
            biased;
            reason = self.welcome_and_serve(welcome_until, half_open) => reason,
            _ = connection.closed() => CloseReason::Done,
        };
        reason.close(connection, counters);
    }

    async fn welcome_and_serve(
        self,
        welcome_until: Instant,
        half_open: Counted<IpAddr>,
    ) -> CloseReason {
        let welcome = handshake::welcome(self.connection, self.shared);
        let guest = match timeout_at(welcome_until, welcome).await {
            Ok(Ok(guest)) => guest,
            Ok(Err(reason)) => return reason,
            Err(_) => return CloseReason::Stalled,
        };
        drop(half_open);
        serve_guest(self.shared, self.connection, guest, self.stop).await
    }
}

async fn serve_guest(
    shared: &Shared,
    connection: &Connection,
    guest: Guest,
    stop: watch::Receiver<bool>,
) -> CloseReason {
    let Guest {
        peer,
        purpose,
        _seat,
    } = guest;
    shared.common.counters.accepts.add(1);
    tracing::debug!(addr = ?peer.addr, role = peer.role.as_str(), node = peer.node, ?purpose, "accepted");
    let _share = shared.windows.join(connection, purpose);
    match purpose {
        Purpose::Control => {
            serve_lanes(shared, connection, peer, purpose, CONTROL_LANES, stop).await
        }
        Purpose::Heartbeat => serve_lanes(shared, connection, peer, purpose, 1, stop).await,
        Purpose::Bulk => bulk::serve(connection, &shared.common.door, &peer, stop).await,
    }
}

/// Serves up to `lanes_max` lanes until one of them, or the connection, ends.
async fn serve_lanes(
    shared: &Shared,
    connection: &Connection,
    peer: Arc<PeerIdentity>,
    purpose: Purpose,
    lanes_max: usize,
    stop: watch::Receiver<bool>,
) -> CloseReason {
    let mut lanes = JoinSet::new();
    let mut accepted = 0;
    loop {
        tokio::select! {
            streams = connection.accept_bi() => {
                let Ok(streams) = streams else { return CloseReason::Done };
                if accepted == lanes_max {
                    return CloseReason::Malformed;
                }
                accepted += 1;
                let (door, peer) = (shared.common.door.clone(), peer.clone());
                let lane = LaneServer::new(door, peer, purpose, streams, stop.clone());
                lanes.spawn(lane.run().map(Some));
            }
            Some(ended) = lanes.join_next() => match joined(ended) {
                Some(CloseReason::ShuttingDown) | None => break,
                Some(reason) => return reason,
            },
            () = told_to_stop(stop.clone()) => break,
        }
    }
    while lanes.join_next().await.is_some() {}
    CloseReason::ShuttingDown
}

/// Ends when the endpoint shuts down.
pub(super) async fn told_to_stop(mut stop: watch::Receiver<bool>) {
    // An error means that the endpoint's thread is ending already.
    stop.wait_for(|stop| *stop).await.ok();
}

/// What the end of a task means for its connection.
pub(super) fn joined(ended: Result<Option<CloseReason>, JoinError>) -> Option<CloseReason> {
    match ended {
        Ok(reason) => reason,
        Err(_) => Some(CloseReason::Internal),
    }
}
