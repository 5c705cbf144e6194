//! `Scrub`: begins, ends or tells of a scrub of the whole volume.

use std::sync::Arc;

use vdfs_proto::Status;
use vdfs_proto::data::{Scrub, ScrubReport};

use crate::node::Node;
use crate::scrub;

pub(crate) fn handle(node: &Arc<Node>, scrub: Scrub) -> Result<ScrubReport, Status> {
    match scrub {
        Scrub::Begin { bytes_per_second } => {
            scrub::begin(node, bytes_per_second).map_err(|_| Status::Busy)?;
        }
        Scrub::Stop => node.scrubs.stop(),
        Scrub::Report => {}
    }
    Ok(node.scrubs.report())
}
