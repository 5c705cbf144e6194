//! A range of a file as parts, one a volume.

use std::collections::BTreeMap;

use vdfs_proto::data::FilePart;
use vdfs_proto::limits::CHAINS_PER_GROUP;
use vdfs_proto::{ChainSet, ChunkSize, Layout, Status, VolumeId};

use crate::volumes::{Route, Snapshot, Volumes};

/// Whom to ask about some of a file's chunks.
#[derive(Debug)]
pub(crate) struct Asked {
    /// That of one of its chains: a volume that goes leaves them all.
    pub(crate) route: Route,
    pub(crate) part: FilePart,
    /// This volume, and of each of its chains another one, was not asked in vain before.
    pub(crate) has_others: bool,
}

/// Whom to ask about the chunks of the range `from..to`, which is not empty, each volume once with all its
/// chains: their heads, or others that serve if those were asked in vain. `NotServing` if a chain has none.
pub(crate) fn plan_parts(
    layout: &Layout,
    chunk_size: ChunkSize,
    (from, to): (u64, u64),
    (volumes, table): (&Volumes, &Snapshot),
    in_vain: &BTreeMap<VolumeId, u32>,
) -> Result<Vec<Asked>, Status> {
    let (first, last) = (chunk_size.index_of(from), chunk_size.index_of(to - 1));
    let chains = (last - first).min(CHAINS_PER_GROUP - 1);
    let times = |route: &Route| in_vain.get(&route.volume).copied().unwrap_or(0);
    let mut parts = BTreeMap::new();
    for index in (0..=chains).map(|step| first.wrapping_add(step)) {
        let mut ways = volumes.ways_in(table, layout.chain(index));
        ways.sort_by_key(times);
        let mut ways = ways.into_iter();
        let route = ways.next().ok_or(Status::NotServing)?;
        let asked = parts.entry(route.volume).or_insert_with(|| Asked {
            route,
            part: FilePart {
                layout: *layout,
                chains: ChainSet::default(),
                table_version: table.version(),
            },
            has_others: true,
        });
        asked.part.chains.insert(layout.position(index));
        asked.has_others &= times(&asked.route) == 0 && ways.any(|other| times(&other) == 0);
    }
    Ok(parts.into_values().collect())
}
