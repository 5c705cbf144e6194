//! The serving end of a lane.
//!
//! One task reads, begins, and answers. Requests that have come together are begun together; most are
//! done then, and their replies leave in one write. The others wait in `working`, and answer when
//! they are done.
//!
//! A caller keeps within the lane's credits, and a cancel gives its credits back before the request
//! that takes them follows in the stream. So its frames, cancels among them, are always read. From a
//! peer that exceeds its credits nothing more is read until it is within them again.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use quinn::{RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until, timeout};
use vdfs_proto::Status;
use vdfs_proto::frame::{FrameHeader, FrameKind, Method};
use vdfs_proto::handshake::Purpose;
use vdfs_proto::limits::FRAME_BODY_BYTES_MAX;

use super::close::CloseReason;
use super::frames::{FrameBuffer, put_answer};
use super::lane::credits;
use super::server::Door;
use crate::carrier::{Begun, Outcome, PeerIdentity, Request};
use crate::limits::{LANE_CREDITS, REPLY_BATCH_BYTES, REPLY_BATCH_FRAMES};

const SEGMENTS: usize = 32;

/// A request that was not answered at once.
type Work = BoxFuture<'static, Finished>;

struct Finished {
    tag: u64,
    /// `None`: the peer has cancelled it.
    outcome: Option<Outcome>,
}

/// A request that waits in `working`.
struct Parked {
    abort: AbortHandle,
    credits: usize,
}

/// Requests that have come and are not begun yet.
#[derive(Default)]
struct Batch {
    requests: Vec<Request>,
    /// Tag and length of the body of each.
    tags: Vec<(u64, usize)>,
    credits: usize,
}

impl Batch {
    fn push(&mut self, tag: u64, request: Request) {
        let body_bytes = request.body.len();
        self.credits += credits(body_bytes);
        self.tags.push((tag, body_bytes));
        self.requests.push(request);
    }
}

/// What happened next.
enum Turn {
    Arrived(usize),
    Finished(Finished),
    /// Frames are left in the buffer.
    More,
    Stop,
    Close(CloseReason),
}

pub(super) struct LaneServer {
    door: Arc<Door>,
    peer: Arc<PeerIdentity>,
    purpose: Purpose,
    send: SendStream,
    recv: RecvStream,
    segments: [Bytes; SEGMENTS],
    buffer: FrameBuffer,
    /// When the half frame in the buffer last grew, or could have.
    progress_at: Instant,
    replies: BytesMut,
    working: FuturesUnordered<Work>,
    parked: HashMap<u64, Parked>,
    credits_used: usize,
    stop: watch::Receiver<bool>,
}

impl LaneServer {
    pub(super) fn new(
        door: Arc<Door>,
        peer: Arc<PeerIdentity>,
        purpose: Purpose,
        (send, recv): (SendStream, RecvStream),
        stop: watch::Receiver<bool>,
    ) -> LaneServer {
        LaneServer {
            door,
            peer,
            purpose,
            send,
            recv,
            segments: std::array::from_fn(|_| Bytes::new()),
            buffer: FrameBuffer::default(),
            progress_at: Instant::now(),
            replies: BytesMut::new(),
            working: FuturesUnordered::new(),
            parked: HashMap::new(),
            credits_used: 0,
            stop,
        }
    }

    /// Serves until the lane ends, and says how to close its connection.
    pub(super) async fn run(mut self) -> CloseReason {
        loop {
            let more = match self.begin_frames() {
                Ok(more) => more,
                Err(status) => return CloseReason::of_violation(status),
            };
            self.take_finished();
            if let Err(reason) = self.write_replies().await {
                return reason;
            }
            let turn = if more {
                Turn::More
            } else {
                self.next_turn().await
            };
            match turn {
                Turn::Arrived(count) => self.take_segments(count),
                Turn::Finished(finished) => self.finish(finished),
                Turn::More => tokio::task::yield_now().await,
                Turn::Stop => return self.drain().await,
                Turn::Close(reason) => return reason,
            }
        }
    }

    fn is_within_credits(&self) -> bool {
        self.credits_used <= LANE_CREDITS
    }

    async fn next_turn(&mut self) -> Turn {
        let may_read = self.is_within_credits();
        if !may_read {
            self.progress_at = Instant::now();
        }
        let is_half = !self.buffer.is_empty() && may_read;
        let stalled_at = self.progress_at + self.door.stall();
        tokio::select! {
            Some(finished) = self.working.next() => Turn::Finished(finished),
            read = self.recv.read_chunks(&mut self.segments), if may_read => match read {
                Ok(Some(count)) => Turn::Arrived(count),
                Ok(None) | Err(_) => Turn::Close(CloseReason::Done),
            },
            () = sleep_until(stalled_at), if is_half => Turn::Close(CloseReason::Stalled),
            _ = self.stop.wait_for(|stop| *stop) => Turn::Stop,
        }
    }

    fn take_segments(&mut self, count: usize) {
        self.progress_at = Instant::now();
        for segment in &mut self.segments[..count] {
            self.buffer.push(segment);
            segment.clear();
        }
    }

    /// Begins what has come whole, as far as credits and one batch of replies go. `true`: some may
    /// be left that could begin.
    fn begin_frames(&mut self) -> Result<bool, Status> {
        let mut batch = Batch::default();
        let gathered = self.gather(&mut batch);
        self.begin_batch(batch)?;
        gathered
    }

    fn gather(&mut self, batch: &mut Batch) -> Result<bool, Status> {
        for _ in 0..REPLY_BATCH_FRAMES {
            let is_within = self.credits_used + batch.credits <= LANE_CREDITS;
            if !is_within || self.replies.len() >= REPLY_BATCH_BYTES {
                return Ok(self.is_within_credits());
            }
            match self.buffer.next_frame()? {
                Some((header, body)) => self.take_frame(batch, &header, body)?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn take_frame(
        &mut self,
        batch: &mut Batch,
        header: &FrameHeader,
        body: Bytes,
    ) -> Result<(), Status> {
        match header.kind {
            FrameKind::Request => {
                let request = Request {
                    method: Method::from_wire(header.method)?,
                    body,
                    payload: Bytes::new(),
                    purpose: self.purpose,
                };
                batch.push(header.tag, request);
                Ok(())
            }
            FrameKind::Cancel => {
                // It may be for one of these.
                self.begin_batch(mem::take(batch))?;
                if let Some(parked) = self.unpark(header.tag) {
                    parked.abort.abort();
                }
                Ok(())
            }
            FrameKind::Response | FrameKind::Error => Err(Status::Malformed),
        }
    }

    fn begin_batch(&mut self, batch: Batch) -> Result<(), Status> {
        if batch.requests.is_empty() {
            return Ok(());
        }
        let begun = self.door.handle_batch(&self.peer, batch.requests);
        for (begun, (tag, body_bytes)) in begun.into_iter().zip(batch.tags) {
            if self.parked.contains_key(&tag) {
                return Err(Status::Malformed);
            }
            match begun {
                Begun::Done(outcome) => self.answer(tag, outcome),
                Begun::Waits(handler) => match self.door.park(body_bytes) {
                    Some(room) => self.park(tag, credits(body_bytes), with(room, handler)),
                    None => self.answer(tag, Err(Status::Busy)),
                },
            }
        }
        Ok(())
    }

    fn park(&mut self, tag: u64, credits: usize, handler: BoxFuture<'static, Outcome>) {
        let (abort, registration) = AbortHandle::new_pair();
        let work = Abortable::new(handler, registration);
        let work = work.map(move |outcome| Finished {
            tag,
            outcome: outcome.ok(),
        });
        self.working.push(work.boxed());
        self.parked.insert(tag, Parked { abort, credits });
        self.credits_used += credits;
    }

    /// Gives the credits of a parked request back.
    fn unpark(&mut self, tag: u64) -> Option<Parked> {
        let parked = self.parked.remove(&tag)?;
        self.credits_used -= parked.credits;
        Some(parked)
    }

    fn finish(&mut self, finished: Finished) {
        // A cancelled one is parked no more, and its tag may be another's by now.
        if let Some(outcome) = finished.outcome {
            let parked = self.unpark(finished.tag);
            assert!(parked.is_some(), "request {} finished twice", finished.tag);
            self.answer(finished.tag, outcome);
        }
    }

    /// Those that are done already share the next write.
    fn take_finished(&mut self) {
        while self.replies.len() < REPLY_BATCH_BYTES {
            match self.working.next().now_or_never() {
                Some(Some(finished)) => self.finish(finished),
                Some(None) | None => return,
            }
        }
    }

    fn answer(&mut self, tag: u64, outcome: Outcome) {
        put_answer(&mut self.replies, tag, &check_reply(outcome));
    }

    async fn write_replies(&mut self) -> Result<(), CloseReason> {
        if self.replies.is_empty() {
            return Ok(());
        }
        let batch = self.replies.split().freeze();
        match timeout(self.door.stall(), self.send.write_chunk(batch)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(CloseReason::Done),
            Err(_) => Err(CloseReason::Stalled),
        }
    }

    /// Reads nothing more; answers what was begun, and waits until the peer has the answers.
    async fn drain(mut self) -> CloseReason {
        while let Some(finished) = self.working.next().await {
            self.finish(finished);
            if let Err(reason) = self.write_replies().await {
                return reason;
            }
        }
        if self.send.finish().is_ok() {
            self.send.stopped().await.ok();
        }
        CloseReason::ShuttingDown
    }
}

/// A lane carries no payload and no long body, and a service that gives one is at fault.
fn check_reply(outcome: Outcome) -> Outcome {
    let response = outcome?;
    let fits = response.payload.is_empty() && response.body.len() <= FRAME_BODY_BYTES_MAX;
    if !fits {
        tracing::error!(len = response.body.len(), "a reply does not fit a lane");
        return Err(Status::Internal);
    }
    Ok(response)
}

/// Holds `room` as long as the handler is there.
fn with(
    room: OwnedSemaphorePermit,
    handler: BoxFuture<'static, Outcome>,
) -> BoxFuture<'static, Outcome> {
    handler.inspect(move |_| drop(room)).boxed()
}
