//! Which files have bytes of which one volume has the only copy.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vdfs_client::Fs;
use vdfs_program::{Blame, Failure};
use vdfs_proto::meta::ListingEntry;
use vdfs_proto::{Chain, ChainTable, FileKind, Ino, Layout, MemberState, Status, VolumeId};

use crate::client::connection;
use crate::client::every_file::{Named, bar, locate, look_at_every_file};
use crate::cluster::Cluster;

/// The files that are lost with the volume, by their paths.
#[derive(Debug, Default)]
pub(super) struct Losses {
    pub(super) paths: BTreeSet<PathBuf>,
    /// Bytes of these files.
    pub(super) bytes: u64,
}

/// Looks at every file.
pub(super) fn find_losses(cluster: &Cluster, volume: VolumeId) -> Result<Losses, Failure> {
    let losses = RefCell::new(Losses::default());
    connection::run_at(cluster, "volume-remove", async |connection| {
        look_for(&connection.fs, volume, &losses)
            .await
            .blame("names of what is lost")
    })?;
    Ok(losses.into_inner())
}

async fn look_for(fs: &Fs, volume: VolumeId, losses: &RefCell<Losses>) -> Result<(), Status> {
    let bar = bar();
    bar.set_message("for those that are lost");
    let look = async |named: Named<'_>| {
        bar.inc(1);
        if let Some(bytes) = bytes_if_lost(fs, volume, &named.entry).await? {
            let mut losses = losses.borrow_mut();
            losses.bytes += bytes;
            losses.paths.insert(named.path());
        }
        Ok(())
    };
    look_at_every_file(fs, (Ino::ROOT, Path::new("/")), look).await?;
    bar.finish_and_clear();
    Ok(())
}

async fn bytes_if_lost(
    fs: &Fs,
    volume: VolumeId,
    entry: &ListingEntry,
) -> Result<Option<u64>, Status> {
    if entry.kind != FileKind::Regular {
        return Ok(None);
    }
    let located = locate(fs, entry.ino).await?;
    Ok(located.and_then(|(attr, layout, table)| {
        let count = attr.size.div_ceil(u64::from(fs.chunk_size().bytes())) as u32;
        lies_alone(&layout, count, &table, volume).then_some(attr.size)
    }))
}

/// The volume has the only copy of one of the chunks, of which there are `count`.
fn lies_alone(layout: &Layout, count: u32, table: &ChainTable, volume: VolumeId) -> bool {
    let mut chains = layout.chains(count).filter_map(|id| table.chain(id));
    chains.any(|chain| is_alone(chain, volume))
}

fn is_alone(chain: &Chain, volume: VolumeId) -> bool {
    let members = chain.members.iter();
    let mut copies = members.filter(|member| member.state != MemberState::Syncing);
    let first = copies.next().map(|member| member.volume);
    first == Some(volume) && copies.next().is_none()
}

#[cfg(test)]
mod tests {
    use vdfs_proto::{DataId, Epoch, Member, StoreId};

    use super::*;

    #[test]
    fn lies_alone_if_one_chunk_has_no_other_copy() {
        let member = |volume, state| Member {
            volume: VolumeId(volume),
            store: StoreId(1),
            state,
        };
        let chain = |members| Chain {
            epoch: Epoch(1),
            members,
            lost_below: DataId(0),
            is_active: true,
        };
        let serving = MemberState::Serving;
        let table = ChainTable {
            chains: vec![
                chain(vec![member(1, serving), member(2, serving)]),
                chain(vec![member(1, serving), member(2, MemberState::Syncing)]),
            ],
            ..ChainTable::default()
        };
        let layout = Layout {
            data: DataId(1),
            truncations: 0,
            group: 0,
            seed: 0,
            size: 0,
            holes: false,
        };
        let lies = |count, volume| lies_alone(&layout, count, &table, VolumeId(volume));
        assert!(!lies(0, 1) && !lies(1, 1) && lies(2, 1) && !lies(2, 2));
    }
}
