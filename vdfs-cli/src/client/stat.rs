//! `vdfs stat`: what is known of a file.

use std::path::Path;

use vdfs_client::path::resolve;
use vdfs_proto::{Attr, FileKind};

use crate::args::PathArgs;
use crate::calendar::utc;
use crate::client::connection;
use crate::client::ls::mode_text;
use crate::output::Output;
use vdfs_program::{Blame, Failure, human};

pub(crate) fn run(args: &PathArgs) -> Result<(), Failure> {
    connection::run(&args.cluster, "stat", async |connection| {
        let mut output = Output::open();
        for path in &args.paths {
            let attr = resolve(&connection.fs, &connection.caller, path, false).await;
            output.bytes(report(path, &attr.blame(path.display())?).as_bytes())?;
        }
        output.finish()
    })
}

fn report(path: &Path, attr: &Attr) -> String {
    let rows = [
        ("path", path.display().to_string()),
        ("kind", kind_text(attr.kind).to_owned()),
        (
            "size",
            format!("{} bytes ({})", attr.size, human(attr.size)),
        ),
        ("inode", attr.ino.0.to_string()),
        ("links", attr.nlink.to_string()),
        ("mode", format!("{:04o} ({})", attr.mode, mode_text(attr))),
        ("owner", format!("uid {}, gid {}", attr.uid, attr.gid)),
        ("accessed", format!("{} UTC", utc(attr.atime))),
        ("modified", format!("{} UTC", utc(attr.mtime))),
        ("changed", format!("{} UTC", utc(attr.ctime))),
    ];
    rows.iter()
        .map(|(name, value)| format!("{name:<9} {value}\n"))
        .collect()
}

fn kind_text(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "regular file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symbolic link",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
    }
}
