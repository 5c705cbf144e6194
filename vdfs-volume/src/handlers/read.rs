//! `Read`: any serving member answers.

use bytes::Bytes;
use vdfs_proto::Status;
use vdfs_proto::data::{Read, ReadDone};

use crate::node::Node;

pub(crate) async fn handle(node: &Node, read: &Read) -> Result<(ReadDone, Bytes), Status> {
    node.engine.read(read).await
}
