//! Extended attributes.

use vdfs_proto::limits::XATTR_VALUE_BYTES_MAX;
use vdfs_proto::meta::{GetXattr, ListXattr, RemoveXattr, SetXattr, XattrMode};
use vdfs_proto::{Ino, Status, XattrName};

use super::Fs;

impl Fs {
    /// `TooBig` above `XATTR_VALUE_BYTES_MAX` bytes.
    pub async fn set_xattr(
        &self,
        ino: Ino,
        name: XattrName,
        value: Vec<u8>,
        mode: XattrMode,
    ) -> Result<(), Status> {
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(Status::TooBig);
        }
        let change = SetXattr {
            ino,
            name,
            value,
            mode,
        };
        self.client.mutate(change).await
    }

    /// `NoData` if there is none.
    pub async fn get_xattr(&self, ino: Ino, name: XattrName) -> Result<Vec<u8>, Status> {
        self.client.query(GetXattr { ino, name }).await
    }

    pub async fn list_xattr(&self, ino: Ino) -> Result<Vec<XattrName>, Status> {
        self.client.query(ListXattr { ino }).await
    }

    /// `NoData` if there is none.
    pub async fn remove_xattr(&self, ino: Ino, name: XattrName) -> Result<(), Status> {
        self.client.mutate(RemoveXattr { ino, name }).await
    }
}
