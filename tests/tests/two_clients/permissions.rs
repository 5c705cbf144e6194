//! What a client without a mount checks by itself: modes, groups and ACLs.

use std::path::Path;

use vdfs_client::{AttrChanges, Caller, Fs, NewFile, path};
use vdfs_proto::acl::Perms;
use vdfs_proto::meta::NewKind;
use vdfs_proto::{Acl, AclKind, Attr, Ino, Status};

use crate::cluster::{Cluster, regular};

fn caller(uid: u32, groups: &[u32]) -> Caller {
    Caller {
        uid,
        gid: uid,
        groups: groups.to_vec(),
    }
}

/// User 5 may read and search, group 30 everything; the mask is everything.
fn acl() -> Acl {
    let entries: [(u16, u16, u32); 6] = [
        (0x01, 7, u32::MAX),
        (0x02, 5, 5),
        (0x04, 0, u32::MAX),
        (0x08, 7, 30),
        (0x10, 7, u32::MAX),
        (0x20, 0, u32::MAX),
    ];
    let entries = entries.iter().flat_map(|(tag, perms, id)| {
        let id = id.to_le_bytes();
        [
            tag.to_le_bytes(),
            perms.to_le_bytes(),
            [id[0], id[1]],
            [id[2], id[3]],
        ]
        .concat()
    });
    let bytes: Vec<u8> = 2u32.to_le_bytes().into_iter().chain(entries).collect();
    Acl::parse(&bytes).expect("valid").expect("some")
}

async fn make(fs: &Fs, parent: Ino, name: &str, kind: NewKind) -> Attr {
    let new = NewFile {
        parent,
        kind,
        mode: 0o700,
        ..regular(name)
    };
    fs.create(new).await.expect("creates")
}

#[tokio::test(flavor = "multi_thread")]
async fn path_walk_and_checks_go_by_the_acl() {
    let cluster = Cluster::start().await;
    let (fs, other) = (cluster.client("one").await, cluster.client("two").await);
    let dir = make(&fs, Ino::ROOT, "dir", NewKind::Directory).await;
    make(&fs, dir.ino, "file", NewKind::Regular).await;
    let (named, grouped) = (caller(5, &[]), caller(6, &[9, 30]));
    let walk = async |who: &Caller| {
        let found = path::resolve(&other, who, Path::new("/dir/file"), true).await;
        found.map(|_| ())
    };
    assert_eq!(walk(&named).await, Err(Status::AccessDenied));
    let root = caller(0, &[]);
    let set = fs.set_acl(dir.ino, AclKind::Access, Some(acl()), &root);
    set.await.expect("sets");
    assert_eq!(walk(&named).await, Ok(()));
    assert_eq!(walk(&grouped).await, Ok(()));
    assert_eq!(walk(&caller(6, &[9])).await, Err(Status::AccessDenied));
    let dir = other.getattr(dir.ino).await.expect("there");
    assert_eq!((dir.mode, dir.has_acl), (0o770, true));
    assert_eq!(grouped.check_new_name(&other, &dir).await, Ok(()));
    let refused = named.check_new_name(&other, &dir).await;
    assert_eq!(refused, Err(Status::AccessDenied));
    // chmod is the mask's.
    let changes = AttrChanges {
        mode: Some(0o710),
        ..AttrChanges::default()
    };
    let dir = fs.set_attr(dir.ino, changes).await.expect("sets");
    assert_eq!(named.check(&other, &dir, Perms::EXECUTE).await, Ok(()));
    let refused = named.check(&other, &dir, Perms::READ).await;
    assert_eq!(refused, Err(Status::AccessDenied));
    // Sticky: write permission is not enough.
    let changes = AttrChanges {
        mode: Some(0o1770),
        ..AttrChanges::default()
    };
    let dir = fs.set_attr(dir.ino, changes).await.expect("sets");
    let file = path::resolve(&fs, &caller(0, &[]), Path::new("/dir/file"), true).await;
    let refused = grouped
        .check_removal(&other, &dir, &file.expect("there"))
        .await;
    assert_eq!(refused, Err(Status::NotPermitted));
}
