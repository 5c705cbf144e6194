//! `Inventory`: what the volume has, a part at a time.

use vdfs_proto::data::{Inventory, Stock};
use vdfs_proto::limits::CHUNKS_PER_STOCK_MAX;

use crate::node::Node;

/// Others have their turn between chunks.
pub(crate) async fn handle(node: &Node, inventory: Inventory) -> Stock {
    let mut stock = Stock::default();
    let mut after = inventory.after;
    while stock.chunks.len() < CHUNKS_PER_STOCK_MAX
        && let Some(chunk) = node.store().stocked_behind(after)
    {
        after = Some(chunk.chunk);
        stock.chunks.push(chunk);
        tokio::task::yield_now().await;
    }
    stock
}
