//! Bytes on their way from `write(2)` to the volumes, and the commits behind them.
//!
//! A write is taken into the inode's runs and answered; runs fly when they are full, after a short
//! idle, or when somebody needs them out. Every run is sent by a task of its own, so no caller that
//! goes away loses bytes. The commit follows the acknowledgements, never overtakes them.

mod send;
mod watch;

pub(crate) use watch::{Watched, watch};

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use vdfs_proto::meta::{Commit, Extend, GetAttr};
use vdfs_proto::{Layout, Status, Timestamp};

use crate::client::Client;
use crate::deadline::Deadline;
use crate::files::{File, Run, RunId};
use crate::limits::{BACKOFF_MAX, NO_SPACE_WAIT, REPLANS_MAX, SHORT_RUN_BYTES};

/// Sends every run that may fly, beside the caller.
pub(crate) fn launch(client: &Arc<Client>, file: &Arc<File>) {
    while let Some(run) = file.next_flight() {
        let sending = begin_sending(client, file, run);
        spawn_sending(client, file, sending);
    }
}

/// [`launch`] for a caller that waits for the runs: a short one goes as far as it gets at once right
/// here. A volume of this process has then taken it before another thread would have woken up.
fn launch_here(client: &Arc<Client>, file: &Arc<File>) {
    while let Some(run) = file.next_flight() {
        let is_short = run.len <= SHORT_RUN_BYTES;
        let mut sending = begin_sending(client, file, run);
        let has_landed = is_short && (&mut sending).now_or_never().is_some();
        if !has_landed {
            spawn_sending(client, file, sending);
        }
    }
}

fn begin_sending(client: &Arc<Client>, file: &Arc<File>, run: Run) -> BoxFuture<'static, ()> {
    let life = client.session.current();
    send::send_run(client.clone(), file.clone(), life, run).boxed()
}

fn spawn_sending(client: &Arc<Client>, file: &Arc<File>, sending: BoxFuture<'static, ()>) {
    let (client, file) = (client.clone(), file.clone());
    let runtime = client.runtime.clone();
    runtime.spawn(async move {
        sending.await;
        launch(&client, &file);
    });
}

/// Sends everything that was written so far, of all files: room is short.
pub(crate) fn launch_all(client: &Arc<Client>) {
    for file in client.files.all() {
        file.seal_all();
        launch(client, &file);
    }
}

/// Writes out and commits what was written so far. It goes on if the caller stops waiting. Errors
/// stay with the file for its handles.
pub(crate) async fn flush(client: &Arc<Client>, file: &Arc<File>) -> Result<(), Status> {
    if file.is_clean() {
        return Ok(());
    }
    let (owner, file) = (client.clone(), file.clone());
    let task = client.spawn(async move {
        flush_here(&owner, &file).await;
        Ok(())
    });
    client.deadline().limit(task).await?
}

/// Writes out what was written so far, without the commit.
pub(crate) async fn write_out(client: &Arc<Client>, file: &Arc<File>) -> Result<(), Status> {
    let target = file.seal_all();
    launch(client, file);
    client.deadline().limit(landed(file, target)).await
}

pub(crate) async fn flush_here(client: &Arc<Client>, file: &Arc<File>) {
    let target = file.seal_all();
    launch_here(client, file);
    landed(file, target).await;
    // Bytes that were overwritten under a layout since recalled leave only their time to commit.
    if !file.is_clean()
        && let Err(status) = client.layout(file, Deadline::NEVER).await
    {
        return file.refused(status);
    }
    commit(client, file).await;
}

/// Flushes what was written so far and holds back what is written from now on, until
/// `File::unhold`. Under an earlier hold, what was written since that one is held back too.
pub(crate) async fn flush_held(client: &Arc<Client>, file: &Arc<File>) {
    let target = file.hold();
    flush_until(client, file, target).await;
}

/// [`flush_held`] once nobody else holds, so that all that was written so far is flushed.
pub(crate) async fn flush_held_alone(client: &Arc<Client>, file: &Arc<File>) {
    let target = loop {
        unheld(file).await;
        if let Some(target) = file.try_hold() {
            break target;
        }
    };
    flush_until(client, file, target).await;
}

async fn flush_until(client: &Arc<Client>, file: &Arc<File>, target: RunId) {
    launch_here(client, file);
    landed(file, target).await;
    let turn = file.commit_turn.lock().await;
    commit_in_turn(client, file).await;
    drop(turn);
}

/// Lets the file reach `reach.end` by the master's word, before anything is written behind a gap. A
/// gap that the bytes behind it make by themselves could show what a dead writer has left there.
pub(crate) async fn make_gap(
    client: &Arc<Client>,
    file: &Arc<File>,
    reach: Reach,
) -> Result<(), Status> {
    // Nothing of ours lies behind the end when the master cuts there.
    flush_held_alone(client, file).await;
    let outcome = extend(client, file, reach).await;
    file.unhold();
    launch(client, file);
    outcome
}

/// Has the master cut what a dead writer may have left behind the end of the file.
pub(crate) async fn cut_tail(
    client: &Arc<Client>,
    file: &Arc<File>,
    reach: Reach,
) -> Result<(), Status> {
    flush_held_alone(client, file).await;
    let outcome = extend_to_end(client, file, reach).await;
    file.unhold();
    launch(client, file);
    outcome
}

/// How far a file is to reach, and what is said of that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    pub(crate) end: u64,
    pub(crate) now: Timestamp,
    pub(crate) kill_privileges: bool,
}

async fn extend(client: &Client, file: &File, reach: Reach) -> Result<(), Status> {
    let mut layout = client.layout(file, Deadline::NEVER).await?;
    for _ in 0..REPLANS_MAX {
        if reach.end <= file.end() {
            return Ok(());
        }
        match ask_extend(client, file, &layout, reach).await {
            Err(Status::StaleLayout) => {
                layout = client.fresh_layout(file, Deadline::NEVER).await?;
            }
            outcome => return outcome,
        }
    }
    Err(Status::StaleLayout)
}

async fn extend_to_end(client: &Client, file: &File, reach: Reach) -> Result<(), Status> {
    let mut layout = client.layout(file, Deadline::NEVER).await?;
    for _ in 0..REPLANS_MAX {
        let end = file.end();
        match ask_extend(client, file, &layout, Reach { end, ..reach }).await {
            Err(Status::StaleLayout) => {
                layout = client.fresh_layout(file, Deadline::NEVER).await?;
            }
            outcome => return outcome,
        }
    }
    Err(Status::StaleLayout)
}

async fn ask_extend(
    client: &Client,
    file: &File,
    layout: &Layout,
    reach: Reach,
) -> Result<(), Status> {
    let commit = Commit {
        ino: file.ino,
        data: layout.data,
        truncations: layout.truncations,
        end: reach.end,
        holes: reach.end > file.end(),
        mtime: reach.now,
        kill_privileges: reach.kill_privileges,
    };
    let ask = Extend {
        commit: commit.clone(),
    };
    let committed = client.mutate_here(ask).await?;
    file.note_commit(&commit, &committed);
    Ok(())
}

async fn landed(file: &File, target: RunId) {
    loop {
        let progress = file.progress.notified();
        if file.has_landed_before(target) {
            return;
        }
        progress.await;
    }
}

/// Waits until nobody holds the file back.
pub(crate) async fn unheld(file: &File) {
    loop {
        let progress = file.progress.notified();
        if !file.is_held() {
            return;
        }
        progress.await;
    }
}

async fn commit(client: &Arc<Client>, file: &Arc<File>) {
    loop {
        unheld(file).await;
        let turn = file.commit_turn.lock().await;
        // A hold that began meanwhile commits by itself what was written before it.
        if !file.is_held() {
            return commit_in_turn(client, file).await;
        }
        drop(turn);
    }
}

async fn commit_in_turn(client: &Arc<Client>, file: &Arc<File>) {
    if file
        .plan_commit()
        .is_some_and(|planned| planned.commit.holes)
    {
        // The gap may have been filled by others.
        ask_size(client, file).await;
    }
    let Some(planned) = file.plan_commit() else {
        return;
    };
    let begun = Instant::now();
    loop {
        match client.mutate_here(planned.commit.clone()).await {
            Ok(committed) => return file.committed(&planned, &committed),
            // A full disk under the log; the bytes are safe at the volumes.
            Err(Status::NoSpace) if begun.elapsed() < NO_SPACE_WAIT => {
                tokio::time::sleep(BACKOFF_MAX).await;
            }
            Err(status) => {
                tracing::warn!(ino = %file.ino, %status, "commit refused");
                return file.refused(status);
            }
        }
    }
}

/// Learns how far others have extended the file.
pub(crate) async fn ask_size(client: &Client, file: &File) {
    let recalls = file.recalls();
    let ask = GetAttr { ino: file.ino };
    match client.query_until(ask, Deadline::NEVER).await {
        Ok(attr) => file.see_size(attr.size, recalls),
        Err(status) => tracing::debug!(ino = %file.ino, %status, "the size stays unknown"),
    }
}
