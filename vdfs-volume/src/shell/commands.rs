//! What the master may order. Each order is idempotent.

use vdfs_proto::volume::Command;
use vdfs_proto::{Layout, Status};

use crate::node::Node;
use crate::store::TrimOp;

pub(super) fn execute(node: &Node, command: Command) -> Result<(), Status> {
    match command {
        Command::Table(table) => node.membership.write().install_table(table),
        Command::Trim {
            op,
            layout,
            index,
            len,
        } => {
            let data = layout.data;
            let trim = TrimOp {
                op,
                data,
                index,
                len,
            };
            return cut(node, &trim, &layout);
        }
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

fn cut(node: &Node, trim: &TrimOp, layout: &Layout) -> Result<(), Status> {
    let membership = node.membership.read();
    node.store.trim(trim, |index| {
        let chain = layout.chain(index);
        let epoch = membership.epoch(chain).ok_or(Status::NotServing)?;
        membership.sole_place(chain, epoch).map(|_| epoch)
    })
}
