//! The calls that are made.

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persona {
    Root,
    /// Uid and gid 1000, also in group 2000.
    First,
    /// Uid and gid 1001, also in groups 1000 and 2000.
    Second,
}

/// A time for `utimensat(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeArg {
    Now,
    Omit,
    At(i64, i64),
}

/// One call, by whom, on which mount.
#[derive(Clone, Debug)]
pub struct Step {
    pub by: Persona,
    pub umask: u32,
    pub mount: usize,
    pub call: Call,
}

/// A call. Paths are relative to a directory of the run's own; `slot` names an open file.
#[derive(Clone, Debug)]
pub enum Call {
    Open {
        path: String,
        flags: i32,
        mode: u32,
        slot: usize,
    },
    Close(usize),
    Mkdir(String, u32),
    Mknod {
        path: String,
        kind: u32,
        mode: u32,
        rdev: u64,
    },
    Symlink {
        target: String,
        path: String,
    },
    Link {
        from: String,
        to: String,
        follow: bool,
    },
    Unlink(String),
    Rmdir(String),
    Rename {
        from: String,
        to: String,
        flags: u32,
    },
    Chmod(String, u32),
    Fchmod(usize, u32),
    Chown {
        path: String,
        uid: u32,
        gid: u32,
        follow: bool,
    },
    Fchown(usize, u32, u32),
    Truncate(String, u64),
    Ftruncate(usize, u64),
    Utimens {
        path: String,
        atime: TimeArg,
        mtime: TimeArg,
        follow: bool,
    },
    SetXattr {
        path: String,
        name: String,
        value: Vec<u8>,
        flags: u32,
        follow: bool,
    },
    GetXattr {
        path: String,
        name: String,
        room: usize,
        follow: bool,
    },
    ListXattr {
        path: String,
        room: usize,
        follow: bool,
    },
    RemoveXattr {
        path: String,
        name: String,
        follow: bool,
    },
    Access(String, u32),
    Stat(String, bool),
    Fstat(usize),
    Readlink(String),
    List(String),
    /// Writes and syncs.
    Write {
        slot: usize,
        len: usize,
    },
    Read {
        slot: usize,
        len: usize,
    },
    NameMax(String),
}

impl Call {
    /// Paths that the call may change: those that it names, and their directories.
    pub(super) fn touched(&self) -> Vec<String> {
        let named: Vec<&String> = match self {
            Call::Open { path, .. }
            | Call::Mkdir(path, _)
            | Call::Mknod { path, .. }
            | Call::Symlink { path, .. }
            | Call::Unlink(path)
            | Call::Rmdir(path)
            | Call::Chmod(path, _)
            | Call::Chown { path, .. }
            | Call::Truncate(path, _)
            | Call::Utimens { path, .. }
            | Call::SetXattr { path, .. }
            | Call::GetXattr { path, .. }
            | Call::ListXattr { path, .. }
            | Call::RemoveXattr { path, .. }
            | Call::Access(path, _)
            | Call::Stat(path, _)
            | Call::Readlink(path)
            | Call::List(path)
            | Call::NameMax(path) => vec![path],
            Call::Link { from, to, .. } | Call::Rename { from, to, .. } => vec![from, to],
            Call::Close(_)
            | Call::Fchmod(..)
            | Call::Fchown(..)
            | Call::Ftruncate(..)
            | Call::Fstat(_)
            | Call::Write { .. }
            | Call::Read { .. } => Vec::new(),
        };
        named
            .into_iter()
            .flat_map(|path| with_parent(path))
            .collect()
    }
}

fn with_parent(path: &str) -> Vec<String> {
    let path = path.trim_end_matches('/');
    match path.rsplit_once('/') {
        Some((parent, _)) => vec![path.to_owned(), parent.to_owned()],
        None => vec![path.to_owned(), ".".to_owned()],
    }
}
