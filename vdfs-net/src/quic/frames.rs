//! Frames in a stream of bytes: both ways, without IO.

use bytes::{BufMut, Bytes, BytesMut};
use vdfs_proto::Status;
use vdfs_proto::codec::{decode, encode};
use vdfs_proto::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, Method};
use vdfs_proto::limits::FRAME_BODY_BYTES_MAX;

use crate::carrier::{Outcome, Response};

/// Appends one frame; `method` is `None` for everything but a request.
pub(super) fn put_frame(
    out: &mut BytesMut,
    kind: FrameKind,
    method: Option<Method>,
    tag: u64,
    body: &[u8],
) {
    assert!(
        body.len() <= FRAME_BODY_BYTES_MAX,
        "a body of {} bytes",
        body.len()
    );
    let header = FrameHeader {
        body_bytes: body.len() as u32,
        kind,
        method: method.map_or(0, |method| method as u16),
        tag,
    };
    out.reserve(FRAME_HEADER_BYTES + body.len());
    out.put_slice(&header.encode());
    out.put_slice(body);
}

/// Appends the answer to request `tag` of a lane.
pub(super) fn put_answer(out: &mut BytesMut, tag: u64, outcome: &Outcome) {
    match outcome {
        Ok(response) => put_frame(out, FrameKind::Response, None, tag, &response.body),
        Err(status) => put_frame(out, FrameKind::Error, None, tag, &encode(status)),
    }
}

/// Reads the answer that [`put_answer`] wrote. An error means that the frame is no answer.
pub(super) fn read_answer(header: &FrameHeader, body: Bytes) -> Result<Outcome, Status> {
    match header.kind {
        FrameKind::Response => Ok(Ok(Response {
            body,
            payload: Bytes::new(),
        })),
        FrameKind::Error => Ok(Err(decode(&body)?)),
        FrameKind::Request | FrameKind::Cancel => Err(Status::Malformed),
    }
}

/// Takes bytes as they come and gives whole frames. It never holds more than one frame and what
/// came with it.
#[derive(Debug, Default)]
pub(super) struct FrameBuffer {
    bytes: BytesMut,
}

impl FrameBuffer {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame; a length beyond its bound is an error before the body has come.
    pub(super) fn next_frame(&mut self) -> Result<Option<(FrameHeader, Bytes)>, Status> {
        let Some(header) = self.bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = FrameHeader::decode(header)?;
        let frame_bytes = FRAME_HEADER_BYTES + header.body_bytes as usize;
        if self.bytes.len() < frame_bytes {
            self.bytes.reserve(frame_bytes - self.bytes.len());
            return Ok(None);
        }
        let mut frame = self.bytes.split_to(frame_bytes).freeze();
        let body = frame.split_off(FRAME_HEADER_BYTES);
        Ok(Some((header, body)))
    }

    /// Whether anything is left that the next frame begins with.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_cut_anywhere_come_out_whole(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..8),
            piece_bytes in 1usize..40,
        ) {
            let mut wire = BytesMut::new();
            for (tag, body) in bodies.iter().enumerate() {
                put_frame(&mut wire, FrameKind::Request, Some(Method::Query), tag as u64, body);
            }
            let mut buffer = FrameBuffer::default();
            let mut seen = Vec::new();
            for piece in wire.chunks(piece_bytes) {
                buffer.push(piece);
                while let Some((header, body)) = buffer.next_frame().expect("well formed") {
                    prop_assert_eq!(header.tag, seen.len() as u64);
                    seen.push(body.to_vec());
                }
            }
            prop_assert_eq!(seen, bodies);
            prop_assert!(buffer.is_empty());
        }
    }

    #[test]
    fn oversized_frame_is_refused_at_its_header() {
        let mut buffer = FrameBuffer::default();
        let mut header = [0; FRAME_HEADER_BYTES];
        header[..4].copy_from_slice(&(FRAME_BODY_BYTES_MAX as u32 + 1).to_le_bytes());
        buffer.push(&header);
        assert_eq!(buffer.next_frame(), Err(Status::TooLarge));
    }

    #[test]
    fn answer_read_inverts_put() {
        for outcome in [Ok(b"body".as_slice()), Err(Status::NoSpace)] {
            let outcome = outcome.map(|body| Response {
                body: body.into(),
                payload: Bytes::new(),
            });
            let mut buffer = FrameBuffer::default();
            put_answer(&mut buffer.bytes, 7, &outcome);
            let (header, body) = buffer.next_frame().expect("valid").expect("whole");
            assert_eq!(header.tag, 7);
            let answer = read_answer(&header, body).expect("an answer");
            assert_eq!(answer.map(|r| r.body), outcome.map(|r| r.body));
        }
    }
}
