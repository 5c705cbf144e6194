//! Names against POSIX, and against a small model.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vdfs_proto::meta::{
    Create, GetXattr, Link, ListXattr, NewKind, ReadLink, RemoveXattr, Rename, RenameMode, Rmdir,
    SetAttr, SetXattr, Unlink, XattrMode,
};
use vdfs_proto::{Ino, Status, SymlinkTarget, XattrName};

use super::world::{READ, World, create_in, name};
use crate::core::limits::{DEPARTED_MAX, LINGER_MS, TICK_MS};

fn rename_in(from: Ino, text: &str, to: Ino, new_text: &str) -> Rename {
    Rename {
        parent: from,
        name: name(text),
        new_parent: to,
        new_name: name(new_text),
        mode: RenameMode::Replace,
        found: None,
    }
}

fn mkdir(world: &mut World, session: vdfs_proto::SessionId, parent: Ino, text: &str) -> Ino {
    world
        .create(session, create_in(parent, text, NewKind::Directory))
        .attr
        .ino
}

#[test]
fn create_gives_attributes_and_touches_the_parent() {
    let mut world = World::new();
    let session = world.open_session("a");
    let before = world.attr(session, Ino::ROOT).expect("root");
    world.pass(1000);
    let created = world.create(session, create_in(Ino::ROOT, "f", NewKind::Regular));
    assert!(created.is_new && created.layout.is_some());
    assert_eq!((created.attr.mode, created.attr.nlink), (0o644, 1));
    assert_eq!((created.attr.uid, created.attr.gid), (10, 20));
    let after = world.attr(session, Ino::ROOT).expect("root");
    assert!(after.mtime > before.mtime && after.ctime == after.mtime);
    assert_eq!((after.size, after.nlink), (1, 2));
    assert_eq!(world.lookup(session, "f"), Ok(created.attr));
}

#[test]
fn create_of_an_existing_name_is_exists_or_opens_it() {
    let mut world = World::new();
    let session = world.open_session("a");
    let ino = world.create_file(session, "f");
    let again = create_in(Ino::ROOT, "f", NewKind::Regular);
    assert_eq!(world.mutate(session, again.clone()), Err(Status::Exists));
    let opens = Create {
        exclusive: false,
        ..again
    };
    let created = world.create(session, opens.clone());
    assert_eq!((created.attr.ino, created.is_new), (ino, false));
    mkdir(&mut world, session, Ino::ROOT, "d");
    let directory = Create {
        name: name("d"),
        ..opens
    };
    assert_eq!(world.mutate(session, directory), Err(Status::IsDirectory));
}

#[test]
fn create_in_a_setgid_directory_inherits_the_group_and_directories_the_bit() {
    let mut world = World::new();
    let session = world.open_session("a");
    let make = Create {
        mode: 0o2775,
        gid: 77,
        ..create_in(Ino::ROOT, "d", NewKind::Directory)
    };
    let parent = world.create(session, make).attr.ino;
    let file = world
        .create(session, create_in(parent, "f", NewKind::Regular))
        .attr;
    assert_eq!((file.gid, file.mode), (77, 0o644));
    let below = world
        .create(session, create_in(parent, "d", NewKind::Directory))
        .attr;
    assert_eq!((below.gid, below.mode), (77, 0o2644));
}

#[test]
fn directories_count_their_subdirectories_and_must_be_empty_to_go() {
    let mut world = World::new();
    let session = world.open_session("a");
    let outer = mkdir(&mut world, session, Ino::ROOT, "outer");
    let inner = mkdir(&mut world, session, outer, "inner");
    assert_eq!(world.attr(session, outer).expect("there").nlink, 3);
    let rmdir = |parent, text| Rmdir {
        parent,
        name: name(text),
        found: None,
    };
    assert_eq!(
        world.mutate(session, rmdir(Ino::ROOT, "outer")),
        Err(Status::NotEmpty)
    );
    assert_eq!(world.unlink(session, "outer"), Err(Status::IsDirectory));
    assert_eq!(world.mutate(session, rmdir(outer, "inner")), Ok(()));
    assert_eq!(world.attr(session, outer).expect("there").nlink, 2);
    assert!(world.has_ended(inner));
    let in_dead = create_in(inner, "f", NewKind::Regular);
    assert_eq!(world.mutate(session, in_dead), Err(Status::NotFound));
    let file = world.create_file(session, "f");
    assert_eq!(
        world.mutate(session, rmdir(Ino::ROOT, "f")),
        Err(Status::NotDirectory)
    );
    let in_file = create_in(file, "x", NewKind::Regular);
    assert_eq!(world.mutate(session, in_file), Err(Status::NotDirectory));
}

#[test]
fn link_counts_names_and_refuses_directories() {
    let mut world = World::new();
    let session = world.open_session("a");
    let ino = world.create_file(session, "f");
    let link = |ino, text| Link {
        ino,
        parent: Ino::ROOT,
        name: name(text),
    };
    assert_eq!(
        world.mutate(session, link(ino, "g")).expect("links").nlink,
        2
    );
    assert_eq!(world.mutate(session, link(ino, "g")), Err(Status::Exists));
    assert_eq!(
        world.mutate(session, link(Ino::ROOT, "r")),
        Err(Status::NotPermitted)
    );
    assert_eq!(world.unlink(session, "f"), Ok(()));
    assert_eq!(world.attr(session, ino).expect("has a name").nlink, 1);
    assert_eq!(world.rename(session, "g", "g"), Ok(()));
    assert_eq!(world.unlink(session, "f"), Err(Status::NotFound));
}

#[test]
fn rename_refuses_loops_and_wrong_kinds() {
    let mut world = World::new();
    let session = world.open_session("a");
    let outer = mkdir(&mut world, session, Ino::ROOT, "outer");
    let inner = mkdir(&mut world, session, outer, "inner");
    world.create_file(session, "f");
    let mut go = |rename| world.mutate(session, rename);
    let root = Ino::ROOT;
    assert_eq!(
        go(rename_in(root, "outer", inner, "x")),
        Err(Status::Invalid)
    );
    assert_eq!(
        go(rename_in(root, "outer", outer, "x")),
        Err(Status::Invalid)
    );
    assert_eq!(
        go(rename_in(root, "outer", root, "f")),
        Err(Status::NotDirectory)
    );
    assert_eq!(
        go(rename_in(root, "f", root, "outer")),
        Err(Status::IsDirectory)
    );
    assert_eq!(
        go(rename_in(outer, "inner", root, "outer")),
        Err(Status::NotEmpty)
    );
    assert_eq!(
        go(rename_in(root, "none", root, "f")),
        Err(Status::NotFound)
    );
    let no_replace = Rename {
        mode: RenameMode::NoReplace,
        ..rename_in(root, "f", root, "outer")
    };
    assert_eq!(go(no_replace), Err(Status::Exists));
}

#[test]
fn rename_moves_directories_and_replaces() {
    let mut world = World::new();
    let session = world.open_session("a");
    let outer = mkdir(&mut world, session, Ino::ROOT, "outer");
    let moved = mkdir(&mut world, session, outer, "d");
    mkdir(&mut world, session, Ino::ROOT, "empty");
    let rename = rename_in(outer, "d", Ino::ROOT, "empty");
    assert_eq!(world.mutate(session, rename), Ok(()));
    assert_eq!(world.lookup(session, "empty").expect("replaced").ino, moved);
    assert_eq!(world.attr(session, Ino::ROOT).expect("root").nlink, 4);
    assert_eq!(world.attr(session, outer).expect("there").nlink, 2);
    let (kept, replaced) = (
        world.create_file(session, "a"),
        world.create_file(session, "b"),
    );
    assert_eq!(world.rename(session, "a", "b"), Ok(()));
    assert_eq!(world.lookup(session, "b").expect("there").ino, kept);
    assert_eq!(world.attr(session, replaced).map(|attr| attr.nlink), Ok(0));
}

#[test]
fn rename_between_two_links_of_one_inode_changes_nothing() {
    let mut world = World::new();
    let session = world.open_session("a");
    let ino = world.create_file(session, "a");
    let link = Link {
        ino,
        parent: Ino::ROOT,
        name: name("b"),
    };
    world.mutate(session, link).expect("links");
    assert_eq!(world.rename(session, "a", "b"), Ok(()));
    assert_eq!(world.names(session, Ino::ROOT), ["a", "b"]);
}

#[test]
fn set_attr_kills_privileges_of_chown() {
    let mut world = World::new();
    let session = world.open_session("a");
    let ino = world.create_file(session, "f");
    let set = SetAttr {
        ino,
        mode: Some(0o6755),
        uid: None,
        gid: None,
        atime: None,
        mtime: None,
        kill_privileges: false,
    };
    assert_eq!(
        world.mutate(session, set.clone()).expect("sets").mode,
        0o6755
    );
    let chown = SetAttr {
        mode: None,
        uid: Some(5),
        kill_privileges: true,
        ..set.clone()
    };
    let attr = world.mutate(session, chown).expect("sets");
    assert_eq!((attr.mode, attr.uid), (0o755, 5));
    let lockable = SetAttr {
        mode: Some(0o2644),
        ..set.clone()
    };
    world.mutate(session, lockable).expect("sets");
    let chown = SetAttr {
        mode: None,
        kill_privileges: true,
        ..set
    };
    assert_eq!(world.mutate(session, chown).expect("sets").mode, 0o2644);
}

#[test]
fn symlinks_keep_their_target() {
    let mut world = World::new();
    let session = world.open_session("a");
    let target = SymlinkTarget::new(b"../x").expect("a target");
    let kind = NewKind::Symlink(target.clone());
    let attr = world.create(session, create_in(Ino::ROOT, "s", kind)).attr;
    assert_eq!(attr.size, 4);
    assert_eq!(world.ask(session, ReadLink { ino: attr.ino }), Ok(target));
    assert_eq!(
        world.ask(session, ReadLink { ino: Ino::ROOT }),
        Err(Status::Invalid)
    );
}

#[test]
fn xattrs_follow_create_and_replace_modes_and_are_bounded() {
    let mut world = World::new();
    let session = world.open_session("a");
    let ino = world.create_file(session, "f");
    let name = |text: &str| XattrName::new(text.as_bytes()).expect("a name");
    let set = |text: &str, bytes: usize, mode| SetXattr {
        ino,
        name: name(text),
        value: vec![1; bytes],
        mode,
    };
    let mut go = |set| world.mutate(session, set);
    assert_eq!(
        go(set("user.a", 3, XattrMode::Replace)),
        Err(Status::NoData)
    );
    assert_eq!(go(set("user.a", 3, XattrMode::Create)), Ok(()));
    assert_eq!(go(set("user.a", 3, XattrMode::Create)), Err(Status::Exists));
    assert_eq!(
        go(set("user.b", 65_536, XattrMode::Set)),
        Err(Status::NoSpace)
    );
    assert_eq!(
        go(set("user.b", 65_537, XattrMode::Set)),
        Err(Status::TooBig)
    );
    assert_eq!(
        world.ask(session, ListXattr { ino }),
        Ok(vec![name("user.a")])
    );
    let get = GetXattr {
        ino,
        name: name("user.a"),
    };
    assert_eq!(world.ask(session, get.clone()), Ok(vec![1; 3]));
    let remove = RemoveXattr {
        ino,
        name: name("user.a"),
    };
    assert_eq!(world.mutate(session, remove.clone()), Ok(()));
    assert_eq!(world.mutate(session, remove), Err(Status::NoData));
    assert_eq!(world.ask(session, get), Err(Status::NoData));
}

#[test]
fn readdir_is_stable_while_entries_come_and_go() {
    let mut world = World::new();
    let session = world.open_session("a");
    for number in 0..200 {
        world.create_file(session, &format!("n{number}"));
    }
    assert_eq!(world.names(session, Ino::ROOT).len(), 200);
    let read = vdfs_proto::meta::ReadDir {
        ino: Ino::ROOT,
        cookie: 0,
        entries_max: 100,
        with_attrs: false,
        marks_access: false,
    };
    let half = world.ask(session, read.clone()).expect("a directory");
    for entry in half.entries.iter().take(50) {
        let unlink = Unlink {
            parent: Ino::ROOT,
            name: entry.name.clone(),
        };
        world.mutate(session, unlink).expect("unlinks");
    }
    let cookie = half.entries.last().expect("100 entries").cookie;
    let rest = world.ask(session, vdfs_proto::meta::ReadDir { cookie, ..read });
    let rest = rest.expect("a directory");
    assert_eq!((rest.entries.len(), rest.at_end), (100, true));
}

#[test]
fn exchange_swaps_names_parents_and_link_counts() {
    let mut world = World::new();
    let session = world.open_session("a");
    let left = mkdir(&mut world, session, Ino::ROOT, "left");
    let right = mkdir(&mut world, session, Ino::ROOT, "right");
    let dir = mkdir(&mut world, session, left, "dir");
    let below = mkdir(&mut world, session, dir, "below");
    let file = world.create(session, create_in(right, "file", NewKind::Regular));
    let exchange = |parent, text: &str, new_parent, new_text: &str| Rename {
        mode: RenameMode::Exchange,
        ..rename_in(parent, text, new_parent, new_text)
    };
    world.pass(10);
    let swap = exchange(left, "dir", right, "file");
    world.mutate(session, swap).expect("exchanges");
    let nlink = |world: &mut World, ino| world.attr(session, ino).expect("there").nlink;
    assert_eq!((nlink(&mut world, left), nlink(&mut world, right)), (2, 3));
    assert_eq!(world.names(session, left), ["dir"]);
    let moved = world.attr(session, file.attr.ino).expect("there");
    assert!(moved.ctime > moved.mtime && moved.nlink == 1);
    // Neither may get into itself.
    for (from, text, to, new_text) in [
        (right, "file", dir, "below"),
        (dir, "below", right, "file"),
        (Ino::ROOT, "right", below, "none"),
    ] {
        let refused = world.mutate(session, exchange(from, text, to, new_text));
        let expected = match new_text {
            "none" => Status::NotFound,
            _ => Status::Invalid,
        };
        assert_eq!(refused, Err(expected), "{text} and {new_text}");
    }
    let swap = exchange(Ino::ROOT, "left", right, "file");
    world
        .mutate(session, swap)
        .expect("directories of two parents");
    assert_eq!(
        (nlink(&mut world, Ino::ROOT), nlink(&mut world, right)),
        (4, 3)
    );
    world.restart(true);
}

#[derive(Clone, Debug)]
enum Step {
    Make(u8, u8, bool),
    Remove(u8, u8),
    RemoveDirectory(u8, u8),
    Link(u8, u8, u8, u8),
    Move(u8, u8, u8, u8, RenameMode),
}

fn modes() -> impl Strategy<Value = RenameMode> {
    prop_oneof![
        Just(RenameMode::Replace),
        Just(RenameMode::NoReplace),
        Just(RenameMode::Exchange),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let dir = || 0u8..4;
    let file = || 0u8..5;
    prop_oneof![
        4 => (dir(), file(), any::<bool>()).prop_map(|(d, n, is_dir)| Step::Make(d, n, is_dir)),
        2 => (dir(), file()).prop_map(|(d, n)| Step::Remove(d, n)),
        1 => (dir(), file()).prop_map(|(d, n)| Step::RemoveDirectory(d, n)),
        1 => (dir(), file(), dir(), file()).prop_map(|(a, b, c, d)| Step::Link(a, b, c, d)),
        3 => (dir(), file(), dir(), file(), modes())
            .prop_map(|(a, b, c, d, e)| Step::Move(a, b, c, d, e)),
    ]
}

/// Directories by number, each a map of names; what POSIX says, without times.
#[derive(Default)]
struct Model {
    nodes: BTreeMap<u32, Node>,
    next: u32,
}

enum Node {
    File(u32),
    Directory(BTreeMap<String, u32>),
}

impl Model {
    fn new() -> Self {
        let mut model = Model::default();
        model.add(Node::Directory(BTreeMap::new()));
        model
    }

    fn add(&mut self, node: Node) -> u32 {
        self.next += 1;
        self.nodes.insert(self.next, node);
        self.next
    }

    fn is_directory(&self, id: u32) -> bool {
        matches!(self.nodes.get(&id), Some(Node::Directory(_)))
    }

    fn names(&mut self, id: u32) -> &mut BTreeMap<String, u32> {
        match self.nodes.get_mut(&id) {
            Some(Node::Directory(names)) => names,
            _ => panic!("{id} is no directory"),
        }
    }

    fn find(&mut self, dir: u32, text: &str) -> Option<u32> {
        self.names(dir).get(text).copied()
    }

    fn is_empty(&mut self, id: u32) -> bool {
        self.names(id).is_empty()
    }

    fn drop_link(&mut self, id: u32) {
        if let Some(Node::File(links)) = self.nodes.get_mut(&id) {
            *links -= 1;
            if *links > 0 {
                return;
            }
        }
        self.nodes.remove(&id);
    }

    fn make(&mut self, dir: u32, text: &str, is_dir: bool) -> Result<u32, Status> {
        if self.find(dir, text).is_some() {
            return Err(Status::Exists);
        }
        let id = self.add(match is_dir {
            true => Node::Directory(BTreeMap::new()),
            false => Node::File(1),
        });
        self.names(dir).insert(text.into(), id);
        Ok(id)
    }

    fn remove(&mut self, dir: u32, text: &str) -> Result<(), Status> {
        let id = self.find(dir, text).ok_or(Status::NotFound)?;
        if self.is_directory(id) {
            return Err(Status::IsDirectory);
        }
        self.names(dir).remove(text);
        self.drop_link(id);
        Ok(())
    }

    fn rmdir(&mut self, dir: u32, text: &str) -> Result<(), Status> {
        let id = self.find(dir, text).ok_or(Status::NotFound)?;
        if !self.is_directory(id) {
            return Err(Status::NotDirectory);
        }
        if !self.is_empty(id) {
            return Err(Status::NotEmpty);
        }
        self.names(dir).remove(text);
        self.nodes.remove(&id);
        Ok(())
    }

    fn link(&mut self, id: u32, dir: u32, text: &str) -> Result<(), Status> {
        if self.find(dir, text).is_some() {
            return Err(Status::Exists);
        }
        match self.nodes.get_mut(&id) {
            Some(Node::File(links)) => *links += 1,
            _ => return Err(Status::NotPermitted),
        }
        self.names(dir).insert(text.into(), id);
        Ok(())
    }

    fn contains(&mut self, outer: u32, inner: u32) -> bool {
        if outer == inner {
            return true;
        }
        if !self.is_directory(outer) {
            return false;
        }
        let below: Vec<u32> = self.names(outer).values().copied().collect();
        below.into_iter().any(|id| self.contains(id, inner))
    }

    fn rename(
        &mut self,
        (from, text): (u32, &str),
        (to, new_text): (u32, &str),
        mode: RenameMode,
    ) -> Result<(), Status> {
        let id = self.find(from, text).ok_or(Status::NotFound)?;
        let replaced = self.find(to, new_text);
        if replaced.is_some() && mode == RenameMode::NoReplace {
            return Err(Status::Exists);
        }
        if replaced == Some(id) {
            return Ok(());
        }
        if mode == RenameMode::Exchange {
            return self.exchange((from, text, id), (to, new_text, replaced));
        }
        if self.contains(id, to) {
            return Err(Status::Invalid);
        }
        if let Some(replaced) = replaced {
            match (self.is_directory(id), self.is_directory(replaced)) {
                (true, false) => return Err(Status::NotDirectory),
                (false, true) => return Err(Status::IsDirectory),
                (true, true) if !self.is_empty(replaced) => return Err(Status::NotEmpty),
                _ => {}
            }
            self.names(to).remove(new_text);
            self.drop_link(replaced);
        }
        self.names(from).remove(text);
        self.names(to).insert(new_text.into(), id);
        Ok(())
    }
}

impl Model {
    fn exchange(
        &mut self,
        (from, text, id): (u32, &str, u32),
        (to, new_text, other): (u32, &str, Option<u32>),
    ) -> Result<(), Status> {
        let other = other.ok_or(Status::NotFound)?;
        if self.contains(id, to) || self.contains(other, from) {
            return Err(Status::Invalid);
        }
        self.names(from).insert(text.into(), other);
        self.names(to).insert(new_text.into(), id);
        Ok(())
    }
}

/// A core and a model side by side, with the directories that both know.
struct Pair {
    world: World,
    session: vdfs_proto::SessionId,
    model: Model,
    inos: BTreeMap<u32, Ino>,
    directories: Vec<u32>,
}

impl Pair {
    fn new() -> Self {
        let mut world = World::new();
        let session = world.open_session("a");
        Pair {
            world,
            session,
            model: Model::new(),
            inos: BTreeMap::from([(1, Ino::ROOT)]),
            directories: vec![1],
        }
    }

    /// A live directory, and its inode.
    fn directory(&mut self, pick: u8) -> (u32, Ino) {
        let model = &self.model;
        self.directories.retain(|id| model.is_directory(*id));
        let id = self.directories[usize::from(pick) % self.directories.len()];
        (id, self.inos[&id])
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Make(dir, text, is_dir) => self.make(dir, text, is_dir),
            Step::Remove(dir, text) => {
                let ((dir, parent), text) = (self.directory(dir), text.to_string());
                let unlink = Unlink {
                    parent,
                    name: name(&text),
                };
                let done = self.world.mutate(self.session, unlink);
                assert_eq!(done, self.model.remove(dir, &text));
            }
            Step::RemoveDirectory(dir, text) => {
                let ((dir, parent), text) = (self.directory(dir), text.to_string());
                let rmdir = Rmdir {
                    parent,
                    name: name(&text),
                    found: None,
                };
                let done = self.world.mutate(self.session, rmdir);
                assert_eq!(done, self.model.rmdir(dir, &text));
            }
            Step::Link(dir, text, to, new_text) => self.link(dir, text, to, new_text),
            Step::Move(dir, text, to, new_text, mode) => {
                let ((dir, from), text) = (self.directory(dir), text.to_string());
                let ((to, into), new_text) = (self.directory(to), new_text.to_string());
                let rename = Rename {
                    mode,
                    ..rename_in(from, &text, into, &new_text)
                };
                let done = self.world.mutate(self.session, rename);
                assert_eq!(done, self.model.rename((dir, &text), (to, &new_text), mode));
            }
        }
    }

    fn make(&mut self, dir: u8, text: u8, is_dir: bool) {
        let ((dir, parent), text) = (self.directory(dir), text.to_string());
        let kind = match is_dir {
            true => NewKind::Directory,
            false => NewKind::Regular,
        };
        let made = self
            .world
            .mutate(self.session, create_in(parent, &text, kind));
        let model = self.model.make(dir, &text, is_dir);
        assert_eq!(made.as_ref().map(drop), model.as_ref().map(drop));
        if let (Ok(made), Ok(id)) = (made, model) {
            self.inos.insert(id, made.attr.ino);
            self.directories.extend(is_dir.then_some(id));
        }
    }

    fn link(&mut self, dir: u8, text: u8, to: u8, new_text: u8) {
        let ((dir, _), (to, parent)) = (self.directory(dir), self.directory(to));
        let Some(id) = self.model.find(dir, &text.to_string()) else {
            return;
        };
        let new_text = new_text.to_string();
        let link = Link {
            ino: self.inos[&id],
            parent,
            name: name(&new_text),
        };
        let linked = self.world.mutate(self.session, link);
        assert_eq!(linked.map(drop), self.model.link(id, to, &new_text));
    }

    fn compare(&mut self) {
        self.directory(0);
        for id in self.directories.clone() {
            let listed = self.world.names(self.session, self.inos[&id]);
            let known: Vec<String> = self.model.names(id).keys().cloned().collect();
            assert_eq!(listed, known);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn namespace_agrees_with_the_model_and_survives_a_restart(
        before in proptest::collection::vec(steps(), 1..60),
        after in proptest::collection::vec(steps(), 0..20),
    ) {
        let mut pair = Pair::new();
        before.iter().for_each(|step| pair.take(step));
        pair.compare();
        pair.world.restart(true);
        after.iter().for_each(|step| pair.take(step));
        pair.compare();
    }
}

#[test]
fn getattr_of_an_ended_inode_shows_it_without_a_name() {
    let mut world = World::new();
    let session = world.open_session("a");
    let file = world.create_file(session, "f");
    let directory = mkdir(&mut world, session, Ino::ROOT, "d");
    let replaced = mkdir(&mut world, session, Ino::ROOT, "e");
    world.pass(10);
    world.unlink(session, "f").expect("a file");
    let replace = rename_in(Ino::ROOT, "d", Ino::ROOT, "e");
    world.mutate(session, replace).expect("an empty directory");
    for ino in [file, replaced] {
        let attr = world.attr(session, ino).expect("known for a while");
        assert_eq!((attr.ino, attr.nlink), (ino, 0));
        assert!(attr.ctime > attr.mtime);
    }
    let rmdir = Rmdir {
        parent: Ino::ROOT,
        name: name("e"),
        found: None,
    };
    world.mutate(session, rmdir).expect("empty");
    assert_eq!(world.attr(session, directory).map(|attr| attr.nlink), Ok(0));
}

#[test]
fn directory_that_took_the_place_of_the_one_found_stays() {
    let mut world = World::new();
    let session = world.open_session("a");
    let [gone, moved] = ["gone", "moved"].map(|text| mkdir(&mut world, session, Ino::ROOT, text));
    let rmdir = |found| Rmdir {
        parent: Ino::ROOT,
        name: name("gone"),
        found: Some(found),
    };
    world.mutate(session, rmdir(gone)).expect("it is the one");
    let present = mkdir(&mut world, session, Ino::ROOT, "gone");
    assert_eq!(world.mutate(session, rmdir(gone)), Err(Status::StaleInode));
    let over = |found| Rename {
        found: Some(found),
        ..rename_in(Ino::ROOT, "moved", Ino::ROOT, "gone")
    };
    assert_eq!(world.mutate(session, over(gone)), Err(Status::StaleInode));
    assert!(
        world
            .attr(session, present)
            .is_ok_and(|attr| attr.nlink == 2)
    );
    world.mutate(session, over(present)).expect("it is the one");
    assert!(world.attr(session, moved).is_ok());
}

#[test]
fn rename_over_a_directory_that_has_gone_elsewhere_does_nothing() {
    let mut world = World::new();
    let session = world.open_session("a");
    let [found, _] = ["there", "moved"].map(|text| mkdir(&mut world, session, Ino::ROOT, text));
    world.create_file(session, "one");
    let away = rename_in(Ino::ROOT, "there", Ino::ROOT, "elsewhere");
    world.mutate(session, away).expect("a free name");
    let over = |from: &str| Rename {
        found: Some(found),
        ..rename_in(Ino::ROOT, from, Ino::ROOT, "there")
    };
    assert_eq!(
        world.mutate(session, over("moved")),
        Err(Status::StaleInode)
    );
    // What has its name now is another name of what is moved.
    let ino = world.lookup(session, "one").expect("made above").ino;
    let link = Link {
        ino,
        parent: Ino::ROOT,
        name: name("there"),
    };
    world.mutate(session, link).expect("a free name");
    assert_eq!(world.mutate(session, over("one")), Err(Status::StaleInode));
    assert!(world.attr(session, found).is_ok_and(|attr| attr.nlink == 2));
}

#[test]
fn getattr_forgets_the_oldest_of_many_ended_inodes() {
    let mut world = World::new();
    world.checks = false;
    let session = world.open_session("a");
    let mut ended = Vec::new();
    for _ in 0..=DEPARTED_MAX {
        ended.push(world.create_file(session, "f"));
        world.unlink(session, "f").expect("a file");
    }
    assert_eq!(world.attr(session, ended[0]), Err(Status::StaleInode));
    assert_eq!(world.attr(session, ended[1]).map(|attr| attr.nlink), Ok(0));
}

#[test]
fn file_that_a_rename_replaced_can_be_opened_for_a_moment() {
    let mut world = World::new();
    let session = world.open_session("a");
    let old = world.create_file(session, "old");
    world.create_file(session, "new");
    world.rename(session, "new", "old").expect("replaces");
    let opened = world.open(session, old, 1, READ);
    assert_eq!(opened.attr.nlink, 0);
    world.pass(LINGER_MS + TICK_MS);
    assert!(!world.has_ended(old), "it is open");
    world.release(session, 1, false);
    assert!(world.has_ended(old));
}

#[test]
fn file_that_a_rename_replaced_ends_after_a_moment() {
    let mut world = World::new();
    let session = world.open_session("a");
    let old = world.create_file(session, "old");
    world.create_file(session, "new");
    world.rename(session, "new", "old").expect("replaces");
    world.open(session, old, 1, READ);
    world.release(session, 1, false);
    assert!(!world.has_ended(old), "others may have found it too");
    world.pass(LINGER_MS + TICK_MS);
    assert!(world.has_ended(old));
}
