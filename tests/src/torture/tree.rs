//! The model: names, links, and the errors of calls on them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::history::{Name, Node, Place};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Inode {
    Directory {
        /// Of a removed one, where it was.
        parent: Node,
        entries: BTreeMap<Name, Node>,
        is_removed: bool,
    },
    File {
        links: u64,
    },
    Symlink {
        links: u64,
        target: u64,
    },
}

impl Inode {
    pub fn is_directory(&self) -> bool {
        matches!(self, Inode::Directory { .. })
    }

    fn links_mut(&mut self) -> Option<&mut u64> {
        match self {
            Inode::Directory { .. } => None,
            Inode::File { links } | Inode::Symlink { links, .. } => Some(links),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tree {
    pub root: Node,
    inodes: BTreeMap<Node, Inode>,
    /// Each directory that has been moved, with where it was before.
    past: BTreeSet<(Node, Node)>,
}

/// `errno` of a refusal.
pub type Refused = i32;

impl Tree {
    /// An empty root.
    pub fn new(root: Node) -> Tree {
        let inode = Inode::Directory {
            parent: root,
            entries: BTreeMap::new(),
            is_removed: false,
        };
        Tree {
            root,
            inodes: BTreeMap::from([(root, inode)]),
            past: BTreeSet::new(),
        }
    }

    pub fn inode(&self, node: Node) -> Option<&Inode> {
        self.inodes.get(&node)
    }

    /// Names of a file or symbolic link.
    pub fn links(&self, node: Node) -> Option<u64> {
        match self.inodes.get(&node)? {
            Inode::Directory { .. } => None,
            Inode::File { links } | Inode::Symlink { links, .. } => Some(*links),
        }
    }

    pub fn entries(&self, directory: Node) -> Option<&BTreeMap<Name, Node>> {
        match self.inodes.get(&directory)? {
            Inode::Directory { entries, .. } => Some(entries),
            Inode::File { .. } | Inode::Symlink { .. } => None,
        }
    }

    /// What a name stands for; nothing in a directory that was removed.
    pub fn find(&self, at: Place) -> Option<Node> {
        self.entries(at.directory)?.get(&at.name).copied()
    }

    fn found(&self, at: Place) -> Result<(Node, &Inode), Refused> {
        let node = self.find(at).ok_or(libc::ENOENT)?;
        Ok((node, &self.inodes[&node]))
    }

    /// `ENOENT` unless names can be made in the directory.
    fn check_alive(&self, directory: Node) -> Result<(), Refused> {
        match self.inodes.get(&directory) {
            Some(Inode::Directory {
                is_removed: false, ..
            }) => Ok(()),
            _ => Err(libc::ENOENT),
        }
    }

    fn check_free(&self, at: Place) -> Result<(), Refused> {
        self.check_alive(at.directory)?;
        match self.find(at) {
            Some(_) => Err(libc::EEXIST),
            None => Ok(()),
        }
    }

    // Looks.

    /// What an open finds.
    pub fn open(&self, at: Place) -> Result<Node, Refused> {
        match self.found(at)? {
            (_, Inode::Symlink { .. }) => Err(libc::ELOOP),
            (node, _) => Ok(node),
        }
    }

    pub fn read_link(&self, at: Place) -> Result<u64, Refused> {
        match self.found(at)? {
            (_, Inode::Symlink { target, .. }) => Ok(*target),
            _ => Err(libc::EINVAL),
        }
    }

    // Changes of one step.

    /// Makes a file, or opens what is there. `made` is the inode that was made, if one was.
    pub fn create(
        &mut self,
        at: Place,
        exclusive: bool,
        made: Option<Node>,
    ) -> Result<Node, Refused> {
        match self.check_free(at) {
            Err(libc::EEXIST) if !exclusive => match self.found(at)? {
                (_, Inode::Directory { .. }) => Err(libc::EISDIR),
                (_, Inode::Symlink { .. }) => Err(libc::ELOOP),
                (node, Inode::File { .. }) => Ok(node),
            },
            Err(refused) => Err(refused),
            Ok(()) => {
                let node = made.filter(|node| !self.inodes.contains_key(node));
                // A file that is made is new: no other inode has had its number.
                let node = node.ok_or(libc::EIO)?;
                self.add(at, node, Inode::File { links: 1 });
                Ok(node)
            }
        }
    }

    pub fn mkdir(&mut self, at: Place, made: Node) -> Result<(), Refused> {
        self.check_free(at)?;
        let inode = Inode::Directory {
            parent: at.directory,
            entries: BTreeMap::new(),
            is_removed: false,
        };
        self.add(at, made, inode);
        Ok(())
    }

    pub fn symlink(&mut self, at: Place, made: Node, target: u64) -> Result<(), Refused> {
        self.check_free(at)?;
        self.add(at, made, Inode::Symlink { links: 1, target });
        Ok(())
    }

    pub fn rmdir(&mut self, at: Place) -> Result<(), Refused> {
        match self.found(at)? {
            (_, Inode::Directory { entries, .. }) if !entries.is_empty() => Err(libc::ENOTEMPTY),
            (node, Inode::Directory { .. }) => {
                self.end_directory(node);
                self.entries_mut(at.directory).remove(&at.name);
                Ok(())
            }
            _ => Err(libc::ENOTDIR),
        }
    }

    pub fn unlink(&mut self, at: Place) -> Result<(), Refused> {
        match self.found(at)? {
            (_, Inode::Directory { .. }) => Err(libc::EISDIR),
            (node, _) => {
                self.entries_mut(at.directory).remove(&at.name);
                self.drop_link(node);
                Ok(())
            }
        }
    }

    /// Gives an inode that was found before another name.
    pub fn link(&mut self, node: Node, to: Place) -> Result<(), Refused> {
        self.check_free(to)?;
        let inode = self.inodes.get_mut(&node).ok_or(libc::ENOENT)?;
        match inode.links_mut() {
            None => Err(libc::EPERM),
            Some(0) => Err(libc::ENOENT),
            Some(links) => {
                *links += 1;
                self.entries_mut(to.directory).insert(to.name, node);
                Ok(())
            }
        }
    }

    /// One step of a rename that does something; `None` if it cannot.
    pub fn rename(&mut self, from: Place, to: Place, no_replace: bool) -> Option<()> {
        let (old, new) = (self.find(from)?, self.find(to));
        let are_same = new == Some(old);
        if are_same || self.is_within(to.directory, old) || !self.may_replace(old, new, no_replace)
        {
            return None;
        }
        self.check_alive(to.directory).ok()?;
        match new {
            Some(new) if self.inodes[&new].is_directory() => self.end_directory(new),
            Some(new) => self.drop_link(new),
            None => {}
        }
        self.entries_mut(from.directory).remove(&from.name);
        self.entries_mut(to.directory).insert(to.name, old);
        if let Some(Inode::Directory { parent, .. }) = self.inodes.get_mut(&old) {
            let before = std::mem::replace(parent, to.directory);
            self.past.insert((old, before));
        }
        Some(())
    }

    fn may_replace(&self, old: Node, new: Option<Node>, no_replace: bool) -> bool {
        let Some(new) = new else {
            return true;
        };
        let is_empty = self.entries(new).is_none_or(BTreeMap::is_empty);
        let is_alike = self.inodes[&old].is_directory() == self.inodes[&new].is_directory();
        !no_replace && is_alike && is_empty
    }

    /// How a rename may end that finds `old` and now looks at the new name: with an error, or with
    /// nothing to do.
    pub fn rename_ends(&self, old: Node, from: Place, to: Place, no_replace: bool) -> RenameEnds {
        let new = self.find(to);
        let mut errors = Vec::new();
        if self.check_alive(to.directory).is_err() {
            errors.push(libc::ENOENT);
        }
        if self.was_within(to.directory, old) {
            errors.push(libc::EINVAL);
        }
        if new.is_some_and(|new| self.was_within(from.directory, new)) {
            errors.push(libc::ENOTEMPTY);
        }
        if new.is_some() && no_replace {
            errors.push(libc::EEXIST);
        }
        if let Some(new) = new {
            errors.extend(self.refusal_to_replace(old, new));
        }
        RenameEnds {
            errors,
            does_nothing: new == Some(old) && !no_replace,
        }
    }

    fn refusal_to_replace(&self, old: Node, new: Node) -> Option<Refused> {
        let entries = self.entries(new);
        match (self.inodes[&old].is_directory(), entries) {
            (true, None) => Some(libc::ENOTDIR),
            (false, Some(_)) => Some(libc::EISDIR),
            (true, Some(entries)) if !entries.is_empty() => Some(libc::ENOTEMPTY),
            _ => None,
        }
    }

    /// `directory` is `ancestor`, or lies below it.
    fn is_within(&self, directory: Node, ancestor: Node) -> bool {
        let mut at = directory;
        while at != ancestor {
            match self.inodes.get(&at) {
                Some(Inode::Directory { parent, .. }) if *parent != at => at = *parent,
                _ => return false,
            }
        }
        true
    }

    /// As [`Tree::is_within`], by any of the places where directories have been in this round.
    fn was_within(&self, directory: Node, ancestor: Node) -> bool {
        let mut seen = BTreeSet::from([directory]);
        let mut open = vec![directory];
        while let Some(at) = open.pop() {
            if at == ancestor {
                return true;
            }
            let past = self.past.iter().filter(|(node, _)| *node == at);
            let mut parents: Vec<Node> = past.map(|(_, parent)| *parent).collect();
            if let Some(Inode::Directory { parent, .. }) = self.inodes.get(&at) {
                parents.push(*parent);
            }
            open.extend(parents.into_iter().filter(|parent| seen.insert(*parent)));
        }
        false
    }

    // Parts of changes.

    /// Adds an inode under a name that is free.
    pub fn add(&mut self, at: Place, node: Node, inode: Inode) {
        self.inodes.insert(node, inode);
        let before = self.entries_mut(at.directory).insert(at.name, node);
        assert_eq!(before, None, "the name was free");
    }

    /// Adds a name of a file or symbolic link that is there.
    pub fn add_name(&mut self, at: Place, node: Node) {
        let inode = self.inodes.get_mut(&node).expect("it is there");
        *inode.links_mut().expect("directories have one name") += 1;
        self.entries_mut(at.directory).insert(at.name, node);
    }

    fn entries_mut(&mut self, directory: Node) -> &mut BTreeMap<Name, Node> {
        match self.inodes.get_mut(&directory) {
            Some(Inode::Directory { entries, .. }) => entries,
            _ => panic!("{directory:?} is a directory"),
        }
    }

    fn drop_link(&mut self, node: Node) {
        let inode = self.inodes.get_mut(&node).expect("a name has an inode");
        *inode.links_mut().expect("not a directory") -= 1;
    }

    fn end_directory(&mut self, node: Node) {
        match self.inodes.get_mut(&node) {
            Some(Inode::Directory { is_removed, .. }) => *is_removed = true,
            _ => panic!("{node:?} is a directory"),
        }
    }

    // Comparing.

    /// The same names with the same inodes, where directories and symbolic links that were made
    /// meanwhile have numbers that this tree does not know.
    pub fn looks_like(&self, other: &Tree) -> bool {
        self.looks_alike_below(self.root, other, other.root)
    }

    fn looks_alike_below(&self, here: Node, other: &Tree, there: Node) -> bool {
        let (Some(own), Some(others)) = (self.entries(here), other.entries(there)) else {
            return false;
        };
        let is_same_node = here.0 >> 63 == 1 || here == there;
        let is_alike =
            |((name, node), (other_name, other_node)): ((&Name, &Node), (&Name, &Node))| {
                name == other_name && self.is_alike(*node, other, *other_node)
            };
        is_same_node && own.len() == others.len() && own.iter().zip(others).all(is_alike)
    }

    fn is_alike(&self, here: Node, other: &Tree, there: Node) -> bool {
        match (&self.inodes[&here], &other.inodes[&there]) {
            (Inode::Directory { .. }, Inode::Directory { .. }) => {
                self.looks_alike_below(here, other, there)
            }
            (own @ Inode::File { .. }, others) => here == there && own == others,
            (own, others) => own == others,
        }
    }
}

/// How a rename that changes nothing may end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenameEnds {
    pub errors: Vec<Refused>,
    /// Both names are of one inode.
    pub does_nothing: bool,
}
