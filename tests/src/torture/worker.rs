//! System calls, relative to the directories that a round began with.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Instant;

use rand::RngExt;
use rand::rngs::StdRng;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, linkat, mkdirat, openat, readlinkat,
    renameat_with, statat, symlinkat, unlinkat,
};

use super::history::{Answer, Call, Name, Node, Place, Record};

const MODE: Mode = Mode::from_raw_mode(0o755);

/// One worker's view of one mount in one round.
#[derive(Debug)]
pub(super) struct Worker {
    number: usize,
    directories: BTreeMap<Node, OwnedFd>,
    rng: StdRng,
}

/// What a file contains.
pub(super) fn contents(node: Node) -> Vec<u8> {
    node.0.to_le_bytes().to_vec()
}

impl Worker {
    /// Opens the directories.
    pub(super) fn new(
        number: usize,
        directories: &BTreeMap<Node, PathBuf>,
        rng: StdRng,
    ) -> io::Result<Worker> {
        let open = |(node, path): (&Node, &PathBuf)| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = rustix::fs::open(path, flags, Mode::empty())?;
            Ok((*node, opened))
        };
        Ok(Worker {
            number,
            directories: directories.iter().map(open).collect::<io::Result<_>>()?,
            rng,
        })
    }

    /// Does so many calls, one after the other.
    pub(super) fn work(&mut self, calls: usize, start: Instant) -> Vec<Record> {
        let mut records = Vec::new();
        for _ in 0..calls {
            let call = self.choose();
            let begun = start.elapsed().as_nanos() as u64;
            let answer = self.perform(call);
            let returned = start.elapsed().as_nanos() as u64;
            let answer = answer.unwrap_or_else(|error| {
                Answer::Failed(error.raw_os_error().expect("the kernel has refused"))
            });
            records.push(Record {
                worker: self.number,
                call,
                begun,
                returned,
                answer,
            });
        }
        records
    }

    fn choose(&mut self) -> Call {
        let at = self.place();
        match self.rng.random_range(0..100) {
            0..18 => Call::Create {
                at,
                exclusive: self.rng.random_bool(0.5),
            },
            18..26 => Call::Open { at },
            26..38 => Call::Stat { at },
            38..41 => Call::ReadLink { at },
            41..49 => Call::Mkdir { at },
            49..55 => Call::Rmdir { at },
            55..65 => Call::Unlink { at },
            65..69 => Call::Symlink {
                at,
                target: self.rng.random_range(0..1 << 40),
            },
            69..77 => Call::Link {
                from: at,
                to: self.place(),
            },
            77..96 => Call::Rename {
                from: at,
                to: self.place(),
                no_replace: self.rng.random_bool(0.2),
            },
            _ => Call::List {
                directory: at.directory,
            },
        }
    }

    fn place(&mut self) -> Place {
        let number = self.rng.random_range(0..self.directories.len());
        let directory = self.directories.keys().nth(number);
        Place {
            directory: *directory.expect("counted"),
            name: Name(self.rng.random_range(0..Name::COUNT)),
        }
    }

    fn directory(&self, at: Place) -> &OwnedFd {
        &self.directories[&at.directory]
    }

    fn perform(&self, call: Call) -> io::Result<Answer> {
        match call {
            Call::Create { at, exclusive } => return self.create(at, exclusive),
            Call::Open { at } => return self.open(at),
            Call::Stat { at } => return self.stat(at),
            Call::List { directory } => return self.list(directory),
            Call::ReadLink { at } => {
                let target = readlinkat(self.directory(at), at.name.text(), Vec::new())?;
                let target = target.to_str().ok().and_then(|target| target.parse().ok());
                return Ok(Answer::Target(target.expect("targets are numbers")));
            }
            Call::Mkdir { at } => mkdirat(self.directory(at), at.name.text(), MODE)?,
            Call::Rmdir { at } => {
                unlinkat(self.directory(at), at.name.text(), AtFlags::REMOVEDIR)?;
            }
            Call::Unlink { at } => {
                unlinkat(self.directory(at), at.name.text(), AtFlags::empty())?;
            }
            Call::Symlink { at, target } => {
                symlinkat(target.to_string(), self.directory(at), at.name.text())?;
            }
            Call::Link { from, to } => {
                let (old, new) = (self.directory(from), self.directory(to));
                linkat(old, from.name.text(), new, to.name.text(), AtFlags::empty())?;
            }
            Call::Rename {
                from,
                to,
                no_replace,
            } => {
                let (old, new) = (self.directory(from), self.directory(to));
                let mut flags = RenameFlags::empty();
                flags.set(RenameFlags::NOREPLACE, no_replace);
                renameat_with(old, from.name.text(), new, to.name.text(), flags)?;
            }
        }
        Ok(Answer::Done)
    }

    fn create(&self, at: Place, exclusive: bool) -> io::Result<Answer> {
        let mut flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        flags.set(OFlags::EXCL, exclusive);
        let mut file = File::from(openat(self.directory(at), at.name.text(), flags, MODE)?);
        let node = Node(file.metadata()?.ino());
        let bytes = contents(node);
        file.write_all(&bytes)?;
        crate::sys::close(file)?;
        Ok(Answer::File {
            node,
            bytes: bytes.len(),
        })
    }

    fn open(&self, at: Place) -> io::Result<Answer> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(self.directory(at), at.name.text(), flags, MODE)?);
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Ok(Answer::Directory);
        }
        let node = Node(metadata.ino());
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let is_own = contents(node).starts_with(&bytes);
        assert!(is_own, "{node:?} contains {bytes:?}");
        Ok(Answer::File {
            node,
            bytes: bytes.len(),
        })
    }

    fn stat(&self, at: Place) -> io::Result<Answer> {
        let stat = statat(
            self.directory(at),
            at.name.text(),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Answer::DirectoryStat,
            FileType::Symlink => Answer::SymlinkStat,
            _ => Answer::FileStat {
                node: Node(stat.st_ino),
                links: stat.st_nlink as u64,
            },
        })
    }

    fn list(&self, directory: Node) -> io::Result<Answer> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(&self.directories[&directory], ".", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::new(opened)? {
            let entry = entry?;
            let text = entry.file_name().to_str().expect("names are plain");
            names.extend(Name::from_text(text));
        }
        Ok(Answer::Names(names))
    }
}
