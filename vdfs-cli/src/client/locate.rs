//! `vdfs locate`: which volumes hold the chunks of a file.

use serde::{Serialize, Serializer};
use vdfs_proto::{Attr, ChainTable, ChunkSize, FileKind, Ino, Layout, MemberState};

use crate::args::InodeArgs;
use crate::client::connection::Connection;
use crate::client::on_inode::run_on_inode;
use crate::output::Output;
use vdfs_program::{Blame, Failure, human};

pub(crate) fn run(args: &InodeArgs) -> Result<(), Failure> {
    run_on_inode(
        &args.path,
        &args.cluster,
        "locate",
        async |connection, ino| show(connection, ino, args).await,
    )
}

async fn show(connection: &Connection, ino: Ino, args: &InodeArgs) -> Result<(), Failure> {
    let what = &args.path.display();
    let fs = &connection.fs;
    let attr = fs.getattr(ino).await.blame(what)?;
    if attr.kind != FileKind::Regular {
        return Err(Failure::new(what, "only regular files have chunks"));
    }
    let (attr, layout, table) = fs.locate(ino).await.blame(what)?;
    let location = Location::new(&attr, &layout, &table, fs.chunk_size());
    let mut output = Output::open();
    if args.json {
        output.json(&location)?;
    } else {
        location.print(&mut output)?;
    }
    output.finish()
}

/// What `locate --json` prints. The chunks are computed as they are printed: a sparse file may
/// have billions.
#[derive(Debug, Serialize)]
struct Location<'a> {
    size_bytes: u64,
    chunk_bytes: u32,
    chunks: Chunks<'a>,
}

#[derive(Debug)]
struct Chunks<'a> {
    size: u64,
    chunk_size: ChunkSize,
    layout: &'a Layout,
    table: &'a ChainTable,
}

#[derive(Debug, Serialize)]
struct Chunk<'a> {
    index: u32,
    len_bytes: u32,
    chain: u32,
    epoch: u64,
    /// Its bytes are gone for good, if it had any.
    lost: bool,
    members: Vec<ChunkMember<'a>>,
}

#[derive(Debug, Serialize)]
struct ChunkMember<'a> {
    volume: &'a str,
    state: &'static str,
}

impl<'a> Location<'a> {
    fn new(
        attr: &Attr,
        layout: &'a Layout,
        table: &'a ChainTable,
        chunk_size: ChunkSize,
    ) -> Location<'a> {
        let chunks = Chunks {
            size: attr.size,
            chunk_size,
            layout,
            table,
        };
        Location {
            size_bytes: attr.size,
            chunk_bytes: chunk_size.bytes(),
            chunks,
        }
    }

    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        let chunk_size = human(u64::from(self.chunk_bytes));
        output.line(format!(
            "{} in chunks of {chunk_size}",
            human(self.size_bytes)
        ))?;
        for chunk in self.chunks.iter() {
            let members: Vec<String> = chunk
                .members
                .iter()
                .map(|m| format!("{} ({})", m.volume, m.state))
                .collect();
            let lost = if chunk.lost { " lost" } else { "" };
            output.line(format!(
                "chunk {:<6} {:>10}  chain {:<4} epoch {:<3} {}{lost}",
                chunk.index,
                human(u64::from(chunk.len_bytes)),
                chunk.chain,
                chunk.epoch,
                members.join(", ")
            ))?;
        }
        Ok(())
    }
}

impl<'a> Chunks<'a> {
    fn iter(&self) -> impl Iterator<Item = Chunk<'a>> {
        let (size, chunk_size) = (self.size, self.chunk_size);
        let (layout, table) = (self.layout, self.table);
        let count = size.div_ceil(u64::from(chunk_size.bytes()));
        (0..count as u32).map(move |index| {
            let chain = layout.chain(index);
            let row = table.chain(chain);
            Chunk {
                index,
                len_bytes: chunk_size.chunk_len(size, index),
                chain: chain.0,
                epoch: row.map_or(0, |row| row.epoch.0),
                lost: row.is_some_and(|row| layout.data < row.lost_below),
                members: row.map_or_else(Vec::new, |row| members(row, table)),
            }
        })
    }
}

fn members<'a>(chain: &vdfs_proto::Chain, table: &'a ChainTable) -> Vec<ChunkMember<'a>> {
    let member = |member: &vdfs_proto::Member| ChunkMember {
        volume: table
            .volume(member.volume)
            .map_or("unknown", |volume| &volume.name),
        state: match member.state {
            MemberState::Serving => "serving",
            MemberState::Syncing => "syncing",
            MemberState::Waiting => "waiting",
        },
    };
    chain.members.iter().map(member).collect()
}

impl Serialize for Chunks<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use vdfs_proto::{Chain, DataId, Epoch, Member, StoreId, VolumeId, VolumeInfo};

    use super::*;

    fn table() -> ChainTable {
        let volume = VolumeInfo {
            id: VolumeId(3),
            name: "volume-1".into(),
            host: "here".into(),
            addr: ([127, 0, 0, 1], 7401).into(),
            node: "volume-1".into(),
        };
        let member = Member {
            volume: VolumeId(3),
            store: StoreId(9),
            state: MemberState::Serving,
        };
        let chain = |lost_below| Chain {
            epoch: Epoch(2),
            members: vec![member],
            lost_below,
            is_active: true,
        };
        let mut chains = vec![chain(DataId(0)); 256];
        chains[8] = chain(DataId(100));
        ChainTable {
            version: 1,
            chains,
            volumes: vec![volume],
        }
    }

    #[test]
    fn locate_json_has_the_keys_that_scripts_rely_on() {
        let layout = Layout {
            data: DataId(50),
            truncations: 0,
            group: 0,
            seed: 7,
            size: 0,
            holes: false,
        };
        let (table, chunk_size) = (table(), ChunkSize::MIN);
        let chunks = Chunks {
            size: 70_000,
            chunk_size,
            layout: &layout,
            table: &table,
        };
        let location = Location {
            size_bytes: 70_000,
            chunk_bytes: chunk_size.bytes(),
            chunks,
        };
        let member = serde_json::json!([{ "volume": "volume-1", "state": "serving" }]);
        assert_eq!(
            serde_json::to_value(&location).expect("serialises"),
            serde_json::json!({
                "size_bytes": 70_000,
                "chunk_bytes": 65_536,
                "chunks": [
                    { "index": 0, "len_bytes": 65_536, "chain": 7, "epoch": 2, "lost": false,
                      "members": member },
                    { "index": 1, "len_bytes": 4_464, "chain": 8, "epoch": 2, "lost": true,
                      "members": member },
                ],
            })
        );
    }
}
