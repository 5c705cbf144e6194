//! What is not as it must be, between two words of the master and one of the volumes in between.
//!
//! The master's first word says what must be there: whoever asks the volumes later finds it, unless
//! the file has changed since, as the second word shows. The second word says what may be there: a data
//! id that was given out and that no file has is had by none ever again.
//!
//! Changes that are under way look like flaws for a moment: a flaw is one only if it is found twice
//! alike, so what is found names the versions that were seen.

use std::collections::{BTreeSet, HashSet};

use vdfs_proto::data::{Content, StockedChunk};
use vdfs_proto::{ChainId, ChunkId, DataId, Layout, VolumeId};

use super::stock::Stocks;
use super::view::{ChainView, View};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A volume has something of a file that there is not.
    Orphaned,
    /// No volume has the chunk, which has bytes.
    Missing,
    /// Nobody has it any more, as the master knows.
    Lost,
    /// All copies have fewer bytes than the file says.
    Short,
    /// The volume has no copy, others have.
    MissingCopy,
    /// The volume's copy is not what others have.
    Mismatched,
    /// The volume's copy has lost its record or its file.
    Damaged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Finding {
    pub(super) chunk: ChunkId,
    pub(super) kind: Kind,
    /// Whose copy it is of; none if it is of all copies.
    pub(super) volume: Option<VolumeId>,
    pub(super) chain: ChainId,
    /// Of this copy.
    seen: Option<Content>,
    /// What it is to be.
    pub(super) best: Option<Content>,
}

/// What is common to findings of one chunk.
#[derive(Clone, Copy)]
struct Place {
    chunk: ChunkId,
    chain: ChainId,
}

impl Place {
    fn finding(self, kind: Kind, volume: Option<VolumeId>) -> Finding {
        Finding {
            chunk: self.chunk,
            kind,
            volume,
            chain: self.chain,
            seen: None,
            best: None,
        }
    }
}

pub(super) fn compare(before: &View, stocks: &Stocks, after: &View) -> BTreeSet<Finding> {
    let mut found = orphans(stocks, after);
    let present: HashSet<ChunkId> = stocks
        .of
        .values()
        .flat_map(|stock| stock.keys().copied())
        .collect();
    for chunk in present {
        if let Some(layout) = unchanged(before, after, chunk.data) {
            let chain = layout.chain(chunk.index);
            if let Some(settled) = settled(before, after, chain) {
                copies(Place { chunk, chain }, settled, stocks, &mut found);
            }
        }
    }
    for layout in before.files.values().filter(|layout| !layout.holes) {
        if unchanged(before, after, layout.data).is_some_and(|now| !now.holes) {
            bytes((before, after), layout, stocks, &mut found);
        }
    }
    found
}

fn orphans(stocks: &Stocks, after: &View) -> BTreeSet<Finding> {
    let is_orphan = |data: DataId| {
        data < after.data_end
            && !after.lost_data.contains(&data)
            && !after.files.contains_key(&data)
            && !after.reaps.contains(&data)
    };
    let all = stocks.of.iter();
    let all = all.flat_map(|(volume, stock)| stock.values().map(move |chunk| (*volume, chunk)));
    all.filter(|(_, stocked)| is_orphan(stocked.chunk.data))
        .map(|(volume, stocked)| {
            let place = Place {
                chunk: stocked.chunk,
                chain: stocked.chain.unwrap_or(ChainId(0)),
            };
            place.finding(Kind::Orphaned, Some(volume))
        })
        .collect()
}

/// The file as the first word has it, if nothing was cut off since.
fn unchanged<'a>(before: &'a View, after: &View, data: DataId) -> Option<&'a Layout> {
    let was = before.files.get(&data)?;
    let is = after.files.get(&data)?;
    (was.truncations == is.truncations && was.size <= is.size).then_some(was)
}

fn settled<'a>(before: &'a View, after: &View, chain: ChainId) -> Option<&'a ChainView> {
    let was = before.chain(chain)?;
    (was.is_settled && after.chain(chain) == Some(was)).then_some(was)
}

/// Of a chunk that somebody has.
fn copies(place: Place, chain: &ChainView, stocks: &Stocks, found: &mut BTreeSet<Finding>) {
    let members = chain.serving.iter();
    let asked = members.filter(|volume| stocks.of.contains_key(volume));
    let copies: Vec<(VolumeId, Option<&StockedChunk>)> = asked
        .map(|volume| (*volume, stocks.find(*volume, place.chunk)))
        .collect();
    let whole = copies.iter().filter_map(|(_, copy)| *copy);
    let whole = whole.filter(|copy| !copy.is_bad).map(|copy| copy.content);
    let best = best_of(&whole.collect::<Vec<Content>>());
    for (volume, copy) in copies {
        let kind = match (copy, best) {
            (Some(copy), _) if copy.is_bad => Kind::Damaged,
            (None, Some(_)) => Kind::MissingCopy,
            (Some(copy), Some(best)) if copy.content != best => Kind::Mismatched,
            _ => continue,
        };
        found.insert(Finding {
            seen: copy.map(|copy| copy.content),
            best,
            ..place.finding(kind, Some(volume))
        });
    }
}

/// What most of them are; if no more are of one kind than of another, the newest, and of these the last
/// one's, since a change is applied from there up.
fn best_of(copies: &[Content]) -> Option<Content> {
    let count = |content: Content| copies.iter().filter(|other| **other == content).count();
    let rank = |content: &Content| (count(*content), content.version, content.len);
    copies.iter().copied().max_by_key(rank)
}

/// Of a file that has no holes: whether all chunks are there, and as long as they must be.
fn bytes(
    (before, after): (&View, &View),
    layout: &Layout,
    stocks: &Stocks,
    found: &mut BTreeSet<Finding>,
) {
    for index in 0..layout.size.div_ceil(before.chunk_bytes) as u32 {
        let (data, chain) = (layout.data, layout.chain(index));
        let place = Place {
            chunk: ChunkId { data, index },
            chain,
        };
        let Some(settled) = settled(before, after, chain) else {
            continue;
        };
        let mut members = settled.serving.iter();
        if !members.clone().all(|volume| stocks.of.contains_key(volume)) {
            continue;
        }
        let begin = u64::from(index) * before.chunk_bytes;
        let expected = (layout.size - begin).min(before.chunk_bytes);
        let lens = members
            .by_ref()
            .filter_map(|volume| stocks.find(*volume, place.chunk))
            .filter(|copy| !copy.is_bad)
            .map(|copy| u64::from(copy.content.len));
        let is_anywhere = settled
            .serving
            .iter()
            .any(|volume| stocks.find(*volume, place.chunk).is_some());
        match lens.max() {
            Some(len) if len < expected => found.insert(place.finding(Kind::Short, None)),
            None if data < settled.lost_below => found.insert(place.finding(Kind::Lost, None)),
            None if !is_anywhere => found.insert(place.finding(Kind::Missing, None)),
            _ => continue,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use vdfs_proto::{Epoch, Version};

    use super::*;

    const CHUNK_BYTES: u64 = 65536;
    const DATA: DataId = DataId(5);

    fn layout(size: u64) -> Layout {
        Layout {
            data: DATA,
            truncations: 0,
            group: 0,
            seed: 0,
            size,
            holes: false,
        }
    }

    /// One chain of two volumes for everything, and one file.
    fn view(file: Layout) -> View {
        let chain = ChainView {
            epoch: Epoch(1),
            serving: vec![VolumeId(1), VolumeId(2)],
            is_settled: true,
            lost_below: DataId(0),
        };
        View {
            chunk_bytes: CHUNK_BYTES,
            chains: vec![chain; 256],
            files: HashMap::from([(file.data, file)]),
            data_end: DataId(10),
            ..View::default()
        }
    }

    fn copy(data: DataId, index: u32, counter: u64, len: u32) -> StockedChunk {
        StockedChunk {
            chunk: ChunkId { data, index },
            chain: Some(ChainId(index)),
            content: Content {
                version: Version {
                    epoch: Epoch(1),
                    counter,
                },
                len,
                sum: len,
            },
            is_bad: false,
        }
    }

    fn stocks(of: [Vec<StockedChunk>; 2]) -> Stocks {
        let volumes = [VolumeId(1), VolumeId(2)].into_iter();
        let stock =
            |chunks: Vec<StockedChunk>| chunks.into_iter().map(|of| (of.chunk, of)).collect();
        Stocks {
            of: volumes.zip(of.map(stock)).collect(),
            ..Stocks::default()
        }
    }

    fn kinds(view: &View, stocks: &Stocks) -> Vec<(Kind, u32, Option<u32>)> {
        let found = compare(view, stocks, view).into_iter();
        let told = |of: Finding| (of.kind, of.chunk.index, of.volume.map(|volume| volume.0));
        found.map(told).collect()
    }

    /// A file of one chunk and a bit.
    fn sound() -> [Vec<StockedChunk>; 2] {
        [0, 1].map(|_| vec![copy(DATA, 0, 3, 65536), copy(DATA, 1, 1, 100)])
    }

    #[test]
    fn compare_finds_nothing_where_all_is_sound() {
        let view = view(layout(CHUNK_BYTES + 100));
        assert_eq!(kinds(&view, &stocks(sound())), []);
        let mut longer = sound();
        longer
            .iter_mut()
            .for_each(|chunks| chunks[1].content.len = 200);
        assert_eq!(kinds(&view, &stocks(longer)), [], "not committed yet");
    }

    #[test]
    fn compare_finds_each_kind() {
        let whole = view(layout(CHUNK_BYTES + 100));
        let mut of = sound();
        of[1].push(copy(DataId(7), 0, 1, 9));
        assert_eq!(kinds(&whole, &stocks(of)), [(Kind::Orphaned, 0, Some(2))]);
        let mut of = sound();
        for chunks in &mut of {
            chunks.remove(0);
        }
        assert_eq!(
            kinds(&whole, &stocks(of.clone())),
            [(Kind::Missing, 0, None)]
        );
        let mut lost = view(layout(CHUNK_BYTES + 100));
        lost.chains[0].lost_below = DataId(6);
        assert_eq!(kinds(&lost, &stocks(of)), [(Kind::Lost, 0, None)]);
        let mut of = sound();
        of.iter_mut().for_each(|chunks| chunks[1].content.len = 99);
        assert_eq!(kinds(&whole, &stocks(of)), [(Kind::Short, 1, None)]);
        let mut of = sound();
        of[0].remove(1);
        assert_eq!(
            kinds(&whole, &stocks(of)),
            [(Kind::MissingCopy, 1, Some(1))]
        );
        let mut of = sound();
        of[1][0].content.version.counter = 2;
        assert_eq!(kinds(&whole, &stocks(of)), [(Kind::Mismatched, 0, Some(2))]);
        let mut of = sound();
        of[1][0].content.sum = 7;
        let volumes = kinds(&whole, &stocks(of));
        assert_eq!(
            volumes,
            [(Kind::Mismatched, 0, Some(1))],
            "the last one counts"
        );
        let mut of = sound();
        of[1][1].is_bad = true;
        assert_eq!(kinds(&whole, &stocks(of)), [(Kind::Damaged, 1, Some(2))]);
    }

    #[test]
    fn best_is_what_most_copies_are_then_the_newest_then_the_last() {
        let content = |counter, sum| Content {
            sum,
            ..copy(DATA, 0, counter, 9).content
        };
        let (old, new, forged) = (content(1, 1), content(2, 2), content(2, 3));
        assert_eq!(best_of(&[]), None);
        assert_eq!(best_of(&[new, old]), Some(new));
        assert_eq!(best_of(&[old, new, old]), Some(old));
        assert_eq!(best_of(&[new, forged]), Some(forged));
        assert_eq!(best_of(&[new, new, forged]), Some(new));
    }

    #[test]
    fn compare_leaves_alone_what_changes_and_what_nobody_has_said() {
        let before = view(layout(CHUNK_BYTES + 100));
        let mut of = sound();
        for chunks in &mut of {
            chunks.remove(0);
        }
        let missing = stocks(of);
        let cut = Layout {
            truncations: 1,
            ..layout(0)
        };
        assert!(compare(&before, &missing, &view(cut)).is_empty());
        let mut other_epoch = view(layout(CHUNK_BYTES + 100));
        other_epoch.chains[0].epoch = Epoch(2);
        assert!(compare(&before, &missing, &other_epoch).is_empty());
        let mut silent = stocks(sound());
        silent.of.remove(&VolumeId(2));
        assert_eq!(kinds(&before, &silent), []);
        let mut reaped = view(layout(CHUNK_BYTES + 100));
        reaped.reaps.insert(DataId(7));
        let mut of = sound();
        of[0].extend([copy(DataId(7), 0, 1, 9), copy(DataId(10), 0, 1, 9)]);
        assert_eq!(kinds(&reaped, &stocks(of)), []);
        let holes = Layout {
            holes: true,
            ..layout(CHUNK_BYTES + 100)
        };
        assert_eq!(kinds(&view(holes), &missing), []);
    }
}
