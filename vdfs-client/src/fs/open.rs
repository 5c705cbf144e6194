//! Opening files.

use std::sync::Arc;

use vdfs_proto::meta::{Open, Opened};
use vdfs_proto::{Attr, HandleId, Ino, Status};

use super::release::release_handle;
use super::set_attr::truncate;
use super::{Fs, OpenFile, OpenOptions};
use crate::client::Client;
use crate::deadline::Deadline;
use crate::files::Handle;
use crate::session::{Life, reopen};

impl Fs {
    /// Opens a regular file: its bytes and size are those of the last close or fsync anywhere.
    pub async fn open(&self, ino: Ino, options: OpenOptions) -> Result<OpenFile, Status> {
        if options.access().write {
            self.client.check_writable()?;
        }
        self.client.check_running()?;
        let client = self.client.clone();
        let task = async move {
            let opened = open(&client, ino, options).await?;
            let unclaimed = Unclaimed::new(&client, opened.handle);
            Ok((opened, unclaimed))
        };
        let deadline = self.client.deadline();
        let (opened, unclaimed) = deadline.limit(self.client.spawn(task)).await??;
        unclaimed.claim();
        Ok(opened)
    }
}

async fn open(client: &Arc<Client>, ino: Ino, options: OpenOptions) -> Result<OpenFile, Status> {
    let handle = client.files.new_handle_id();
    let ask = Open {
        ino,
        handle,
        access: options.access(),
    };
    // Entered before the master is asked: a recall of the layout finds the file.
    let file = client.files.enter(ino);
    let recalls = file.recalls();
    let life = client.session.current();
    let opened: Opened = match client.query_until(ask, Deadline::NEVER).await {
        Ok(opened) => opened,
        Err(status) => {
            client.files.leave(ino);
            return Err(status);
        }
    };
    file.install_layout(opened.layout, recalls);
    let opened_handle = Handle::new(handle, file, options, opened.is_shared);
    register(client, &life, opened_handle).await;
    finish_open(client, handle, opened.attr, options).await
}

/// Adds a handle that was opened under `life`, or under the one after.
pub(super) async fn register(client: &Arc<Client>, life: &Life, handle: Handle) {
    let handle = client.files.add_handle(handle);
    let current = client.session.current();
    if current.id != life.id {
        // The new session opened all handles again, but may not have seen this one.
        reopen(client, &current, handle).await;
    }
}

/// What is left to do once the handle is there; closes it again if that fails.
pub(super) async fn finish_open(
    client: &Arc<Client>,
    handle: HandleId,
    attr: Attr,
    options: OpenOptions,
) -> Result<OpenFile, Status> {
    let unclaimed = Unclaimed::new(client, handle);
    let opened = client.files.handle(handle)?;
    let (file, is_shared) = (opened.file.clone(), opened.is_shared);
    let keep_cache = file.open_at(&attr);
    // Reads of pages that the kernel keeps do not come here: the open stands for them.
    if keep_cache && opened.marks_access() {
        file.note_read();
    }
    let attr = if options.truncate {
        truncate(client, file.ino, 0, options.kill_privileges).await?
    } else {
        file.overlay(attr)
    };
    unclaimed.claim();
    Ok(OpenFile {
        handle,
        attr,
        keep_cache: keep_cache && !options.truncate,
        is_shared,
    })
}

/// A handle that nobody has been told of: it is closed if the caller has gone away.
pub(super) struct Unclaimed {
    client: Arc<Client>,
    handle: Option<HandleId>,
}

impl Unclaimed {
    pub(super) fn new(client: &Arc<Client>, handle: HandleId) -> Self {
        Unclaimed {
            client: client.clone(),
            handle: Some(handle),
        }
    }

    pub(super) fn claim(mut self) {
        self.handle = None;
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        let Some(handle) = self.handle.and_then(|id| self.client.files.take_handle(id)) else {
            return;
        };
        let client = self.client.clone();
        let runtime = client.runtime.clone();
        runtime.spawn(async move { release_handle(&client, &handle).await });
    }
}
