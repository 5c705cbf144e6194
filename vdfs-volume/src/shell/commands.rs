//! What the master may order. Each order is idempotent.

use vdfs_proto::volume::Command;
use vdfs_proto::{ChainId, ChunkId, OpId, Status};

use crate::node::Node;
use crate::store::TrimOp;

pub(super) fn execute(node: &Node, command: Command) -> Result<(), Status> {
    match command {
        Command::Table(table) => node.membership.write().install_table(table),
        Command::Trim {
            op,
            chain,
            chunk,
            len,
        } => return trim(node, op, chain, chunk, len),
        Command::Reap { ids } => node.store.reap(&ids),
        // No write that was begun before is still under way: each holds the membership.
        Command::Fence(fence) => node.membership.write().fence(fence),
        Command::ForgetSession(session) => {
            node.membership.write().forget_session(session);
            node.store.forget_session(session);
        }
    }
    Ok(())
}

fn trim(node: &Node, op: OpId, chain: ChainId, chunk: ChunkId, len: u32) -> Result<(), Status> {
    let membership = node.membership.read();
    let epoch = membership.epoch(chain).ok_or(Status::NotServing)?;
    let place = membership.place(chain, epoch)?;
    if place.members > 1 {
        return Err(Status::NotSupported);
    }
    node.store.trim(&TrimOp {
        op,
        epoch,
        chunk,
        len,
    })
}
