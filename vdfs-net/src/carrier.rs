//! The seam between those who ask, those who answer, and what lies between them.

use std::fmt::{self, Debug};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::{Purpose, Role};
use vdfs_proto::limits::{FRAME_BODY_BYTES_MAX, PAYLOAD_BYTES_MAX};
use vdfs_proto::{ClusterId, Status};

/// What a caller sends.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    /// The encoded message, at most `FRAME_BODY_BYTES_MAX` bytes.
    pub body: Bytes,
    /// Raw bytes behind the message, at most `PAYLOAD_BYTES_MAX`; only with [`Purpose::Bulk`].
    pub payload: Bytes,
    /// Which connection carries it: control and heartbeats on lanes, bulk on a stream of its own.
    pub purpose: Purpose,
}

impl Request {
    /// What every carrier checks before it sends: `TooLarge` beyond the bounds above.
    pub fn check_bounds(&self) -> Result<(), Status> {
        let payload_bytes_max = match self.purpose {
            Purpose::Bulk => PAYLOAD_BYTES_MAX,
            Purpose::Control | Purpose::Heartbeat => 0,
        };
        let fits =
            self.body.len() <= FRAME_BODY_BYTES_MAX && self.payload.len() <= payload_bytes_max;
        if fits { Ok(()) } else { Err(Status::TooLarge) }
    }
}

/// What a service answers; bounded as a [`Request`] is.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub body: Bytes,
    pub payload: Bytes,
}

pub type Outcome = Result<Response, Status>;

/// The way to one peer. It connects when it is first used and reconnects, with backoff, after a
/// break; a call that meets no connection, or loses it, ends with `Disconnected`, and its effect at
/// the peer is then unknown.
pub trait Carrier: Debug + Send + Sync + 'static {
    /// Ends with `DeadlineExceeded` after `deadline`. Dropping the future ends only the wait.
    fn call(&self, request: Request, deadline: Duration) -> BoxFuture<'_, Outcome>;

    /// Sends the payload of a request at once, then polls `message` for its body; `deadline` counts from when
    /// it gives that. If it gives none, or one beyond `FRAME_BODY_BYTES_MAX`, or the future is dropped before,
    /// the service never hears of it. The peer may refuse it before: it does if it has no room now.
    fn call_early(
        &self,
        request: Request,
        message: LateMessage,
        deadline: Duration,
    ) -> BoxFuture<'_, Outcome> {
        async move {
            let body = message.await.ok_or(Status::Disconnected)?;
            self.call(Request { body, ..request }, deadline).await
        }
        .boxed()
    }
}

/// The body of a request whose payload is known before.
pub type LateMessage = BoxFuture<'static, Option<Bytes>>;

/// Who is at the other end, as its certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    pub cluster: ClusterId,
    pub role: Role,
    /// The last part of the certificate's URI; unique within the role.
    pub node: String,
    /// Where the peer is; `None` within one process.
    pub addr: Option<SocketAddr>,
    /// Same boot id and same network namespace.
    pub same_host: bool,
    /// When its certificate ends; `None` within one process.
    pub certificate_ends: Option<SystemTime>,
}

/// What answers. One service serves all its connections.
pub trait Service: Send + Sync + 'static {
    /// The future may be dropped at any moment (deadline, cancel, disconnect): that must end only
    /// the wait for the reply, so an effect that has begun is owned by somebody else.
    fn handle(&self, peer: Arc<PeerIdentity>, request: Request) -> BoxFuture<'static, Outcome>;

    /// Bytes of payload that the answer to `request` may have: room for them is made before it is
    /// handled. No more than that come back.
    fn answer_payload_bytes(&self, _request: &Request) -> usize {
        0
    }

    /// Begins, in their order, requests of one peer that have come together: what can be shared
    /// between them (a write to a log) is. Gives for each what became of it.
    fn handle_batch(&self, peer: &Arc<PeerIdentity>, requests: Vec<Request>) -> Vec<Begun> {
        let begin = |request| Begun::of(self.handle(peer.clone(), request));
        requests.into_iter().map(begin).collect()
    }
}

/// A request that was begun.
pub enum Begun {
    Done(Outcome),
    /// To be polled, and to be dropped, as the future of [`Service::handle`].
    Waits(BoxFuture<'static, Outcome>),
}

impl Begun {
    /// Polls once, with a waker that wakes nobody: one that is not done is polled again in its own
    /// right.
    pub fn of(mut handler: BoxFuture<'static, Outcome>) -> Begun {
        let waker = futures::task::noop_waker_ref();
        let polled = handler.as_mut().poll(&mut Context::from_waker(waker));
        match polled {
            Poll::Ready(outcome) => Begun::Done(outcome),
            Poll::Pending => Begun::Waits(handler),
        }
    }

    /// Its end, whenever that is.
    pub fn boxed(self) -> BoxFuture<'static, Outcome> {
        match self {
            Begun::Done(outcome) => std::future::ready(outcome).boxed(),
            Begun::Waits(handler) => handler,
        }
    }
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Begun::Done(outcome) => f.debug_tuple("Done").field(outcome).finish(),
            Begun::Waits(_) => f.write_str("Waits"),
        }
    }
}

/// Whom to reach, and whom to accept there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub addr: SocketAddr,
    pub role: Role,
    /// Node name that the certificate must carry; `None` accepts any node of the role.
    pub node: Option<String>,
}

/// Gives the way to a peer. Asked again for the same target it gives the same carrier.
pub trait Connector: Debug + Send + Sync + 'static {
    fn carrier(&self, target: &Target) -> Arc<dyn Carrier>;
}
