//! Extended attributes and ACLs.

use proptest::prelude::*;
use proptest::sample::select;
use vdfs_proto::limits::XATTR_VALUE_BYTES_MAX;
use vdfs_proto::meta::{Mutation, SetAcl, SetXattr, XattrMode};
use vdfs_proto::{Acl, AclKind, XattrName};

use super::super::model::{Model, acls};
use super::{directory, inode};

const COPIES: &str = "user.vdfs.replicas";

pub(super) fn xattr_name() -> impl Strategy<Value = XattrName> {
    let name = |text: &str| XattrName::new(text.as_bytes()).expect("a good name");
    let acl = select(vec![AclKind::Access, AclKind::Default]).prop_map(AclKind::name);
    let plain = select(vec!["user.a", "user.b", "security.capability", COPIES]);
    prop_oneof![3 => plain.prop_map(name), 1 => acl]
}

fn acl() -> impl Strategy<Value = Acl> {
    let perms = 0u16..8;
    let who = (select(vec![acls::USER_TAG, acls::GROUP_TAG]), 0u32..3);
    let named = proptest::collection::btree_map(who, perms.clone(), 0..4);
    let acl = (named, proptest::array::uniform4(perms), any::<bool>());
    acl.prop_map(|(mut acl, [owner, group, mask, others], is_masked)| {
        if is_masked || !acl.is_empty() {
            acl.insert(acls::MASK, mask);
        }
        acl.extend([
            (acls::OWNER, owner),
            (acls::GROUP, group),
            (acls::OTHERS, others),
        ]);
        let parsed = Acl::parse(&acls::to_bytes(&acl));
        parsed.expect("a good one").expect("not empty")
    })
}

pub(super) fn set_acl(model: &Model) -> impl Strategy<Value = Mutation> + use<> {
    let of_access = (inode(model), Just(AclKind::Access));
    let of_default = (directory(model), Just(AclKind::Default));
    let refused = (inode(model), Just(AclKind::Default));
    let set = (
        prop_oneof![4 => of_access, 4 => of_default, 1 => refused],
        proptest::option::weighted(0.85, acl()),
        any::<bool>(),
    );
    set.prop_map(|((ino, kind), acl, kill_setgid)| {
        Mutation::SetAcl(SetAcl {
            ino,
            kind,
            acl,
            kill_setgid,
        })
    })
}

/// Of copies: good ones and others, mostly of directories.
fn set_copies(model: &Model) -> impl Strategy<Value = Mutation> + use<> {
    let ino = prop_oneof![8 => directory(model), 1 => inode(model)];
    (ino, b'0'..b'5').prop_map(|(ino, digit)| {
        Mutation::SetXattr(SetXattr {
            ino,
            name: XattrName::new(COPIES.as_bytes()).expect("a good name"),
            value: vec![digit],
            mode: XattrMode::Set,
        })
    })
}

pub(super) fn set_xattr(model: &Model) -> impl Strategy<Value = Mutation> + use<> {
    prop_oneof![2 => set_any_xattr(model), 1 => set_copies(model)]
}

fn set_any_xattr(model: &Model) -> impl Strategy<Value = Mutation> + use<> {
    let bytes = prop_oneof![
        8 => 0usize..4,
        1 => Just(XATTR_VALUE_BYTES_MAX - 100),
        1 => Just(XATTR_VALUE_BYTES_MAX + 1),
    ];
    let modes = vec![XattrMode::Set, XattrMode::Create, XattrMode::Replace];
    let set = (
        inode(model),
        xattr_name(),
        bytes,
        any::<u8>(),
        select(modes),
    );
    set.prop_map(|(ino, name, bytes, fill, mode)| {
        Mutation::SetXattr(SetXattr {
            ino,
            name,
            value: vec![fill; bytes],
            mode,
        })
    })
}
