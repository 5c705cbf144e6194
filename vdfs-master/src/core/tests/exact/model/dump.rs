//! The canonical dump: a line an object, equal exactly for states that nobody can tell apart.

use std::collections::BTreeMap;
use std::fmt::Write;

use vdfs_proto::meta::Access;
use vdfs_proto::{Attr, FileName, HandleId, Ino, Layout, LockOwner, SymlinkTarget, XattrName};

use super::{Body, Model, Units};

/// Everything that can be seen, and who holds what.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in super::super) struct Dump {
    pub(in super::super) inodes: BTreeMap<Ino, Seen>,
    /// By client.
    pub(in super::super) handles: BTreeMap<(usize, HandleId), (Ino, Access)>,
    pub(in super::super) writers: Vec<(usize, Ino)>,
}

/// One inode as it can be seen.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Seen {
    pub(in super::super) attr: Attr,
    pub(in super::super) xattrs: BTreeMap<XattrName, Vec<u8>>,
    pub(in super::super) content: Content,
    pub(in super::super) locks: BTreeMap<(usize, LockOwner), Units>,
}

#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Content {
    File {
        layout: Layout,
        tail_unknown: bool,
    },
    Directory {
        parent: Ino,
        names: BTreeMap<FileName, Ino>,
    },
    Symlink(SymlinkTarget),
    Nothing,
}

impl Dump {
    pub(in super::super) fn text(&self) -> String {
        let mut text = String::new();
        for (ino, seen) in &self.inodes {
            writeln!(text, "{ino} {seen:?}").expect("a string takes all");
        }
        for (handle, open) in &self.handles {
            writeln!(text, "{handle:?} {open:?}").expect("a string takes all");
        }
        writeln!(text, "writers {:?}", self.writers).expect("a string takes all");
        text
    }

    /// Those who write are those who have it open for writing.
    fn name_writers(&mut self) {
        let writing = self.handles.iter().filter(|(_, (_, access))| access.write);
        let writers = writing.map(|((by, _), (ino, _))| (*by, *ino));
        self.writers = writers.collect();
        self.writers.sort_unstable();
        self.writers.dedup();
    }
}

impl Model {
    pub(in super::super) fn dump(&self) -> Dump {
        let inodes = self.nodes.keys().map(|ino| (*ino, self.seen(*ino)));
        let sessions = self.clients.iter().enumerate();
        let sessions = sessions.filter_map(|(by, id)| Some((by, self.sessions.get(&(*id)?)?)));
        let handles = sessions.flat_map(|(by, session)| {
            let handles = session.handles.iter();
            handles.map(move |(handle, open)| ((by, *handle), *open))
        });
        let mut dump = Dump {
            inodes: inodes.collect(),
            handles: handles.collect(),
            writers: Vec::new(),
        };
        dump.name_writers();
        dump
    }

    fn seen(&self, ino: Ino) -> Seen {
        let node = &self.nodes[&ino];
        let content = match &node.body {
            Body::File(file) => Content::File {
                layout: file.layout(),
                tail_unknown: file.tail_unknown,
            },
            Body::Directory { parent, entries } => Content::Directory {
                parent: *parent,
                names: entries.clone(),
            },
            Body::Symlink(target) => Content::Symlink(target.clone()),
            Body::Special(..) => Content::Nothing,
        };
        Seen {
            attr: self.attr(ino).expect("it is there"),
            xattrs: node.xattrs.clone(),
            content,
            locks: self.locks_of(ino),
        }
    }
}
