//! Which calls are made: few names and values, so that calls meet, and the odd ones among them.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::call::{Call, Persona, Step, TimeArg};

/// Files that are open at once.
pub(super) const SLOTS: usize = 3;

const NAMES: [&str; 4] = ["a", "b", "c", "ä"];
const MODES: [u32; 12] = [
    0o777, 0o755, 0o750, 0o700, 0o644, 0o660, 0o600, 0o000, 0o2775, 0o1777, 0o4755, 0o6711,
];
const UMASKS: [u32; 4] = [0o022, 0o077, 0o000, 0o027];
const NOBODY: u32 = u32::MAX;
const OWNERS: [(u32, u32); 10] = [
    (0, 0),
    (1000, NOBODY),
    (1001, NOBODY),
    (0, NOBODY),
    (NOBODY, 0),
    (NOBODY, 1000),
    (NOBODY, 1001),
    (NOBODY, 2000),
    (1000, 1000),
    (1001, 2000),
];
const SIZES: [u64; 5] = [0, 1, 100, 4096, 70_000];
const TIMES: [TimeArg; 9] = [
    TimeArg::Now,
    TimeArg::Omit,
    TimeArg::At(5, 1),
    TimeArg::At(-2, 999_999_999),
    TimeArg::At(-1, 1),
    TimeArg::At(0, 0),
    TimeArg::At(999_999_999, 500_000_000),
    TimeArg::At(1, 1_000_000_000),
    TimeArg::At(1, -1),
];
const XATTRS: [&str; 14] = [
    "user.a",
    "user.b",
    "user.",
    "user",
    "trusted.a",
    "security.vdfs",
    "system.posix_acl_access",
    "system.posix_acl_access",
    "system.posix_acl_access",
    "system.posix_acl_default",
    "system.posix_acl_default",
    "system.other",
    "other.a",
    "",
];

#[derive(Debug)]
pub(super) struct Chooser {
    random: StdRng,
    mounts: usize,
}

impl Chooser {
    pub(super) fn new(seed: u64, mounts: usize) -> Chooser {
        Chooser {
            random: StdRng::seed_from_u64(seed),
            mounts,
        }
    }

    pub(super) fn step(&mut self) -> Step {
        let by = [
            Persona::Root,
            Persona::First,
            Persona::First,
            Persona::Second,
        ];
        Step {
            by: self.of(&by),
            umask: self.of(&UMASKS),
            mount: self.random.random_range(0..self.mounts),
            call: self.call(),
        }
    }

    fn call(&mut self) -> Call {
        match self.random.random_range(0..100) {
            0..14 => self.open(),
            14..40 => self.call_on_names(),
            40..68 => self.call_on_attributes(),
            68..86 => self.call_on_xattrs(),
            _ => self.call_that_looks(),
        }
    }

    fn open(&mut self) -> Call {
        let access = self.of(&[libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR]);
        let how = self.of(&[
            0,
            libc::O_CREAT,
            libc::O_CREAT,
            libc::O_CREAT | libc::O_EXCL,
            libc::O_TRUNC,
            libc::O_CREAT | libc::O_TRUNC,
            libc::O_APPEND,
        ]);
        let what = self.of(&[
            0,
            0,
            0,
            libc::O_DIRECTORY,
            libc::O_NOFOLLOW,
            libc::O_NOATIME,
        ]);
        Call::Open {
            path: self.path(),
            // Or the open of a pipe would wait.
            flags: access | how | what | libc::O_NONBLOCK | libc::O_CLOEXEC,
            mode: self.of(&MODES),
            slot: self.slot(),
        }
    }

    fn call_on_names(&mut self) -> Call {
        match self.random.random_range(0..26) {
            0..6 => Call::Mkdir(self.path(), self.of(&MODES)),
            6..9 => Call::Mknod {
                path: self.path(),
                kind: self.of(&[libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK, libc::S_IFCHR]),
                mode: self.of(&MODES),
                // null(4).
                rdev: libc::makedev(1, 3),
            },
            9..12 => Call::Symlink {
                target: self
                    .of(&["a", "b/c", "missing", "b/../a", ".", "c", ""])
                    .into(),
                path: self.path(),
            },
            12..15 => Call::Link {
                from: self.path(),
                to: self.path(),
                follow: self.random.random(),
            },
            15..18 => Call::Unlink(self.path()),
            18..20 => Call::Rmdir(self.path()),
            _ => Call::Rename {
                from: self.path(),
                to: self.path(),
                flags: self.of(&[0, 0, 0, 1, 2, 2, 3, 8]),
            },
        }
    }

    fn call_on_attributes(&mut self) -> Call {
        let (uid, gid) = self.of(&OWNERS);
        match self.random.random_range(0..28) {
            0..8 => Call::Chmod(self.path(), self.of(&MODES)),
            8..10 => Call::Fchmod(self.slot(), self.of(&MODES)),
            10..16 => Call::Chown {
                path: self.path(),
                uid,
                gid,
                follow: self.random.random(),
            },
            16 => Call::Fchown(self.slot(), uid, gid),
            17..19 => Call::Truncate(self.path(), self.of(&SIZES)),
            19 => Call::Ftruncate(self.slot(), self.of(&SIZES)),
            20..23 => Call::Write {
                slot: self.slot(),
                len: self.of(&[1, 100, 5000]),
            },
            _ => Call::Utimens {
                path: self.path(),
                atime: self.of(&TIMES),
                mtime: self.of(&TIMES),
                follow: self.random.random(),
            },
        }
    }

    fn call_on_xattrs(&mut self) -> Call {
        let (path, follow) = (self.path(), self.random.random());
        let name: String = self.of(&XATTRS).into();
        match self.random.random_range(0..18) {
            0..9 => Call::SetXattr {
                path,
                value: self.value(&name),
                name,
                flags: self.of(&[0, 0, 0, 1, 2]),
                follow,
            },
            9..12 => Call::GetXattr {
                path,
                name,
                room: self.of(&[0, 1, 200, 70_000]),
                follow,
            },
            12..14 => Call::ListXattr {
                path,
                room: self.of(&[0, 3, 1000]),
                follow,
            },
            _ => Call::RemoveXattr { path, name, follow },
        }
    }

    fn call_that_looks(&mut self) -> Call {
        match self.random.random_range(0..14) {
            0..3 => Call::Access(self.path(), self.of(&[0, 1, 2, 4, 6, 7])),
            3..5 => Call::Stat(self.path(), self.random.random()),
            5..7 => Call::Fstat(self.slot()),
            7 => Call::Readlink(self.path()),
            8..10 => Call::List(self.path()),
            10 => Call::NameMax(self.path()),
            11..13 if self.mounts == 1 => Call::Read {
                slot: self.slot(),
                len: self.of(&[0, 10, 6000]),
            },
            _ => Call::Close(self.slot()),
        }
    }

    /// One to three names; now and then something that no path should be.
    fn path(&mut self) -> String {
        let odd = self.random.random_range(0..40);
        let depth = self.of(&[1, 1, 1, 2, 2, 3]);
        let names: Vec<&str> = (0..depth).map(|_| self.of(&NAMES)).collect();
        let path = names.join("/");
        match odd {
            0 => format!("{path}/"),
            1 => format!("{path}/."),
            2 => format!("{path}/.."),
            3 => format!("{path}/{}", "n".repeat(255)),
            4 => format!("{path}/{}", "n".repeat(256)),
            5 => ".".into(),
            6 => String::new(),
            7 => format!("{path}//{path}"),
            _ => path,
        }
    }

    fn value(&mut self, name: &str) -> Vec<u8> {
        if name.starts_with("system.posix") {
            return self.acl();
        }
        let len = self.of(&[0, 1, 10, 300, 65_537]);
        vec![b'v'; len]
    }

    /// Mostly a good ACL, with the entries of one that names nobody, somebody, or many.
    fn acl(&mut self) -> Vec<u8> {
        let perms = || [0u16, 1, 4, 5, 6, 7, 7];
        let mut entries = vec![(0x01u16, self.of(&perms()), NOBODY)];
        let names_somebody = self.random.random_bool(0.7);
        if names_somebody {
            entries.push((0x02, self.of(&perms()), self.of(&[1000, 1001])));
        }
        entries.push((0x04, self.of(&perms()), NOBODY));
        if names_somebody && self.random.random() {
            entries.push((0x08, self.of(&perms()), self.of(&[1000, 2000])));
        }
        if names_somebody || self.random.random_bool(0.2) {
            entries.push((0x10, self.of(&perms()), NOBODY));
        }
        entries.push((0x20, self.of(&perms()), NOBODY));
        match self.random.random_range(0..20) {
            0 => entries.truncate(entries.len() - 1),
            1 => entries[0].1 = 8,
            2 => entries.clear(),
            3 => entries.reverse(),
            _ => {}
        }
        let mut bytes = self
            .of(&[2u32, 2, 2, 2, 2, 2, 2, 2, 2, 1])
            .to_le_bytes()
            .to_vec();
        for (tag, perms, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(perms.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    fn slot(&mut self) -> usize {
        self.random.random_range(0..SLOTS)
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        *choices.choose(&mut self.random).expect("not empty")
    }
}
