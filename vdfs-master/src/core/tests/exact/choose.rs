//! What happens next: mostly things that can be done, always some that cannot.

mod xattrs;

use proptest::prelude::*;
use proptest::sample::select;
use vdfs_proto::attr::SetTime;
use vdfs_proto::meta::{
    Access, AcquireAppend, Commit, Create, Extend, GetAttr, GetLayout, GetXattr, Link, ListXattr,
    Lock, LockAsked, Lookup, Mutation, NewKind, Open, Query, ReadLink, Release, RemoveXattr,
    Rename, RenameMode, ReturnAppend, Rmdir, SetAttr, Truncate, Unlink, Unlock,
};
use vdfs_proto::{
    DataId, FileName, HandleId, Ino, LockKind, LockOwner, LockRange, SymlinkTarget, Timestamp,
};

use super::model::{Body, CLIENTS, FILE_BYTES_MAX, LOCKABLE, Model};
use super::{Fate, Restore, Transition};
use crate::core::tests::world::{CHUNK_BYTES, name};
use xattrs::{set_acl, set_xattr, xattr_name};

const SLOTS: u16 = 2;
/// Until there are so many, most changes are creates.
const INODES: usize = 8;

pub(super) fn transitions(model: &Model) -> BoxedStrategy<Transition> {
    let by = 0..CLIENTS;
    let slot = 0..SLOTS;
    let mutate = (by.clone(), slot.clone(), mutation(model), fate());
    let mutate = mutate.prop_map(|(by, slot, mutation, fate)| Transition::Mutate {
        by,
        slot,
        mutation,
        fate,
    });
    let ask = (by.clone(), query(model));
    let close = (by.clone(), release());
    let retry = (by.clone(), slot.clone(), 0usize..3);
    prop_oneof![
        40 => mutate,
        16 => ask.prop_map(|(by, query)| Transition::Ask { by, query }),
        2 => close.prop_map(|(by, query)| Transition::AskKilled { by, query }),
        6 => retry.prop_map(|(by, slot, back)| Transition::Retry { by, slot, back }),
        2 => (by, slot).prop_map(|(by, slot)| Transition::RetryFormer { by, slot }),
        12 => fault(),
    ]
    .boxed()
}

fn fault() -> impl Strategy<Value = Transition> {
    let by = 0..CLIENTS;
    let restore = prop_oneof![1 => Just(Restore::Newest), 1 => Just(Restore::OlderCheckpoint)];
    prop_oneof![
        4 => by.clone().prop_map(|by| Transition::Begin { by }),
        1 => by.clone().prop_map(|by| Transition::Close { by }),
        1 => by.prop_map(|by| Transition::Expire { by }),
        2 => (1u64..6).prop_map(|ticks| Transition::Pass { ms: 250 * ticks }),
        1 => Just(Transition::Sync),
        3 => Just(Transition::Checkpoint),
        3 => restore.prop_map(|from| Transition::Restart { from }),
        2 => (0usize..8, any::<bool>())
            .prop_map(|(lose, torn)| Transition::Crash { lose, torn }),
        1 => Just(Transition::LoseVolume),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Calm),
        2 => Just(Fate::Resent),
        1 => Just(Fate::Abandoned),
        1 => (0u8..6).prop_map(|after| Fate::Killed { after }),
    ]
}

fn mutation(model: &Model) -> BoxedStrategy<Mutation> {
    let creates = if model.nodes.len() < INODES { 60 } else { 10 };
    prop_oneof![
        creates => create(model),
        4 => (linkable(model), new_place(model))
            .prop_map(|(ino, (parent, name))| Mutation::Link(Link { ino, parent, name })),
        5 => place(model).prop_map(|(parent, name)| Mutation::Unlink(Unlink { parent, name })),
        2 => (place(model), found(model)).prop_map(|((parent, name), found)| {
            Mutation::Rmdir(Rmdir { parent, name, found })
        }),
        10 => rename(model),
        6 => set_attr(model),
        5 => (file(model), size(), any::<bool>()).prop_map(|(ino, size, kill_privileges)| {
            Mutation::Truncate(Truncate { ino, size, kill_privileges })
        }),
        5 => commit(model).prop_map(Mutation::Commit),
        3 => commit(model).prop_map(|commit| Mutation::Extend(Extend { commit })),
        3 => set_xattr(model),
        8 => set_acl(model),
        2 => (inode(model), xattr_name())
            .prop_map(|(ino, name)| Mutation::RemoveXattr(RemoveXattr { ino, name })),
        5 => lock(model),
    ]
    .boxed()
}

fn query(model: &Model) -> BoxedStrategy<Query> {
    prop_oneof![
        2 => place(model).prop_map(|(parent, name)| Query::Lookup(Lookup { parent, name })),
        2 => inode(model).prop_map(|ino| Query::GetAttr(GetAttr { ino })),
        1 => inode(model).prop_map(|ino| Query::ReadLink(ReadLink { ino })),
        2 => (inode(model), xattr_name())
            .prop_map(|(ino, name)| Query::GetXattr(GetXattr { ino, name })),
        1 => inode(model).prop_map(|ino| Query::ListXattr(ListXattr { ino })),
        6 => (file(model), handle(), access())
            .prop_map(|(ino, handle, access)| Query::Open(Open { ino, handle, access })),
        4 => release(),
        1 => file(model).prop_map(|ino| Query::GetLayout(GetLayout { ino })),
        3 => (file(model), handle())
            .prop_map(|(ino, handle)| Query::AcquireAppend(AcquireAppend { ino, handle })),
        1 => file(model).prop_map(|ino| Query::ReturnAppend(ReturnAppend { ino })),
    ]
    .boxed()
}

fn release() -> impl Strategy<Value = Query> {
    (handle(), proptest::bool::weighted(0.2)).prop_map(|(handle, tail_unknown)| {
        Query::Release(Release {
            handle,
            tail_unknown,
            read_at: None,
        })
    })
}

/// One of those that satisfy, or any that ever was, or none that ever was.
fn inode_like(model: &Model, is_wanted: impl Fn(&Body) -> bool) -> BoxedStrategy<Ino> {
    let nodes = model.nodes.iter();
    let wanted = nodes.filter(|(_, node)| is_wanted(&node.body));
    let wanted: Vec<Ino> = wanted.map(|(ino, _)| *ino).collect();
    let any = (1..=model.next_ino).prop_map(Ino);
    match wanted.is_empty() {
        true => any.boxed(),
        false => prop_oneof![8 => select(wanted), 1 => any].boxed(),
    }
}

fn inode(model: &Model) -> BoxedStrategy<Ino> {
    inode_like(model, |_| true)
}

fn file(model: &Model) -> BoxedStrategy<Ino> {
    inode_like(model, |body| matches!(body, Body::File(_)))
}

fn linkable(model: &Model) -> BoxedStrategy<Ino> {
    inode_like(model, |body| !matches!(body, Body::Directory { .. }))
}

fn directory(model: &Model) -> BoxedStrategy<Ino> {
    inode_like(model, |body| matches!(body, Body::Directory { .. }))
}

fn file_name() -> impl Strategy<Value = FileName> {
    let long = FileName::new(&[b'x'; 255]).expect("as long as may be");
    prop_oneof![
        8 => select(vec!["a", "b", "c"]).prop_map(name),
        1 => Just(long),
    ]
}

/// A name that is there, more often than not.
fn place(model: &Model) -> BoxedStrategy<(Ino, FileName)> {
    let mut taken: Vec<(Ino, FileName)> = Vec::new();
    for (ino, node) in &model.nodes {
        if let Body::Directory { entries, .. } = &node.body {
            taken.extend(entries.keys().map(|name| (*ino, name.clone())));
        }
    }
    let any = (directory(model), file_name());
    match taken.is_empty() {
        true => any.boxed(),
        false => prop_oneof![2 => select(taken), 1 => any].boxed(),
    }
}

/// One that is free, more often than not.
fn new_place(model: &Model) -> impl Strategy<Value = (Ino, FileName)> + use<> {
    prop_oneof![3 => (directory(model), file_name()), 1 => place(model)]
}

fn kind() -> impl Strategy<Value = NewKind> {
    let target = SymlinkTarget::new(b"a/b").expect("a target");
    prop_oneof![
        6 => Just(NewKind::Regular),
        6 => Just(NewKind::Directory),
        1 => Just(NewKind::Symlink(target)),
        1 => Just(NewKind::Fifo),
        1 => any::<u32>().prop_map(|rdev| NewKind::CharDevice { rdev }),
    ]
}

fn mode() -> impl Strategy<Value = u16> {
    prop_oneof![3 => Just(0o644), 1 => Just(0o2775), 1 => any::<u16>()]
}

fn handle() -> impl Strategy<Value = HandleId> {
    (1u64..4).prop_map(HandleId)
}

fn access() -> impl Strategy<Value = Access> {
    any::<bool>().prop_map(|write| Access { read: true, write })
}

fn create(model: &Model) -> impl Strategy<Value = Mutation> + use<> {
    let open = proptest::option::of((handle(), access()));
    let umask = select(vec![0, 0o022, 0o777]);
    let create = (
        new_place(model),
        kind(),
        (mode(), umask),
        0u32..3,
        open,
        any::<bool>(),
    );
    create.prop_map(
        |((parent, name), kind, (mode, umask), id, open, exclusive)| {
            let open = open.filter(|_| kind == NewKind::Regular || id == 0);
            Mutation::Create(Create {
                parent,
                name,
                kind,
                mode,
                uid: id,
                gid: id,
                umask,
                open,
                exclusive,
            })
        },
    )
}

fn rename(model: &Model) -> impl Strategy<Value = Mutation> + use<> {
    let mode = prop_oneof![
        5 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplace),
        4 => Just(RenameMode::Exchange),
    ];
    let rename = (place(model), place(model), mode, found(model));
    rename.prop_map(|((parent, name), (new_parent, new_name), mode, found)| {
        Mutation::Rename(Rename {
            parent,
            name,
            new_parent,
            new_name,
            mode,
            found,
        })
    })
}

/// A directory that was looked up before.
fn found(model: &Model) -> impl Strategy<Value = Option<Ino>> + use<> {
    proptest::option::weighted(0.2, directory(model))
}

fn range() -> impl Strategy<Value = LockRange> {
    let some = (0..LOCKABLE, 0..LOCKABLE)
        .prop_map(|(a, b)| LockRange::new(a.min(b), a.max(b)).expect("ascending"));
    prop_oneof![3 => some, 1 => Just(LockRange::WHOLE)]
}

fn lock(model: &Model) -> impl Strategy<Value = Mutation> + use<> {
    let kind = select(vec![None, Some(LockKind::Read), Some(LockKind::Write)]);
    let lock = (file(model), (1u64..3).prop_map(LockOwner), kind, range());
    lock.prop_map(|(ino, owner, kind, range)| match kind {
        None => Mutation::Unlock(Unlock { ino, owner, range }),
        Some(kind) => Mutation::Lock(Lock {
            ino,
            lock: LockAsked {
                owner,
                pid: 7,
                kind,
                range,
            },
            queued: None,
        }),
    })
}

fn time() -> impl Strategy<Value = SetTime> {
    let at = |secs, nanos| SetTime::At(Timestamp { secs, nanos });
    prop_oneof![
        Just(SetTime::Now),
        Just(at(-2, 999_999_999)),
        Just(at(i64::MAX, 1)),
        (0i64..3).prop_map(move |secs| at(secs, 5)),
    ]
}

fn set_attr(model: &Model) -> impl Strategy<Value = Mutation> + use<> {
    use proptest::option::of;
    let ids = (of(0u32..3), of(0u32..3));
    let set = (
        inode(model),
        of(mode()),
        ids,
        of(time()),
        of(time()),
        any::<bool>(),
    );
    set.prop_map(|(ino, mode, (uid, gid), atime, mtime, kill_privileges)| {
        Mutation::SetAttr(SetAttr {
            ino,
            mode,
            uid,
            gid,
            atime,
            mtime,
            kill_privileges,
        })
    })
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => Just(0),
        2 => 1u64..100,
        2 => (1u64..4, 0u64..3).prop_map(|(chunks, more)| chunks * CHUNK_BYTES + more - 1),
        1 => Just(FILE_BYTES_MAX + 1),
    ]
}

/// Of the present layout, or of an older one.
fn commit(model: &Model) -> impl Strategy<Value = Commit> + use<> {
    let files = model.nodes.keys().filter_map(|ino| {
        let file = model.file(*ino).ok()?;
        Some((*ino, file.data, file.truncations))
    });
    let mut files: Vec<(Ino, DataId, u32)> = files.collect();
    files.push((Ino(model.next_ino), DataId(1), 0));
    let commit = (
        select(files),
        size(),
        any::<[bool; 2]>(),
        proptest::bool::weighted(0.1),
        0i64..3,
    );
    commit.prop_map(
        |((ino, data, truncations), end, flags, is_stale, secs)| Commit {
            ino,
            data,
            truncations: truncations + u32::from(is_stale),
            end,
            holes: flags[0],
            mtime: Timestamp { secs, nanos: 7 },
            kill_privileges: flags[1],
        },
    )
}
