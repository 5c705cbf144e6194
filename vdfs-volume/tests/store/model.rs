//! Random histories against a vector of bytes, and of blocks that have a page.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::fixture::Store;
use proptest::prelude::*;
use vdfs_proto::data::SpaceKind;
use vdfs_proto::sums::piece_sums;
use vdfs_proto::{ChunkId, ChunkSize, DataId, Status};

use crate::fixture::{Client, Place, chunk, data_runs, pattern, read, read_all, whole_file};

const CHUNK_BYTES: u32 = 128 << 10;
const BLOCK_BYTES: usize = 4096;
const BLOCKS: usize = CHUNK_BYTES as usize / BLOCK_BYTES;

#[derive(Clone, Debug)]
enum Act {
    Write {
        offset: u32,
        len: u32,
    },
    Trim {
        len: u32,
    },
    Space {
        kind: SpaceKind,
        offset: u32,
        len: u32,
    },
    /// To a chunk of the other file.
    Copy {
        from: u32,
        to: u32,
        index: u32,
        len: u32,
    },
    Read {
        block: u32,
        blocks: u32,
    },
    Reap,
    Reopen,
}

fn act() -> impl Strategy<Value = (u64, u32, Act)> {
    let write = (0..CHUNK_BYTES, 1..40_000u32).prop_map(|(offset, len)| Act::Write {
        offset,
        len: len.min(CHUNK_BYTES - offset),
    });
    let kind = prop_oneof![
        Just(SpaceKind::Punch),
        Just(SpaceKind::Zero),
        Just(SpaceKind::Allocate),
    ];
    let len = prop_oneof![1..100u32, 1..60_000u32];
    let space = (kind, 0..CHUNK_BYTES, len).prop_map(|(kind, offset, len)| Act::Space {
        kind,
        offset,
        len: len.min(CHUNK_BYTES - offset),
    });
    let copy = (0..CHUNK_BYTES, 0..CHUNK_BYTES, 0u32..2, 1..40_000u32).prop_map(
        |(from, to, index, len)| Act::Copy {
            from,
            to,
            index,
            len: len.min(CHUNK_BYTES - from.max(to)),
        },
    );
    let read = (0..32u32, 1..=32u32).prop_map(|(block, blocks)| Act::Read {
        block,
        blocks: blocks.min(32 - block),
    });
    let act = prop_oneof![
        6 => write,
        2 => (0..CHUNK_BYTES).prop_map(|len| Act::Trim { len }),
        6 => space,
        2 => copy,
        4 => read,
        1 => Just(Act::Reap),
        1 => Just(Act::Reopen),
    ];
    (1u64..3, 0u32..2, act)
}

struct Model {
    place: Place,
    store: Option<Store>,
    client: Client,
    chunks: HashMap<ChunkId, ChunkModel>,
    reaped: Vec<u64>,
}

#[derive(Default)]
struct ChunkModel {
    bytes: Vec<u8>,
    has_page: [bool; BLOCKS],
}

impl ChunkModel {
    fn write(&mut self, offset: u32, payload: &[u8]) {
        let (from, to) = (offset as usize, offset as usize + payload.len());
        self.provide(from, to);
        self.bytes[from..to].copy_from_slice(payload);
    }

    fn provide(&mut self, from: usize, to: usize) {
        self.bytes.resize(self.bytes.len().max(to), 0);
        self.has_page[from / BLOCK_BYTES..to.div_ceil(BLOCK_BYTES)].fill(true);
    }

    fn zero(&mut self, from: usize, to: usize) {
        self.provide(from, to);
        self.bytes[from..to].fill(0);
    }

    fn punch(&mut self, from: usize, to: usize) {
        let to = to.min(self.bytes.len());
        if from >= to {
            return;
        }
        self.bytes[from..to].fill(0);
        for block in 0..BLOCKS {
            let (start, end) = (block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
            let is_covered = from <= start && to >= end.min(self.bytes.len());
            self.has_page[block] &= !(is_covered && start < to);
        }
    }

    fn trim(&mut self, len: usize) {
        self.bytes.truncate(len);
        self.has_page[self.bytes.len().div_ceil(BLOCK_BYTES)..].fill(false);
    }
}

impl Model {
    fn new() -> Self {
        let mut place = Place::new();
        place.chunk_size = ChunkSize::new(u64::from(CHUNK_BYTES)).expect("a power of two");
        let store = Some(place.open());
        Model {
            place,
            store,
            client: Client::new(1),
            chunks: HashMap::new(),
            reaped: Vec::new(),
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("open")
    }

    fn run(&mut self, data: u64, index: u32, act: &Act) {
        let id = chunk(data, index);
        match *act {
            Act::Write { offset, len } => self.write(id, offset, len),
            Act::Trim { len } => self.trim(id, len),
            Act::Space { kind, offset, len } => self.change_space(id, kind, (offset, len)),
            Act::Copy {
                from,
                to,
                index: of,
                len,
            } => self.copy((id, from), (chunk(3 - data, of), to), len),
            Act::Read { block, blocks } => self.read(id, block * 4096, blocks * 4096),
            Act::Reap => {
                self.store().reap(&[id.data]);
                self.reaped.push(data);
                self.chunks.retain(|chunk, _| chunk.data != id.data);
            }
            Act::Reopen => {
                self.store = None;
                self.store = Some(self.place.open());
            }
        }
    }

    fn write(&mut self, id: ChunkId, offset: u32, len: u32) {
        let payload = pattern(self.client.seq + 7, len as usize);
        let store = self.store.as_ref().expect("open");
        let answer = self.client.write(store, id, offset, &payload).map(drop);
        if self.reaped.contains(&id.data.0) {
            assert_eq!(answer, Err(Status::Gone));
            return;
        }
        assert_eq!(answer, Ok(()));
        self.chunks.entry(id).or_default().write(offset, &payload);
    }

    fn change_space(&mut self, id: ChunkId, kind: SpaceKind, (offset, len): (u32, u32)) {
        let store = self.store.as_ref().expect("open");
        let answer = self.client.change_space(store, id, kind, (offset, len));
        if self.reaped.contains(&id.data.0) {
            assert_eq!(answer.map(drop), Err(Status::Gone));
            return;
        }
        assert_eq!(answer.map(drop), Ok(()));
        let (from, to) = (offset as usize, (offset + len) as usize);
        match kind {
            SpaceKind::Punch => {
                if let Some(model) = self.chunks.get_mut(&id) {
                    model.punch(from, to);
                }
            }
            SpaceKind::Zero => self.chunks.entry(id).or_default().zero(from, to),
            SpaceKind::Allocate => self.chunks.entry(id).or_default().provide(from, to),
        }
    }

    fn copy(&mut self, from: (ChunkId, u32), to: (ChunkId, u32), len: u32) {
        if len == 0 {
            return;
        }
        let store = self.store.as_ref().expect("open");
        let answer = self.client.copy(store, from, to, len);
        let is_gone = |id: ChunkId| self.reaped.contains(&id.data.0);
        if is_gone(from.0) || is_gone(to.0) {
            assert_eq!(answer.map(drop), Err(Status::Gone));
            return;
        }
        assert_eq!(answer.map(drop), Ok(()));
        let source = self
            .chunks
            .get(&from.0)
            .map_or(&[][..], |source| &source.bytes);
        let (start, end) = (from.1 as usize, (from.1 + len) as usize);
        let mut payload = source.get(start..).unwrap_or_default().to_vec();
        payload.resize(end - start, 0);
        self.chunks.entry(to.0).or_default().write(to.1, &payload);
    }

    fn trim(&mut self, id: ChunkId, len: u32) {
        let store = self.store.as_ref().expect("open");
        assert_eq!(self.client.trim(store, id, len), Ok(()));
        let of_file = self.chunks.iter_mut().filter(|(at, _)| at.data == id.data);
        for (at, model) in of_file {
            match at.index.cmp(&id.index) {
                Ordering::Less => {}
                Ordering::Equal => model.trim(len as usize),
                Ordering::Greater => model.trim(0),
            }
        }
    }

    fn read(&self, id: ChunkId, offset: u32, len: u32) {
        if self.reaped.contains(&id.data.0) {
            return;
        }
        let (done, bytes) = read(self.store(), id, offset, len).expect("reads");
        let model = self.chunks.get(&id).map_or(&[][..], |model| &model.bytes);
        let from = model.len().min(offset as usize);
        let to = model.len().min((offset + len) as usize);
        assert!(bytes == model[from..to], "{id} at {offset}+{len}");
        assert_eq!(done.sums, piece_sums(offset, &bytes));
    }

    fn check(&self) {
        for (id, model) in &self.chunks {
            let found = read_all(self.store(), *id, self.place.chunk_size);
            assert!(found == model.bytes, "{id} differs");
        }
        assert_eq!(self.store().usage().chunks, self.chunks.len() as u64);
        for data in [1, 2].map(DataId) {
            self.check_pages(data);
        }
    }

    /// The store counts and finds the blocks of a file of two chunks that have pages.
    fn check_pages(&self, data: DataId) {
        let has_page = |block: usize| {
            let id = chunk(data.0, (block / BLOCKS) as u32);
            let model = self.chunks.get(&id);
            model.is_some_and(|model| model.has_page[block % BLOCKS])
        };
        let blocks: Vec<usize> = (0..2 * BLOCKS).filter(|block| has_page(*block)).collect();
        let counted = self.store().count_blocks(&whole_file(data), DataId(0));
        assert_eq!(counted, Ok(blocks.len() as u64), "blocks of {data}");
        let bytes = |blocks: &[usize]| {
            let (first, last) = (blocks[0], blocks[blocks.len() - 1]);
            (
                (first * BLOCK_BYTES) as u64,
                ((last + 1) * BLOCK_BYTES) as u64,
            )
        };
        let runs: Vec<_> = blocks.chunk_by(|a, b| b - a == 1).map(bytes).collect();
        let end = 2 * u64::from(CHUNK_BYTES);
        assert_eq!(
            data_runs(self.store(), data, (0, end)),
            runs,
            "runs of {data}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn store_matches_a_vector_of_bytes(acts in proptest::collection::vec(act(), 1..60)) {
        let mut model = Model::new();
        for (data, index, act) in &acts {
            model.run(*data, *index, act);
        }
        model.check();
        model.run(1, 0, &Act::Reopen);
        model.check();
        let used = model.store().usage().used_bytes;
        prop_assert!(used <= model.place.budget_bytes);
    }
}
