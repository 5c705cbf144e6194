//! The 16 bytes before every body.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..4 | `body_bytes` | length of the postcard body, at most `FRAME_BODY_BYTES_MAX` |
//! | 4 | `kind` | [`FrameKind`] |
//! | 5 | reserved | 0 |
//! | 6..8 | `method` | [`Method`] of a request, 0 in a response |
//! | 8..16 | `tag` | lane: request id; bulk stream: bytes of payload behind the body |
//!
//! Little-endian. A length is checked before memory is taken for it.

use crate::limits::{FRAME_BODY_BYTES_MAX, PAYLOAD_BYTES_MAX};
use crate::status::Status;

pub const FRAME_HEADER_BYTES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    Request = 0,
    /// The body is the reply of the method.
    Response = 1,
    /// The body is a [`Status`].
    Error = 2,
    /// The caller has stopped waiting for `tag`. Ends only the wait, never a mutation.
    Cancel = 3,
}

/// Which service a request is for; the body's own enum says which operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Method {
    /// [`crate::meta::MutateRequest`], client to master.
    Mutate = 1,
    /// [`crate::meta::QueryRequest`], client to master.
    Query = 2,
    /// [`crate::session::SessionRequest`], client to master.
    Session = 3,
    /// [`crate::meta::AdminRequest`], admin or client to master.
    Admin = 4,
    /// [`crate::volume::VolumeRequest`], volume to master.
    Volume = 5,
    /// [`crate::data::DataRequest`] with payload, client to volume.
    Data = 6,
    /// [`crate::peer::PeerRequest`] with payload, from the head of a chain to its successor.
    Peer = 7,
    /// The same from a later member, who waits for nobody but the last one: it has room of its own there,
    /// so that members never wait for one another in a circle.
    PeerBehind = 8,
    /// The same, of which the payload comes first: a frame without a body, the payload, and a frame with the
    /// body when that is known.
    PeerEarly = 9,
    /// [`crate::data::DataRequest`] with payload, from a member of a chain to its head, for a client that does
    /// not reach that one. It has room of its own too.
    Relay = 10,
}

impl Method {
    pub fn from_wire(code: u16) -> Result<Self, Status> {
        match code {
            1 => Ok(Method::Mutate),
            2 => Ok(Method::Query),
            3 => Ok(Method::Session),
            4 => Ok(Method::Admin),
            5 => Ok(Method::Volume),
            6 => Ok(Method::Data),
            7 => Ok(Method::Peer),
            8 => Ok(Method::PeerBehind),
            9 => Ok(Method::PeerEarly),
            10 => Ok(Method::Relay),
            _ => Err(Status::Malformed),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub body_bytes: u32,
    pub kind: FrameKind,
    /// Code of the [`Method`] in a request, else 0.
    pub method: u16,
    /// Request id on a lane, payload bytes on a bulk stream.
    pub tag: u64,
}

impl FrameHeader {
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut wire = [0; FRAME_HEADER_BYTES];
        wire[0..4].copy_from_slice(&self.body_bytes.to_le_bytes());
        wire[4] = self.kind as u8;
        wire[6..8].copy_from_slice(&self.method.to_le_bytes());
        wire[8..16].copy_from_slice(&self.tag.to_le_bytes());
        wire
    }

    pub fn decode(wire: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, Status> {
        let [b0, b1, b2, b3, kind, reserved, m0, m1, tag @ ..] = *wire;
        let kind = match kind {
            0 => FrameKind::Request,
            1 => FrameKind::Response,
            2 => FrameKind::Error,
            3 => FrameKind::Cancel,
            _ => return Err(Status::Malformed),
        };
        if reserved != 0 {
            return Err(Status::Malformed);
        }
        let body_bytes = u32::from_le_bytes([b0, b1, b2, b3]);
        if body_bytes as usize > FRAME_BODY_BYTES_MAX {
            return Err(Status::TooLarge);
        }
        Ok(FrameHeader {
            body_bytes,
            kind,
            method: u16::from_le_bytes([m0, m1]),
            tag: u64::from_le_bytes(tag),
        })
    }

    /// The payload length of a bulk frame, checked.
    pub fn payload_bytes(&self) -> Result<usize, Status> {
        match usize::try_from(self.tag) {
            Ok(bytes) if bytes <= PAYLOAD_BYTES_MAX => Ok(bytes),
            _ => Err(Status::TooLarge),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn header_decode_inverts_encode(
            body_bytes in 0..=FRAME_BODY_BYTES_MAX as u32,
            method in any::<u16>(),
            tag in any::<u64>(),
        ) {
            let header = FrameHeader { body_bytes, kind: FrameKind::Request, method, tag };
            prop_assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn header_decode_bounds_every_length(wire in any::<[u8; 16]>()) {
            if let Ok(header) = FrameHeader::decode(&wire) {
                prop_assert!(header.body_bytes as usize <= FRAME_BODY_BYTES_MAX);
                if let Ok(bytes) = header.payload_bytes() {
                    prop_assert!(bytes <= PAYLOAD_BYTES_MAX);
                }
            }
        }
    }
}
