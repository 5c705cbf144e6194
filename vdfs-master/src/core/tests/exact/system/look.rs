//! What an observer sees of the core, through its questions.

use std::collections::BTreeMap;

use vdfs_proto::meta::{GetAttr, GetLayout, GetXattr, ListXattr, ListingEntry, ReadDir, ReadLink};
use vdfs_proto::{FileKind, FileName, Ino, LockOwner};

use super::System;
use crate::core::tests::exact::model::{Content, Dump, LOCKABLE, Seen, Units};

/// Small, so that listings go on from cookies.
const PAGE: u32 = 2;

impl System {
    /// Everything, as the model calls it.
    pub(in super::super) fn dump(&mut self) -> Dump {
        self.world.checks = false;
        let mut dump = Dump::default();
        let orphans = self.world.core.state.orphans.iter();
        let mut todo: Vec<Ino> = orphans.map(|(ino, ())| ino).chain([Ino::ROOT]).collect();
        while let Some(ino) = todo.pop() {
            let name = self.ids.model_ino(ino);
            if dump.inodes.contains_key(&name) {
                continue;
            }
            let seen = self.look(ino, &mut todo);
            dump.inodes.insert(name, seen);
        }
        self.dump_handles(&mut dump);
        self.world.checks = true;
        dump
    }

    fn look(&mut self, ino: Ino, todo: &mut Vec<Ino>) -> Seen {
        let observer = self.observer;
        let attr = self.world.ask(observer, GetAttr { ino }).expect("is there");
        let content = match attr.kind {
            FileKind::Regular => {
                let layout = self.world.ask(observer, GetLayout { ino });
                let file = *self.world.core.state.file(ino).expect("a file");
                Content::File {
                    layout: self.ids.model_layout(layout.expect("a file"), None),
                    tail_unknown: file.tail_unknown,
                }
            }
            FileKind::Directory => self.look_into(ino, todo),
            FileKind::Symlink => {
                let target = self.world.ask(observer, ReadLink { ino });
                Content::Symlink(target.expect("a link"))
            }
            _ => Content::Nothing,
        };
        let names = self.world.ask(observer, ListXattr { ino }).expect("there");
        let mut xattrs = BTreeMap::new();
        for name in names {
            let get = GetXattr {
                ino,
                name: name.clone(),
            };
            xattrs.insert(name, self.world.ask(observer, get).expect("listed"));
        }
        Seen {
            attr: self.ids.model_attr(attr),
            xattrs,
            content,
            locks: self.look_at_locks(ino),
        }
    }

    fn look_at_locks(&self, ino: Ino) -> BTreeMap<(usize, LockOwner), Units> {
        let mut locks: BTreeMap<(usize, LockOwner), Units> = BTreeMap::new();
        for (holder, held) in self.world.core.state.locks.of(ino) {
            let mut clients = self.clients.iter();
            let by = clients.position(|client| client.session == Some(holder.session));
            let by = by.expect("a client locks");
            let units = locks.entry((by, holder.owner)).or_default();
            for (range, kind) in held.ranges.iter() {
                let of = |byte: u64| byte.min(LOCKABLE) as usize;
                units[of(range.first())..=of(range.last())].fill(Some(kind));
            }
        }
        locks
    }

    fn look_into(&mut self, ino: Ino, todo: &mut Vec<Ino>) -> Content {
        let (parent, entries) = self.list(ino, 0, PAGE);
        self.check_cookies(ino, &entries);
        let mut names = BTreeMap::new();
        for entry in entries {
            let attr = self.world.ask(self.observer, GetAttr { ino: entry.ino });
            assert_eq!(entry.attr, attr.ok(), "attributes of {:?}", entry.name);
            todo.push(entry.ino);
            let before = names.insert(entry.name, self.ids.model_ino(entry.ino));
            assert_eq!(before, None, "a name is listed once");
        }
        Content::Directory {
            parent: self.ids.model_ino(parent),
            names,
        }
    }

    /// What `..` is, and the entries behind a cookie.
    fn list(&mut self, ino: Ino, from: u64, entries_max: u32) -> (Ino, Vec<ListingEntry>) {
        let (mut cookie, mut entries) = (from, Vec::new());
        loop {
            let read = ReadDir {
                ino,
                cookie,
                entries_max,
                with_attrs: true,
                marks_access: false,
            };
            let listing = self.world.ask(self.observer, read).expect("a directory");
            for entry in &listing.entries {
                assert!(entry.cookie > cookie, "cookies ascend");
                cookie = entry.cookie;
            }
            entries.extend(listing.entries);
            if listing.at_end {
                return (listing.parent, entries);
            }
        }
    }

    /// A name keeps its cookie as long as it is there; a listing goes on from any cookie that ever
    /// was given out.
    fn check_cookies(&mut self, ino: Ino, entries: &[ListingEntry]) {
        let present: BTreeMap<&FileName, u64> = entries
            .iter()
            .map(|entry| (&entry.name, entry.cookie))
            .collect();
        let (of_others, of_this) = std::mem::take(&mut self.cookies)
            .into_iter()
            .partition(|((dir, _), _)| *dir != ino);
        self.cookies = of_others;
        let of_this: BTreeMap<(Ino, FileName), u64> = of_this;
        for ((_, name), cookie) in of_this {
            match present.get(&name) {
                Some(now) => assert_eq!(*now, cookie, "the cookie of {name:?} has changed"),
                None => drop(self.old_cookies.insert(ino, cookie)),
            }
        }
        for (name, cookie) in present {
            self.cookies.insert((ino, name.clone()), cookie);
        }
        let old = self.old_cookies.get(&ino).copied();
        for from in old
            .into_iter()
            .chain(entries.last().map(|last| last.cookie))
        {
            let (_, rest) = self.list(ino, from, u32::MAX);
            let expected = entries.iter().filter(|entry| entry.cookie > from);
            assert!(rest.iter().eq(expected), "behind cookie {from}: {rest:?}");
        }
    }

    fn dump_handles(&self, dump: &mut Dump) {
        let core = &self.world.core;
        for (number, client) in self.clients.iter().enumerate() {
            let Some(live) = client.session.and_then(|id| core.live.sessions.get(&id)) else {
                continue;
            };
            let handles = live.handles.values();
            let handles = handles.map(|open| {
                let ino = self.ids.model_ino(open.ino);
                ((number, open.handle), (ino, open.access))
            });
            dump.handles.extend(handles);
        }
        for ((session, ino), ()) in core.state.writers.iter() {
            let mut clients = self.clients.iter();
            let by = clients.position(|client| client.session == Some(session));
            let by = by.expect("a client writes");
            dump.writers.push((by, self.ids.model_ino(ino)));
        }
        dump.writers.sort_unstable();
    }
}
