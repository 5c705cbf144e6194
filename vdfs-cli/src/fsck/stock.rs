//! What the volumes have.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use vdfs_net::Carrier;
use vdfs_net::rpc::call_operation;
use vdfs_program::Failure;
use vdfs_proto::data::{Inventory, StockedChunk};
use vdfs_proto::frame::Method;
use vdfs_proto::meta::VolumeStatus;
use vdfs_proto::{ChunkId, Status, VolumeId, VolumeInfo};

use crate::client::connection::runtime;
use crate::cluster::{Cluster, Line};
use crate::status;

/// A volume reads the sums of thousands of chunks for one answer.
const PART_WAIT: Duration = Duration::from_secs(20);

pub(super) type Stock = HashMap<ChunkId, StockedChunk>;

/// Of one look at all volumes.
#[derive(Debug, Default)]
pub(super) struct Stocks {
    pub(super) of: BTreeMap<VolumeId, Stock>,
    pub(super) names: BTreeMap<VolumeId, String>,
    /// Volumes that were not asked, or did not answer, with the reason.
    pub(super) unasked: Vec<(String, Status)>,
}

impl Stocks {
    pub(super) fn take(cluster: &Cluster) -> Result<Stocks, Failure> {
        let volumes = status::ask_of(cluster)?.volumes;
        let line = Line::open(cluster)?;
        let asked = runtime()?.block_on(line.ask_volumes(cluster, &volumes, stock_of));
        line.close();
        Ok(Stocks::of_answers(&volumes, asked))
    }

    fn of_answers(volumes: &[VolumeStatus], asked: Vec<Result<Stock, Status>>) -> Stocks {
        let mut stocks = Stocks::default();
        for (volume, answer) in volumes.iter().zip(asked) {
            let VolumeInfo { id, name, .. } = &volume.info;
            stocks.names.insert(*id, name.clone());
            match answer {
                Ok(stock) => drop(stocks.of.insert(*id, stock)),
                Err(status) => stocks.unasked.push((name.clone(), status)),
            }
        }
        stocks
    }

    pub(super) fn find(&self, volume: VolumeId, chunk: ChunkId) -> Option<&StockedChunk> {
        self.of.get(&volume)?.get(&chunk)
    }

    pub(super) fn chunks(&self) -> u64 {
        self.of.values().map(|stock| stock.len() as u64).sum()
    }
}

async fn stock_of(volume: Arc<dyn Carrier>) -> Result<Stock, Status> {
    let mut all = Stock::new();
    let mut after = None;
    loop {
        let ask = Inventory { after };
        let part = call_operation(&*volume, Method::Data, ask, PART_WAIT).await?;
        let Some(last) = part.chunks.last() else {
            return Ok(all);
        };
        after = Some(last.chunk);
        all.extend(part.chunks.into_iter().map(|chunk| (chunk.chunk, chunk)));
    }
}
