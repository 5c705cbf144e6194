//! Bytes that say where they belong, so that a misplaced, lost or zeroed one is recognised.

use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Fills `buffer` with the bytes that belong at `offset` of the file numbered `seed`: every 8 bytes
/// are a mix of their own offset and the seed, never zero.
pub fn fill(seed: u64, offset: u64, buffer: &mut [u8]) {
    for (index, byte) in buffer.iter_mut().enumerate() {
        *byte = byte_at(seed, offset + index as u64);
    }
}

/// The bytes that belong at `offset`.
pub fn bytes(seed: u64, offset: u64, len: usize) -> Vec<u8> {
    let mut buffer = vec![0; len];
    fill(seed, offset, &mut buffer);
    buffer
}

/// Makes a file of `len` bytes of the pattern, and syncs it.
pub fn write_file(path: &Path, seed: u64, len: usize) {
    let mut file = File::create(path).expect("makes a file");
    file.write_all(&bytes(seed, 0, len)).expect("writes");
    file.sync_all().expect("syncs");
}

/// Panics, naming the first wrong offset, unless `buffer` is what belongs at `offset`.
pub fn assert_matches(seed: u64, offset: u64, buffer: &[u8]) {
    for (index, &byte) in buffer.iter().enumerate() {
        let at = offset + index as u64;
        let expected = byte_at(seed, at);
        assert!(
            byte == expected,
            "byte {at} is {byte:#04x} instead of {expected:#04x}"
        );
    }
}

fn byte_at(seed: u64, at: u64) -> u8 {
    let word =
        (at / 8 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.wrapping_mul(0xff51_afd7_ed55_8ccd);
    (word.rotate_left(17) >> (8 * (at % 8))) as u8 | 1
}
