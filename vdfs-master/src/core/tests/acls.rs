//! ACLs: what they do to modes, and what modes do to them.

use vdfs_proto::limits::XATTR_TOTAL_BYTES_MAX;
use vdfs_proto::meta::{
    Create, Created, GetXattr, ListXattr, NewKind, RemoveXattr, SetAcl, SetAttr, SetXattr,
    XattrMode,
};
use vdfs_proto::{Acl, AclKind, Attr, Ino, SessionId, Status, SymlinkTarget, XattrName};

use super::world::{World, create_in, truncate};

/// As `mode`, with user 5, who may do everything that the mask lets pass.
fn acl(mode: u16, mask: u16) -> Acl {
    let entries = [
        (0x01u16, mode >> 6 & 7, u32::MAX),
        (0x02, 7, 5),
        (0x04, mode >> 3 & 7, u32::MAX),
        (0x10, mask, u32::MAX),
        (0x20, mode & 7, u32::MAX),
    ];
    of_entries(&entries)
}

fn minimal(mode: u16) -> Acl {
    let entries = [
        (0x01u16, mode >> 6 & 7, u32::MAX),
        (0x04, mode >> 3 & 7, u32::MAX),
        (0x20, mode & 7, u32::MAX),
    ];
    of_entries(&entries)
}

fn of_entries(entries: &[(u16, u16, u32)]) -> Acl {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, perms, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perms.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    Acl::parse(&bytes).expect("valid").expect("some")
}

fn set(world: &mut World, session: SessionId, ino: Ino, kind: AclKind, acl: Option<Acl>) -> Attr {
    let set = SetAcl {
        ino,
        kind,
        acl,
        kill_setgid: false,
    };
    let attr = world.mutate(session, set).expect("sets");
    assert_eq!(world.attr(session, ino), Ok(attr));
    attr
}

fn get(world: &mut World, session: SessionId, ino: Ino, kind: AclKind) -> Option<Acl> {
    let name = kind.name();
    match world.ask(session, GetXattr { ino, name }) {
        Ok(bytes) => Acl::parse(&bytes).expect("valid"),
        Err(status) => {
            assert_eq!(status, Status::NoData);
            None
        }
    }
}

fn make(world: &mut World, session: SessionId, parent: Ino, kind: NewKind) -> Created {
    let create = Create {
        mode: 0o666,
        umask: 0o077,
        ..create_in(parent, "new", kind)
    };
    world.create(session, create)
}

#[test]
fn access_acl_shows_in_the_mode_and_follows_it() {
    let mut world = World::new();
    let session = world.open_session("a");
    let ino = world.create_file(session, "f");
    world.pass(10);
    let before = world.attr(session, ino).expect("there");
    let attr = set(
        &mut world,
        session,
        ino,
        AclKind::Access,
        Some(acl(0o750, 6)),
    );
    assert_eq!((attr.mode, attr.has_acl), (0o760, true));
    assert!(attr.ctime > before.ctime && attr.mtime == before.mtime);
    let chmod = SetAttr {
        ino,
        mode: Some(0o4704),
        uid: None,
        gid: None,
        atime: None,
        mtime: None,
        kill_privileges: false,
    };
    assert_eq!(world.mutate(session, chmod).expect("sets").mode, 0o4704);
    let changed = get(&mut world, session, ino, AclKind::Access);
    assert_eq!(
        changed,
        Some(acl(0o754, 0)),
        "the mask is the group's triple"
    );
    world.restart(true);
    assert_eq!(get(&mut world, session, ino, AclKind::Access), changed);

    // One that the mode can say is none.
    let attr = set(
        &mut world,
        session,
        ino,
        AclKind::Access,
        Some(minimal(0o640)),
    );
    assert_eq!((attr.mode, attr.has_acl), (0o4640, false));
    assert_eq!(world.ask(session, ListXattr { ino }), Ok(vec![]));
    let attr = set(&mut world, session, ino, AclKind::Access, None);
    assert_eq!(attr.mode, 0o4640, "a removal leaves the mode");
}

#[test]
fn access_acl_of_one_outside_the_group_takes_setgid_away() {
    let mut world = World::new();
    let session = world.open_session("a");
    let create = Create {
        mode: 0o2755,
        ..create_in(Ino::ROOT, "f", NewKind::Regular)
    };
    let ino = world.create(session, create).attr.ino;
    let set = SetAcl {
        ino,
        kind: AclKind::Access,
        acl: Some(acl(0o755, 7)),
        kill_setgid: true,
    };
    assert_eq!(world.mutate(session, set).expect("sets").mode, 0o775);
}

#[test]
fn default_acl_takes_the_place_of_the_umask_and_goes_down() {
    let mut world = World::new();
    let session = world.open_session("a");
    let dir = world.create(session, create_in(Ino::ROOT, "d", NewKind::Directory));
    let dir = dir.attr.ino;
    let plain = make(&mut world, session, dir, NewKind::Regular);
    assert_eq!(plain.attr.mode, 0o600, "without one the umask counts");
    let attr = set(
        &mut world,
        session,
        dir,
        AclKind::Default,
        Some(acl(0o757, 7)),
    );
    assert_eq!((attr.mode, attr.has_acl), (0o644, false));
    let below = world.create(
        session,
        Create {
            mode: 0o777,
            umask: 0o077,
            ..create_in(dir, "below", NewKind::Directory)
        },
    );
    assert_eq!((below.attr.mode, below.attr.has_acl), (0o777, true));
    let below = below.attr.ino;
    let inherited = get(&mut world, session, below, AclKind::Default);
    assert_eq!(inherited, Some(acl(0o757, 7)));
    let file = make(&mut world, session, below, NewKind::Fifo);
    assert_eq!((file.attr.mode, file.attr.has_acl), (0o666, true));
    let own = get(&mut world, session, file.attr.ino, AclKind::Access);
    assert_eq!(own, Some(acl(0o656, 6)), "within what the caller asked for");
    let target = SymlinkTarget::new(b"x").expect("a target");
    let link = create_in(below, "link", NewKind::Symlink(target));
    let link = world.create(
        session,
        Create {
            mode: 0o777,
            ..link
        },
    );
    assert!(link.attr.mode == 0o777 && !link.attr.has_acl);

    // A minimal default ACL replaces the umask too, and leaves nothing but a mode.
    set(
        &mut world,
        session,
        dir,
        AclKind::Default,
        Some(minimal(0o755)),
    );
    let create = Create {
        mode: 0o666,
        umask: 0o077,
        ..create_in(dir, "minimal", NewKind::Regular)
    };
    let file = world.create(session, create).attr;
    assert_eq!((file.mode, file.has_acl), (0o644, false));
}

#[test]
fn acl_is_refused_where_there_can_be_none() {
    let mut world = World::new();
    let session = world.open_session("a");
    let ino = world.create_file(session, "f");
    let refused = |world: &mut World, ino, kind, acl| {
        let set = SetAcl {
            ino,
            kind,
            acl,
            kill_setgid: false,
        };
        world.mutate(session, set).map(|_| ())
    };
    let given = Some(acl(0o777, 7));
    assert_eq!(
        refused(&mut world, ino, AclKind::Default, given.clone()),
        Err(Status::AccessDenied)
    );
    assert_eq!(refused(&mut world, ino, AclKind::Default, None), Ok(()));
    let target = SymlinkTarget::new(b"x").expect("a target");
    let link = world.create(session, create_in(Ino::ROOT, "l", NewKind::Symlink(target)));
    assert_eq!(
        refused(&mut world, link.attr.ino, AclKind::Access, given),
        Err(Status::NotSupported)
    );
}

#[test]
fn default_acl_that_there_cannot_be_is_removed_without_a_trace() {
    let mut world = World::new();
    let session = world.open_session("a");
    let ino = world.create_file(session, "f");
    let before = world.attr(session, ino);
    world.pass(10);
    let attr = set(&mut world, session, ino, AclKind::Default, None);
    assert_eq!(Ok(attr), before);
}

#[test]
fn acl_is_no_matter_of_setxattr() {
    let mut world = World::new();
    let session = world.open_session("a");
    let ino = world.create_file(session, "f");
    set(
        &mut world,
        session,
        ino,
        AclKind::Access,
        Some(acl(0o750, 6)),
    );
    for kind in [AclKind::Access, AclKind::Default] {
        let junk = SetXattr {
            ino,
            name: kind.name(),
            value: vec![1],
            mode: XattrMode::Set,
        };
        let name = kind.name();
        let removal = RemoveXattr { ino, name };
        let refused = Err(Status::NotSupported);
        assert_eq!(world.mutate(session, junk), refused);
        assert_eq!(world.mutate(session, removal), refused);
    }
    let kept = get(&mut world, session, ino, AclKind::Access);
    assert_eq!(kept, Some(acl(0o750, 6)));
}

#[test]
fn acl_that_is_only_a_mode_needs_no_room() {
    let mut world = World::new();
    let session = world.open_session("a");
    let ino = world.create_file(session, "f");
    let name = XattrName::new(b"user.a").expect("a name");
    let full = SetXattr {
        ino,
        value: vec![0; XATTR_TOTAL_BYTES_MAX - name.as_bytes().len()],
        name,
        mode: XattrMode::Set,
    };
    world.mutate(session, full).expect("has room");
    let set = |acl| SetAcl {
        ino,
        kind: AclKind::Access,
        acl: Some(acl),
        kill_setgid: false,
    };
    let refused = world.mutate(session, set(acl(0o777, 7)));
    assert_eq!(refused, Err(Status::NoSpace));
    let attr = world.mutate(session, set(minimal(0o600))).expect("sets");
    assert_eq!((attr.mode, attr.has_acl), (0o600, false));
}

fn chown(ino: Ino) -> SetAttr {
    SetAttr {
        ino,
        mode: None,
        uid: Some(3),
        gid: None,
        atime: None,
        mtime: None,
        kill_privileges: false,
    }
}

#[test]
fn capabilities_of_a_directory_stay_with_another_owner() {
    let mut world = World::new();
    let session = world.open_session("a");
    let dir = world.create(session, create_in(Ino::ROOT, "d", NewKind::Directory));
    let ino = dir.attr.ino;
    let name = XattrName::new(b"security.capability").expect("a name");
    let set = SetXattr {
        ino,
        name: name.clone(),
        value: vec![1],
        mode: XattrMode::Set,
    };
    world.mutate(session, set).expect("sets");
    let chown = chown(ino);
    world.mutate(session, chown).expect("sets");
    assert_eq!(world.ask(session, ListXattr { ino }), Ok(vec![name]));
}

#[test]
fn capabilities_end_with_a_change_of_bytes_or_owner_and_of_nothing_else() {
    let mut world = World::new();
    let session = world.open_session("a");
    let ino = world.create_file(session, "f");
    let attribute = |text: &str| XattrName::new(text.as_bytes()).expect("a name");
    let chown = chown(ino);
    let chmod = SetAttr {
        mode: Some(0o755),
        uid: None,
        ..chown.clone()
    };
    for change in 0..3 {
        for name in ["security.capability", "user.a"] {
            let set = SetXattr {
                ino,
                name: attribute(name),
                value: vec![1],
                mode: XattrMode::Set,
            };
            world.mutate(session, set).expect("sets");
        }
        world.mutate(session, chmod.clone()).expect("sets");
        let both = vec![attribute("security.capability"), attribute("user.a")];
        assert_eq!(world.ask(session, ListXattr { ino }), Ok(both));
        match change {
            0 => assert_eq!(world.mutate(session, chown.clone()).expect("sets").uid, 3),
            1 => drop(world.mutate(session, truncate(ino, 0)).expect("truncates")),
            _ => drop(world.mutate(session, truncate(ino, 9)).expect("truncates")),
        }
        let rest = world.ask(session, ListXattr { ino });
        assert_eq!(rest, Ok(vec![attribute("user.a")]), "change {change}");
    }
    let gone = RemoveXattr {
        ino,
        name: attribute("security.capability"),
    };
    assert_eq!(world.mutate(session, gone), Err(Status::NoData));
}
