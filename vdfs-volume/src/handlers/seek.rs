//! `Seek`: where a file has data, and where holes.

use vdfs_proto::Status;
use vdfs_proto::data::{Seek, Sought};

use crate::node::Node;

pub(crate) fn handle(node: &Node, seek: &Seek) -> Result<Sought, Status> {
    let lost_below = node.engine.part(&seek.part)?;
    let at = node.store().seek(seek, lost_below)?;
    Ok(Sought { at })
}
