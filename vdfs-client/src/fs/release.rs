//! The end of a handle.

use std::sync::Arc;

use vdfs_proto::meta::{Release, ReturnAppend};
use vdfs_proto::session::Right;
use vdfs_proto::{HandleId, Status};

use super::Fs;
use super::lock::unlock_closed;
use crate::client::Client;
use crate::deadline::Deadline;
use crate::files::{File, Handle};
use crate::write_behind::flush_here;

impl Fs {
    /// Closes a handle. It is gone when this is called; the rest goes on without the caller.
    pub async fn release(&self, handle: HandleId) -> Result<(), Status> {
        let handle = self.client.files.take_handle(handle);
        let handle = handle.ok_or(Status::BadHandle)?;
        let client = self.client.clone();
        let task = async move {
            release_handle(&client, &handle).await;
            Ok(())
        };
        self.client
            .deadline()
            .limit(self.client.spawn(task))
            .await?
    }
}

/// Flushes and tells the master; for a handle that is out of the table.
pub(super) async fn release_handle(client: &Arc<Client>, handle: &Handle) {
    let file = &handle.file;
    if handle.access.write && !file.is_clean() {
        flush_here(client, file).await;
    }
    unlock_closed(client, file, handle.id).await;
    if file.has_token() && client.files.is_last_user(file.ino) {
        return_token(client, file).await;
    }
    let release = Release {
        handle: handle.id,
        tail_unknown: handle.access.write && file.is_tail_unknown(),
        read_at: file.read_at(),
    };
    if let Err(status) = client.query_until(release, Deadline::NEVER).await {
        tracing::debug!(%status, handle = %handle.id, "released at the end of the session");
    }
    client.files.leave(file.ino);
}

async fn return_token(client: &Client, file: &File) {
    // Nobody asks for the token again while it is on its way back.
    let turn = file.append_turn.lock().await;
    file.let_go(Right::Append);
    let back = ReturnAppend { ino: file.ino };
    if let Err(status) = client.query_until(back, Deadline::NEVER).await {
        tracing::debug!(%status, ino = %file.ino, "the append token stays here");
    }
    drop(turn);
}
