//! How many copies there are of the files below a path, and how many its directory asks for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use vdfs_client::Fs;
use vdfs_program::{Blame, Failure, human};
use vdfs_proto::{Attr, Chain, ChainTable, Copies, FileKind, Ino, Layout, Status};

use crate::args::ReplicasArgs;
use crate::client::connection::Connection;
use crate::client::every_file::{Named, look_at_every_file};
use crate::client::on_inode::run_on_inode;
use crate::output::Output;

/// What `vdfs replicas PATH --json` prints.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Below {
    /// That there shall be of what is made here, or of this file.
    replicas: u32,
    /// The directory asks for them; otherwise the filesystem says so.
    is_asked_for: bool,
    /// How many files have so many copies.
    files: Vec<Tally>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Tally {
    copies: u32,
    files: u64,
    size_bytes: u64,
}

pub(super) fn show(args: &ReplicasArgs, path: &Path) -> Result<(), Failure> {
    run_on_inode(path, &args.cluster, "replicas", async |connection, ino| {
        let below = look(connection, ino, path).await.blame(path.display())?;
        let mut output = Output::open();
        if args.json {
            output.json(&below)?;
        } else {
            print(&below, &mut output)?;
        }
        output.finish()
    })
}

fn print(below: &Below, output: &mut Output) -> Result<(), Failure> {
    let whose = match below.is_asked_for {
        true => "asked for here",
        false => "as everywhere",
    };
    output.line(format!("{} copies, {whose}", below.replicas))?;
    for tally in &below.files {
        output.line(format!(
            "{} files ({}) have {}",
            tally.files,
            human(tally.size_bytes),
            tally.copies
        ))?;
    }
    Ok(())
}

/// A link counts for each of its names.
async fn look(connection: &Connection, ino: Ino, path: &Path) -> Result<Below, Status> {
    let fs = &connection.fs;
    let attr = fs.getattr(ino).await?;
    let table = RefCell::new(fs.chain_table().await);
    let tallies: Cell<BTreeMap<u32, Tally>> = Cell::default();
    let count = async |attr: &Attr| {
        let layout = match fs.layout(attr.ino).await {
            // Somebody has removed it meanwhile.
            Err(Status::StaleInode | Status::NotFound) => return Ok(()),
            layout => layout?,
        };
        if table.borrow().chain(layout.chain(0)).is_none() {
            let newer = fs.chain_table().await;
            table.replace(newer);
        }
        let copies = copies_of(fs, attr, &layout, &table.borrow());
        let mut all = tallies.take();
        all.entry(copies).or_default().add(copies, attr.size);
        tallies.set(all);
        Ok(())
    };
    let group = match attr.kind {
        FileKind::Directory => {
            let each = async |named: Named<'_>| match named.entry.attr {
                Some(attr) if attr.kind == FileKind::Regular => count(&attr).await,
                Some(_) | None => Ok(()),
            };
            look_at_every_file(fs, (ino, path), each).await?;
            None
        }
        FileKind::Regular => {
            count(&attr).await?;
            Some(fs.layout(ino).await?.group)
        }
        _ => return Err(Status::Invalid),
    };
    let report = fs.status().await?;
    let asked = match group {
        Some(group) => {
            let group = report.groups.get(usize::from(group));
            group.and_then(|group| group.copies)
        }
        None => asked_by(fs, ino).await?,
    };
    Ok(Below {
        replicas: asked.map_or(report.replicas, Copies::count),
        is_asked_for: asked.is_some(),
        files: tallies.into_inner().into_values().collect(),
    })
}

/// What a directory asks for.
pub(super) async fn asked_by(fs: &Fs, directory: Ino) -> Result<Option<Copies>, Status> {
    match fs.get_xattr(directory, Copies::name()).await {
        Ok(value) => Ok(Copies::parse(&value).ok()),
        Err(Status::NoData) => Ok(None),
        Err(status) => Err(status),
    }
}

/// Of the chunk that has the fewest.
fn copies_of(fs: &Fs, attr: &Attr, layout: &Layout, table: &ChainTable) -> u32 {
    let chunks = attr.size.div_ceil(u64::from(fs.chunk_size().bytes()));
    let chains = layout.chains(chunks.clamp(1, u64::from(u32::MAX)) as u32);
    let serving = chains.map(|id| table.chain(id).map_or(0, serving));
    serving.min().unwrap_or(0)
}

fn serving(chain: &Chain) -> u32 {
    chain.serving().count() as u32
}

impl Tally {
    fn add(&mut self, copies: u32, size_bytes: u64) {
        self.copies = copies;
        self.files += 1;
        self.size_bytes += size_bytes;
    }
}
