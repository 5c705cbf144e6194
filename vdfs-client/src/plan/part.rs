//! A range of a file as parts, one a volume.

use std::collections::BTreeMap;

use vdfs_proto::data::FilePart;
use vdfs_proto::limits::CHAINS_PER_GROUP;
use vdfs_proto::{ChainSet, ChunkSize, Layout, VolumeId};

use crate::volumes::HeadVolumes;

/// The volumes that have chunks of the range `from..to`, which is not empty, each with its chains;
/// `None` if a chain has no volume.
pub(crate) fn plan_parts(
    layout: &Layout,
    chunk_size: ChunkSize,
    (from, to): (u64, u64),
    heads: &HeadVolumes,
) -> Option<BTreeMap<VolumeId, FilePart>> {
    let (first, last) = (chunk_size.index_of(from), chunk_size.index_of(to - 1));
    let chains = (last - first).min(CHAINS_PER_GROUP - 1);
    let mut parts = BTreeMap::new();
    for index in (0..=chains).map(|step| first.wrapping_add(step)) {
        let volume = heads.of(layout.chain(index))?;
        let part = parts.entry(volume).or_insert_with(|| FilePart {
            layout: *layout,
            chains: ChainSet::default(),
            table_version: heads.version,
        });
        part.chains.insert(layout.position(index));
    }
    Some(parts)
}
