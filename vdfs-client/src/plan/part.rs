//! A range of a file as parts, one a volume.

use std::collections::BTreeMap;

use vdfs_proto::data::FilePart;
use vdfs_proto::limits::CHAINS_PER_GROUP;
use vdfs_proto::{ChainSet, ChunkSize, Layout, Status};

use crate::volumes::{Route, Snapshot, Volumes};

/// Whom to ask about the chunks of the range `from..to`, which is not empty, each volume once with all its
/// chains: their heads, or others that serve if a head did not answer. `NotServing` if a chain has none. The
/// route is that of one of them: a volume that goes leaves all its chains.
pub(crate) fn plan_parts(
    layout: &Layout,
    chunk_size: ChunkSize,
    (from, to): (u64, u64),
    (volumes, table): (&Volumes, &Snapshot),
) -> Result<Vec<(Route, FilePart)>, Status> {
    let (first, last) = (chunk_size.index_of(from), chunk_size.index_of(to - 1));
    let chains = (last - first).min(CHAINS_PER_GROUP - 1);
    let mut parts = BTreeMap::new();
    for index in (0..=chains).map(|step| first.wrapping_add(step)) {
        let way = volumes.way_in(table, layout.chain(index))?;
        let (_, part) = parts.entry(way.volume).or_insert_with(|| {
            let part = FilePart {
                layout: *layout,
                chains: ChainSet::default(),
                table_version: table.version(),
            };
            (way, part)
        });
        part.chains.insert(layout.position(index));
    }
    Ok(parts.into_values().collect())
}
