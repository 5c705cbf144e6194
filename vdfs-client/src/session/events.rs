//! The loop that keeps one `NextEvents` parked at the master.

use std::sync::{Arc, Weak};

use vdfs_proto::Status;
use vdfs_proto::session::{Event, NextEvents, Recalled, ResumeSession};

use super::Life;
use super::recall::answer_recall;
use super::renewal::replace_life;
use crate::client::Client;
use crate::clock::wall;
use crate::limits::RESUME_HANDLES_MAX;
use crate::retry::Backoff;
use vdfs_net::clock::boot_ms;

/// Runs until the client is dropped or closed.
pub(crate) async fn run_events(client: Weak<Client>) {
    let mut seen = 0;
    let mut backoff = Backoff::default();
    while let Some(client) = client.upgrade() {
        let is_over = client.is_abandoned() && client.dirty_inodes().is_empty();
        if is_over || client.session.is_closed() {
            return client.session.close();
        }
        let life = client.session.current();
        match next_events(&client, &life, &mut seen).await {
            Ok(()) => backoff = Backoff::default(),
            Err(Status::SessionExpired | Status::Fenced) if client.is_abandoned() => {
                return client.session.close();
            }
            Err(Status::SessionExpired | Status::Fenced) => {
                replace_life(&client, &life).await;
                seen = 0;
            }
            Err(status) => {
                tracing::debug!(%status, session = %life.id, "the master does not answer");
                backoff.pause().await;
                if let Err(status) = resume(&client, &life).await {
                    tracing::debug!(%status, session = %life.id, "cannot resume yet");
                }
            }
        }
    }
}

async fn next_events(client: &Arc<Client>, life: &Arc<Life>, seen: &mut u64) -> Result<(), Status> {
    let ask = NextEvents {
        session: life.id,
        seen: *seen,
        wall: wall(),
    };
    let sent_ms = boot_ms();
    let events = life.unless_ended(client.master.session(ask)).await??;
    client.session.renew(life, sent_ms);
    for (number, event) in events.events {
        if number > *seen {
            *seen = number;
            handle(client, life, event);
        }
    }
    Ok(())
}

fn handle(client: &Arc<Client>, life: &Arc<Life>, event: Event) {
    let client = client.clone();
    match event {
        Event::Recall { recall, ino, right } => {
            // Counted before the file is looked up: see `create_open`.
            client.files.count_recall();
            let life = life.clone();
            let runtime = client.runtime.clone();
            // Each in a task of its own: none waits for another one's flush.
            runtime.spawn(async move { answer_recall(&client, &life, recall, ino, right).await });
        }
        Event::TableChanged { version } => {
            let runtime = client.runtime.clone();
            runtime.spawn(async move { client.reach_table(version).await });
        }
    }
}

/// Tells a master that may have been restarted what this session holds.
async fn resume(client: &Arc<Client>, life: &Arc<Life>) -> Result<(), Status> {
    let (handles, append_tokens) = client.files.holdings();
    let mut batches: Vec<_> = handles.chunks(RESUME_HANDLES_MAX).collect();
    let last = batches.pop().unwrap_or_default();
    for batch in batches {
        let part = ResumeSession {
            session: life.id,
            handles: batch.to_vec(),
            append_tokens: Vec::new(),
            complete: false,
        };
        life.unless_ended(client.master.session(part)).await??;
    }
    let part = ResumeSession {
        session: life.id,
        handles: last.to_vec(),
        append_tokens,
        complete: true,
    };
    let sent_ms = boot_ms();
    let resumed = life.unless_ended(client.master.session(part)).await??;
    client.session.renew(life, sent_ms);
    client.volumes.install(resumed.table);
    let released = handles
        .into_iter()
        .map(|open| open.handle)
        .filter(|&handle| !client.files.is_open(handle));
    for handle in released {
        client.release_again(handle);
    }
    Ok(())
}

/// Sends the outcome of a recall until the master has it.
pub(super) async fn report(client: &Client, life: &Life, recalled: Recalled) {
    let mut backoff = Backoff::default();
    while !life.has_ended() {
        match life
            .unless_ended(client.master.session(recalled.clone()))
            .await
        {
            Ok(Ok(())) | Ok(Err(Status::NotFound | Status::SessionExpired)) | Err(_) => return,
            Ok(Err(_)) => backoff.pause().await,
        }
    }
}
