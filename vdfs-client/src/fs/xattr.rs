//! Extended attributes and ACLs.

use vdfs_proto::limits::XATTR_VALUE_BYTES_MAX;
use vdfs_proto::meta::{GetXattr, ListXattr, RemoveXattr, SetAcl, SetXattr, XattrMode};
use vdfs_proto::{Acl, AclKind, Ino, Status, XattrName};

use super::Fs;
use crate::permission::Caller;
use crate::write_behind::flush;

const SETGID: u16 = 0o2000;

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
        self.commit_before(ino, &name).await?;
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
        if AclKind::of_name(name.as_bytes()) == Some(AclKind::Access)
            && self.client.acls.has_none(ino)
        {
            return Err(Status::NoData);
        }
        self.commit_before(ino, &name).await?;
        self.client.query(GetXattr { ino, name }).await
    }

    pub async fn list_xattr(&self, ino: Ino) -> Result<Vec<XattrName>, Status> {
        self.client.query(ListXattr { ino }).await
    }

    /// `NoData` if there is none.
    pub async fn remove_xattr(&self, ino: Ino, name: XattrName) -> Result<(), Status> {
        self.client.mutate(RemoveXattr { ino, name }).await
    }

    /// A commit takes capabilities away, which must not happen to ones that are set after the write.
    async fn commit_before(&self, ino: Ino, name: &XattrName) -> Result<(), Status> {
        if name.as_bytes() != b"security.capability" {
            return Ok(());
        }
        match self.client.files.find(ino) {
            Some(file) => flush(&self.client, &file).await,
            None => Ok(()),
        }
    }

    /// Sets an ACL, or removes it. Sgid falls if `caller` is not in the inode's group (chmod(2)).
    pub async fn set_acl(
        &self,
        ino: Ino,
        kind: AclKind,
        acl: Option<Acl>,
        caller: &Caller,
    ) -> Result<(), Status> {
        let may_lose_setgid = caller.uid != 0 && kind == AclKind::Access && acl.is_some();
        let kill_setgid = may_lose_setgid && {
            let attr = self.getattr(ino).await?;
            attr.mode & SETGID != 0 && !caller.is_in(attr.gid)
        };
        let change = SetAcl {
            ino,
            kind,
            acl,
            kill_setgid,
        };
        let attr = self.client.mutate(change).await?;
        self.client.acls.note(&attr);
        Ok(())
    }

    pub async fn acl(&self, ino: Ino, kind: AclKind) -> Result<Option<Acl>, Status> {
        match self.get_xattr(ino, kind.name()).await {
            Ok(bytes) => Acl::parse(&bytes),
            Err(Status::NoData) => Ok(None),
            Err(status) => Err(status),
        }
    }
}
