//! What a simulation must never see.
//!
//! - Two heads in one epoch, or two contents of one version.
//! - A change made twice, or made though its client was told that it was refused.
//! - A read of older bytes than an earlier finished read or acknowledgement.
//! - A change of a session that somebody who came after its end has found the chunk without.
//! - At the end: members that differ, or an acknowledged or read version that the chunk's last one
//!   does not descend from.

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
}

#[derive(Debug, Default)]
pub(crate) struct History {
    chunks: BTreeMap<ChunkId, ChunkHistory>,
    heads: BTreeMap<(ChainId, Epoch), usize>,
    made: BTreeMap<OpId, Version>,
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

    /// A volume has made a change; `is_shown` if it serves the chain.
    pub(crate) fn made(&mut self, made: &Made, is_shown: bool) {
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
        let first = *self.made.entry(op).or_insert(made.version);
        assert_eq!(first, made.version, "{op:?} was made twice: {made:?}");
        assert!(
            !self.refused.contains(&op),
            "{op:?} was refused, and made: {made:?}"
        );
        // A restart does not know the epoch of the base.
        let base = chunk.contents.get(&made.base).map(|base| base.cells);
        if let Some(mut expected) = base.or(is_first(made).then_some(Cells::default())) {
            made.patch.apply(&mut expected);
            assert_eq!(
                expected, made.cells,
                "not its base and its change: {made:?}"
            );
        }
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
        let made = self.made.get(&op);
        assert_eq!(made, Some(&version), "{op:?} was acknowledged");
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
        assert!(
            version >= floor,
            "{chunk:?}: {version:?} was read after {floor:?}"
        );
        if version != Version::default() {
            let known = self.chunks[&chunk].contents.get(&version);
            let known = known.expect("a version that was read was made");
            assert_eq!(known.cells, cells, "{chunk:?} {version:?}");
        }
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
        let Some(history) = self.chunks.get(&chunk) else {
            return;
        };
        let mut lineage = BTreeSet::from([Version::default()]);
        let mut at = last;
        while at != Version::default() && lineage.insert(at) {
            at = history.contents[&at].base;
        }
        for seen in &history.seen {
            assert!(
                lineage.contains(seen),
                "{chunk:?}: {seen:?} is lost, it ends as {last:?}"
            );
        }
        if last != Version::default() {
            assert_eq!(history.contents[&last].cells, cells, "{chunk:?} {last:?}");
        }
    }
}

fn is_first(made: &Made) -> bool {
    made.base == Version::default()
}
