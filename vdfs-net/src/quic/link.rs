//! One connection to one peer for one purpose, made when it is needed and made again when it broke.
//!
//! Callers share one attempt. It begins when a call needs it, waits out the backoff, dials once, and
//! gives its result to all who wait: a failed dial ends them, so that each caller's own retry loop
//! decides. Between calls nothing is dialled.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared as SharedFuture};
use parking_lot::Mutex;
use quinn::{ConnectError, Connection, ConnectionError, TransportErrorCode};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use vdfs_proto::Status;
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::Purpose;

use super::DialFailure;
use super::bulk::{Transfer, run_transfers};
use super::close::{CloseReason, Closing};
use super::handshake::{Rejection, greet};
use super::lane::Lane;
use super::reactor::Shared;
use super::tls::TlsError;
use super::wire::Wire;
use crate::address;
use crate::carrier::{LateMessage, Outcome, Request, Target};
use crate::identity::dns_name;
use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, BULK_STREAMS_MAX, CONNECT_TIMEOUT, CONTROL_LANES};

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("shutting down")]
    ShuttingDown,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Connection(ConnectionError),
    #[error("no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
    #[error("refused: {0}")]
    Refused(Status),
    #[error("the peer does not speak the protocol")]
    NotSpoken,
    /// The TLS alert and what is known of it.
    #[error("the peer's certificate is refused: {0}")]
    PeerRefused(String),
    #[error("the peer refuses this certificate: {0}")]
    RefusedByPeer(&'static str),
}

impl DialError {
    /// Both are there, and one of them is the wrong one.
    fn is_final(&self) -> bool {
        match self {
            DialError::Tls(_) | DialError::PeerRefused(_) | DialError::RefusedByPeer(_) => true,
            DialError::Refused(status) => matches!(
                status,
                Status::WrongCluster | Status::WrongRole | Status::WrongVersion
            ),
            DialError::ShuttingDown
            | DialError::Connect(_)
            | DialError::Connection(_)
            | DialError::TimedOut
            | DialError::NotSpoken => false,
        }
    }

    /// What callers are told: a peer's definite answer, else that there is no connection.
    fn status(&self) -> Status {
        match self {
            DialError::Refused(status) => *status,
            _ => Status::Disconnected,
        }
    }
}

/// The first code of those in which QUIC carries TLS alerts (RFC 9001, 4.8), and their number.
const CRYPTO_CODES: std::ops::Range<u64> = 0x100..0x200;

impl From<ConnectionError> for DialError {
    fn from(error: ConnectionError) -> DialError {
        let alert = |code: TransportErrorCode| {
            let code = u64::from(code);
            CRYPTO_CODES
                .contains(&code)
                .then(|| code - CRYPTO_CODES.start)
        };
        match &error {
            ConnectionError::TransportError(ours) if alert(ours.code).is_some() => {
                DialError::PeerRefused(plain_refusal(&ours.reason))
            }
            ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
                Some(alert) => DialError::RefusedByPeer(alert_words(alert)),
                None => DialError::Connection(error),
            },
            _ => DialError::Connection(error),
        }
    }
}

/// What rustls says of a certificate, for people.
fn plain_refusal(reason: &str) -> String {
    let reason = reason.trim_start_matches("invalid peer certificate: ");
    let ours = reason.strip_prefix("Other(OtherError(");
    let reason = ours
        .and_then(|ours| ours.strip_suffix("))"))
        .unwrap_or(reason);
    match reason {
        // The second: of an authority with the same name and another key.
        "UnknownIssuer" | "BadSignature" => "it is of another cluster".to_owned(),
        "Expired" => "it has expired".to_owned(),
        other => other.to_owned(),
    }
}

/// TLS alerts (RFC 8446, 6.2) about certificates.
fn alert_words(alert: u64) -> &'static str {
    match alert {
        45 => "it has expired, or is not valid yet",
        48 => "it is of another cluster",
        116 => "there is none",
        49 => "its role has no business there",
        42 | 43 | 46 => "it is not of this cluster, or not in order",
        _ => "the handshake fails",
    }
}

/// An open connection, as callers see it.
#[derive(Debug)]
pub(super) enum Channel {
    Lanes(Vec<Arc<Lane>>),
    Bulk(mpsc::Sender<Transfer>),
}

impl Channel {
    fn is_open(&self) -> bool {
        match self {
            Channel::Lanes(lanes) => lanes.iter().all(|lane| lane.is_open()),
            Channel::Bulk(transfers) => !transfers.is_closed(),
        }
    }

    pub(super) async fn call(&self, request: Request) -> Outcome {
        match self {
            Channel::Lanes(lanes) => {
                lanes[lane_index(request.method) % lanes.len()]
                    .call(request)
                    .await
            }
            Channel::Bulk(transfers) => transfer(transfers, request, None).await,
        }
    }

    /// Of a bulk connection: lanes carry no payload.
    pub(super) async fn call_early(&self, request: Request, message: LateMessage) -> Outcome {
        match self {
            Channel::Lanes(_) => Err(Status::NotSupported),
            Channel::Bulk(transfers) => transfer(transfers, request, Some(message)).await,
        }
    }
}

async fn transfer(
    transfers: &mpsc::Sender<Transfer>,
    request: Request,
    message: Option<LateMessage>,
) -> Outcome {
    let (reply, outcome) = oneshot::channel();
    let transfer = Transfer {
        request,
        message,
        reply,
    };
    let sent = transfers.send(transfer).await;
    sent.map_err(|_| Status::Disconnected)?;
    outcome.await.unwrap_or(Err(Status::Disconnected))
}

impl Drop for Channel {
    /// A connection that nobody can use any more is closed.
    fn drop(&mut self) {
        match self {
            Channel::Lanes(lanes) => lanes.iter().for_each(|lane| lane.end()),
            // The task ends when the sender is gone.
            Channel::Bulk(_) => {}
        }
    }
}

/// Mutations may be parked until a recall is answered, so that answer goes another way.
fn lane_index(method: Method) -> usize {
    match method {
        Method::Mutate | Method::Query => 0,
        Method::Data | Method::Peer | Method::PeerBehind | Method::PeerEarly | Method::Relay => 0,
        Method::Session | Method::Admin | Method::Volume => 1,
    }
}

type Attempt = SharedFuture<BoxFuture<'static, Result<Arc<Channel>, Status>>>;

#[derive(Default)]
struct State {
    channel: Option<Arc<Channel>>,
    /// When `channel` was made.
    welcomed_at: Option<Instant>,
    attempt: Option<Attempt>,
    failures: u32,
    /// No dial before it.
    dial_at: Option<Instant>,
}

pub(super) struct Link {
    shared: Weak<Shared>,
    target: Target,
    purpose: Purpose,
    state: Mutex<State>,
}

impl Link {
    pub(super) fn new(shared: Weak<Shared>, target: Target, purpose: Purpose) -> Arc<Link> {
        Arc::new(Link {
            shared,
            target,
            purpose,
            state: Mutex::default(),
        })
    }

    /// The open connection, or the next attempt's.
    pub(super) async fn channel(self: &Arc<Self>) -> Result<Arc<Channel>, Status> {
        let attempt = {
            let mut state = self.state.lock();
            match &state.channel {
                Some(channel) if channel.is_open() => return Ok(channel.clone()),
                Some(_) => state.lose_channel(),
                None => {}
            }
            let begin = || self.begin_attempt();
            state.attempt.get_or_insert_with(begin).clone()
        };
        attempt.await
    }

    fn begin_attempt(self: &Arc<Self>) -> Attempt {
        let (sender, receiver) = oneshot::channel();
        if let Some(shared) = self.shared.upgrade() {
            let link = self.clone();
            let runtime = shared.runtime.clone();
            runtime.spawn(async move { link.attempt(shared, sender).await });
        }
        receiver
            .map(|result| result.unwrap_or(Err(Status::Disconnected)))
            .boxed()
            .shared()
    }

    async fn attempt(
        self: Arc<Self>,
        shared: Arc<Shared>,
        result: oneshot::Sender<Result<Arc<Channel>, Status>>,
    ) {
        let dial_at = self.state.lock().dial_at;
        if let Some(dial_at) = dial_at {
            sleep_until(dial_at).await;
        }
        let dialled = timeout(CONNECT_TIMEOUT, self.dial(&shared)).await;
        let dialled = dialled.unwrap_or(Err(DialError::TimedOut));
        match &dialled {
            Ok(_) => shared.common.counters.dials.add(1),
            Err(error) => self.report_failure(&shared, error),
        }
        let channel = dialled.map_err(|error| error.status());
        self.state.lock().end_attempt(&channel);
        // Those who waited may all have given up.
        result.send(channel).ok();
    }

    fn report_failure(&self, shared: &Shared, error: &DialError) {
        shared.common.counters.dials_failed.add(1);
        let Target { addr, role, node } = &self.target;
        let role = role.as_str();
        match self.state.lock().failures {
            0 => tracing::warn!(%addr, role, node, %error, "cannot connect"),
            _ => tracing::debug!(%addr, role, node, %error, "cannot connect"),
        }
        let failure = DialFailure {
            why: error.to_string(),
            is_final: error.is_final(),
        };
        shared.common.remember_failure(&self.target, failure);
    }

    async fn dial(&self, shared: &Arc<Shared>) -> Result<Arc<Channel>, DialError> {
        let endpoint = shared.endpoint().ok_or(DialError::ShuttingDown)?;
        let addr = address::dialable(self.target.addr);
        let wire = Wire::of(self.purpose);
        let config = shared.common.client_config(&self.target, addr, wire)?;
        let name = dns_name(self.target.role, self.target.node.as_deref());
        let connection = endpoint.connect_with(config, addr, &name)?.await?;
        let greeted = greet(
            &connection,
            shared.common.cluster,
            &shared.common.host,
            self.purpose,
        )
        .await;
        greeted.map_err(|rejection| dial_error(rejection, &connection))?;
        Ok(Arc::new(open_channel(shared, connection, self.purpose)))
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("target", &self.target)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

impl State {
    /// A connection that broke as soon as it was made counts as a failed dial.
    fn lose_channel(&mut self) {
        self.channel = None;
        let lived = self
            .welcomed_at
            .take()
            .map(|welcomed_at| welcomed_at.elapsed());
        if lived.is_some_and(|lived| lived < BACKOFF_MAX) {
            self.count_failure();
        } else {
            self.failures = 0;
            self.dial_at = None;
        }
    }

    fn end_attempt(&mut self, result: &Result<Arc<Channel>, Status>) {
        self.attempt = None;
        match result {
            Ok(channel) => {
                self.channel = Some(channel.clone());
                self.welcomed_at = Some(Instant::now());
            }
            Err(_) => self.count_failure(),
        }
    }

    fn count_failure(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.dial_at = Some(Instant::now() + backoff(self.failures, rand::random()));
    }
}

/// Doubles with each failure; between half and the whole of it, so that those who lost one peer
/// together do not come back together. `chance` is any number.
fn backoff(failures: u32, chance: u32) -> Duration {
    assert!(failures > 0, "a pause before the first dial");
    let doublings = (failures - 1).min(16);
    let whole = BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    whole / 2 + (whole / 2).mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

/// What became of the connection says more than what became of its stream.
fn dial_error(rejection: Rejection, connection: &Connection) -> DialError {
    match (rejection, connection.close_reason()) {
        (Rejection::Refused(status), _) => DialError::Refused(status),
        (Rejection::Broken(_), Some(error)) => DialError::from(error),
        (Rejection::Broken(_), None) => DialError::NotSpoken,
    }
}

/// Starts the task that owns the connection from now on.
fn open_channel(shared: &Arc<Shared>, connection: Connection, purpose: Purpose) -> Channel {
    let shared = shared.clone();
    match purpose {
        Purpose::Bulk => {
            let (sender, receiver) = mpsc::channel(BULK_STREAMS_MAX as usize);
            tokio::spawn(run_bulk(shared, connection, receiver));
            Channel::Bulk(sender)
        }
        Purpose::Control | Purpose::Heartbeat => {
            let count = if purpose == Purpose::Control {
                CONTROL_LANES
            } else {
                1
            };
            let lanes: Vec<_> = (0..count).map(|_| Lane::new()).collect();
            let ends = EndLanes(lanes.clone());
            tokio::spawn(run_lanes(shared, connection, purpose, ends));
            Channel::Lanes(lanes)
        }
    }
}

async fn run_bulk(
    shared: Arc<Shared>,
    connection: Connection,
    mut transfers: mpsc::Receiver<Transfer>,
) {
    let _share = shared.windows.join(&connection, Purpose::Bulk);
    let _closing = Closing {
        connection: &connection,
        counters: &shared.common.counters,
    };
    let reason = tokio::select! {
        reason = run_transfers(&connection, &mut transfers, shared.common.door.stall()) => reason,
        _ = connection.closed() => CloseReason::Done,
    };
    reason.close(&connection, &shared.common.counters);
}

/// Ends its lanes when dropped: at whichever await the connection's task is ended.
struct EndLanes(Vec<Arc<Lane>>);

impl Drop for EndLanes {
    fn drop(&mut self) {
        self.0.iter().for_each(|lane| lane.end());
    }
}

async fn run_lanes(shared: Arc<Shared>, connection: Connection, purpose: Purpose, lanes: EndLanes) {
    let _share = shared.windows.join(&connection, purpose);
    let _closing = Closing {
        connection: &connection,
        counters: &shared.common.counters,
    };
    let running = lanes.0.iter().map(|lane| lane.run(&connection).boxed());
    let reason = tokio::select! {
        (reason, _, _) = futures::future::select_all(running) => reason,
        _ = connection.closed() => CloseReason::Done,
    };
    reason.close(&connection, &shared.common.counters);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_bound() {
        let expected = [20, 40, 80, 160, 320, 640, 1000, 1000];
        for (failures, whole) in (1..).zip(expected) {
            let whole = Duration::from_millis(whole);
            assert_eq!(backoff(failures, 0), whole / 2);
            assert_eq!(backoff(failures, u32::MAX), whole);
        }
        assert_eq!(backoff(u32::MAX, u32::MAX), BACKOFF_MAX);
    }
}
