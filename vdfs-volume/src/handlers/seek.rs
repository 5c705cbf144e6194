//! `Seek`: where a file has data, and where holes.

use vdfs_proto::Status;
use vdfs_proto::data::{Seek, Sought};

use crate::node::Node;

pub(crate) async fn handle(node: &Node, seek: &Seek) -> Result<Sought, Status> {
    let look = |lost_below| node.store().seek(seek, lost_below);
    let at = node.engine.ask(&seek.part, look).await?;
    Ok(Sought { at })
}
