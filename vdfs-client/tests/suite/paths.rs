//! Path walks.

use std::path::Path;

use vdfs_client::{Caller, Fs, NewFile, path};
use vdfs_proto::meta::NewKind;
use vdfs_proto::{Ino, Status, SymlinkTarget};

use crate::fake::{Fake, name, regular};

fn caller(uid: u32) -> Caller {
    Caller {
        uid,
        gid: uid,
        groups: vec![],
    }
}

async fn make(fs: &Fs, parent: Ino, text: &str, kind: NewKind, mode: u16) -> Ino {
    let new = NewFile {
        parent,
        name: name(text),
        kind,
        mode,
        ..regular(text)
    };
    fs.create(new).await.unwrap().ino
}

fn link(target: &str) -> NewKind {
    NewKind::Symlink(SymlinkTarget::new(target.as_bytes()).unwrap())
}

async fn tree() -> (Fake, Fs, Ino) {
    let fake = Fake::start();
    let fs = fake.connect().await;
    let dir = make(&fs, Ino::ROOT, "dir", NewKind::Directory, 0o755).await;
    let file = make(&fs, dir, "file", NewKind::Regular, 0o644).await;
    make(&fs, dir, "up", link("../dir/file"), 0o777).await;
    make(&fs, Ino::ROOT, "abs", link("/dir"), 0o777).await;
    make(&fs, Ino::ROOT, "loop", link("loop"), 0o777).await;
    make(&fs, Ino::ROOT, "closed", NewKind::Directory, 0o700).await;
    (fake, fs, file)
}

#[tokio::test]
async fn resolve_follows_links_and_dots() {
    let (_fake, fs, file) = tree().await;
    for path in [
        "/dir/file",
        "dir/file",
        "/abs/file",
        "/dir/up",
        "/abs/../dir/./up",
        "//../dir/file",
    ] {
        let found = path::resolve(&fs, &caller(0), Path::new(path), true).await;
        assert_eq!(found.unwrap().ino, file, "{path}");
    }
    let last = path::resolve(&fs, &caller(0), Path::new("/dir/up"), false).await;
    assert_ne!(last.unwrap().ino, file);
}

#[tokio::test]
async fn resolve_refuses_as_a_kernel_would() {
    let (_fake, fs, _) = tree().await;
    let table = [
        ("/none", Status::NotFound),
        ("/dir/file/x", Status::NotDirectory),
        ("/dir/file/", Status::NotDirectory),
        ("/loop", Status::Loop),
        ("/closed/x", Status::AccessDenied),
    ];
    for (path, expected) in table {
        let found = path::resolve(&fs, &caller(9), Path::new(path), true).await;
        assert_eq!(found, Err(expected), "{path}");
    }
}

#[tokio::test]
async fn resolve_parent_gives_a_writable_directory_and_the_name() {
    let (_fake, fs, _) = tree().await;
    let path = Path::new("/abs/new");
    let (parent, last) = path::resolve_parent(&fs, &caller(0), path).await.unwrap();
    assert_eq!(last, name("new"));
    let dir = path::resolve(&fs, &caller(0), Path::new("/dir"), true).await;
    assert_eq!(parent.ino, dir.unwrap().ino);
    let refused = path::resolve_parent(&fs, &caller(9), path).await;
    assert_eq!(refused, Err(Status::AccessDenied));
    let nothing = path::resolve_parent(&fs, &caller(0), Path::new("/")).await;
    assert_eq!(nothing, Err(Status::Invalid));
}
