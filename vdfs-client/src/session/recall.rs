//! Giving rights back: flush, commit, stop using, answer.

use std::sync::Arc;

use tokio::time::timeout;
use vdfs_proto::Ino;
use vdfs_proto::session::{RecallOutcome, Recalled, Right};

use super::Life;
use super::events::report;
use crate::client::Client;
use crate::files::File;
use crate::limits::{FORGET_PAGES_MAX, RECALL_REPORT};
use crate::write_behind::flush_held;

pub(super) async fn answer_recall(
    client: &Arc<Client>,
    life: &Arc<Life>,
    recall: u64,
    ino: Ino,
    right: Right,
) {
    let answer = |outcome| Recalled {
        session: life.id,
        recall,
        outcome,
    };
    // A right that is still on its way is not taken when it comes, and asked for again: waiting for
    // it here would wait for whoever recalls it.
    let Some(file) = client.files.find(ino) else {
        return report(client, life, answer(RecallOutcome::Done)).await;
    };
    if !file.begin_recall(right) {
        report(client, life, answer(RecallOutcome::Done)).await;
        return file.end_recall(right);
    }
    let mut giving = Box::pin(give_back(client, &file, right));
    let outcome = loop {
        match timeout(RECALL_REPORT, &mut giving).await {
            Ok(outcome) => break outcome,
            Err(_) => {
                let waits_for = file.waits_for();
                report(client, life, answer(RecallOutcome::Held { waits_for })).await;
            }
        }
    };
    drop(giving);
    report(client, life, answer(outcome)).await;
    // Only now: what was written meanwhile asks for the layout that comes after.
    file.end_recall(right);
    file.unhold();
    crate::write_behind::launch(client, &file);
}

/// Flushes what was written so far and lets go of the right. The file is held when this returns.
async fn give_back(client: &Arc<Client>, file: &Arc<File>, right: Right) -> RecallOutcome {
    let turn = match right {
        Right::Layout => None,
        // Whoever has the turn may wait for this very recall once the token is gone.
        Right::Append => tokio::select! {
            turn = file.append_turn.lock() => Some(turn),
            () = without_token(file) => None,
        },
    };
    if right == Right::Append && !file.has_token() {
        file.hold();
        return RecallOutcome::Done;
    }
    flush_held(client, file).await;
    if right == Right::Layout {
        forget_pages(client, file).await;
    }
    let outcome = file.let_go(right);
    if right == Right::Append {
        forget_attributes(client, file).await;
    }
    drop(turn);
    outcome
}

/// Has the kernel forget what it knows, while reads are still answered with what is there. Told of
/// it when the file is cut already, it would take a read that falls short for older than that news,
/// and show zeros up to the end that it remembers.
async fn forget_pages(client: &Client, file: &File) {
    let forgotten = client.config.kernel_cache.drop_data(file.ino);
    wait_forgotten(file, forgotten).await;
}

async fn forget_attributes(client: &Client, file: &File) {
    let forgotten = client.config.kernel_cache.drop_attributes(file.ino);
    wait_forgotten(file, forgotten).await;
}

async fn wait_forgotten(file: &File, forgotten: impl Future<Output = ()>) {
    if timeout(FORGET_PAGES_MAX, forgotten).await.is_err() {
        tracing::debug!(ino = %file.ino, "the kernel has it in use while a right is given up");
    }
}

/// Waits until the append token has gone with the layout.
async fn without_token(file: &File) {
    loop {
        let progress = file.progress.notified();
        if !file.has_token() {
            return;
        }
        progress.await;
    }
}
