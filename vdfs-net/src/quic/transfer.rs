//! Reads and writes of one stream that carries one transfer: a frame, its payload, and the end.

use std::time::Duration;

use bytes::Bytes;
use quinn::{RecvStream, SendStream, VarInt};
use tokio::time::timeout;
use vdfs_proto::Status;
use vdfs_proto::frame::{FRAME_HEADER_BYTES, FrameHeader};

use super::close::CloseReason;
use crate::buffers::Buffer;
use crate::limits::SEND_PIECE_BYTES;

/// Segments taken from the transport under one lock.
const SEGMENTS: usize = 32;

/// Why a transfer did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// The peer gave the stream up, or the connection is gone.
    Gone,
    /// This end gave the stream up.
    GivenUp,
    /// The peer sent nothing, or read nothing, for too long.
    Stalled,
    /// The peer sent what it must not.
    Violation(Status),
}

impl Break {
    /// What it means for the connection; `None` if it can go on.
    pub(super) fn close_reason(self) -> Option<CloseReason> {
        match self {
            Break::Gone | Break::GivenUp => None,
            Break::Stalled => Some(CloseReason::Stalled),
            Break::Violation(status) => Some(CloseReason::of_violation(status)),
        }
    }
}

/// What comes in.
pub(super) struct Inflow {
    stream: RecvStream,
    segments: [Bytes; SEGMENTS],
    /// `segments[next..end]` are not used up yet.
    next: usize,
    end: usize,
    stall: Duration,
}

impl Inflow {
    /// Breaks with [`Break::Stalled`] when nothing comes for `stall`.
    pub(super) fn new(stream: RecvStream, stall: Duration) -> Inflow {
        let segments = std::array::from_fn(|_| Bytes::new());
        Inflow {
            stream,
            segments,
            next: 0,
            end: 0,
            stall,
        }
    }

    pub(super) fn set_stall(&mut self, stall: Duration) {
        self.stall = stall;
    }

    /// Waits until something has come, without reading it.
    pub(super) async fn await_first(&mut self) -> Result<(), Break> {
        match self.segment().await? {
            Some(_) => Ok(()),
            None => Err(Break::Violation(Status::Malformed)),
        }
    }

    /// Header and body; that the body has at most `body_bytes_max` is checked before memory is taken.
    pub(super) async fn frame(
        &mut self,
        body_bytes_max: usize,
    ) -> Result<(FrameHeader, Bytes), Break> {
        let header = self.exact(FRAME_HEADER_BYTES).await?;
        let header = header.first_chunk().expect("exactly a header");
        let header = FrameHeader::decode(header).map_err(Break::Violation)?;
        let body_bytes = header.body_bytes as usize;
        if body_bytes > body_bytes_max {
            return Err(Break::Violation(Status::TooLarge));
        }
        let body = self.exact(body_bytes).await?;
        Ok((header, body))
    }

    /// The payload that `header` announces.
    pub(super) async fn payload(&mut self, header: &FrameHeader) -> Result<Bytes, Break> {
        let len = header.payload_bytes().map_err(Break::Violation)?;
        self.exact(len).await
    }

    async fn exact(&mut self, len: usize) -> Result<Bytes, Break> {
        let mut gathered = Buffer::with_capacity(len);
        while gathered.len() < len {
            let missing = len - gathered.len();
            let segment = self
                .segment()
                .await?
                .ok_or(Break::Violation(Status::Malformed))?;
            let taken = segment.split_to(missing.min(segment.len()));
            gathered.extend_from_slice(&taken);
        }
        Ok(gathered.freeze())
    }

    pub(super) async fn expect_end(&mut self) -> Result<(), Break> {
        match self.segment().await? {
            None => Ok(()),
            Some(_) => Err(Break::Violation(Status::Malformed)),
        }
    }

    /// The next segment that is not empty; `None` at the end.
    async fn segment(&mut self) -> Result<Option<&mut Bytes>, Break> {
        while self.next < self.end && self.segments[self.next].is_empty() {
            self.next += 1;
        }
        if self.next == self.end {
            let read = self.stream.read_chunks(&mut self.segments);
            let count = timeout(self.stall, read)
                .await
                .map_err(|_| Break::Stalled)?;
            let Some(count) = count.map_err(|_| Break::Gone)? else {
                return Ok(None);
            };
            (self.next, self.end) = (0, count);
        }
        Ok(Some(&mut self.segments[self.next]))
    }
}

/// What goes out. Dropped before its end it resets the stream: a bare drop would finish it, and the
/// transfer would look complete.
pub(super) struct Outflow {
    stream: SendStream,
    is_whole: bool,
    stall: Duration,
}

impl Outflow {
    /// Breaks with [`Break::Stalled`] when nothing can be written for `stall`.
    pub(super) fn new(stream: SendStream, stall: Duration) -> Outflow {
        Outflow {
            stream,
            is_whole: false,
            stall,
        }
    }

    /// Writes `head` and `payload`, without a copy, and the end.
    pub(super) async fn send(&mut self, head: Bytes, payload: Bytes) -> Result<(), Break> {
        self.send_part(head, payload).await?;
        self.stream.finish().map_err(|_| Break::Gone)?;
        self.is_whole = true;
        Ok(())
    }

    /// What follows leaves before whatever waits on other streams of the connection.
    pub(super) fn hurry(&self) -> Result<(), Break> {
        self.stream.set_priority(1).map_err(|_| Break::Gone)
    }

    /// The same without the end.
    pub(super) async fn send_part(&mut self, head: Bytes, payload: Bytes) -> Result<(), Break> {
        let mut pieces = pieces(head, payload);
        let mut rest = pieces.as_mut_slice();
        while !rest.is_empty() {
            let write = self.stream.write_chunks(rest);
            let written = timeout(self.stall, write)
                .await
                .map_err(|_| Break::Stalled)?;
            rest = &mut rest[written.map_err(|_| Break::Gone)?.chunks..];
        }
        Ok(())
    }

    /// Ends when the peer has everything or wants nothing more.
    pub(super) fn until_stopped(&self) -> impl Future<Output = ()> + use<> {
        let stopped = self.stream.stopped();
        async move {
            stopped.await.ok();
        }
    }
}

impl Drop for Outflow {
    fn drop(&mut self) {
        if !self.is_whole {
            // An error means that the stream is closed already.
            self.stream.reset(VarInt::from_u32(0)).ok();
        }
    }
}

fn pieces(head: Bytes, mut payload: Bytes) -> Vec<Bytes> {
    let mut pieces = vec![head];
    while payload.len() > SEND_PIECE_BYTES {
        pieces.push(payload.split_to(SEND_PIECE_BYTES));
    }
    if !payload.is_empty() {
        pieces.push(payload);
    }
    pieces
}
