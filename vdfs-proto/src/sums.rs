//! CRC32C (RFC 3720, appendix B.4), the checksum of chunks, logs and checkpoints.

use crc_fast::{CrcAlgorithm, checksum};

use crate::chunk::block_pieces;

/// CRC32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// The sums of `bytes` as they lie at `offset` of a chunk: one per block touched, over the piece
/// of the block that `bytes` covers.
pub fn piece_sums(offset: u32, bytes: &[u8]) -> Vec<u32> {
    let mut rest = bytes;
    block_pieces(offset, bytes.len() as u32)
        .map(|(_, _, take)| {
            let (piece, tail) = rest.split_at(take as usize);
            rest = tail;
            crc32c(piece)
        })
        .collect()
}

/// One number for a whole payload: the CRC32C of its piece sums, little-endian.
pub fn payload_sum(sums: &[u32]) -> u32 {
    let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
    crc32c(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_matches_rfc_3720() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn piece_sums_cut_at_block_borders() {
        let bytes = vec![7u8; 5000];
        let sums = piece_sums(4000, &bytes);
        assert_eq!(
            sums,
            [
                crc32c(&bytes[..96]),
                crc32c(&bytes[..4096]),
                crc32c(&bytes[..808])
            ]
        );
    }
}
