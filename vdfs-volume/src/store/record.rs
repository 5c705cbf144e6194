//! The 64 bytes that say what one chunk is, and what is being done to it.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..2 | sequence | one more with each record of the chunk; wraps |
//! | 2 | op slot | |
//! | 3 | chain | its lowest 8 bits |
//! | 4 | state | 1 clean, 2 writing, 3 trimming, 4 reaped, 5 punching, 6 zeroing, 7 allocating, 8 coming, 9 coming in the place of a bad copy; bit 7: the op fields hold an op |
//! | 5..8 | write length | of a write in progress |
//! | 8..16 | data id | |
//! | 16..20 | chunk index | |
//! | 20..24 | length | of the chunk, before any change in progress |
//! | 24..28 | epoch | of the version: clean, the chunk's; else the change's |
//! | 28..34 | counter | of the version |
//! | 34..36 | chain | the bits above the lowest 8 |
//! | 36..44 | op session | what made a clean version, or makes the change |
//! | 44..52 | op seq | |
//! | 52..56 | offset | of a change in progress; of a trim the length to cut to |
//! | 56..60 | payload sum | of a write in progress; of a change of space its length |
//! | 60..64 | CRC32C | of bytes 0..60 |
//!
//! Little-endian. A chunk has two places for records and writes them in turn, so that a torn record
//! leaves the one before it whole. A record never crosses a page.

use vdfs_proto::data::SpaceKind;
use vdfs_proto::sums::crc32c;
use vdfs_proto::{ChainId, ChunkId, DataId, Epoch, OpId, SessionId, Version};

use crate::chain::{Change, ChunkState, Pending, Space};

pub(super) const RECORD_BYTES: usize = 64;
/// Bytes of one chunk's entry in the index: two records.
pub(super) const ENTRY_BYTES: usize = 2 * RECORD_BYTES;
const CRC_AT: usize = RECORD_BYTES - 4;
const HAS_OP: u8 = 0x80;
/// Epochs are kept in 32 bits.
pub(super) const EPOCH_MAX: u64 = u32::MAX as u64;
/// Counters are kept in 48 bits: a million changes a second of one chunk for nine years.
pub(super) const COUNTER_MAX: u64 = (1 << 48) - 1;
/// Chains are kept in 24 bits.
const CHAIN_MAX: u32 = (1 << 24) - 1;

const _: () = assert!(4096 % ENTRY_BYTES == 0, "an entry never crosses a page");
const _: () = assert!(
    vdfs_proto::limits::PAYLOAD_BYTES_MAX < 1 << 24,
    "write length"
);
const _: () = assert!(
    vdfs_proto::limits::DATA_SLOTS_PER_SESSION <= 1 << 8,
    "op slot"
);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The chunk lives: at rest, or in the middle of a change.
    Live(ChunkState),
    /// The chunk is being removed.
    Reaped,
    /// The chunk is being taken from another member: it was never here, or what was here is lost.
    Coming { was_lost: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) sequence: u16,
    pub(super) chunk: ChunkId,
    pub(super) chain: ChainId,
    pub(super) content: Content,
}

/// The fields whose meaning depends on the state.
#[derive(Default)]
struct Fields {
    code: u8,
    write_len: u32,
    len: u32,
    version: Version,
    op: Option<OpId>,
    offset: u32,
    /// The payload's sum, or the length of a change of space.
    sum: u32,
}

impl Record {
    pub(super) fn encode(&self) -> [u8; RECORD_BYTES] {
        let fields = self.fields();
        assert!(fields.version.epoch.0 <= EPOCH_MAX, "checked on receipt");
        assert!(fields.version.counter <= COUNTER_MAX, "far away");
        assert!(self.chain.0 <= CHAIN_MAX, "a group has 16 bits");
        let [chain_low, chain_high @ .., _] = self.chain.0.to_le_bytes();
        let mut wire = [0; RECORD_BYTES];
        wire[0..2].copy_from_slice(&self.sequence.to_le_bytes());
        wire[3] = chain_low;
        wire[4] = fields.code;
        wire[5..8].copy_from_slice(&fields.write_len.to_le_bytes()[..3]);
        wire[8..16].copy_from_slice(&self.chunk.data.0.to_le_bytes());
        wire[16..20].copy_from_slice(&self.chunk.index.to_le_bytes());
        wire[20..24].copy_from_slice(&fields.len.to_le_bytes());
        wire[24..28].copy_from_slice(&(fields.version.epoch.0 as u32).to_le_bytes());
        wire[28..34].copy_from_slice(&fields.version.counter.to_le_bytes()[..6]);
        wire[34..36].copy_from_slice(&chain_high);
        if let Some(op) = fields.op {
            put_op(&mut wire, op);
        }
        wire[52..56].copy_from_slice(&fields.offset.to_le_bytes());
        wire[56..60].copy_from_slice(&fields.sum.to_le_bytes());
        let crc = crc32c(&wire[..CRC_AT]);
        wire[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        wire
    }

    fn fields(&self) -> Fields {
        let code_alone = |code| Fields {
            code,
            ..Fields::default()
        };
        let state = match self.content {
            Content::Live(state) => state,
            Content::Reaped => return code_alone(4),
            Content::Coming { was_lost: false } => return code_alone(8),
            Content::Coming { was_lost: true } => return code_alone(9),
        };
        match state.pending() {
            None => Fields {
                code: 1,
                len: state.len(),
                version: state.version(),
                op: state.op(),
                ..Fields::default()
            },
            Some(pending) => pending_fields(pending, state.len()),
        }
    }

    /// `None` if the bytes are no record: never written, torn, or damaged.
    pub(super) fn decode(wire: &[u8; RECORD_BYTES]) -> Option<Record> {
        if crc32c(&wire[..CRC_AT]) != u32_at(wire, CRC_AT) {
            return None;
        }
        Some(Record {
            sequence: u16_at(wire, 0),
            chunk: ChunkId {
                data: DataId(u64_at(wire, 8)),
                index: u32_at(wire, 16),
            },
            chain: ChainId(u32::from_le_bytes([wire[3], wire[34], wire[35], 0])),
            content: content(wire)?,
        })
    }

    /// The record that counts of the two of an entry, and which of them it is.
    pub(super) fn newest(entry: &[u8; ENTRY_BYTES]) -> Option<(usize, Record)> {
        let (first, second) = entry.split_at(RECORD_BYTES);
        let read = |half: &[u8]| Record::decode(half.try_into().expect("half an entry"));
        match (read(first), read(second)) {
            (Some(a), Some(b)) if b.sequence == a.sequence.wrapping_add(1) => Some((1, b)),
            (Some(a), _) => Some((0, a)),
            (None, Some(b)) => Some((1, b)),
            (None, None) => None,
        }
    }
}

fn pending_fields(pending: &Pending, len: u32) -> Fields {
    let fields = Fields {
        len,
        version: pending.version,
        op: pending.op,
        ..Fields::default()
    };
    match pending.change {
        Change::Write {
            offset,
            len: write_len,
            sum,
        } => Fields {
            code: 2,
            write_len,
            offset,
            sum,
            ..fields
        },
        Change::Trim { len: cut } => Fields {
            code: 3,
            offset: cut,
            ..fields
        },
        Change::Space(space) => Fields {
            code: space_code(space.kind),
            offset: space.offset,
            sum: space.len,
            ..fields
        },
    }
}

fn space_code(kind: SpaceKind) -> u8 {
    match kind {
        SpaceKind::Punch => 5,
        SpaceKind::Zero => 6,
        SpaceKind::Allocate => 7,
    }
}

fn content(wire: &[u8; RECORD_BYTES]) -> Option<Content> {
    let op = (wire[4] & HAS_OP != 0).then(|| op_at(wire));
    let version = Version {
        epoch: Epoch(u64::from(u32_at(wire, 24))),
        counter: u64_at(wire, 28) & COUNTER_MAX,
    };
    let len = u32_at(wire, 20);
    let write = Change::Write {
        offset: u32_at(wire, 52),
        len: u32::from_le_bytes([wire[5], wire[6], wire[7], 0]),
        sum: u32_at(wire, 56),
    };
    let trim = Change::Trim {
        len: u32_at(wire, 52),
    };
    let space = |kind| {
        let (offset, len) = (u32_at(wire, 52), u32_at(wire, 56));
        Change::Space(Space { kind, offset, len })
    };
    match wire[4] & !HAS_OP {
        1 => Some(Content::Live(ChunkState::clean(version, len, op))),
        2 => closed(op, version, write, len),
        3 => closed(op, version, trim, len),
        4 => Some(Content::Reaped),
        5 => closed(op, version, space(SpaceKind::Punch), len),
        6 => closed(op, version, space(SpaceKind::Zero), len),
        7 => closed(op, version, space(SpaceKind::Allocate), len),
        8 => Some(Content::Coming { was_lost: false }),
        9 => Some(Content::Coming { was_lost: true }),
        _ => None,
    }
}

fn closed(op: Option<OpId>, version: Version, change: Change, len: u32) -> Option<Content> {
    // The epoch of the base is not kept: after a restart nobody asks for it.
    let base = Version {
        epoch: version.epoch,
        counter: version.counter.checked_sub(1)?,
    };
    let pending = Pending {
        op,
        base,
        version,
        change,
    };
    Some(Content::Live(ChunkState::closed(pending, len)))
}

fn put_op(wire: &mut [u8; RECORD_BYTES], op: OpId) {
    wire[2] = u8::try_from(op.slot).expect("checked on receipt");
    wire[4] |= HAS_OP;
    wire[36..44].copy_from_slice(&op.session.0.to_le_bytes());
    wire[44..52].copy_from_slice(&op.seq.to_le_bytes());
}

fn op_at(wire: &[u8; RECORD_BYTES]) -> OpId {
    OpId {
        session: SessionId(u64_at(wire, 36)),
        slot: u16::from(wire[2]),
        seq: u64_at(wire, 44),
    }
}

fn u16_at(wire: &[u8; RECORD_BYTES], at: usize) -> u16 {
    u16::from_le_bytes([wire[at], wire[at + 1]])
}

fn u32_at(wire: &[u8; RECORD_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(wire[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(wire: &[u8; RECORD_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(wire[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op() -> OpId {
        OpId {
            session: SessionId(u64::MAX),
            slot: 0xab,
            seq: u64::MAX,
        }
    }

    fn record(sequence: u16, content: Content) -> Record {
        Record {
            sequence,
            chunk: ChunkId {
                data: DataId(u64::MAX - 1),
                index: u32::MAX,
            },
            chain: ChainId(CHAIN_MAX),
            content,
        }
    }

    fn closed_state(change: Change) -> ChunkState {
        let version = Version {
            epoch: Epoch(7),
            counter: 41,
        };
        let mut state = ChunkState::clean(version, 123, None);
        state.close(Some(op()), version.next(Epoch(7)), change);
        state
    }

    fn space(kind: SpaceKind, len: u32) -> Content {
        let offset = 77;
        Content::Live(closed_state(Change::Space(Space { kind, offset, len })))
    }

    fn every_content() -> Vec<Content> {
        let version = Version {
            epoch: Epoch(EPOCH_MAX),
            counter: COUNTER_MAX,
        };
        let write = Change::Write {
            offset: 256 << 20,
            len: 4 << 20,
            sum: u32::MAX,
        };
        vec![
            Content::Live(ChunkState::clean(version, 256 << 20, Some(op()))),
            Content::Live(ChunkState::clean(version, 0, None)),
            Content::Live(closed_state(write)),
            Content::Live(closed_state(Change::Trim { len: 17 })),
            space(SpaceKind::Punch, 256 << 20),
            space(SpaceKind::Zero, 1),
            space(SpaceKind::Allocate, 4 << 20),
            Content::Reaped,
            Content::Coming { was_lost: false },
            Content::Coming { was_lost: true },
        ]
    }

    #[test]
    fn record_decode_inverts_encode_for_every_content() {
        for content in every_content() {
            let record = record(9, content);
            assert_eq!(Record::decode(&record.encode()), Some(record));
        }
    }

    #[test]
    fn record_with_any_flipped_bit_is_none() {
        for content in every_content() {
            let wire = record(9, content).encode();
            for bit in 0..RECORD_BYTES * 8 {
                let mut damaged = wire;
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::decode(&damaged), None, "{content:?} bit {bit}");
            }
        }
    }

    #[test]
    fn record_of_an_unwritten_place_is_none() {
        assert_eq!(Record::decode(&[0; RECORD_BYTES]), None);
    }

    fn entry(first: Option<u16>, second: Option<u16>) -> [u8; ENTRY_BYTES] {
        let mut entry = [0; ENTRY_BYTES];
        for (place, sequence) in [first, second].into_iter().enumerate() {
            if let Some(sequence) = sequence {
                let at = place * RECORD_BYTES;
                let wire = record(sequence, Content::Reaped).encode();
                entry[at..at + RECORD_BYTES].copy_from_slice(&wire);
            }
        }
        entry
    }

    #[test]
    fn record_newest_is_the_later_valid_one_also_across_the_wrap() {
        let cases = [
            (None, None, None),
            (Some(4), None, Some(0)),
            (None, Some(5), Some(1)),
            (Some(4), Some(5), Some(1)),
            (Some(6), Some(5), Some(0)),
            (Some(u16::MAX - 1), Some(u16::MAX), Some(1)),
            (Some(0), Some(u16::MAX), Some(0)),
        ];
        for (first, second, expected) in cases {
            let newest = Record::newest(&entry(first, second)).map(|(place, _)| place);
            assert_eq!(newest, expected, "{first:?} {second:?}");
        }
    }
}
