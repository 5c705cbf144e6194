//! `vdfs forget-lost`: removes the names of files whose bytes were in RAM that is gone.

use vdfs_client::Fs;
use vdfs_proto::{Attr, FileKind, FileName, Ino, Status};

use crate::args::ForgetLostArgs;
use crate::client::access;
use crate::client::connection::{self, Connection};
use crate::client::listing::list;
use crate::output::Output;
use vdfs_program::{Blame, Failure, human};

pub(crate) fn run(args: &ForgetLostArgs) -> Result<(), Failure> {
    connection::run(&args.cluster, "forget-lost", async |connection| {
        let (files, bytes) = forget(connection).await.blame("forget-lost")?;
        let mut output = Output::open();
        output.line(format!(
            "{files} names of lost files removed ({})",
            human(bytes)
        ))?;
        output.finish()
    })
}

/// Gives the number of names removed and the bytes that the files had.
async fn forget(connection: &Connection) -> Result<(u64, u64), Status> {
    let Connection { fs, caller } = connection;
    let (mut files, mut bytes) = (0, 0);
    let mut pending = vec![Ino::ROOT];
    while let Some(directory) = pending.pop() {
        let parent = fs.getattr(directory).await?;
        for (entry, attr) in list(fs, directory).await? {
            if attr.kind == FileKind::Directory {
                pending.push(attr.ino);
            } else if is_lost(fs, &attr).await? {
                access::check_removal(caller, &parent, &attr)?;
                unlink(fs, directory, entry.name).await?;
                files += 1;
                bytes += attr.size;
            }
        }
    }
    Ok((files, bytes))
}

async fn unlink(fs: &Fs, directory: Ino, name: FileName) -> Result<(), Status> {
    match fs.unlink(directory, name).await {
        // Somebody else was faster.
        Err(Status::NotFound) => Ok(()),
        outcome => outcome,
    }
}

/// True if a chunk of the file was on a chain that has lost its data since the file was made.
async fn is_lost(fs: &Fs, attr: &Attr) -> Result<bool, Status> {
    if attr.kind != FileKind::Regular || attr.size == 0 {
        return Ok(false);
    }
    let (attr, layout, table) = fs.locate(attr.ino).await?;
    let count = attr.size.div_ceil(u64::from(fs.chunk_size().bytes())) as u32;
    // A group has 256 chains: what follows would only repeat them.
    let chains = (0..count.min(vdfs_proto::limits::CHAINS_PER_GROUP)).map(|i| layout.chain(i));
    let lost = |chain| {
        table
            .chain(chain)
            .is_some_and(|row| layout.data < row.lost_below)
    };
    Ok(chains.into_iter().any(lost))
}
