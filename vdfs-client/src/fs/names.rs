//! Changes of names.

use vdfs_proto::meta::{Link, Rename, Rmdir, Unlink};
use vdfs_proto::{Attr, FileName, Ino, Status};

use super::Fs;

impl Fs {
    /// Gives an inode another name.
    pub async fn link(&self, ino: Ino, parent: Ino, name: FileName) -> Result<Attr, Status> {
        let attr = self.client.mutate(Link { ino, parent, name }).await?;
        Ok(self.client.shown(attr))
    }

    /// Removes a name of anything but a directory.
    pub async fn unlink(&self, parent: Ino, name: FileName) -> Result<(), Status> {
        self.client.mutate(Unlink { parent, name }).await
    }

    /// Removes an empty directory; `StaleInode` if it is not the one that was `found`.
    pub async fn rmdir(
        &self,
        parent: Ino,
        name: FileName,
        found: Option<Ino>,
    ) -> Result<(), Status> {
        let rmdir = Rmdir {
            parent,
            name,
            found,
        };
        self.client.mutate(rmdir).await
    }

    /// Moves a name, replacing what is there (rename(2)).
    pub async fn rename(&self, rename: Rename) -> Result<(), Status> {
        self.client.mutate(rename).await
    }
}
