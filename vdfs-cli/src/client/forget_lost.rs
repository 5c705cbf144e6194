//! `vdfs forget-lost`: removes the names of files whose bytes were in RAM that is gone.

use std::cell::Cell;
use std::path::Path;

use indicatif::ProgressBar;
use serde::Serialize;
use vdfs_client::Fs;
use vdfs_program::{Blame, Failure, human};
use vdfs_proto::{Attr, FileKind, FileName, Ino, Status};

use crate::args::ForgetLostArgs;
use crate::client::connection::{self, Connection};
use crate::client::every_file::{Named, bar, locate, look_at_every_file};
use crate::output::Output;

#[derive(Debug, Serialize)]
struct ForgottenJson {
    /// Names removed.
    files: u64,
    /// What they had.
    lost_bytes: u64,
    /// Names looked at.
    seen: u64,
}

pub(crate) fn run(args: &ForgetLostArgs) -> Result<(), Failure> {
    connection::run(&args.cluster, "forget-lost", async |connection| {
        let forgotten = forget(connection).await.blame("forget-lost")?;
        let mut output = Output::open();
        if args.json {
            output.json(&forgotten)?;
        } else {
            output.line(format!(
                "{} names of lost files removed ({})",
                forgotten.files,
                human(forgotten.lost_bytes)
            ))?;
        }
        output.finish()
    })
}

/// What was done so far.
struct Sweep<'a> {
    connection: &'a Connection,
    files: Cell<u64>,
    lost_bytes: Cell<u64>,
    seen: Cell<u64>,
    bar: ProgressBar,
}

async fn forget(connection: &Connection) -> Result<ForgottenJson, Status> {
    let sweep = Sweep {
        connection,
        files: Cell::new(0),
        lost_bytes: Cell::new(0),
        seen: Cell::new(0),
        bar: bar(),
    };
    let top = (Ino::ROOT, Path::new("/"));
    look_at_every_file(&connection.fs, top, async |named| sweep.look(named).await).await?;
    sweep.bar.finish_and_clear();
    Ok(ForgottenJson {
        files: sweep.files.get(),
        lost_bytes: sweep.lost_bytes.get(),
        seen: sweep.seen.get(),
    })
}

impl Sweep<'_> {
    async fn look(&self, Named { parent, entry, .. }: Named<'_>) -> Result<(), Status> {
        let Connection { fs, caller } = self.connection;
        self.seen.set(self.seen.get() + 1);
        self.bar.inc(1);
        let attr = match entry.attr {
            Some(attr) => attr,
            None => fs.getattr(entry.ino).await?,
        };
        if !is_lost(fs, &attr).await? {
            return Ok(());
        }
        caller.check_removal(fs, parent, &attr).await?;
        unlink(fs, parent.ino, entry.name).await?;
        self.files.set(self.files.get() + 1);
        self.lost_bytes.set(self.lost_bytes.get() + attr.size);
        self.bar
            .set_message(format!("{} removed", self.files.get()));
        Ok(())
    }
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
    let Some((attr, layout, table)) = locate(fs, attr.ino).await? else {
        return Ok(false);
    };
    let count = attr.size.div_ceil(u64::from(fs.chunk_size().bytes())) as u32;
    let mut rows = layout.chains(count).filter_map(|id| table.chain(id));
    Ok(rows.any(|row| layout.data < row.lost_below))
}
