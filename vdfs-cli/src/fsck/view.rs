//! What the master says there is, at one instant: taken from a dump of its state (`vdfs meta dump`).

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;
use vdfs_program::{Blame, Failure};
use vdfs_proto::meta::Inspection;
use vdfs_proto::{ChainId, DataId, Epoch, Layout, VolumeId};

use crate::cluster::Cluster;
use crate::meta::running::inspect;
use crate::meta::slots::SlotsBar;

/// Of the dumps that are understood here.
const DUMP_VERSION: u32 = 1;

#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) chunk_bytes: u64,
    pub(super) chains: Vec<ChainView>,
    /// By the data ids of regular files, also of those that have no name any more.
    pub(super) files: HashMap<DataId, Layout>,
    /// What volumes have still to drop.
    pub(super) reaps: HashSet<DataId>,
    /// The next data id that is given out.
    pub(super) data_end: DataId,
    /// These may be of files that the master's log has lost: nothing is said of them.
    pub(super) lost_data: Range<DataId>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ChainView {
    pub(super) epoch: Epoch,
    /// Head first.
    pub(super) serving: Vec<VolumeId>,
    /// All members serve, and may show what they have.
    pub(super) is_settled: bool,
    pub(super) lost_below: DataId,
}

/// What matters here of each line. One that is not known is an error: a file that is not seen would have
/// its chunks taken for orphans.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    VdfsDump {
        version: u32,
    },
    Filesystem {
        chunk_bytes: u64,
    },
    Numbers {
        data: u64,
        lost_data: (u64, u64),
    },
    Slots(IgnoredAny),
    Volume(IgnoredAny),
    Group(IgnoredAny),
    Chain {
        epoch: u64,
        lost_below: u64,
        is_active: bool,
        members: Vec<MemberPart>,
    },
    Inode {
        is: BodyPart,
    },
    Name(IgnoredAny),
    Xattr(IgnoredAny),
    Orphan(IgnoredAny),
    Trim(IgnoredAny),
    Reap {
        data: u64,
    },
    RemovedStore(IgnoredAny),
    End {
        lines: u64,
    },
}

#[derive(Debug, Deserialize)]
struct MemberPart {
    volume: u32,
    is_serving: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BodyPart {
    File {
        size: u64,
        data: u64,
        truncations: u32,
        seed: u32,
        group: u16,
        #[serde(default)]
        holes: bool,
    },
    Directory(IgnoredAny),
    Symlink(IgnoredAny),
    Fifo(IgnoredAny),
    Socket(IgnoredAny),
    CharDevice(IgnoredAny),
    BlockDevice(IgnoredAny),
    Free(IgnoredAny),
    Retired(IgnoredAny),
}

impl View {
    pub(super) fn take(cluster: &Cluster) -> Result<View, Failure> {
        let bar = SlotsBar::start("asking the master");
        let mut reader = Reader::default();
        inspect(cluster, Inspection::Dump, &bar, |piece| {
            reader.take(&piece.text).blame("the master's dump")
        })?;
        match reader.is_whole {
            true => Ok(reader.view),
            false => Err(Failure::new(
                "the master's dump",
                "is not whole, or of another version",
            )),
        }
    }

    pub(super) fn chain(&self, id: ChainId) -> Option<&ChainView> {
        self.chains.get(id.0 as usize)
    }
}

/// Takes a dump in pieces that end anywhere.
#[derive(Debug, Default)]
struct Reader {
    view: View,
    /// The beginning of a line.
    rest: Vec<u8>,
    version: u32,
    lines: u64,
    is_whole: bool,
}

impl Reader {
    fn take(&mut self, text: &[u8]) -> Result<(), serde_json::Error> {
        self.rest.extend_from_slice(text);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(());
        };
        let behind = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, behind);
        let mut lines = whole.split(|byte| *byte == b'\n');
        lines
            .by_ref()
            .filter(|line| !line.is_empty())
            .try_for_each(|line| {
                self.line(serde_json::from_slice(line)?);
                Ok(())
            })
    }

    fn line(&mut self, line: Line) {
        let view = &mut self.view;
        self.lines += 1;
        match line {
            Line::VdfsDump { version } => self.version = version,
            Line::Filesystem { chunk_bytes } => view.chunk_bytes = chunk_bytes,
            Line::Numbers {
                data,
                lost_data: (from, below),
            } => {
                view.data_end = DataId(data);
                view.lost_data = DataId(from)..DataId(below);
            }
            Line::Chain {
                epoch,
                lost_below,
                is_active,
                members,
            } => {
                let serving = members.iter().filter(|member| member.is_serving);
                let serving: Vec<VolumeId> = serving.map(|of| VolumeId(of.volume)).collect();
                view.chains.push(ChainView {
                    epoch: Epoch(epoch),
                    is_settled: is_active && serving.len() == members.len(),
                    serving,
                    lost_below: DataId(lost_below),
                });
            }
            Line::Inode {
                is:
                    BodyPart::File {
                        size,
                        data,
                        truncations,
                        seed,
                        group,
                        holes,
                    },
            } => {
                let data = DataId(data);
                let layout = Layout {
                    data,
                    truncations,
                    group,
                    seed,
                    size,
                    holes,
                };
                view.files.insert(data, layout);
            }
            Line::Reap { data } => {
                view.reaps.insert(DataId(data));
            }
            Line::End { lines } => {
                self.is_whole = self.version == DUMP_VERSION && self.lines == lines + 1;
            }
            Line::Inode { .. }
            | Line::Slots(_)
            | Line::Volume(_)
            | Line::Group(_)
            | Line::Name(_)
            | Line::Xattr(_)
            | Line::Orphan(_)
            | Line::Trim(_)
            | Line::RemovedStore(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn view_is_read_from_pieces_that_end_anywhere() {
        let text = concat!(
            r#"{"vdfs_dump":{"version":1}}"#,
            "\n",
            r#"{"filesystem":{"cluster":"c","chunk_bytes":65536,"replicas":null}}"#,
            "\n",
            r#"{"numbers":{"term":1,"data":9,"lost_data":[2,4]}}"#,
            "\n",
            r#"{"chain":{"index":0,"epoch":3,"lost_below":2,"is_active":true,"members":"#,
            r#"[{"volume":2,"store":"s","is_serving":true},{"volume":1,"store":"t","is_serving":false}]}}"#,
            "\n",
            r#"{"inode":{"slot":0,"generation":1,"is":{"directory":{"parent":1}}}}"#,
            "\n",
            r#"{"inode":{"slot":1,"generation":1,"is":{"file":{"size":70000,"data":5,"version":1,"#,
            r#""truncations":4,"chunks":2,"seed":7,"group":0,"holes":true}}}}"#,
            "\n",
            r#"{"reap":{"volume":1,"data":3}}"#,
            "\n",
            r#"{"end":{"lines":7,"sum":"0"}}"#,
            "\n",
        );
        for piece_bytes in [1, 7, text.len()] {
            let mut reader = Reader::default();
            for piece in text.as_bytes().chunks(piece_bytes) {
                reader.take(piece).expect("lines of a dump");
            }
            assert!(reader.is_whole);
            let view = reader.view;
            assert_eq!((view.chunk_bytes, view.data_end), (65536, DataId(9)));
            assert_eq!(view.lost_data, DataId(2)..DataId(4));
            let chain = ChainView {
                epoch: Epoch(3),
                serving: vec![VolumeId(2)],
                is_settled: false,
                lost_below: DataId(2),
            };
            assert_eq!(view.chains, [chain]);
            let file = view.files[&DataId(5)];
            assert_eq!((file.size, file.truncations, file.holes), (70000, 4, true));
            assert!(view.files.len() == 1 && view.reaps.contains(&DataId(3)));
        }
    }
}
