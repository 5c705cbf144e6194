//! `vdfs ls`: names, sorted by their bytes.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use vdfs_client::path::resolve;
use vdfs_proto::acl::Perms;
use vdfs_proto::{Attr, FileKind};

use crate::args::LsArgs;
use crate::calendar::utc;
use crate::client::connection::{self, Connection};
use crate::client::listing::list;
use crate::output::Output;
use vdfs_program::{Blame, Failure};

pub(crate) fn run(args: &LsArgs) -> Result<(), Failure> {
    connection::run(&args.cluster, "ls", async |connection| {
        let mut ls = Ls {
            connection,
            long: args.long,
            output: Output::open(),
        };
        for (index, path) in args.paths.iter().enumerate() {
            let heading = args.paths.len() > 1;
            if heading && index > 0 {
                ls.output.line("")?;
            }
            ls.path(path, heading).await?;
        }
        ls.output.finish()
    })
}

struct Ls<'a> {
    connection: &'a Connection,
    long: bool,
    output: Output,
}

impl Ls<'_> {
    async fn path(&mut self, path: &Path, heading: bool) -> Result<(), Failure> {
        let what = &path.display();
        let Connection { fs, caller } = self.connection;
        let attr = resolve(fs, caller, path, true).await.blame(what)?;
        if attr.kind != FileKind::Directory {
            return self.entry(path.as_os_str().as_bytes(), &attr).await;
        }
        caller.check(fs, &attr, Perms::READ).await.blame(what)?;
        if heading {
            self.output
                .line([path.as_os_str().as_bytes(), b":"].concat())?;
        }
        for (entry, attr) in list(fs, attr.ino).await.blame(what)? {
            self.entry(entry.name.as_bytes(), &attr).await?;
        }
        Ok(())
    }

    async fn entry(&mut self, name: &[u8], attr: &Attr) -> Result<(), Failure> {
        if !self.long {
            return self.output.line(name);
        }
        let mut line = long_columns(attr).into_bytes();
        line.extend(name);
        if attr.kind == FileKind::Symlink {
            let target = self.connection.fs.readlink(attr.ino).await;
            line.extend(b" -> ");
            line.extend(target.blame(String::from_utf8_lossy(name))?.as_bytes());
        }
        self.output.line(line)
    }
}

/// `-rw-r--r-- 1 0 0 1234 2026-11-20 05:32:27 `
fn long_columns(attr: &Attr) -> String {
    format!(
        "{} {:>3} {:>5} {:>5} {:>12} {} ",
        mode_text(attr),
        attr.nlink,
        attr.uid,
        attr.gid,
        attr.size,
        utc(attr.mtime)
    )
}

/// As ls(1) writes it: `drwxr-xr-t`.
pub(crate) fn mode_text(attr: &Attr) -> String {
    let mut text = String::from(match attr.kind {
        FileKind::Regular => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
    });
    // (shift of the triple, its special bit, the letter of that bit)
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let triple = attr.mode >> shift;
        text.push(if triple & 4 != 0 { 'r' } else { '-' });
        text.push(if triple & 2 != 0 { 'w' } else { '-' });
        text.push(match (attr.mode & special != 0, triple & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use vdfs_proto::{Ino, Timestamp};

    use super::*;

    #[test]
    fn mode_text_is_that_of_ls() {
        let time = Timestamp::default();
        let attr = |kind, mode| Attr {
            ino: Ino::ROOT,
            kind,
            mode,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            atime: time,
            mtime: time,
            ctime: time,
            has_acl: false,
            data_version: 0,
            has_holes: false,
        };
        for (kind, mode, text) in [
            (FileKind::Regular, 0o644, "-rw-r--r--"),
            (FileKind::Directory, 0o1777, "drwxrwxrwt"),
            (FileKind::Regular, 0o4755, "-rwsr-xr-x"),
            (FileKind::Regular, 0o6644, "-rwSr-Sr--"),
            (FileKind::Symlink, 0o777, "lrwxrwxrwx"),
        ] {
            assert_eq!(mode_text(&attr(kind, mode)), text);
        }
    }
}
