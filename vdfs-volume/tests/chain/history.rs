//! What a simulation must never see.
//!
//! - Two heads in one epoch, or two contents of one version.
//! - A change made twice, or made though its client was told that it was refused.
//! - A read of older bytes than an earlier finished read or acknowledgement.
//! - Anything of a chunk whose chain has lost all, but that it is lost; and nobody told so of another one.
//! - A change of a session that somebody who came after its end has found the chunk without.
//! - At the end: members that differ, or an acknowledged or read version that the chunk's last one
//!   does not descend from.
//!
//! A chain of which all members had gone goes on with the better copies of those that are back. It may lack
//! what others had shown and nobody was told of as done: see [`History::resumed`].

use std::collections::{BTreeMap, BTreeSet};

use vdfs_proto::{ChainId, ChunkId, Epoch, OpId, SessionId, Version};

use crate::shelf::{Cells, Made};

#[derive(Clone, Copy, Debug)]
struct Content {
    base: Version,
    cells: Cells,
}

#[derive(Debug, Default)]
struct ChunkHistory {
    contents: BTreeMap<Version, Content>,
    /// The newest that somebody has read or was told of.
    floor: Version,
    /// All that somebody has read or was told of.
    seen: BTreeSet<Version>,
    /// What appeared after its session's end, and when that was.
    late_us: BTreeMap<Version, u64>,
    /// When the last one began of those that have read, or were told of, what is here.
    found_us: u64,
    /// All that somebody was told of as done.
    acknowledged: BTreeSet<Version>,
    /// What restarts have found or given up: it counts once somebody shows it.
    found: Vec<Made>,
    /// What was seen, and is not in the copy that the chain went on with, in this epoch since then.
    dead: BTreeSet<Version>,
    resumed: (Epoch, u64),
    /// Whoever goes on with it had no room for a better copy.
    goes_without: bool,
    /// When its chain had lost all.
    lost_us: Option<u64>,
}

impl ChunkHistory {
    fn lineage(&self, last: Version) -> BTreeSet<Version> {
        let mut lineage = BTreeSet::from([Version::default()]);
        let mut at = Some(last);
        while let Some(version) = at.filter(|version| lineage.insert(*version)) {
            at = self.contents.get(&version).map(|content| content.base);
        }
        lineage
    }

    /// Of what restarts have found, and has become another one before anybody showed it.
    fn find_ancestors(&mut self, version: Version) {
        let mut at = version;
        while !self.contents.contains_key(&at) {
            let found = self.found.iter().rev().find(|of| of.version == at);
            let Some(Made { base, cells, .. }) = found.copied() else {
                return;
            };
            self.contents.insert(at, Content { base, cells });
            at = base;
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct History {
    chunks: BTreeMap<ChunkId, ChunkHistory>,
    heads: BTreeMap<(ChainId, Epoch), usize>,
    made: BTreeMap<OpId, (ChunkId, Version)>,
    refused: BTreeSet<OpId>,
    /// When the rights of a session went to others.
    released_us: BTreeMap<SessionId, u64>,
    pub(crate) acknowledged: u64,
    pub(crate) reads: u64,
}

impl History {
    /// `volume` has given a change its version.
    pub(crate) fn headed(&mut self, chain: ChainId, epoch: Epoch, volume: usize) {
        let head = *self.heads.entry((chain, epoch)).or_insert(volume);
        assert_eq!(head, volume, "two heads of {chain:?} in {epoch:?}");
    }

    /// A volume has made a change, in the epoch that it knows; `is_shown` if it serves the chain.
    pub(crate) fn made(&mut self, made: &Made, epoch: Epoch, is_shown: bool) {
        let known = self.chunks.entry(made.chunk).or_default();
        if known.lost_us.is_some() {
            return;
        }
        let is_old = epoch.max(made.version.epoch) < known.resumed.0;
        if is_old && !known.contents.contains_key(&made.version) {
            return;
        }
        if let Some(op) = made.op.filter(|_| is_shown) {
            self.shown(made, op.session);
        }
        let chunk = self.chunks.entry(made.chunk).or_default();
        let content = Content {
            base: made.base,
            cells: made.cells,
        };
        if let Some(known) = chunk.contents.insert(made.version, content) {
            assert_eq!(known.cells, made.cells, "two contents of {made:?}");
        }
        let Some(op) = made.op else {
            return;
        };
        let first = *self.made.entry(op).or_insert((made.chunk, made.version));
        assert_eq!(first.1, made.version, "{op:?} was made twice: {made:?}");
        assert!(
            !self.refused.contains(&op),
            "{op:?} was refused, and made: {made:?}"
        );
        // A restart does not know the epoch of the base.
        let base = chunk.contents.get(&made.base).map(|base| base.cells);
        if let Some(mut expected) = base.or(is_first(made).then_some(Cells::default())) {
            made.patch.apply(&mut expected);
            let mut found = chunk.found.iter().filter(|of| of.version == made.base);
            let is_of_found = found.any(|of| {
                let mut cells = of.cells;
                made.patch.apply(&mut cells);
                cells == made.cells
            });
            assert!(
                expected == made.cells || is_of_found,
                "not its base and its change: {made:?}, but {expected:?}"
            );
        }
    }

    /// A restart has ended a change; whether that counts shows when its volume goes on with the chain.
    pub(crate) fn found(&mut self, made: &Made) {
        let chunk = self.chunks.entry(made.chunk).or_default();
        chunk.found.push(*made);
    }

    /// What a restart has found or given up is what the chain has.
    fn adopt(&mut self, id: ChunkId, version: Version, cells: Cells) {
        let chunk = self.chunks.entry(id).or_default();
        let known = chunk.contents.get(&version).map(|known| known.cells);
        if version == Version::default() || known == Some(cells) {
            return;
        }
        let mut found = chunk.found.iter().rev();
        let found = found.find(|of| of.version == version && of.cells == cells);
        let found =
            *found.unwrap_or_else(|| panic!("{id:?} {version:?} is {known:?}, not {cells:?}"));
        let base = found.base;
        chunk.contents.insert(version, Content { base, cells });
        chunk.find_ancestors(base);
        self.made.retain(|_, of| *of != (id, version));
        if let Some(op) = found.op {
            self.made.insert(op, (id, version));
        }
    }

    /// Whoever heads the chunk's chain has no room for a better copy.
    pub(crate) fn goes_without(&mut self, id: ChunkId) {
        self.chunks.entry(id).or_default().goes_without = true;
    }

    /// The chunk's chain goes on with this copy. Gives how many versions are taken back that somebody has
    /// read: none if all are there that were in sync.
    pub(crate) fn resumed(
        &mut self,
        id: ChunkId,
        (version, cells): (Version, Cells),
        (epoch, now_us): (Epoch, u64),
        is_complete: bool,
    ) -> u64 {
        if self.is_lost(id) {
            return 0;
        }
        self.adopt(id, version, cells);
        let chunk = self.chunks.entry(id).or_default();
        let lineage = chunk.lineage(version);
        for acknowledged in &chunk.acknowledged {
            assert!(
                lineage.contains(acknowledged),
                "{id:?}: {acknowledged:?} was acknowledged, it goes on as {version:?}"
            );
        }
        chunk.contents.retain(|of, _| lineage.contains(of));
        chunk.late_us.retain(|of, _| lineage.contains(of));
        let (seen, dead): (BTreeSet<_>, BTreeSet<_>) =
            chunk.seen.iter().partition(|of| lineage.contains(of));
        chunk.floor = seen.last().copied().unwrap_or_default();
        chunk.seen = seen;
        let count = dead.len() as u64;
        let may_lack = std::mem::take(&mut chunk.goes_without) || !is_complete;
        assert!(
            may_lack || count == 0,
            "{id:?}: {count} versions that were read are taken back"
        );
        chunk.dead.extend(dead);
        chunk.resumed = (epoch, now_us);
        self.made
            .retain(|_, (of, at)| *of != id || lineage.contains(at));
        count
    }

    /// The chunk's chain has lost all that it had.
    pub(crate) fn lose(&mut self, id: ChunkId, now_us: u64) {
        let chunk = self.chunks.entry(id).or_default();
        chunk.lost_us = chunk.lost_us.or(Some(now_us));
    }

    /// Somebody was told that the chunk is lost.
    pub(crate) fn found_lost(&self, id: ChunkId) {
        assert!(self.is_lost(id), "{id:?} is not lost");
    }

    fn is_lost(&self, id: ChunkId) -> bool {
        let chunk = self.chunks.get(&id);
        chunk.is_some_and(|chunk| chunk.lost_us.is_some())
    }

    /// Whether it is; whoever asked after that must have been told so.
    fn is_lost_since(&self, id: ChunkId, begun_us: u64) -> bool {
        let lost_us = self.chunks.get(&id).and_then(|chunk| chunk.lost_us);
        if let Some(lost_us) = lost_us {
            assert!(begun_us <= lost_us, "{id:?} is lost, and is there");
        }
        lost_us.is_some()
    }

    fn shown(&mut self, made: &Made, session: SessionId) {
        let chunk = self.chunks.entry(made.chunk).or_default();
        let Some(released_us) = self.released_us.get(&session).copied() else {
            return;
        };
        if !chunk.contents.contains_key(&made.version) {
            chunk.late_us.insert(made.version, released_us);
            assert!(
                chunk.found_us <= released_us,
                "{made:?} appears after its session's end"
            );
        }
    }

    /// The rights of a session went to others.
    pub(crate) fn release(&mut self, session: SessionId, now_us: u64) {
        self.released_us.insert(session, now_us);
    }

    pub(crate) fn refused(&mut self, op: OpId) {
        assert!(
            !self.made.contains_key(&op),
            "{op:?} is visible, and its client was refused"
        );
        self.refused.insert(op);
    }

    pub(crate) fn acknowledged(
        &mut self,
        op: OpId,
        chunk: ChunkId,
        version: Version,
        begun_us: u64,
    ) {
        self.acknowledged += 1;
        if self.is_lost_since(chunk, begun_us) {
            return;
        }
        let made = self.made.get(&op).map(|(_, version)| *version);
        assert_eq!(made, Some(version), "{op:?} was acknowledged");
        let of = self.chunks.entry(chunk).or_default();
        of.acknowledged.insert(version);
        self.seen(chunk, version, begun_us);
    }

    /// No read that begins now may give older bytes.
    pub(crate) fn floor(&self, chunk: ChunkId) -> Version {
        self.chunks
            .get(&chunk)
            .map_or(Version::default(), |chunk| chunk.floor)
    }

    pub(crate) fn read(
        &mut self,
        chunk: ChunkId,
        (floor, begun_us): (Version, u64),
        version: Version,
        cells: Cells,
    ) {
        self.reads += 1;
        if self.is_lost_since(chunk, begun_us) {
            return;
        }
        let known = self.chunks.entry(chunk).or_default();
        let is_dead = |of: &Version| known.dead.contains(of);
        // It was on its way.
        if is_dead(&version) && begun_us <= known.resumed.1 {
            return;
        }
        assert!(
            version >= floor || is_dead(&floor),
            "{chunk:?}: {version:?} was read after {floor:?}"
        );
        self.adopt(chunk, version, cells);
        self.seen(chunk, version, begun_us);
    }

    fn seen(&mut self, id: ChunkId, version: Version, begun_us: u64) {
        let chunk = self.chunks.entry(id).or_default();
        chunk.floor = chunk.floor.max(version);
        chunk.seen.insert(version);
        chunk.found_us = chunk.found_us.max(begun_us);
        for (late, released_us) in &chunk.late_us {
            assert!(
                version >= *late || begun_us <= *released_us,
                "{id:?}: {version:?} after the end of the session of {late:?}"
            );
        }
    }

    /// The chunk ends as `last`: everything that anybody has seen is among its ancestors.
    pub(crate) fn check_end(&self, chunk: ChunkId, last: Version, cells: Cells) {
        let Some(history) = self.chunks.get(&chunk).filter(|of| of.lost_us.is_none()) else {
            return;
        };
        let lineage = history.lineage(last);
        for seen in &history.seen {
            assert!(
                lineage.contains(seen),
                "{chunk:?}: {seen:?} is lost, it ends as {last:?}"
            );
        }
        if last != Version::default() {
            let known = history.contents.get(&last).map(|known| known.cells);
            let mut found = history.found.iter();
            let is_found = found.any(|of| of.version == last && of.cells == cells);
            assert!(known == Some(cells) || is_found, "{chunk:?} {last:?}");
        }
    }
}

fn is_first(made: &Made) -> bool {
    made.base == Version::default()
}
