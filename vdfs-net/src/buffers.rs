//! Memory for payloads, used again.
//!
//! The allocator gives large pieces back to the kernel when they are freed, and for every page that
//! comes anew the kernel faults and clears: half as much work again as carrying its bytes. So a few
//! megabytes stay here between two transfers.
//!
//! Invariant: what is kept is at most [`BUFFERS_KEPT_BYTES`] for the whole process; what is in use is
//! bounded by those who use it.

use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use vdfs_proto::limits::PAYLOAD_BYTES_MAX;

use crate::limits::BUFFERS_KEPT_BYTES;

/// Shorter ones are the allocator's business.
const KEPT_BYTES_MIN: usize = 64 << 10;

static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
static KEPT_BYTES_MAX: AtomicUsize = AtomicUsize::new(BUFFERS_KEPT_BYTES);

/// For a process whose memory is a contract: keeps at most `bytes`, if that is less than otherwise.
pub fn keep_at_most(bytes: usize) {
    KEPT_BYTES_MAX.fetch_min(bytes, Ordering::Relaxed);
}

/// Bytes that are being gathered. Grows like a `Vec`, but not for what it was made for.
#[derive(Debug)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// Empty, with room for `len` bytes.
    pub fn with_capacity(len: usize) -> Buffer {
        let capacity = match len {
            KEPT_BYTES_MIN..=PAYLOAD_BYTES_MAX => len.next_power_of_two(),
            _ => return Buffer(Vec::with_capacity(len)),
        };
        let mut kept = KEPT.lock();
        // The one that was given back last is still in the processor's cache.
        let fitting = kept.iter().rposition(|kept| kept.capacity() == capacity);
        let buffer = fitting.map(|index| kept.remove(index));
        drop(kept);
        Buffer(buffer.unwrap_or_else(|| Vec::with_capacity(capacity)))
    }

    /// The same bytes, shared; their memory is used again when the last share is dropped.
    pub fn freeze(mut self) -> Bytes {
        match is_kept(self.0.capacity()) {
            true => Bytes::from_owner(self),
            false => Bytes::from(mem::take(&mut self.0)),
        }
    }
}

fn is_kept(capacity: usize) -> bool {
    (KEPT_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(&capacity) && capacity.is_power_of_two()
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut buffer = mem::take(&mut self.0);
        if !is_kept(buffer.capacity()) {
            return;
        }
        buffer.clear();
        let mut kept = KEPT.lock();
        let kept_bytes: usize = kept.iter().map(Vec::capacity).sum();
        if kept_bytes + buffer.capacity() <= KEPT_BYTES_MAX.load(Ordering::Relaxed) {
            kept.push(buffer);
        }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_frozen_keeps_its_bytes_until_the_last_share_is_gone() {
        let mut buffer = Buffer::with_capacity(100_000);
        buffer.extend_from_slice(&[7; 100_000]);
        let bytes = buffer.freeze();
        let part = bytes.slice(10..20);
        drop(bytes);
        let mut other = Buffer::with_capacity(100_000);
        other.extend_from_slice(&[8; 100_000]);
        assert_eq!(part, [7; 10].as_slice());
    }

    #[test]
    fn buffers_kept_are_empty_and_bounded() {
        let many: Vec<_> = (0..64)
            .map(|_| Buffer::with_capacity(PAYLOAD_BYTES_MAX))
            .collect();
        for mut buffer in many {
            buffer.push(1);
            drop(buffer.freeze());
        }
        let kept_bytes: usize = KEPT.lock().iter().map(Vec::capacity).sum();
        assert!(kept_bytes <= BUFFERS_KEPT_BYTES, "{kept_bytes}");
        assert!(Buffer::with_capacity(PAYLOAD_BYTES_MAX).is_empty());
    }
}
