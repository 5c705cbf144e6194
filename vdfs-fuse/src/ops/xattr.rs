//! Extended attributes (xattr(7)).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fuser::{INodeNo, ReplyEmpty, ReplyXattr, Request};
use vdfs_proto::meta::XattrMode;
use vdfs_proto::{Acl, AclKind, Ino, Status, XattrName};

use crate::door::Door;
use crate::ops::acl;
use crate::reply::XattrBytes;

/// An attribute of an inode.
type Attribute<'a> = (INodeNo, &'a OsStr);

pub(crate) fn setxattr(
    door: &Door,
    request: &Request,
    (ino, name): Attribute<'_>,
    value: &[u8],
    flags: i32,
    reply: ReplyEmpty,
) {
    if let Some(kind) = AclKind::of_name(name.as_bytes()) {
        acl::set(door, request, (ino, kind), Acl::parse(value), reply);
        return;
    }
    let (fs, name, mode, value) = (
        door.fs(),
        xattr_name(name),
        xattr_mode(flags),
        value.to_vec(),
    );
    door.answer(request, reply, async move {
        fs.set_xattr(Ino(ino.0), name?, value, mode?).await
    });
}

pub(crate) fn getxattr(
    door: &Door,
    request: &Request,
    (ino, name): Attribute<'_>,
    room: u32,
    reply: ReplyXattr,
) {
    let (fs, name) = (door.fs(), xattr_name(name));
    door.answer(request, reply, async move {
        let bytes = fs.get_xattr(Ino(ino.0), name?).await?;
        Ok(XattrBytes { bytes, room })
    });
}

pub(crate) fn listxattr(
    door: &Door,
    request: &Request,
    ino: INodeNo,
    room: u32,
    reply: ReplyXattr,
) {
    let (fs, is_privileged) = (door.fs(), request.uid() == 0);
    door.answer(request, reply, async move {
        let names = fs.list_xattr(Ino(ino.0)).await?;
        Ok(XattrBytes {
            bytes: name_list(&names, is_privileged),
            room,
        })
    });
}

pub(crate) fn removexattr(
    door: &Door,
    request: &Request,
    (ino, name): Attribute<'_>,
    reply: ReplyEmpty,
) {
    if let Some(kind) = AclKind::of_name(name.as_bytes()) {
        acl::set(door, request, (ino, kind), Ok(None), reply);
        return;
    }
    let (fs, name) = (door.fs(), xattr_name(name));
    door.answer(request, reply, async move {
        fs.remove_xattr(Ino(ino.0), name?).await
    });
}

/// The namespaces of names there are. Those of `system.` are interfaces to something that a
/// filesystem does: here, ACLs.
const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// `NotSupported` in any other namespace, `Invalid` for one without a name in it.
fn xattr_name(name: &OsStr) -> Result<XattrName, Status> {
    let bytes = name.as_bytes();
    if AclKind::of_name(bytes).is_some() {
        return XattrName::new(bytes);
    }
    let rest = NAMESPACES
        .iter()
        .find_map(|space| bytes.strip_prefix(*space));
    match rest {
        None => Err(Status::NotSupported),
        Some([]) => Err(Status::Invalid),
        Some(_) => XattrName::new(bytes),
    }
}

fn xattr_mode(flags: i32) -> Result<XattrMode, Status> {
    match flags {
        0 => Ok(XattrMode::Set),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(Status::Invalid),
    }
}

/// Each name with a NUL behind it. Only the privileged see `trusted.` names.
fn name_list(names: &[XattrName], is_privileged: bool) -> Vec<u8> {
    let is_shown = |name: &&XattrName| is_privileged || !name.as_bytes().starts_with(b"trusted.");
    let with_nul = |name: &XattrName| [name.as_bytes(), b"\0"].concat();
    names.iter().filter(is_shown).flat_map(with_nul).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xattr_name_of_the_system_is_that_of_an_acl_or_not_supported() {
        for name in [
            "system.posix_acl_access",
            "system.posix_acl_default",
            "user.a",
        ] {
            assert!(xattr_name(OsStr::new(name)).is_ok(), "{name}");
        }
        let name = OsStr::new("system.posix_acl");
        assert_eq!(xattr_name(name), Err(Status::NotSupported));
    }

    #[test]
    fn xattr_name_outside_the_namespaces_or_empty_in_one_is_refused() {
        for name in ["a", "user", "mine.a", "User.a"] {
            assert_eq!(xattr_name(OsStr::new(name)), Err(Status::NotSupported));
        }
        for name in ["user.", "trusted.", "security."] {
            assert_eq!(xattr_name(OsStr::new(name)), Err(Status::Invalid));
        }
    }

    #[test]
    fn xattr_mode_refuses_both_flags_at_once() {
        assert_eq!(xattr_mode(libc::XATTR_CREATE), Ok(XattrMode::Create));
        assert_eq!(
            xattr_mode(libc::XATTR_CREATE | libc::XATTR_REPLACE),
            Err(Status::Invalid)
        );
    }

    #[test]
    fn name_list_hides_trusted_names_from_others() {
        let names = ["user.a", "trusted.b"].map(|name| XattrName::new(name.as_bytes()));
        let names = names.map(|name| name.expect("a name"));
        assert_eq!(name_list(&names, true), b"user.a\0trusted.b\0");
        assert_eq!(name_list(&names, false), b"user.a\0");
    }
}
