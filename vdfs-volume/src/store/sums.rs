//! CRC32C of every 4 KiB block of every chunk.
//!
//! A sum covers the whole block as it lies in memory; bytes past the chunk's length are zero. A
//! block that was never written has no sum: it is *absent*, not zero, and has no page.
//!
//! Sums are kept in leaves of 64 bytes, each for 13 adjacent blocks of one chunk, made when the
//! first of them is written. So sums cost 0.12 % of the data, 64 bytes for a tiny chunk, and nothing
//! for holes.
//!
//! | bytes of a leaf | field | meaning |
//! |---|---|---|
//! | 0..4 | entry | place of the chunk in the index |
//! | 4..6 | number | blocks `13 * number ..` of the chunk |
//! | 6..8 | present | bit i: block i of the leaf has a sum |
//! | 8..12 | CRC32C | of bytes 0..8: a damaged leaf is nobody's |
//! | 12..64 | sums | 13 of 4 bytes |

use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::sums::crc32c;

use super::budget::{Budget, NoSpace};
use super::table::Table;

pub(super) const LEAF_BYTES: usize = 64;
const HEADER_BYTES: usize = 12;
pub(super) const BLOCKS_PER_LEAF: u32 = ((LEAF_BYTES - HEADER_BYTES) / 4) as u32;

const _: () = assert!(BLOCKS_PER_LEAF == 13 && BLOCKS_PER_LEAF <= 16, "`present`");
const _: () = assert!(CHUNK_BLOCKS_MAX / BLOCKS_PER_LEAF <= u16::MAX as u32);
/// Blocks of the largest chunk.
const CHUNK_BLOCKS_MAX: u32 = (256 << 20) / BLOCK_BYTES;

/// Adjacent blocks of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    pub(super) first: u32,
    pub(super) count: u32,
}

impl Blocks {
    /// The blocks that `len` bytes at `offset` touch.
    pub(super) fn touched(offset: u32, len: u32) -> Self {
        Blocks {
            first: offset / BLOCK_BYTES,
            count: vdfs_proto::chunk::block_count(offset, len),
        }
    }

    pub(super) fn one(block: u32) -> Self {
        Blocks {
            first: block,
            count: 1,
        }
    }

    /// All from `first` on that a chunk can have.
    pub(super) fn from(first: u32) -> Self {
        Blocks {
            first,
            count: CHUNK_BLOCKS_MAX.saturating_sub(first),
        }
    }

    pub(super) fn end(self) -> u32 {
        self.first + self.count
    }

    pub(super) fn contains(self, block: u32) -> bool {
        (self.first..self.end()).contains(&block)
    }

    fn leaf_numbers(self) -> std::ops::Range<u16> {
        let end = self.end().div_ceil(BLOCKS_PER_LEAF);
        (self.first / BLOCKS_PER_LEAF) as u16..end as u16
    }
}

/// Where one leaf lies, and which of its blocks have sums.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    number: u16,
    present: u16,
    place: u32,
}

impl Leaf {
    fn header(&self, entry: u32) -> [u8; HEADER_BYTES] {
        let mut wire = [0; HEADER_BYTES];
        wire[0..4].copy_from_slice(&entry.to_le_bytes());
        wire[4..6].copy_from_slice(&self.number.to_le_bytes());
        wire[6..8].copy_from_slice(&self.present.to_le_bytes());
        let crc = crc32c(&wire[..8]);
        wire[8..12].copy_from_slice(&crc.to_le_bytes());
        wire
    }
}

/// The leaves of one chunk, ascending by number.
#[derive(Debug, Default)]
pub(super) struct ChunkSums {
    leaves: Vec<Leaf>,
}

impl ChunkSums {
    fn find(&self, number: u16) -> Result<usize, usize> {
        self.leaves
            .binary_search_by_key(&number, |leaf| leaf.number)
    }

    pub(super) fn is_present(&self, block: u32) -> bool {
        let Ok(at) = self.find((block / BLOCKS_PER_LEAF) as u16) else {
            return false;
        };
        self.leaves[at].present & 1 << (block % BLOCKS_PER_LEAF) != 0
    }

    /// How many blocks have sums, and so pages.
    pub(super) fn present_count(&self) -> u32 {
        let of_leaf = |leaf: &Leaf| leaf.present.count_ones();
        self.leaves.iter().map(of_leaf).sum()
    }

    /// The first of `blocks` that has a sum.
    pub(super) fn first_present(&self, blocks: Blocks) -> Option<u32> {
        let leaves = leaves_of(self, blocks).iter();
        let mut present = leaves.flat_map(|leaf| {
            shared_blocks(leaf, blocks)
                .filter(|(_, at)| leaf.present & 1 << at != 0)
                .map(|(block, _)| blocks.first + block as u32)
        });
        present.next()
    }

    /// The first of `blocks` that has none.
    pub(super) fn first_absent(&self, blocks: Blocks) -> Option<u32> {
        (blocks.first..blocks.end()).find(|block| !self.is_present(*block))
    }

    /// How many of `blocks` have no sum.
    pub(super) fn absent_count(&self, blocks: Blocks) -> u32 {
        let present = (blocks.first..blocks.end()).filter(|block| self.is_present(*block));
        blocks.count - present.count() as u32
    }
}

/// A leaf found by the scan at start: (index entry, the leaf itself).
#[derive(Debug)]
pub(super) struct FoundLeaf {
    pub(super) entry: u32,
    leaf: Leaf,
}

impl FoundLeaf {
    pub(super) fn place(&self) -> u32 {
        self.leaf.place
    }

    fn decode(place: u32, wire: &[u8]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes(wire[at..at + 4].try_into().expect("4 bytes"));
        let half = |at: usize| u16::from_le_bytes([wire[at], wire[at + 1]]);
        let leaf = Leaf {
            number: half(4),
            present: half(6),
            place,
        };
        let is_leaf = word(8) == crc32c(&wire[..8]) && leaf.present != 0;
        is_leaf.then(|| FoundLeaf {
            entry: word(0),
            leaf,
        })
    }
}

/// The file of all leaves.
#[derive(Debug)]
pub(super) struct SumTable {
    table: Table,
}

impl SumTable {
    pub(super) fn new(table: Table) -> Self {
        SumTable { table }
    }

    /// Every leaf in the file, ascending by place.
    pub(super) fn scan(&self) -> Vec<FoundLeaf> {
        let mut found = Vec::new();
        self.table
            .scan(|place, wire| found.extend(FoundLeaf::decode(place, wire)));
        found
    }

    pub(super) fn occupy(&self, places: impl Iterator<Item = u32>) {
        self.table.occupy(places);
    }

    /// Hands a chunk the leaves that name it.
    pub(super) fn adopt(&self, mut found: Vec<FoundLeaf>) -> ChunkSums {
        found.sort_by_key(|found| found.leaf.number);
        found.dedup_by_key(|found| found.leaf.number);
        let leaves = found.into_iter().map(|found| found.leaf).collect();
        ChunkSums { leaves }
    }

    /// Makes the leaves that `blocks` lack, so that [`SumTable::store`] cannot fail.
    pub(super) fn extend(
        &self,
        sums: &mut ChunkSums,
        blocks: Blocks,
        budget: &Budget,
    ) -> Result<(), NoSpace> {
        let lacking = |number: &u16| sums.find(*number).is_err();
        let missing: Vec<u16> = blocks.leaf_numbers().filter(lacking).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let places = self.table.allocate(missing.len() as u32, budget)?;
        sums.leaves.reserve_exact(missing.len());
        for (number, place) in missing.into_iter().zip(places) {
            let at = sums.find(number).expect_err("it is missing");
            let leaf = Leaf {
                number,
                present: 0,
                place,
            };
            sums.leaves.insert(at, leaf);
        }
        Ok(())
    }

    /// The sums of `blocks`; `None` for an absent one.
    pub(super) fn load(&self, sums: &ChunkSums, blocks: Blocks) -> Vec<Option<u32>> {
        let mut loaded = vec![None; blocks.count as usize];
        for run in adjacent_runs(leaves_of(sums, blocks)) {
            let bytes = self.read_run(run);
            for (leaf, wire) in run.iter().zip(bytes.chunks_exact(LEAF_BYTES)) {
                load_leaf(leaf, wire, blocks, &mut loaded);
            }
        }
        loaded
    }

    /// Sets the sums of `blocks`, whose leaves exist.
    pub(super) fn store(&self, entry: u32, sums: &mut ChunkSums, blocks: Blocks, values: &[u32]) {
        assert_eq!(values.len(), blocks.count as usize);
        let range = leaf_range(sums, blocks);
        assert_eq!(range.len(), blocks.leaf_numbers().len(), "leaves exist");
        let mut from = range.start;
        while from < range.end {
            let len = adjacent_len(&sums.leaves[from..range.end]);
            let run = &mut sums.leaves[from..from + len];
            let mut bytes = self.read_run(run);
            for (leaf, wire) in run.iter_mut().zip(bytes.chunks_exact_mut(LEAF_BYTES)) {
                store_leaf(leaf, wire, blocks, values);
                wire[..HEADER_BYTES].copy_from_slice(&leaf.header(entry));
            }
            self.table.write(run[0].place, &bytes);
            from += len;
        }
    }

    /// Makes `blocks` absent, and frees leaves without blocks.
    pub(super) fn remove(&self, entry: u32, sums: &mut ChunkSums, blocks: Blocks) {
        let range = leaf_range(sums, blocks);
        for leaf in &mut sums.leaves[range.clone()] {
            for (_, at) in shared_blocks(leaf, blocks) {
                leaf.present &= !(1 << at);
            }
            if leaf.present != 0 {
                self.table.write_part(leaf.place, 0, &leaf.header(entry));
            }
        }
        let is_empty = |leaf: &mut Leaf| leaf.present == 0;
        let dropped: Vec<Leaf> = sums.leaves.extract_if(range, is_empty).collect();
        self.drop_leaves(&dropped);
    }

    /// Writes the headers of the chunk's leaves anew that do not say what they should. Gives how many.
    pub(super) fn mend_headers(&self, entry: u32, sums: &ChunkSums) -> u32 {
        let mut mended = 0;
        for run in adjacent_runs(&sums.leaves) {
            let bytes = self.read_run(run);
            for (leaf, wire) in run.iter().zip(bytes.chunks_exact(LEAF_BYTES)) {
                let header = leaf.header(entry);
                if header != wire[..HEADER_BYTES] {
                    self.table.write_part(leaf.place, 0, &header);
                    mended += 1;
                }
            }
        }
        mended
    }

    /// Frees all leaves of a chunk.
    pub(super) fn clear(&self, sums: &mut ChunkSums) {
        let dropped = std::mem::take(&mut sums.leaves);
        self.drop_leaves(&dropped);
    }

    /// Clears leaves that no chunk owns, before their places are given out.
    pub(super) fn clear_orphan(&self, orphan: &FoundLeaf) {
        self.table.write(orphan.leaf.place, &[0; LEAF_BYTES]);
    }

    fn drop_leaves(&self, leaves: &[Leaf]) {
        for run in adjacent_runs(leaves) {
            self.table
                .write(run[0].place, &vec![0; run.len() * LEAF_BYTES]);
        }
        self.table.free(leaves.iter().map(|leaf| leaf.place));
    }

    fn read_run(&self, run: &[Leaf]) -> Vec<u8> {
        let mut bytes = vec![0; run.len() * LEAF_BYTES];
        self.table.read(run[0].place, &mut bytes);
        bytes
    }
}

/// Which of the chunk's leaves hold sums of `blocks`.
fn leaf_range(sums: &ChunkSums, blocks: Blocks) -> std::ops::Range<usize> {
    let numbers = blocks.leaf_numbers();
    let start = sums
        .leaves
        .partition_point(|leaf| leaf.number < numbers.start);
    let end = sums
        .leaves
        .partition_point(|leaf| leaf.number < numbers.end);
    start..end
}

fn leaves_of(sums: &ChunkSums, blocks: Blocks) -> &[Leaf] {
    &sums.leaves[leaf_range(sums, blocks)]
}

/// How many leaves from the first on lie side by side in the file.
fn adjacent_len(leaves: &[Leaf]) -> usize {
    let follows = |pair: &[Leaf]| pair[1].place == pair[0].place + 1;
    1 + leaves.windows(2).take_while(|pair| follows(pair)).count()
}

/// Cuts leaves into runs that lie side by side in the file: one call each.
fn adjacent_runs(leaves: &[Leaf]) -> impl Iterator<Item = &[Leaf]> {
    leaves.chunk_by(|a, b| b.place == a.place + 1)
}

/// Pairs (index into `blocks`, index into the leaf) of the blocks that both have.
fn shared_blocks(leaf: &Leaf, blocks: Blocks) -> impl Iterator<Item = (usize, usize)> + use<> {
    let start = u32::from(leaf.number) * BLOCKS_PER_LEAF;
    let range = start.max(blocks.first)..(start + BLOCKS_PER_LEAF).min(blocks.end());
    range.map(move |block| ((block - blocks.first) as usize, (block - start) as usize))
}

fn load_leaf(leaf: &Leaf, wire: &[u8], blocks: Blocks, loaded: &mut [Option<u32>]) {
    for (to, from) in shared_blocks(leaf, blocks) {
        if leaf.present & 1 << from != 0 {
            let at = HEADER_BYTES + 4 * from;
            let sum = wire[at..at + 4].try_into().expect("4 bytes");
            loaded[to] = Some(u32::from_le_bytes(sum));
        }
    }
}

fn store_leaf(leaf: &mut Leaf, wire: &mut [u8], blocks: Blocks, values: &[u32]) {
    for (from, to) in shared_blocks(leaf, blocks) {
        let at = HEADER_BYTES + 4 * to;
        wire[at..at + 4].copy_from_slice(&values[from].to_le_bytes());
        leaf.present |= 1 << to;
    }
}

/// The sum of a block of zeros, which is what an absent block reads as.
pub(super) fn zero_block_sum() -> u32 {
    static SUM: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *SUM.get_or_init(|| crc32c(&[0; BLOCK_BYTES as usize]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum_table(budget: &Budget) -> SumTable {
        let file = tempfile::tempfile_in("/dev/shm").expect("tmpfs");
        SumTable::new(Table::open(file, LEAF_BYTES as u64, budget).expect("opened"))
    }

    #[test]
    fn sums_of_a_leaf_whose_header_is_damaged_are_found_again_once_it_is_mended() {
        let budget = Budget::new(64 << 20);
        let table = sum_table(&budget);
        let (mut sums, blocks) = (
            ChunkSums::default(),
            Blocks {
                first: 0,
                count: 30,
            },
        );
        table.extend(&mut sums, blocks, &budget).expect("room");
        table.store(7, &mut sums, blocks, &[5; 30]);
        assert_eq!(table.mend_headers(7, &sums), 0, "they are sound");
        for at in 0..HEADER_BYTES as u64 {
            let mut byte = [0];
            let damaged = &sums.leaves[1];
            let mut wire = [0; LEAF_BYTES];
            table.table.read(damaged.place, &mut wire);
            byte[0] = wire[at as usize] ^ 1;
            table.table.write_part(damaged.place, at, &byte);
            assert_eq!(table.scan().len(), 2, "it is nobody's");
            assert_eq!(table.mend_headers(7, &sums), 1);
            let adopted = table.adopt(table.scan());
            assert_eq!(table.load(&adopted, blocks), vec![Some(5); 30]);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Store(u32, u32),
        Remove(Blocks),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u32..200, 1u32..60).prop_map(|(first, count)| Step::Store(first, count)),
            (0u32..220).prop_map(|first| Step::Remove(Blocks::from(first))),
            (0u32..220, 0u32..80).prop_map(|(first, count)| Step::Remove(Blocks { first, count })),
        ]
    }

    proptest! {
        #[test]
        fn sums_of_two_chunks_match_a_model_after_every_step_and_a_scan(
            steps in proptest::collection::vec((0usize..2, step()), 1..40),
        ) {
            let budget = Budget::new(64 << 20);
            let table = sum_table(&budget);
            let mut chunks = [ChunkSums::default(), ChunkSums::default()];
            let mut models = [vec![None; 300], vec![None; 300]];
            for (salt, (which, step)) in steps.into_iter().enumerate() {
                let (sums, model) = (&mut chunks[which], &mut models[which]);
                match step {
                    Step::Store(first, count) => {
                        let blocks = Blocks { first, count };
                        let values: Vec<u32> = (0..count).map(|i| i * 7 + salt as u32).collect();
                        table.extend(sums, blocks, &budget).expect("room");
                        table.store(which as u32, sums, blocks, &values);
                        for (at, value) in values.into_iter().enumerate() {
                            model[first as usize + at] = Some(value);
                        }
                    }
                    Step::Remove(blocks) => {
                        table.remove(which as u32, sums, blocks);
                        let end = blocks.end().min(300);
                        model[blocks.first as usize..end as usize].fill(None);
                    }
                }
            }
            let all = Blocks { first: 0, count: 300 };
            let mut found = [Vec::new(), Vec::new()];
            for leaf in table.scan() {
                found[leaf.entry as usize].push(leaf);
            }
            for (which, found) in found.into_iter().enumerate() {
                prop_assert_eq!(&table.load(&chunks[which], all), &models[which]);
                let adopted = table.adopt(found);
                prop_assert_eq!(&table.load(&adopted, all), &models[which]);
                for first in 0..300 {
                    let rest = Blocks { first, count: 300 - first };
                    let find = |is_some| {
                        let mut blocks = first..300;
                        blocks.find(|at| models[which][*at as usize].is_some() == is_some)
                    };
                    prop_assert_eq!(chunks[which].first_present(rest), find(true));
                    prop_assert_eq!(chunks[which].first_absent(rest), find(false));
                }
                let present = models[which].iter().flatten().count() as u32;
                prop_assert_eq!(chunks[which].present_count(), present);
                prop_assert_eq!(chunks[which].absent_count(all), 300 - present);
            }
        }
    }

    #[test]
    fn sums_of_a_cleared_chunk_leave_no_leaf_behind() {
        let budget = Budget::new(64 << 20);
        let table = sum_table(&budget);
        let mut sums = ChunkSums::default();
        let blocks = Blocks {
            first: 5,
            count: 50,
        };
        table.extend(&mut sums, blocks, &budget).expect("room");
        table.store(0, &mut sums, blocks, &[1; 50]);
        table.clear(&mut sums);
        assert!(table.scan().is_empty());
        assert_eq!(sums.present_count(), 0);
    }
}
