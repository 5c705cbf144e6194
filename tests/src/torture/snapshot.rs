//! The tree below a directory, read while nothing goes on.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::history::{Name, Node, Place};
use super::tree::{Inode, Tree};

/// A tree, and where its directories are.
#[derive(Debug)]
pub struct Snapshot {
    pub tree: Tree,
    pub directories: BTreeMap<Node, PathBuf>,
    /// Each file with its contents.
    pub contents: BTreeMap<Node, Vec<u8>>,
    /// Each file and symbolic link with the number of links that the filesystem says.
    pub links: BTreeMap<Node, u64>,
}

impl Snapshot {
    /// Panics if there are names in it that nobody here makes.
    pub fn of(root: &Path) -> io::Result<Snapshot> {
        let node = Node(fs::metadata(root)?.ino());
        let mut snapshot = Snapshot {
            tree: Tree::new(node),
            directories: BTreeMap::from([(node, root.to_owned())]),
            contents: BTreeMap::new(),
            links: BTreeMap::new(),
        };
        snapshot.read_directory(node, root)?;
        Ok(snapshot)
    }

    fn read_directory(&mut self, directory: Node, path: &Path) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let text = entry.file_name().into_string().expect("names are plain");
            let name = Name::from_text(&text).expect("names are of the few");
            self.read_entry(Place { directory, name }, &entry)?;
        }
        Ok(())
    }

    fn read_entry(&mut self, at: Place, entry: &DirEntry) -> io::Result<()> {
        let metadata = entry.metadata()?;
        let node = Node(metadata.ino());
        if self.tree.inode(node).is_some() {
            self.tree.add_name(at, node);
            return Ok(());
        }
        let inode = self.inode(at, node, &metadata, &entry.path())?;
        let is_directory = inode.is_directory();
        self.tree.add(at, node, inode);
        if is_directory {
            self.directories.insert(node, entry.path());
            return self.read_directory(node, &entry.path());
        }
        self.links.insert(node, metadata.nlink());
        Ok(())
    }

    fn inode(
        &mut self,
        at: Place,
        node: Node,
        metadata: &Metadata,
        path: &Path,
    ) -> io::Result<Inode> {
        if metadata.is_dir() {
            return Ok(Inode::Directory {
                parent: at.directory,
                entries: BTreeMap::new(),
                is_removed: false,
            });
        }
        if metadata.is_symlink() {
            let target = fs::read_link(path)?;
            let target = target.to_str().and_then(|target| target.parse().ok());
            let target = target.expect("targets are numbers");
            return Ok(Inode::Symlink { links: 1, target });
        }
        self.contents.insert(node, fs::read(path)?);
        Ok(Inode::File { links: 1 })
    }
}
