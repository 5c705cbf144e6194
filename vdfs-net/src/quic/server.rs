//! Accepts connections and serves them.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use quinn::{Connection, Incoming};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use vdfs_proto::Status;
use vdfs_proto::handshake::Purpose;

use super::bulk;
use super::close::{CloseReason, Closing};
use super::counters::NetCounters;
use super::handshake;
use super::lane_server::LaneServer;
use super::reactor::Shared;
use crate::address;
use crate::carrier::{Begun, Outcome, PeerIdentity, Request, Service};
use crate::limits::{CONNECTIONS_MAX, CONTROL_LANES};

/// The way from a connection to the service, which may be replaced while connections live.
pub(super) struct Door {
    service: RwLock<Option<Arc<dyn Service>>>,
    counters: Arc<NetCounters>,
    stall: Duration,
}

impl Door {
    pub(super) fn new(
        service: Option<Arc<dyn Service>>,
        counters: Arc<NetCounters>,
        stall: Duration,
    ) -> Door {
        Door {
            service: RwLock::new(service),
            counters,
            stall,
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
                if let Some(incoming) = admit(&shared, incoming, connections.len()) {
                    connections.spawn(serve(shared.clone(), incoming, stop.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
            () = told_to_stop(stop.clone()) => break,
        }
    }
    endpoint.set_server_config(None);
    while connections.join_next().await.is_some() {}
}

fn admit(shared: &Shared, incoming: Incoming, connections: usize) -> Option<Incoming> {
    if shared.common.door.is_open() && connections < CONNECTIONS_MAX {
        return Some(incoming);
    }
    tracing::warn!(peer = %address::plain(incoming.remote_address()), connections, "connection refused");
    shared.common.counters.accepts_refused.add(1);
    incoming.refuse();
    None
}

async fn serve(shared: Arc<Shared>, incoming: Incoming, stop: watch::Receiver<bool>) {
    let peer = address::plain(incoming.remote_address());
    let config = shared.common.server_config(peer);
    let accepted = match incoming.accept_with(config) {
        Ok(connecting) => connecting.await,
        Err(error) => Err(error),
    };
    match accepted {
        Ok(connection) => serve_connection(&shared, &connection, stop).await,
        Err(error) => {
            shared.common.counters.accepts_refused.add(1);
            tracing::warn!(%peer, %error, "handshake failed");
        }
    }
}

async fn serve_connection(shared: &Shared, connection: &Connection, stop: watch::Receiver<bool>) {
    let _closing = Closing {
        connection,
        counters: &shared.common.counters,
    };
    let reason = tokio::select! {
        reason = serve_purpose(shared, connection, stop) => reason,
        _ = connection.closed() => CloseReason::Done,
    };
    reason.close(connection, &shared.common.counters);
}

async fn serve_purpose(
    shared: &Shared,
    connection: &Connection,
    stop: watch::Receiver<bool>,
) -> CloseReason {
    let welcomed = handshake::welcome(connection, shared.common.cluster, &shared.common.host).await;
    let (peer, purpose) = match welcomed {
        Ok(welcomed) => welcomed,
        Err(reason) => return reason,
    };
    if !shared.wire.carries(purpose) {
        return CloseReason::Refused;
    }
    shared.common.counters.accepts.add(1);
    tracing::debug!(addr = ?peer.addr, role = peer.role.as_str(), node = peer.node, ?purpose, "accepted");
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
