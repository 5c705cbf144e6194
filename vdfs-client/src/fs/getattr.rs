//! `stat(2)` and what leads to it.

use vdfs_proto::meta::{FsStats, GetAttr, Lookup, ReadLink, StatFs};
use vdfs_proto::{Attr, FileName, Ino, Status, SymlinkTarget};

use super::Fs;

impl Fs {
    /// Attributes of the inode that a name stands for.
    pub async fn lookup(&self, parent: Ino, name: &FileName) -> Result<Attr, Status> {
        let name = name.clone();
        let attr = self.client.query(Lookup { parent, name }).await?;
        Ok(self.client.shown(attr))
    }

    /// Attributes, with what this client has written and not committed yet.
    pub async fn getattr(&self, ino: Ino) -> Result<Attr, Status> {
        let open = self.client.files.find(ino);
        let recalls = open.as_ref().map(|file| file.recalls());
        let attr = self.client.query(GetAttr { ino }).await?;
        if let (Some(file), Some(recalls)) = (open, recalls) {
            file.see_size(attr.size, recalls);
        }
        Ok(self.client.shown(attr))
    }

    /// Where a symlink points.
    pub async fn readlink(&self, ino: Ino) -> Result<SymlinkTarget, Status> {
        self.client.query(ReadLink { ino }).await
    }

    /// Room and inodes (`statfs(2)`).
    pub async fn stat_fs(&self) -> Result<FsStats, Status> {
        self.client.query(StatFs {}).await
    }
}
