//! What the master may order. Each order is idempotent.

use vdfs_proto::volume::Command;
use vdfs_proto::{Layout, Status};

use crate::node::Node;
use crate::store::TrimOp;

/// What became of the command with this number; none if that is known later: fences are told by
/// [`crate::engine::Engine::take_fenced`] when they have taken hold.
pub(super) fn execute(node: &Node, number: u64, command: Command) -> Option<Result<(), Status>> {
    let engine = &node.engine;
    match command {
        Command::Table(table) => engine.install_table(table),
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
            return Some(cut(node, &trim, &layout));
        }
        Command::Reap { ids } => node.store().reap(&ids),
        Command::Fence(fence) => {
            engine.fence(fence, number);
            return None;
        }
        Command::ForgetSession(session) => engine.forget_session(session),
    }
    Some(Ok(()))
}

fn cut(node: &Node, trim: &TrimOp, layout: &Layout) -> Result<(), Status> {
    let epoch_of = |index| node.engine.epoch_alone(layout.chain(index));
    node.store().trim(trim, epoch_of)
}
