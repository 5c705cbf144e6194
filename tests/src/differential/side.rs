//! One of the two filesystems: makes calls there, and looks.

use std::path::PathBuf;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    self, Access, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec,
    Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use rustix::process;
use rustix::thread;

use super::call::{Call, Persona, Step, TimeArg};
use super::choose::SLOTS;
use super::look::{Look, Seen, set_atime};
use crate::sys;

/// Enough for everything that a call is given.
const ROOM: usize = 128 << 10;

#[derive(Debug)]
pub(super) struct Side {
    /// The same directory on each mount.
    roots: Vec<OwnedFd>,
    slots: [Option<OwnedFd>; SLOTS],
    seen: Seen,
}

/// What a call gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    Nothing,
    Look(Look),
    Bytes(Vec<u8>),
    Count(u64),
    /// Names and types in order of the names.
    Names(Vec<(Vec<u8>, FileType)>),
}

pub(super) type Outcome = Result<Given, Errno>;

impl Side {
    pub(super) fn new(roots: Vec<PathBuf>) -> Side {
        let open = |root: &PathBuf| fs::open(root, OFlags::DIRECTORY, Mode::empty());
        let roots = roots.iter().map(|root| open(root).expect("it is there"));
        Side {
            roots: roots.collect(),
            slots: [const { None }; SLOTS],
            seen: Seen::default(),
        }
    }

    pub(super) fn perform(&mut self, step: &Step) -> Outcome {
        self.enter(step.mount);
        process::umask(Mode::from_bits_retain(step.umask));
        become_persona(step.by);
        let outcome = self.call(&step.call);
        become_persona(Persona::Root);
        outcome
    }

    /// What root sees under a path that is not followed.
    pub(super) fn look(&mut self, mount: usize, path: &str, with_atime: bool) -> Option<Look> {
        self.enter(mount);
        let stat = fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let mut look = self.seen.look(&stat);
        look.atime = set_atime(&stat).filter(|_| with_atime);
        look.xattrs = xattrs_of(path);
        look.target = fs::readlinkat(CWD, path, Vec::new())
            .ok()
            .map(std::ffi::CString::into_bytes);
        Some(look)
    }

    fn enter(&self, mount: usize) {
        let root = &self.roots[mount % self.roots.len()];
        process::fchdir(root).expect("the root stays");
    }

    fn slot(&self, slot: usize) -> Result<BorrowedFd<'_>, Errno> {
        let open = self.slots[slot].as_ref();
        open.map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    fn call(&mut self, call: &Call) -> Outcome {
        match call {
            Call::Open {
                path,
                flags,
                mode,
                slot,
            } => {
                // Closed first, so that both sides have as many files open.
                self.slots[*slot] = None;
                let flags = OFlags::from_bits_retain(*flags as u32);
                let file = fs::open(path, flags, Mode::from_bits_retain(*mode))?;
                self.slots[*slot] = Some(file);
            }
            Call::Close(slot) => self.slots[*slot] = None,
            Call::Fstat(slot) => {
                let stat = fs::fstat(self.slot(*slot)?)?;
                return Ok(Given::Look(self.seen.look(&stat)));
            }
            Call::Stat(path, follow) => {
                let stat = fs::statat(CWD, path, no_follow(!follow))?;
                return Ok(Given::Look(self.seen.look(&stat)));
            }
            Call::Fchmod(slot, _) | Call::Fchown(slot, ..) if has_ended(self.slot(*slot)?)? => {}
            Call::Fchmod(slot, mode) => {
                fs::fchmod(self.slot(*slot)?, Mode::from_bits_retain(*mode))?;
            }
            Call::Fchown(slot, uid, gid) => {
                let (uid, gid) = owners(*uid, *gid);
                fs::fchown(self.slot(*slot)?, uid, gid)?;
            }
            Call::Ftruncate(slot, size) => {
                let file = self.slot(*slot)?;
                if !is_file_of(&fs::fstat(file)?, *size) {
                    fs::ftruncate(file, *size)?;
                }
            }
            Call::Write { slot, len } => {
                let file = self.slot(*slot)?;
                let written = rustix::io::write(file, &vec![b'w'; *len])?;
                fs::fsync(file).or_else(unless_invalid)?;
                return Ok(Given::Count(written as u64));
            }
            Call::Read { slot, len } => {
                let mut bytes = vec![0; *len];
                let read = rustix::io::read(self.slot(*slot)?, &mut bytes)?;
                bytes.truncate(read);
                return Ok(Given::Bytes(bytes));
            }
            call if is_of_names(call) => return call_on_names(call),
            call => return call_on_attributes(call),
        }
        Ok(Given::Nothing)
    }
}

fn is_file_of(stat: &Stat, size: u64) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size == size as i64
}

/// It is open, has no name, and is none of the inodes that live on because they are open.
fn has_ended(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    let stat = fs::fstat(file)?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    Ok(stat.st_nlink == 0 && !is_file)
}

/// Devices cannot be synced.
fn unless_invalid(error: Errno) -> Result<(), Errno> {
    match error {
        Errno::INVAL => Ok(()),
        error => Err(error),
    }
}

fn is_of_names(call: &Call) -> bool {
    matches!(
        call,
        Call::Mkdir(..)
            | Call::Mknod { .. }
            | Call::Symlink { .. }
            | Call::Link { .. }
            | Call::Unlink(_)
            | Call::Rmdir(_)
            | Call::Rename { .. }
            | Call::Readlink(_)
            | Call::List(_)
    )
}

fn call_on_names(call: &Call) -> Outcome {
    match call {
        Call::Mkdir(path, mode) => fs::mkdir(path, Mode::from_bits_retain(*mode))?,
        Call::Mknod {
            path,
            kind,
            mode,
            rdev,
        } => {
            let kind = FileType::from_raw_mode(*kind);
            fs::mknodat(CWD, path, kind, Mode::from_bits_retain(*mode), *rdev)?;
        }
        Call::Symlink { target, path } => fs::symlink(target, path)?,
        Call::Link { from, to, follow } => {
            let flags = match follow {
                true => AtFlags::SYMLINK_FOLLOW,
                false => AtFlags::empty(),
            };
            fs::linkat(CWD, from, CWD, to, flags)?;
        }
        Call::Unlink(path) => fs::unlink(path)?,
        Call::Rmdir(path) => fs::rmdir(path)?,
        Call::Rename { from, to, flags } => {
            let flags = RenameFlags::from_bits_retain(*flags);
            fs::renameat_with(CWD, from, CWD, to, flags)?;
        }
        Call::Readlink(path) => {
            let target = fs::readlinkat(CWD, path, Vec::new())?;
            return Ok(Given::Bytes(target.into_bytes()));
        }
        Call::List(path) => return list(path),
        call => unreachable!("{call:?} is not of names"),
    }
    Ok(Given::Nothing)
}

fn list(path: &str) -> Outcome {
    let open = fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty())?;
    let entry = |entry: Result<fs::DirEntry, Errno>| {
        let entry = entry?;
        Ok((entry.file_name().to_bytes().to_vec(), entry.file_type()))
    };
    let names: Result<Vec<_>, Errno> = Dir::new(open)?.map(entry).collect();
    let mut names = names?;
    names.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Given::Names(names))
}

fn call_on_attributes(call: &Call) -> Outcome {
    match call {
        Call::Chmod(path, mode) => fs::chmod(path, Mode::from_bits_retain(*mode))?,
        Call::Chown {
            path,
            uid,
            gid,
            follow,
        } => {
            let (uid, gid) = owners(*uid, *gid);
            fs::chownat(CWD, path, uid, gid, no_follow(!follow))?;
        }
        Call::Truncate(path, size) => {
            if !is_file_of(&fs::stat(path)?, *size) {
                sys::truncate(path.as_ref(), *size).map_err(errno)?;
            }
        }
        Call::Utimens {
            path,
            atime,
            mtime,
            follow,
        } => {
            let times = Timestamps {
                last_access: timespec(*atime),
                last_modification: timespec(*mtime),
            };
            fs::utimensat(CWD, path, &times, no_follow(!follow))?;
        }
        Call::Access(path, wanted) => {
            let wanted = Access::from_bits_retain(*wanted);
            fs::accessat(CWD, path, wanted, AtFlags::empty())?;
        }
        Call::NameMax(path) => return Ok(Given::Count(fs::statfs(path)?.f_namelen as u64)),
        call => return call_on_xattrs(call),
    }
    Ok(Given::Nothing)
}

fn call_on_xattrs(call: &Call) -> Outcome {
    match call {
        Call::SetXattr {
            path,
            name,
            value,
            flags,
            follow,
        } => {
            let flags = XattrFlags::from_bits_retain(*flags);
            match follow {
                true => fs::setxattr(path, name, value, flags)?,
                false => fs::lsetxattr(path, name, value, flags)?,
            }
        }
        Call::GetXattr {
            path,
            name,
            room,
            follow,
        } => {
            let mut value = vec![0; *room];
            let len = match follow {
                true => fs::getxattr(path, name, &mut value[..])?,
                false => fs::lgetxattr(path, name, &mut value[..])?,
            };
            return Ok(given_within(value, len));
        }
        Call::ListXattr { path, room, follow } => {
            let mut list = vec![0; *room];
            let len = match follow {
                true => fs::listxattr(path, &mut list[..])?,
                false => fs::llistxattr(path, &mut list[..])?,
            };
            list.truncate(len);
            let mut names: Vec<&[u8]> = list.split(|byte| *byte == 0).collect();
            names.sort_unstable();
            return Ok(match room {
                0 => Given::Count(len as u64),
                _ => Given::Bytes(names.join(&0)),
            });
        }
        Call::RemoveXattr { path, name, follow } => match follow {
            true => fs::removexattr(path, name)?,
            false => fs::lremovexattr(path, name)?,
        },
        call => unreachable!("{call:?} is not of extended attributes"),
    }
    Ok(Given::Nothing)
}

/// The bytes, or how many there are if none were asked for.
fn given_within(mut bytes: Vec<u8>, len: usize) -> Given {
    if bytes.is_empty() {
        return Given::Count(len as u64);
    }
    bytes.truncate(len);
    Given::Bytes(bytes)
}

fn xattrs_of(path: &str) -> Vec<(String, Vec<u8>)> {
    let mut list = vec![0; ROOM];
    let len = fs::llistxattr(path, &mut list[..]).unwrap_or(0);
    list.truncate(len);
    let names = list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let mut all: Vec<_> = names
        .map(|name| {
            let name = String::from_utf8_lossy(name).into_owned();
            let mut value = vec![0; ROOM];
            let len = fs::lgetxattr(path, &name, &mut value[..]).unwrap_or(0);
            value.truncate(len);
            (name, value)
        })
        .collect();
    all.sort();
    all
}

fn become_persona(persona: Persona) {
    let (id, others): (u32, &[u32]) = match persona {
        Persona::Root => (0, &[]),
        Persona::First => (1000, &[2000]),
        Persona::Second => (1001, &[1000, 2000]),
    };
    let groups: Vec<Gid> = others.iter().map(|group| Gid::from_raw(*group)).collect();
    let (uid, gid, root) = (Uid::from_raw(id), Gid::from_raw(id), Uid::ROOT);
    // The saved ids bring root back, and with it its capabilities.
    thread::set_thread_res_uid(root, root, root).expect("root is saved");
    thread::set_thread_groups(&groups).expect("root may");
    thread::set_thread_res_gid(gid, gid, Gid::ROOT).expect("root may");
    thread::set_thread_res_uid(uid, uid, root).expect("root may");
}

fn no_follow(is_set: bool) -> AtFlags {
    match is_set {
        true => AtFlags::SYMLINK_NOFOLLOW,
        false => AtFlags::empty(),
    }
}

fn owners(uid: u32, gid: u32) -> (Option<Uid>, Option<Gid>) {
    let uid = (uid != u32::MAX).then(|| Uid::from_raw(uid));
    let gid = (gid != u32::MAX).then(|| Gid::from_raw(gid));
    (uid, gid)
}

fn timespec(time: TimeArg) -> Timespec {
    let (tv_sec, tv_nsec) = match time {
        TimeArg::Now => (0, fs::UTIME_NOW),
        TimeArg::Omit => (0, fs::UTIME_OMIT),
        TimeArg::At(secs, nanos) => (secs, nanos),
    };
    Timespec { tv_sec, tv_nsec }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).expect("an error of a call")
}
