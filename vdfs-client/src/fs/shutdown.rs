//! The end of the client.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::time::{Instant, timeout_at};
use vdfs_proto::SessionId;
use vdfs_proto::session::CloseSession;

use super::{Fs, NotFlushed};
use crate::client::Client;
use crate::limits::PARALLEL_MAX;
use crate::retry::Backoff;
use crate::write_behind::flush_here;

impl Fs {
    /// Waits until another client of the same identity has taken over: this one has ended, and every
    /// operation of it ends with `ShuttingDown`.
    pub async fn replaced(&self) {
        self.client.session.replaced().await;
    }

    /// Flushes everything and closes the session, which closes every handle. Operations that begin
    /// later end with `ShuttingDown`. If `deadline` is over first the session is left to end by
    /// itself.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), NotFlushed> {
        let until = Instant::now() + deadline;
        self.client.stop();
        let in_time = timeout_at(until, flush_all(&self.client)).await.is_ok();
        let inodes = self.client.dirty_inodes();
        let session = self.client.session.current().id;
        // First, so that the end of the session is not taken for one that the next must follow.
        self.client.session.close();
        if in_time && inodes.is_empty() {
            let closed = timeout_at(until, close_session(&self.client, session)).await;
            if closed.is_err() {
                tracing::warn!("the session is left to end by itself");
            }
        }
        if inodes.is_empty() {
            return Ok(());
        }
        Err(NotFlushed { inodes })
    }
}

async fn flush_all(client: &Arc<Client>) {
    let dirty = client.files.all().into_iter();
    stream::iter(dirty.filter(|file| !file.is_clean()))
        .for_each_concurrent(PARALLEL_MAX, async |file| flush_here(client, &file).await)
        .await;
}

async fn close_session(client: &Client, session: SessionId) {
    let mut backoff = Backoff::default();
    while let Err(status) = client.master.session(CloseSession { session }).await {
        if status == vdfs_proto::Status::SessionExpired {
            return;
        }
        backoff.pause().await;
    }
}
