//! Random histories against a vector of bytes.

use std::cmp::Ordering;
use std::collections::HashMap;

use proptest::prelude::*;
use vdfs_proto::sums::piece_sums;
use vdfs_proto::{ChunkId, ChunkSize, Status};
use vdfs_volume::store::Store;

use crate::fixture::{Client, Place, chunk, pattern, read, read_all};

const CHUNK_BYTES: u32 = 128 << 10;

#[derive(Clone, Debug)]
enum Act {
    Write { offset: u32, len: u32 },
    Trim { len: u32 },
    Read { block: u32, blocks: u32 },
    Reap,
    Reopen,
}

fn act() -> impl Strategy<Value = (u64, u32, Act)> {
    let write = (0..CHUNK_BYTES, 1..40_000u32).prop_map(|(offset, len)| Act::Write {
        offset,
        len: len.min(CHUNK_BYTES - offset),
    });
    let read = (0..32u32, 1..=32u32).prop_map(|(block, blocks)| Act::Read {
        block,
        blocks: blocks.min(32 - block),
    });
    let act = prop_oneof![
        6 => write,
        2 => (0..CHUNK_BYTES).prop_map(|len| Act::Trim { len }),
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
    chunks: HashMap<ChunkId, Vec<u8>>,
    reaped: Vec<u64>,
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
        let bytes = self.chunks.entry(id).or_default();
        let end = (offset + len) as usize;
        bytes.resize(bytes.len().max(end), 0);
        bytes[offset as usize..end].copy_from_slice(&payload);
    }

    fn trim(&mut self, id: ChunkId, len: u32) {
        let store = self.store.as_ref().expect("open");
        assert_eq!(self.client.trim(store, id, len), Ok(()));
        let of_file = self.chunks.iter_mut().filter(|(at, _)| at.data == id.data);
        for (at, bytes) in of_file {
            match at.index.cmp(&id.index) {
                Ordering::Less => {}
                Ordering::Equal => bytes.truncate(len as usize),
                Ordering::Greater => bytes.clear(),
            }
        }
    }

    fn read(&self, id: ChunkId, offset: u32, len: u32) {
        if self.reaped.contains(&id.data.0) {
            return;
        }
        let (done, bytes) = read(self.store(), id, offset, len).expect("reads");
        let model = self.chunks.get(&id).map_or(&[][..], Vec::as_slice);
        let from = model.len().min(offset as usize);
        let to = model.len().min((offset + len) as usize);
        assert!(bytes == model[from..to], "{id} at {offset}+{len}");
        assert_eq!(done.sums, piece_sums(offset, &bytes));
    }

    fn check(&self) {
        for (id, bytes) in &self.chunks {
            let found = read_all(self.store(), *id, self.place.chunk_size);
            assert!(found == *bytes, "{id} differs");
        }
        assert_eq!(self.store().usage().chunks, self.chunks.len() as u64);
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
