//! Bodies of frames and records: postcard, always with a bound.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::FRAME_BODY_BYTES_MAX;
use crate::status::Status;

/// Encodes a message. Panics only if a message type breaks its own bounds.
pub fn encode<T: Serialize>(message: &T) -> Bytes {
    try_encode(message).expect("a message type keeps to its bounds")
}

/// The same for a message that others have made long: `TooLarge` if it does not fit a frame.
pub fn try_encode<T: Serialize>(message: &T) -> Result<Bytes, Status> {
    let body = postcard::to_allocvec(message).expect("messages are plain data");
    match body.len() <= FRAME_BODY_BYTES_MAX {
        true => Ok(body.into()),
        false => Err(Status::TooLarge),
    }
}

/// Decodes a message that takes up all of `body`; `Malformed` for anything else.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Status> {
    if body.len() > FRAME_BODY_BYTES_MAX {
        return Err(Status::TooLarge);
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok(_) | Err(_) => Err(Status::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::meta::{Mutation, Query};
    use crate::volume::VolumeRequest;

    proptest! {
        #[test]
        fn decode_of_garbage_is_an_error_or_a_message_never_a_panic(
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ignored = decode::<Mutation>(&body);
            let _ignored = decode::<Query>(&body);
            let _ignored = decode::<VolumeRequest>(&body);
        }
    }

    #[test]
    fn decode_refuses_trailing_bytes() {
        assert_eq!(decode::<u8>(&[1, 2]), Err(Status::Malformed));
        assert_eq!(decode::<u8>(&[1]), Ok(1));
    }
}
