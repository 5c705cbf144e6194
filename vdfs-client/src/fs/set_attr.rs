//! `chmod`, `chown`, `utimensat`, `truncate`.

use std::sync::Arc;

use vdfs_proto::meta::{SetAttr, Truncate};
use vdfs_proto::{Attr, Ino, Status};

use super::{AttrChanges, Fs};
use crate::client::Client;
use crate::files::File;
use crate::write_behind::{flush, flush_held_alone, launch};

impl Fs {
    /// Sets what is `Some`: the size first, then the rest.
    pub async fn set_attr(&self, ino: Ino, changes: AttrChanges) -> Result<Attr, Status> {
        self.client.check_writable()?;
        let mut attr = None;
        if let Some(size) = changes.size {
            let client = self.client.clone();
            let kill_privileges = changes.kill_privileges;
            let task = async move { truncate(&client, ino, size, kill_privileges).await };
            let deadline = self.client.deadline();
            attr = Some(deadline.limit(self.client.spawn(task)).await??);
        }
        if let Some(rest) = beside_size(ino, &changes) {
            attr = Some(self.set_rest(rest).await?);
        }
        match attr {
            Some(attr) => Ok(self.client.shown(attr)),
            None => self.getattr(ino).await,
        }
    }

    async fn set_rest(&self, rest: SetAttr) -> Result<Attr, Status> {
        let Some(file) = self.client.files.find(rest.ino) else {
            return self.client.mutate(rest).await;
        };
        // The commit of an earlier write must not undo what is set here: a time, or suid.
        if rest.mtime.is_some() || rest.mode.is_some() && file.is_killing_privileges() {
            flush(&self.client, &file).await?;
        }
        let sets_atime = rest.atime.is_some();
        let attr = self.client.mutate(rest).await?;
        file.attributes_set(sets_atime);
        Ok(attr)
    }
}

fn beside_size(ino: Ino, changes: &AttrChanges) -> Option<SetAttr> {
    let rest = SetAttr {
        ino,
        mode: changes.mode,
        uid: changes.uid,
        gid: changes.gid,
        atime: changes.atime,
        mtime: changes.mtime,
        kill_privileges: changes.kill_privileges && changes.size.is_none(),
    };
    let is_empty = SetAttr {
        ino,
        mode: None,
        uid: None,
        gid: None,
        atime: None,
        mtime: None,
        kill_privileges: false,
    } == rest;
    (!is_empty).then_some(rest)
}

/// Runs to its end: what is written meanwhile waits for the new layout.
pub(super) async fn truncate(
    client: &Arc<Client>,
    ino: Ino,
    size: u64,
    kill_privileges: bool,
) -> Result<Attr, Status> {
    if size > client.chunk_size.file_bytes_max() {
        return Err(Status::FileTooLarge);
    }
    let truncate = Truncate {
        ino,
        size,
        kill_privileges,
    };
    match client.files.find(ino) {
        Some(file) => truncate_open(client, &file, truncate).await,
        None => Ok(client.mutate_here(truncate).await?.attr),
    }
}

async fn truncate_open(
    client: &Arc<Client>,
    file: &Arc<File>,
    truncate: Truncate,
) -> Result<Attr, Status> {
    flush_held_alone(client, file).await;
    let outcome = client.mutate_here(truncate).await;
    if let Ok(truncated) = &outcome {
        file.truncated(truncated);
    }
    file.unhold();
    launch(client, file);
    Ok(file.overlay(outcome?.attr))
}
