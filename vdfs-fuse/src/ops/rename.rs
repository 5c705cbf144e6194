//! RENAME and RENAME2 (rename(2)).

use fuser::{RenameFlags, ReplyEmpty, Request};
use vdfs_proto::meta::{Rename, RenameMode};
use vdfs_proto::{Ino, Status};

use crate::door::Door;
use crate::found_directories::Looked;
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
    let rename = decode(from, to, flags).map(|rename| {
        let looked = Looked::by(request, rename.new_parent, rename.new_name.clone());
        Rename {
            found: directories.find(&looked),
            ..rename
        }
    });
    door.answer(request, reply, async move { fs.rename(rename?).await });
}

fn decode(from: Place<'_>, to: Place<'_>, flags: RenameFlags) -> Result<Rename, Status> {
    Ok(Rename {
        parent: Ino(from.0.0),
        name: file_name(from.1)?,
        new_parent: Ino(to.0.0),
        new_name: file_name(to.1)?,
        mode: mode(flags)?,
        found: None,
    })
}

/// `Invalid` for `RENAME_WHITEOUT`, as on any filesystem that cannot be a layer of another.
fn mode(flags: RenameFlags) -> Result<RenameMode, Status> {
    match flags {
        _ if flags.is_empty() => Ok(RenameMode::Replace),
        RenameFlags::RENAME_NOREPLACE => Ok(RenameMode::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        _ => Err(Status::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_takes_one_flag_and_no_whiteout() {
        assert_eq!(mode(RenameFlags::empty()), Ok(RenameMode::Replace));
        let no_replace = RenameFlags::RENAME_NOREPLACE;
        assert_eq!(mode(no_replace), Ok(RenameMode::NoReplace));
        let exchange = RenameFlags::RENAME_EXCHANGE;
        assert_eq!(mode(exchange), Ok(RenameMode::Exchange));
        for flags in [no_replace | exchange, RenameFlags::RENAME_WHITEOUT] {
            assert_eq!(mode(flags), Err(Status::Invalid));
        }
    }
}
