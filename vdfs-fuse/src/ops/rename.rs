//! RENAME and RENAME2 (rename(2)).

use fuser::{RenameFlags, ReplyEmpty, Request};
use vdfs_proto::meta::Rename;
use vdfs_proto::{Ino, Status};

use crate::door::Door;
use crate::ops::{Place, file_name};

pub(crate) fn rename(
    door: &Door,
    request: &Request,
    from: Place<'_>,
    to: Place<'_>,
    flags: RenameFlags,
    reply: ReplyEmpty,
) {
    let (fs, directories) = (door.fs(), door.directories());
    let rename = decode(from, to, flags).map(|rename| Rename {
        found: directories.find(rename.new_parent, &rename.new_name),
        ..rename
    });
    door.answer(request, reply, async move { fs.rename(rename?).await });
}

/// Of the flags only `RENAME_NOREPLACE` is supported; the others are known but `NotSupported`.
fn decode(from: Place<'_>, to: Place<'_>, flags: RenameFlags) -> Result<Rename, Status> {
    if !RenameFlags::RENAME_NOREPLACE.contains(flags) {
        return Err(Status::NotSupported);
    }
    Ok(Rename {
        parent: Ino(from.0.0),
        name: file_name(from.1)?,
        new_parent: Ino(to.0.0),
        new_name: file_name(to.1)?,
        no_replace: flags.contains(RenameFlags::RENAME_NOREPLACE),
        found: None,
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use fuser::INodeNo;

    use super::*;

    fn decoded(flags: RenameFlags) -> Result<bool, Status> {
        let place = (INodeNo(1), OsStr::new("a"));
        decode(place, place, flags).map(|rename| rename.no_replace)
    }

    #[test]
    fn decode_takes_noreplace_and_refuses_the_rest() {
        assert_eq!(decoded(RenameFlags::empty()), Ok(false));
        assert_eq!(decoded(RenameFlags::RENAME_NOREPLACE), Ok(true));
        assert_eq!(
            decoded(RenameFlags::RENAME_EXCHANGE),
            Err(Status::NotSupported)
        );
        assert_eq!(
            decoded(RenameFlags::RENAME_WHITEOUT),
            Err(Status::NotSupported)
        );
    }
}
