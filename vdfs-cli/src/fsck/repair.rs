//! Mends what can be mended: orphans are dropped, and copies that are not what others have are given
//! again, as a sync under the rules of their chain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vdfs_net::Carrier;
use vdfs_net::rpc::call_operation;
use vdfs_program::Failure;
use vdfs_proto::data::{Content, Mend};
use vdfs_proto::frame::Method;
use vdfs_proto::limits::{CHUNKS_PER_STOCK_MAX, REAP_BATCH_MAX};
use vdfs_proto::meta::DropOrphans;
use vdfs_proto::{ChainId, ChunkId, DataId, VolumeId};

use super::compare::{Finding, Kind};
use crate::client::connection::runtime;
use crate::cluster::{Cluster, Line};
use crate::status;

/// A volume has another one check each chunk first.
const MEND_WAIT: Duration = Duration::from_secs(60);
/// For volumes to drop what they were told to, and for chains to be whole.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);

/// By their chains.
type Copies = BTreeMap<ChainId, (VolumeId, Vec<(ChunkId, Content)>)>;

/// Returns when what was begun has ended, or takes too long.
pub(super) fn repair(cluster: &Cluster, found: &BTreeSet<Finding>) -> Result<(), Failure> {
    let orphans = found.iter().filter(|of| of.kind == Kind::Orphaned);
    let orphans: BTreeSet<DataId> = orphans.map(|of| of.chunk.data).collect();
    let orphans: Vec<DataId> = orphans.into_iter().collect();
    for ids in orphans.chunks(REAP_BATCH_MAX) {
        status::ask_masters(cluster, DropOrphans { ids: ids.to_vec() })?;
    }
    let copies = copies_to_mend(found);
    if !copies.is_empty() {
        mend(cluster, copies)?;
    }
    wait_until_settled(cluster)
}

/// Of each chain those of one volume: the others are to have them whole meanwhile.
fn copies_to_mend(found: &BTreeSet<Finding>) -> Copies {
    let mut copies = Copies::new();
    for finding in found {
        if let (Some(volume), Some(best)) = (finding.volume, finding.best) {
            let (first, of_chain) = copies
                .entry(finding.chain)
                .or_insert_with(|| (volume, Vec::new()));
            if *first == volume {
                of_chain.push((finding.chunk, best));
            }
        }
    }
    copies
}

fn mend(cluster: &Cluster, copies: Copies) -> Result<(), Failure> {
    let volumes = status::ask_of(cluster)?.volumes;
    let line = Line::open(cluster)?;
    let info = |id| volumes.iter().map(|of| &of.info).find(|info| info.id == id);
    runtime()?.block_on(async {
        for (chain, (volume, chunks)) in copies {
            if let Some(info) = info(volume) {
                ask(&line.way_to(cluster, info), chain, &chunks).await;
            }
        }
    });
    line.close();
    Ok(())
}

/// Whatever cannot be done is found again by the look that follows.
async fn ask(volume: &Arc<dyn Carrier>, chain: ChainId, chunks: &[(ChunkId, Content)]) {
    for chunks in chunks.chunks(CHUNKS_PER_STOCK_MAX) {
        let chunks = chunks.to_vec();
        let mend = Mend { chain, chunks };
        let asked = call_operation(&**volume, Method::Data, mend, MEND_WAIT).await;
        if let Err(status) = asked {
            tracing::info!(%chain, %status, "copies are not made again");
        }
    }
}

fn wait_until_settled(cluster: &Cluster) -> Result<(), Failure> {
    let begun = Instant::now();
    // A volume says a moment later that it has left.
    std::thread::sleep(PAUSE * 5);
    loop {
        let chains = status::ask_of(cluster)?.chains;
        if chains.whole == chains.total || begun.elapsed() > SETTLED_WITHIN {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}
