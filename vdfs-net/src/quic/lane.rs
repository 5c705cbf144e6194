//! The calling end of a lane: one long-lived stream that carries small requests, whose replies come
//! back in any order.
//!
//! Callers put frames into one buffer; whatever has gathered there when the writer comes round
//! leaves in one write. Invariant: a request is in `waiting` from before its frame is put until its
//! reply, its cancellation or the end of the lane, whichever is first.

use std::collections::HashMap;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, oneshot};
use vdfs_proto::Status;
use vdfs_proto::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};

use super::close::CloseReason;
use super::frames::{FrameBuffer, put_frame, read_answer};
use crate::carrier::{Outcome, Request};
use crate::limits::{CREDIT_BYTES, LANE_CREDITS, LANE_OUTBOX_BYTES_MAX};

const SEGMENTS: usize = 32;

/// What a request costs of [`LANE_CREDITS`], at both ends.
pub(super) fn credits(body_bytes: usize) -> usize {
    1 + body_bytes / CREDIT_BYTES
}

#[derive(Debug)]
pub(super) struct Lane {
    /// Frames that the writer has not taken yet.
    outbox: Mutex<BytesMut>,
    /// Bytes that may still be put there. Credits alone do not bound it: a dropped call gives its
    /// credits back, but its frame and its cancel still lie there.
    room: Semaphore,
    filled: Notify,
    /// `None` once the lane has ended.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Outcome>>>>,
    credits: Semaphore,
    last_tag: AtomicU64,
}

impl Lane {
    pub(super) fn new() -> Arc<Lane> {
        Arc::new(Lane {
            outbox: Mutex::default(),
            room: Semaphore::new(LANE_OUTBOX_BYTES_MAX),
            filled: Notify::new(),
            waiting: Mutex::new(Some(HashMap::new())),
            credits: Semaphore::new(LANE_CREDITS),
            last_tag: AtomicU64::new(0),
        })
    }

    pub(super) fn is_open(&self) -> bool {
        self.waiting.lock().is_some()
    }

    /// Dropping the future cancels the request.
    pub(super) async fn call(&self, request: Request) -> Outcome {
        let cost = credits(request.body.len()) as u32;
        let credits = self.credits.acquire_many(cost).await;
        let _credits = credits.map_err(|_| Status::Disconnected)?;
        let frame_bytes = FRAME_HEADER_BYTES + request.body.len();
        let for_frame = self.take_room(frame_bytes).await?;
        let for_cancel = self.take_room(FRAME_HEADER_BYTES).await?;
        // Given back by the writer.
        for_frame.forget();
        self.submit(&request, for_cancel)?.await
    }

    async fn take_room(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Status> {
        let room = self.room.acquire_many(bytes as u32).await;
        room.map_err(|_| Status::Disconnected)
    }

    fn submit<'a>(
        &'a self,
        request: &Request,
        for_cancel: SemaphorePermit<'a>,
    ) -> Result<Reply<'a>, Status> {
        let tag = self.last_tag.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = oneshot::channel();
        self.waiting
            .lock()
            .as_mut()
            .ok_or(Status::Disconnected)?
            .insert(tag, sender);
        self.put(FrameKind::Request, Some(request), tag);
        Ok(Reply {
            lane: self,
            tag,
            receiver,
            for_cancel: Some(for_cancel),
        })
    }

    fn put(&self, kind: FrameKind, request: Option<&Request>, tag: u64) {
        let mut outbox = self.outbox.lock();
        let was_empty = outbox.is_empty();
        let body = request.map_or(&[][..], |request| &request.body);
        put_frame(
            &mut outbox,
            kind,
            request.map(|request| request.method),
            tag,
            body,
        );
        drop(outbox);
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn take_waiting(&self, tag: u64) -> Option<oneshot::Sender<Outcome>> {
        self.waiting.lock().as_mut()?.remove(&tag)
    }

    /// Ends every call that waits, and every later one, with `Disconnected`, and then the connection.
    pub(super) fn end(&self) {
        self.credits.close();
        self.room.close();
        // Dropped outside the lock: a dropped sender wakes its caller.
        let waiting = self.waiting.lock().take();
        drop(waiting);
        self.filled.notify_one();
    }

    /// Carries the lane over a stream of `connection` until that ends.
    pub(super) async fn run(&self, connection: &Connection) -> CloseReason {
        let Ok((send, recv)) = connection.open_bi().await else {
            return CloseReason::Done;
        };
        tokio::select! {
            reason = self.write_requests(send) => reason,
            reason = self.read_replies(recv) => reason,
        }
    }

    async fn write_requests(&self, mut stream: SendStream) -> CloseReason {
        while self.is_open() {
            let batch = mem::take(&mut *self.outbox.lock());
            let bytes = batch.len();
            if batch.is_empty() {
                self.filled.notified().await;
            } else if stream.write_chunk(batch.freeze()).await.is_err() {
                break;
            }
            self.room.add_permits(bytes);
        }
        CloseReason::Done
    }

    async fn read_replies(&self, mut stream: RecvStream) -> CloseReason {
        let mut segments: [Bytes; SEGMENTS] = std::array::from_fn(|_| Bytes::new());
        let mut buffer = FrameBuffer::default();
        while let Ok(Some(count)) = stream.read_chunks(&mut segments).await {
            segments[..count]
                .iter()
                .for_each(|segment| buffer.push(segment));
            if let Err(status) = self.deliver_whole(&mut buffer) {
                return CloseReason::of_violation(status);
            }
        }
        CloseReason::Done
    }

    fn deliver_whole(&self, buffer: &mut FrameBuffer) -> Result<(), Status> {
        while let Some((header, body)) = buffer.next_frame()? {
            self.deliver(&header, body)?;
        }
        Ok(())
    }

    fn deliver(&self, header: &FrameHeader, body: Bytes) -> Result<(), Status> {
        let outcome = read_answer(header, body)?;
        // Nobody waits if the call was cancelled while its reply was under way.
        if let Some(waiting) = self.take_waiting(header.tag) {
            waiting.send(outcome).ok();
        }
        Ok(())
    }
}

/// A reply to come.
struct Reply<'a> {
    lane: &'a Lane,
    tag: u64,
    receiver: oneshot::Receiver<Outcome>,
    /// Room in the outbox.
    for_cancel: Option<SemaphorePermit<'a>>,
}

impl Future for Reply<'_> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = ready!(Pin::new(&mut self.receiver).poll(cx));
        Poll::Ready(outcome.unwrap_or(Err(Status::Disconnected)))
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        if self.lane.take_waiting(self.tag).is_some() {
            let room = self.for_cancel.take().expect("taken with the request");
            room.forget();
            self.lane.put(FrameKind::Cancel, None, self.tag);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use vdfs_proto::frame::Method;
    use vdfs_proto::handshake::Purpose;

    use super::*;

    #[test]
    fn calls_that_are_dropped_before_the_writer_comes_fill_no_more_than_the_outbox() {
        let lane = Lane::new();
        let request = Request {
            method: Method::Query,
            body: vec![0; CREDIT_BYTES].into(),
            payload: Bytes::new(),
            purpose: Purpose::Control,
        };
        for _ in 0..4 * LANE_OUTBOX_BYTES_MAX / CREDIT_BYTES {
            let answer = lane.call(request.clone()).now_or_never();
            assert!(answer.is_none(), "nobody answers");
        }
        let bytes = lane.outbox.lock().len();
        assert!(bytes <= LANE_OUTBOX_BYTES_MAX, "{bytes} bytes");
        assert!(
            bytes > LANE_OUTBOX_BYTES_MAX - 2 * CREDIT_BYTES,
            "{bytes} bytes"
        );
    }
}
