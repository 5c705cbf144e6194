//! `vdfs cat`: files to standard output.

use std::path::Path;

use bytes::Bytes;
use vdfs_client::path::resolve;
use vdfs_client::{Fs, OpenOptions};
use vdfs_proto::acl::Perms;
use vdfs_proto::{FileKind, HandleId, Ino, Status};

use crate::args::PathArgs;
use crate::client::connection::{self, Connection};
use crate::output::Output;
use vdfs_program::{Blame, Failure};

/// One read; the client reads ahead of it.
const PIECE_BYTES: u32 = 1 << 20;

pub(crate) fn run(args: &PathArgs) -> Result<(), Failure> {
    connection::run(&args.cluster, "cat", async |connection| {
        let mut output = Output::open();
        for path in &args.paths {
            copy(connection, path, &mut output).await?;
        }
        output.finish()
    })
}

pub(crate) async fn copy(
    connection: &Connection,
    path: &Path,
    output: &mut Output,
) -> Result<(), Failure> {
    let what = &path.display();
    let Connection { fs, caller } = connection;
    let attr = resolve(fs, caller, path, true).await.blame(what)?;
    match attr.kind {
        FileKind::Regular => {}
        FileKind::Directory => return Err(Failure::new(what, Status::IsDirectory)),
        _ => return Err(Failure::new(what, "is no regular file")),
    }
    caller.check(fs, &attr, Perms::READ).await.blame(what)?;
    let mut reader = Reader::open(fs, attr.ino).await.blame(what)?;
    loop {
        let piece = reader.next().await.blame(what)?;
        if piece.is_empty() {
            return reader.close().await.blame(what);
        }
        output.bytes(&piece)?;
    }
}

/// Reads a file from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    fs: &'a Fs,
    handle: HandleId,
    offset: u64,
    last_bytes: u64,
}

impl<'a> Reader<'a> {
    pub(crate) async fn open(fs: &'a Fs, ino: Ino) -> Result<Reader<'a>, Status> {
        let options = OpenOptions {
            read: true,
            ..OpenOptions::default()
        };
        let open = fs.open(ino, options).await?;
        Ok(Reader {
            fs,
            handle: open.handle,
            offset: 0,
            last_bytes: 0,
        })
    }

    /// The bytes that follow; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Bytes, Status> {
        let piece = self.fs.read(self.handle, self.offset, PIECE_BYTES).await?;
        self.last_bytes = piece.len() as u64;
        self.offset += self.last_bytes;
        Ok(piece)
    }

    /// The length of what [`Reader::next`] gave last.
    pub(crate) fn last_bytes(&self) -> u64 {
        self.last_bytes
    }

    pub(crate) async fn close(self) -> Result<(), Status> {
        self.fs.release(self.handle).await
    }
}
