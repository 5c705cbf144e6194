//! What the master may order. Each order is idempotent.

use std::sync::Arc;

use vdfs_proto::volume::Command;
use vdfs_proto::{Layout, Status};

use crate::engine::Engine;
use crate::node::Node;

/// What became of the command with this number; none if that is known later, by
/// [`Engine::take_done`].
pub(super) fn execute(node: &Node, number: u64, command: Command) -> Option<Result<(), Status>> {
    let engine = &node.engine;
    match command {
        Command::Table(table) => engine.install_table(table),
        Command::Trim {
            op: _,
            layout,
            index,
            len,
        } => {
            tokio::spawn(cut(engine.clone(), number, layout, (index, len)));
            return None;
        }
        Command::Reap { ids } => node.store().reap(&ids),
        Command::Fence(fence) => {
            engine.fence(fence, number);
            return None;
        }
        Command::ForgetSession(session) => engine.forget_session(session),
        Command::Leave { chain, epoch } => engine.leave(chain, epoch),
    }
    Some(Ok(()))
}

async fn cut(engine: Arc<Engine>, number: u64, layout: Layout, (index, len): (u32, u32)) {
    let result = engine.cut(&layout, index, len).await;
    engine.note_done(number, result);
}
