//! Making inodes.

use std::sync::Arc;

use vdfs_proto::meta::{Create, Created};
use vdfs_proto::{Attr, HandleId, Status};

use super::open::{Unclaimed, finish_open, register};
use super::{Fs, NewFile, OpenFile, OpenOptions};
use crate::client::Client;
use crate::files::Handle;

impl Fs {
    /// Makes an inode and its name; `Exists` if the name is taken.
    pub async fn create(&self, new: NewFile) -> Result<Attr, Status> {
        let created = self.client.mutate(mutation(new, None, true)).await?;
        Ok(self.client.shown(created.attr))
    }

    /// Makes a regular file and opens it in the same round trip. Without `exclusive` a file that
    /// exists is opened.
    pub async fn create_open(
        &self,
        new: NewFile,
        options: OpenOptions,
        exclusive: bool,
    ) -> Result<(Attr, OpenFile), Status> {
        self.client.check_writable()?;
        let client = self.client.clone();
        let task = async move {
            let opened = create_open(&client, new, options, exclusive).await?;
            let unclaimed = Unclaimed::new(&client, opened.handle);
            Ok((opened, unclaimed))
        };
        let deadline = self.client.deadline();
        let (opened, unclaimed) = deadline.limit(self.client.spawn(task)).await??;
        unclaimed.claim();
        Ok((opened.attr, opened))
    }
}

async fn create_open(
    client: &Arc<Client>,
    new: NewFile,
    options: OpenOptions,
    exclusive: bool,
) -> Result<OpenFile, Status> {
    let id = client.files.new_handle_id();
    let recalls = client.files.recalls();
    let life = client.session.current();
    let create = mutation(new, Some((id, options)), exclusive);
    let created: Created = client.mutate_here(create).await?;
    let file = client.files.enter(created.attr.ino);
    let recalls_of_file = file.recalls();
    // A recall that found no file was answered at once: it may have been of this layout.
    if let Some(layout) = created.layout
        && client.files.recalls() == recalls
    {
        file.install_layout(layout, recalls_of_file);
    }
    client.acls.note(&created.attr);
    let handle = Handle::new(id, file, options, created.is_shared);
    register(client, &life, handle).await;
    let options = OpenOptions {
        truncate: options.truncate && !created.is_new,
        ..options
    };
    finish_open(client, id, created.attr, options).await
}

fn mutation(new: NewFile, open: Option<(HandleId, OpenOptions)>, exclusive: bool) -> Create {
    Create {
        parent: new.parent,
        name: new.name,
        kind: new.kind,
        mode: new.mode,
        umask: new.umask,
        uid: new.uid,
        gid: new.gid,
        open: open.map(|(handle, options)| (handle, options.access())),
        exclusive,
    }
}
