//! One batch as it lies in a segment.
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | magic `VDFSLOG2` (the version is its last byte) |
//! | 8..16 | id of the log: nobody who can only write records can forge a header |
//! | 16..24 | number of the first record |
//! | 24..32 | number of the last record known to be synced when this was written |
//! | 32..36 | count of records |
//! | 36..40 | bytes of the body |
//! | 40..44 | CRC32C of the body |
//! | 44..48 | CRC32C of the 44 bytes before |
//! | 48.. | body: each record as length (4 bytes) and bytes |
//!
//! Little-endian. The header's sum stands apart from the body's, so a length is trusted, and later
//! headers are found, even when a body is torn.

use vdfs_proto::sums::crc32c;

use super::Fault;

const HEADER_BYTES: usize = 48;
const MAGIC: &[u8; 8] = b"VDFSLOG2";
const RECORD_LENGTH_BYTES: usize = 4;

/// Random, made with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogId(pub(super) u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    first: u64,
    synced: u64,
    records: u32,
    body_bytes: u32,
    body_sum: u32,
}

impl Header {
    fn encode(&self, id: LogId) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..16].copy_from_slice(&search_key(id));
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.records.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.body_sum.to_le_bytes());
        let sum = crc32c(&bytes[..44]);
        bytes[44..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`, if it is whole.
    fn decode(id: LogId, bytes: &[u8]) -> Result<Header, Fault> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(Fault::HeaderCut)?;
        let is_whole = bytes[..16] == search_key(id) && u32_at(bytes, 44) == crc32c(&bytes[..44]);
        if !is_whole {
            return Err(Fault::HeaderSum);
        }
        Ok(Header {
            first: u64_at(bytes, 16),
            synced: u64_at(bytes, 24),
            records: u32_at(bytes, 32),
            body_bytes: u32_at(bytes, 36),
            body_sum: u32_at(bytes, 40),
        })
    }
}

/// What every header begins with.
fn search_key(id: LogId) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(MAGIC);
    key[8..].copy_from_slice(&id.0.to_le_bytes());
    key
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Puts `records`, the first of which is number `first`, into one batch.
pub(super) fn encode(id: LogId, first: u64, synced: u64, records: &[Vec<u8>]) -> Vec<u8> {
    assert!(
        synced < first,
        "record {synced} is synced before {first} is written"
    );
    let body_bytes: usize = records
        .iter()
        .map(|record| RECORD_LENGTH_BYTES + record.len())
        .sum();
    let mut batch = Vec::with_capacity(HEADER_BYTES + body_bytes);
    batch.resize(HEADER_BYTES, 0);
    for record in records {
        batch.extend_from_slice(&(record.len() as u32).to_le_bytes());
        batch.extend_from_slice(record);
    }
    let header = Header {
        first,
        synced,
        records: u32::try_from(records.len()).expect("a turn has a bounded number of records"),
        body_bytes: u32::try_from(body_bytes).expect("a turn has a bounded number of bytes"),
        body_sum: crc32c(&batch[HEADER_BYTES..]),
    };
    batch[..HEADER_BYTES].copy_from_slice(&header.encode(id));
    batch
}

/// A whole batch.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    body: &'a [u8],
}

impl<'a> Batch<'a> {
    /// The batch at the start of `bytes`, which must begin with record `first`.
    pub(super) fn decode(id: LogId, bytes: &'a [u8], first: u64) -> Result<Self, Fault> {
        let header = Header::decode(id, bytes)?;
        if header.first != first {
            return Err(Fault::OtherRecord(header.first));
        }
        let end = HEADER_BYTES + header.body_bytes as usize;
        let body = bytes.get(HEADER_BYTES..end).ok_or(Fault::BodyCut)?;
        if crc32c(body) != header.body_sum {
            return Err(Fault::BodySum);
        }
        let batch = Batch { body };
        if batch.records().count() != header.records as usize {
            return Err(Fault::BodySum);
        }
        Ok(batch)
    }

    pub(super) fn bytes(&self) -> u64 {
        (HEADER_BYTES + self.body.len()) as u64
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.body;
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_at_checked(RECORD_LENGTH_BYTES)?;
            let (record, tail) = tail.split_at_checked(u32_at(length, 0) as usize)?;
            rest = tail;
            Some(record)
        })
    }
}

/// The highest synced mark in the whole headers that begin anywhere in `bytes`.
pub(super) fn highest_mark(id: LogId, bytes: &[u8]) -> Option<u64> {
    let key = search_key(id);
    let starts = bytes
        .windows(key.len())
        .enumerate()
        .filter(|(_, window)| *window == key);
    starts
        .filter_map(|(at, _)| Header::decode(id, &bytes[at..]).ok())
        .map(|header| header.synced)
        .max()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: LogId = LogId(0x1122_3344_5566_7788);

    proptest! {
        #[test]
        fn batch_decode_inverts_encode(
            records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..9),
        ) {
            let bytes = encode(ID, 7, 3, &records);
            let batch = Batch::decode(ID, &bytes, 7).expect("whole");
            prop_assert_eq!(batch.bytes(), bytes.len() as u64);
            prop_assert_eq!(batch.records().collect::<Vec<_>>(), records);
        }

        #[test]
        fn batch_decode_refuses_any_flipped_bit(bit in 0usize..8 * 71) {
            let mut bytes = encode(ID, 1, 0, &[b"first".to_vec(), b"second one".to_vec()]);
            prop_assert_eq!(bytes.len(), 71);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Batch::decode(ID, &bytes, 1).is_err());
        }

        #[test]
        fn batch_decode_of_garbage_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(Batch::decode(ID, &bytes, 1).is_err());
        }
    }

    #[test]
    fn highest_mark_ignores_headers_of_another_log() {
        let mut bytes = vec![9; 17];
        bytes.extend(encode(ID, 10, 4, &[encode(LogId(5), 99, 98, &[])]));
        assert_eq!(highest_mark(ID, &bytes), Some(4));
    }
}
