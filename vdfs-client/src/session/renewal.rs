//! From a session that has ended to the next one.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use vdfs_proto::meta::{Answer, Open, Query, QueryRequest};
use vdfs_proto::session::{OpenSession, SessionOpened};
use vdfs_proto::{HandleId, SessionId, Status};

use super::Life;
use crate::client::Client;
use crate::config::ClientConfig;
use crate::files::Handle;
use crate::limits::PARALLEL_MAX;
use crate::master::MasterLink;
use crate::retry::Backoff;
use vdfs_net::clock::boot_ms;

/// Opens a session, trying until the master answers. `after` is the one that has ended.
pub(crate) async fn open_session(
    master: &MasterLink,
    config: &ClientConfig,
    after: Option<SessionId>,
) -> Result<(Life, SessionOpened), Status> {
    let mut backoff = Backoff::default();
    loop {
        let ask = OpenSession {
            identity: config.identity.clone(),
            after,
            host: config.host.clone(),
            mount: config.mount.clone(),
        };
        let sent_ms = boot_ms();
        match master.session(ask).await {
            Ok(opened) => {
                let life = Life::new(opened.session, opened.lease_ms, sent_ms);
                return Ok((life, opened));
            }
            Err(status) if is_final(status) => return Err(status),
            Err(status) => {
                tracing::debug!(%status, "no session yet");
                backoff.pause().await;
            }
        }
    }
}

fn is_final(status: Status) -> bool {
    matches!(
        status,
        Status::WrongRole
            | Status::WrongCluster
            | Status::WrongVersion
            | Status::Malformed
            | Status::Replaced
    )
}

/// Drops what only the old session could still have written, opens the next one, and opens the
/// files again under it.
pub(super) async fn replace_life(client: &Arc<Client>, old: &Arc<Life>) {
    old.end();
    if client.session.is_closed() {
        return;
    }
    tracing::warn!(session = %old.id, "the session has ended");
    for file in client.files.all() {
        for (offset, len) in file.end_of_session() {
            tracing::warn!(ino = %file.ino, off = offset, len, "unflushed bytes are dropped");
        }
        client.config.kernel_cache.invalidate_data(file.ino, 0, 0);
    }
    // Others may have had the locks since: who held them must not go on as if nobody had.
    for handle in client.locks.end_session(old.id) {
        client.files.lose(handle, Status::SessionExpired);
    }
    loop {
        if client.session.is_closed() {
            return;
        }
        match open_session(&client.master, &client.config, Some(old.id)).await {
            Ok((life, opened)) => {
                client.volumes.install(opened.table);
                let life = Arc::new(life);
                let reopened = reopen_all(client, &life, &HashSet::new()).await;
                tracing::info!(session = %life.id, "a new session");
                client.session.begin(life.clone());
                // Opens of the old session that were answered meanwhile.
                reopen_all(client, &life, &reopened).await;
                return;
            }
            Err(Status::Replaced) => {
                let identity = &client.config.identity;
                tracing::error!(identity, "another mount of the same name has taken over");
                return client.session.close_replaced();
            }
            Err(status) => {
                tracing::error!(%status, "the master refuses a new session");
                tokio::time::sleep(crate::limits::ATTEMPT).await;
            }
        }
    }
}

/// Opens every handle but `done` again; returns which.
async fn reopen_all(
    client: &Arc<Client>,
    life: &Life,
    done: &HashSet<HandleId>,
) -> HashSet<HandleId> {
    let mut handles = client.files.handles();
    handles.retain(|handle| !done.contains(&handle.id));
    let ids = handles.iter().map(|handle| handle.id).collect();
    stream::iter(handles)
        .for_each_concurrent(PARALLEL_MAX, |handle| reopen(client, life, handle))
        .await;
    ids
}

pub(crate) async fn reopen(client: &Client, life: &Life, handle: Arc<Handle>) {
    let request = QueryRequest {
        session: life.id,
        query: Query::Open(Open {
            ino: handle.file.ino,
            handle: handle.id,
            access: handle.access,
        }),
    };
    let mut backoff = Backoff::default();
    loop {
        match client.master.query(&request).await {
            Ok(Answer::Open(opened)) => {
                let file = &handle.file;
                file.install_layout(opened.layout, file.recalls());
                return;
            }
            Ok(_) => return handle.lose(Status::Malformed),
            Err(Status::SessionExpired) => return,
            Err(status @ (Status::StaleInode | Status::NotFound)) => return handle.lose(status),
            Err(_) => backoff.pause().await,
        }
    }
}
