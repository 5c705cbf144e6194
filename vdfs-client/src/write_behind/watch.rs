//! What was written and is then left alone is flushed: one task looks after all such files, as long
//! as there are any. A task a file would wake a thread for every file that is made.

use std::sync::Arc;

use parking_lot::Mutex;

use super::flush_here;
use crate::client::Client;
use crate::files::File;
use crate::limits::{COMMIT_INTERVAL, WRITE_IDLE};

/// Files that were not clean when they were last looked at. Each is here at most once, or with the
/// task that flushes it.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    files: Vec<Arc<File>>,
    /// The task runs.
    is_looked_after: bool,
}

impl Watched {
    /// True if the caller is to start the task.
    fn add(&self, file: Arc<File>) -> bool {
        let mut list = self.list.lock();
        list.files.push(file);
        !std::mem::replace(&mut list.is_looked_after, true)
    }

    /// All files; `None`, and the task is over, if there are none.
    fn take(&self) -> Option<Vec<Arc<File>>> {
        let mut list = self.list.lock();
        list.is_looked_after = !list.files.is_empty();
        list.is_looked_after
            .then(|| std::mem::take(&mut list.files))
    }
}

/// Watches an inode that was just written until it is clean: what is idle is flushed.
pub(crate) fn watch(client: &Arc<Client>, file: &Arc<File>) {
    if file.begin_watch() {
        add(client, file.clone());
    }
}

fn add(client: &Arc<Client>, file: Arc<File>) {
    if client.watched.add(file) {
        client.runtime.spawn(look_after(client.clone()));
    }
}

async fn look_after(client: Arc<Client>) {
    loop {
        tokio::time::sleep(WRITE_IDLE).await;
        let Some(files) = client.watched.take() else {
            return;
        };
        for file in files {
            look_at(&client, file);
        }
    }
}

fn look_at(client: &Arc<Client>, file: Arc<File>) {
    if file.end_watch_if_clean() {
        return;
    }
    let is_idle = file.last_write().elapsed() >= WRITE_IDLE;
    if !is_idle && file.last_commit().elapsed() < COMMIT_INTERVAL {
        return add(client, file);
    }
    let owner = client.clone();
    client.runtime.spawn(async move {
        flush_here(&owner, &file).await;
        add(&owner, file);
    });
}
