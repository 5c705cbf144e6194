//! Transfers: each request on a stream of its own, header, body, payload, end; and the response the
//! same way back. Of an early request the payload is before the frame with the body, which may take a while.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use vdfs_proto::Status;
use vdfs_proto::codec::encode;
use vdfs_proto::frame::{FrameHeader, FrameKind, Method};
use vdfs_proto::handshake::Purpose;
use vdfs_proto::limits::{FRAME_BODY_BYTES_MAX, PAYLOAD_BYTES_MAX};

use super::allowance::{Parts, Taken};
use super::close::CloseReason;
use super::frames::{put_frame, read_answer};
use super::server::{Door, joined, told_to_stop};
use super::transfer::{Break, Inflow, Outflow};
use crate::carrier::{LateMessage, Outcome, PeerIdentity, Request, Response};
use crate::limits::BULK_STREAMS_MAX;

/// One call on its way to the connection's task.
pub(super) struct Transfer {
    pub(super) request: Request,
    /// The body of an early one.
    pub(super) message: Option<LateMessage>,
    /// Dropped by the caller: cancelled.
    pub(super) reply: oneshot::Sender<Outcome>,
}

/// The calling end: carries transfers over `connection` until it ends, or nobody sends any more.
pub(super) async fn run_transfers(
    connection: &Connection,
    transfers: &mut mpsc::Receiver<Transfer>,
    stall: Duration,
) -> CloseReason {
    let mut running = FuturesUnordered::new();
    let mut streams = Streams::of(connection, stall);
    let mut next: Option<Transfer> = None;
    loop {
        let has_room = running.len() < BULK_STREAMS_MAX as usize && next.is_none();
        tokio::select! {
            Some(reason) = running.next() => if let Some(reason) = reason {
                return reason;
            },
            transfer = transfers.recv(), if has_room => match transfer {
                Some(given_up) if given_up.reply.is_closed() => {}
                Some(early) if early.message.is_some() => match streams.open_if_more() {
                    Some(stream) => running.push(run_transfer(stream, early, stall)),
                    // Nobody may wait any more.
                    None => drop(early.reply.send(Err(Status::Busy))),
                },
                Some(transfer) => next = Some(transfer),
                None => return CloseReason::Done,
            },
            stream = streams.open(), if next.is_some() => {
                let Ok(stream) = stream else { return CloseReason::Done };
                let transfer = next.take().expect("one waits");
                running.push(run_transfer(stream, transfer, stall));
            }
        }
    }
}

type Stream = (Outflow, RecvStream);

/// Streams of a connection, in the order in which they are opened: the peer takes one that is not used for
/// one that has stalled as soon as a later one is.
struct Streams<'a> {
    connection: &'a Connection,
    stall: Duration,
    /// For whoever comes next.
    spare: Option<Stream>,
}

impl<'a> Streams<'a> {
    fn of(connection: &'a Connection, stall: Duration) -> Self {
        Streams {
            connection,
            stall,
            spare: None,
        }
    }

    /// Waits until the peer takes one more.
    async fn open(&mut self) -> Result<Stream, ConnectionError> {
        match self.spare.take() {
            Some(stream) => Ok(stream),
            None => self.open_new().await,
        }
    }

    /// None if the peer takes no more than one now: what waits on an early transfer for its body must not
    /// keep others from being sent.
    fn open_if_more(&mut self) -> Option<Stream> {
        let spare = self.spare.take();
        let first = spare.or_else(|| self.open_now())?;
        match self.open_now() {
            Some(second) => {
                self.spare = Some(second);
                Some(first)
            }
            None => {
                self.spare = Some(first);
                None
            }
        }
    }

    fn open_now(&self) -> Option<Stream> {
        self.open_new().now_or_never()?.ok()
    }

    async fn open_new(&self) -> Result<Stream, ConnectionError> {
        let (send, recv) = self.connection.open_bi().await?;
        Ok((Outflow::new(send, self.stall), recv))
    }
}

/// Gives the outcome to the caller; the result is what it means for the connection.
async fn run_transfer(
    stream: Stream,
    Transfer {
        request,
        message,
        mut reply,
    }: Transfer,
    stall: Duration,
) -> Option<CloseReason> {
    let outcome = tokio::select! {
        biased;
        () = reply.closed() => return None,
        outcome = exchange(stream, request, message, stall) => outcome,
    };
    let (outcome, reason) = match outcome {
        Ok(outcome) => (outcome, None),
        Err(broken) => (Err(Status::Disconnected), broken.close_reason()),
    };
    // The caller may have gone this very moment.
    reply.send(outcome).ok();
    reason
}

async fn exchange(
    (mut outflow, recv): Stream,
    request: Request,
    message: Option<LateMessage>,
    stall: Duration,
) -> Result<Outcome, Break> {
    let sent = match message {
        Some(message) => send_early(&mut outflow, request, message).await,
        None => {
            let head = request_head(request.method, &request.body, &request.payload);
            outflow.send(head, request.payload).await
        }
    };
    match sent {
        // A peer that wants no more of it says why.
        Ok(()) | Err(Break::Gone) => {}
        Err(broken) => return Err(broken),
    }
    read_response(Inflow::new(recv, Duration::MAX), stall).await
}

async fn send_early(
    outflow: &mut Outflow,
    request: Request,
    message: LateMessage,
) -> Result<(), Break> {
    let head = request_head(request.method, &[], &request.payload);
    outflow.send_part(head, request.payload).await?;
    let body = tokio::select! {
        body = message => body.ok_or(Break::GivenUp)?,
        () = outflow.until_stopped() => return Err(Break::Gone),
    };
    outflow.hurry()?;
    let head = request_head(request.method, &body, &[]);
    outflow.send(head, Bytes::new()).await
}

/// The first byte may take as long as the operation does; then the rest must follow.
async fn read_response(mut inflow: Inflow, stall: Duration) -> Result<Outcome, Break> {
    inflow.await_first().await?;
    inflow.set_stall(stall);
    let (header, body) = inflow.frame(FRAME_BODY_BYTES_MAX).await?;
    let payload = inflow.payload(&header).await?;
    inflow.expect_end().await?;
    let outcome = read_answer(&header, body).map_err(Break::Violation)?;
    Ok(outcome.map(|response| Response {
        payload,
        ..response
    }))
}

/// The serving end, until the connection ends.
pub(super) async fn serve(
    connection: &Connection,
    door: &Arc<Door>,
    peer: &Arc<PeerIdentity>,
    stop: watch::Receiver<bool>,
) -> CloseReason {
    let host = Host {
        door: door.clone(),
        parts: door.allowances.parts_of(peer),
        peer: peer.clone(),
    };
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            streams = connection.accept_bi() => match streams {
                Ok(streams) => {
                    running.spawn(host.clone().serve_transfer(streams));
                }
                Err(_) => return CloseReason::Done,
            },
            Some(ended) = running.join_next() => if let Some(reason) = joined(ended) {
                return reason;
            },
            () = told_to_stop(stop.clone()) => break,
        }
    }
    while let Some(ended) = running.join_next().await {
        if let Some(reason) = joined(ended) {
            return reason;
        }
    }
    CloseReason::ShuttingDown
}

/// What the transfers of a connection have in common.
#[derive(Clone)]
struct Host {
    door: Arc<Door>,
    parts: Parts,
    peer: Arc<PeerIdentity>,
}

impl Host {
    /// The result is what it means for the connection.
    async fn serve_transfer(self, (send, recv): (SendStream, RecvStream)) -> Option<CloseReason> {
        let mut outflow = Outflow::new(send, self.door.stall());
        let inflow = Inflow::new(recv, self.door.stall());
        self.try_transfer(&mut outflow, inflow)
            .await
            .err()
            .and_then(Break::close_reason)
    }

    /// Ends when the peer has the answer, so that its memory is free.
    async fn try_transfer(&self, outflow: &mut Outflow, inflow: Inflow) -> Result<(), Break> {
        let request = self.read_request(inflow).await?;
        let (outcome, _taken) = tokio::select! {
            answered = self.answer(request) => answered,
            () = outflow.until_stopped() => return Err(Break::Gone),
        };
        send_outcome(outflow, outcome).await?;
        let received = timeout(self.door.stall(), outflow.until_stopped()).await;
        received.map_err(|_| Break::Stalled)
    }

    /// `Ok(Err(_))`: there is no room for the payload, and it is not read.
    async fn read_request(&self, mut inflow: Inflow) -> Result<Result<Loaded, Status>, Break> {
        let (method, header, body) = read_request_head(&mut inflow).await?;
        let payload_bytes = header.payload_bytes().map_err(Break::Violation)?;
        let part = self.parts.of(method);
        let taken = match method {
            // Whoever sends it waits for nothing.
            Method::PeerEarly => part.take_now(payload_bytes),
            _ => part.take(payload_bytes).await,
        };
        let taken = match taken {
            Ok(taken) => taken,
            Err(status) => return Ok(Err(status)),
        };
        let payload = inflow.payload(&header).await?;
        let body = match method {
            Method::PeerEarly => late_body(&mut inflow, &body).await?,
            _ => body,
        };
        inflow.expect_end().await?;
        let request = Request {
            method,
            body,
            payload,
            purpose: Purpose::Bulk,
        };
        Ok(Ok(Loaded { request, taken }))
    }

    /// The answer, and the memory that it lies in.
    async fn answer(&self, request: Result<Loaded, Status>) -> (Outcome, Taken) {
        match self.try_answer(request).await {
            Ok((outcome, taken)) => (outcome, taken),
            Err(status) => (Err(status), Taken::default()),
        }
    }

    async fn try_answer(
        &self,
        request: Result<Loaded, Status>,
    ) -> Result<(Outcome, Taken), Status> {
        let Loaded { request, taken } = request?;
        let answer_bytes = self.door.answer_payload_bytes(&request);
        let for_answer = self.parts.of(request.method).take(answer_bytes).await?;
        let outcome = self.door.handle(self.peer.clone(), request).await;
        drop(taken);
        Ok((outcome, for_answer))
    }
}

async fn read_request_head(inflow: &mut Inflow) -> Result<(Method, FrameHeader, Bytes), Break> {
    let (header, body) = inflow.frame(FRAME_BODY_BYTES_MAX).await?;
    if header.kind != FrameKind::Request {
        return Err(Break::Violation(Status::Malformed));
    }
    let method = Method::from_wire(header.method).map_err(Break::Violation)?;
    Ok((method, header, body))
}

/// The body behind the payload, of which there is none before it.
async fn late_body(inflow: &mut Inflow, before: &Bytes) -> Result<Bytes, Break> {
    let (method, header, body) = read_request_head(inflow).await?;
    let fits = before.is_empty() && method == Method::PeerEarly && header.tag == 0;
    if fits {
        Ok(body)
    } else {
        Err(Break::Violation(Status::Malformed))
    }
}

/// A request, and the memory that its payload lies in.
struct Loaded {
    request: Request,
    taken: Taken,
}

async fn send_outcome(outflow: &mut Outflow, outcome: Outcome) -> Result<(), Break> {
    match outcome.and_then(check_response) {
        Ok(Response { body, payload }) => {
            let head = head(FrameKind::Response, None, &body, &payload);
            outflow.send(head, payload).await
        }
        Err(status) => {
            let head = head(FrameKind::Error, None, &encode(&status), &[]);
            outflow.send(head, Bytes::new()).await
        }
    }
}

/// A service that exceeds its bounds is at fault.
fn check_response(response: Response) -> Outcome {
    let (body, payload) = (response.body.len(), response.payload.len());
    if body > FRAME_BODY_BYTES_MAX || payload > PAYLOAD_BYTES_MAX {
        tracing::error!(body, payload, "a response exceeds its bounds");
        return Err(Status::Internal);
    }
    Ok(response)
}

fn request_head(method: Method, body: &[u8], payload: &[u8]) -> Bytes {
    head(FrameKind::Request, Some(method), body, payload)
}

/// Header and body; the payload follows them on the stream.
fn head(kind: FrameKind, method: Option<Method>, body: &[u8], payload: &[u8]) -> Bytes {
    let mut wire = BytesMut::new();
    put_frame(&mut wire, kind, method, payload.len() as u64, body);
    wire.freeze()
}
