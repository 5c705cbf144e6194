//! The whole state as text, one object a line, that another version of VDFS can load.
//!
//! A line is a JSON object with one key, which says what it is ([`Line`]); its fields are those of the
//! types here. Lines come in this order, so that equal states give equal texts:
//!
//! | line | how many |
//! |---|---|
//! | `vdfs_dump` | the first: version of the form |
//! | `filesystem`, `numbers`, `slots` | one each |
//! | `volume`, `group`, `chain` | each, by number |
//! | `inode` | one for each slot, in order; free slots among them |
//! | `name` | by slot of the directory, then in the order of its listing |
//! | `xattr`, `orphan`, `trim`, `reap` | by number |
//! | `removed_store` | each, the oldest first |
//! | `end` | the last: how many lines came before, and their sum |
//!
//! The sum of a line is the CRC32C of the sum before it (4 bytes, little-endian, at first 0) and the
//! line with its newline. A text that is cut off, or changed anywhere, is refused.
//!
//! Names, targets and values are bytes: all but printable ASCII, and `%`, is `%` and two hexadecimal
//! digits. Times are nanoseconds since 1970. Numbers of 128 bits are hexadecimal texts.
//!
//! A group has 256 chains, whose files shall have `copies`, or as many as the filesystem says: the first.
//!
//! A member of a chain is serving, syncing (`is_serving` and `is_waiting` are false), or waiting.
//!
//! A reader takes a key that is missing for its default, and refuses one that it does not know: an
//! older program never drops what a newer one has written. Sessions and their locks are not in it: with
//! the master that wrote it they end. Files that were open for writing have `tail_unknown`.

mod escape;
mod load;
mod objects;

use std::collections::BTreeSet;
use std::io::{self, Write};

use vdfs_proto::Ino;
use vdfs_proto::sums::crc32c;

use super::chains::each_chain;
use super::directory::Entry;
use super::image::Image;
use super::inode::Inode;
use super::state::State;
use objects::{
    ChainLine, FilesystemLine, GroupLine, InodeLine, Line, NameLine, NumbersLine, ReapLine,
    SlotsLine, TrimLine, VolumeLine, XattrLine,
};

pub use load::{LoadError, Loader};

/// Of the form.
const VERSION: u32 = 1;

/// How far a walk over a state has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Slots of inodes.
    pub done: u64,
    pub total: u64,
}

/// Slots between two words on progress.
const PROGRESS_SLOTS: u64 = 1 << 16;

impl Image {
    /// Writes the text. `progress` is told now and then.
    pub fn dump(&self, out: &mut dyn Write, progress: &mut dyn FnMut(Progress)) -> io::Result<()> {
        let mut lines = Lines {
            out,
            buffer: Vec::new(),
            sum: 0,
            count: 0,
        };
        let state = self.state();
        lines.put(&Line::VdfsDump { version: VERSION })?;
        put_base(&mut lines, state)?;
        put_inodes(&mut lines, state, progress)?;
        put_names(&mut lines, state, progress)?;
        put_rest(&mut lines, state)?;
        lines.end()
    }
}

/// Takes lines and keeps their sum.
struct Lines<'a> {
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
    sum: u32,
    count: u64,
}

impl Lines<'_> {
    fn put(&mut self, line: &Line) -> io::Result<()> {
        self.buffer.clear();
        serde_json::to_writer(&mut self.buffer, line)?;
        self.buffer.push(b'\n');
        self.sum = next_sum(self.sum, &self.buffer);
        self.count += 1;
        self.out.write_all(&self.buffer)
    }

    fn end(mut self) -> io::Result<()> {
        let (lines, sum) = (self.count, format!("{:08x}", self.sum));
        self.put(&Line::End { lines, sum })?;
        self.out.flush()
    }
}

fn next_sum(sum: u32, line: &[u8]) -> u32 {
    let both = [sum.to_le_bytes(), crc32c(line).to_le_bytes()].concat();
    crc32c(&both)
}

fn put_base(lines: &mut Lines<'_>, state: &State) -> io::Result<()> {
    lines.put(&Line::Filesystem(FilesystemLine::of(state)))?;
    lines.put(&Line::Numbers(NumbersLine::of(state)))?;
    lines.put(&Line::Slots(SlotsLine::of(&state.inodes.counters)))?;
    for info in &state.table.volumes {
        if let Some(stored) = state.volumes.get(&info.id) {
            lines.put(&Line::Volume(VolumeLine::of(info, stored)))?;
        }
    }
    for (index, group) in state.groups.iter().enumerate() {
        lines.put(&Line::Group(GroupLine::of(index as u32, group)))?;
    }
    for (id, chain) in each_chain(&state.table) {
        let in_sync = state.in_sync.get(&id).map_or(&[][..], Vec::as_slice);
        lines.put(&Line::Chain(ChainLine::of(id, chain, in_sync)))?;
    }
    Ok(())
}

fn put_inodes(
    lines: &mut Lines<'_>,
    state: &State,
    progress: &mut dyn FnMut(Progress),
) -> io::Result<()> {
    let being_written: BTreeSet<Ino> = state.writers.iter().map(|((_, ino), ())| ino).collect();
    for (slot, inode) in state.inodes.slots_from(0) {
        let ino = Ino::new(slot as u64, inode.generation);
        let is_written = being_written.contains(&ino);
        lines.put(&Line::Inode(InodeLine::of(slot as u64, inode, is_written)))?;
        // Names follow: half of the way.
        tell(progress, state, slot as u64 / 2);
    }
    Ok(())
}

fn put_names(
    lines: &mut Lines<'_>,
    state: &State,
    progress: &mut dyn FnMut(Progress),
) -> io::Result<()> {
    let slots = u64::from(state.inodes.counters.slots);
    for (slot, inode) in state.inodes.slots_from(0) {
        for entry in entries_of(inode) {
            let dir = Ino::new(slot as u64, inode.generation);
            lines.put(&Line::Name(NameLine::of(dir, entry)))?;
        }
        tell(progress, state, (slots + slot as u64) / 2);
    }
    Ok(())
}

fn entries_of(inode: &Inode) -> impl Iterator<Item = &Entry> {
    let directory = inode.directory().into_iter();
    directory.flat_map(|directory| directory.entries().map(|(_, entry)| entry))
}

fn tell(progress: &mut dyn FnMut(Progress), state: &State, done: u64) {
    if done.is_multiple_of(PROGRESS_SLOTS) {
        let total = u64::from(state.inodes.counters.slots);
        progress(Progress { done, total });
    }
}

fn put_rest(lines: &mut Lines<'_>, state: &State) -> io::Result<()> {
    for (ino, xattrs) in state.xattrs.iter() {
        for (name, value) in xattrs.iter() {
            lines.put(&Line::Xattr(XattrLine::of(ino, name, value)))?;
        }
    }
    for (ino, ()) in state.orphans.iter() {
        lines.put(&Line::Orphan { ino: ino.0 })?;
    }
    for (ino, trim) in state.trims.iter() {
        lines.put(&Line::Trim(TrimLine::of(ino, trim)))?;
    }
    for ((volume, data), ()) in state.reaps.iter() {
        lines.put(&Line::Reap(ReapLine::of(volume, data)))?;
    }
    for store in state.removed.iter() {
        let store = store.to_string();
        lines.put(&Line::RemovedStore { store })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Core;
    use crate::core::tests::dumping::{a_bit_of_everything, dump_of};

    fn load(text: &[u8]) -> Result<Core, LoadError> {
        let mut loader = Loader::default();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            loader.take_line(line)?;
        }
        loader.finish()
    }

    #[test]
    fn dump_that_was_loaded_gives_the_same_dump() {
        let text = dump_of(&a_bit_of_everything());
        let core = load(&text).expect("loads");
        core.check();
        let again = dump_of(&core);
        let text = String::from_utf8(text).expect("ASCII");
        assert_eq!(String::from_utf8(again).expect("ASCII"), text);
        for kind in [
            "inode",
            "name",
            "xattr",
            "orphan",
            "trim",
            "reap",
            "volume",
            "group",
            "chain",
            "removed_store",
        ] {
            assert!(text.contains(&format!("{{\"{kind}\":")), "no {kind} in it");
        }
    }

    #[test]
    fn dump_that_is_cut_off_or_changed_is_refused() {
        let text = dump_of(&a_bit_of_everything());
        let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let ends: Vec<usize> = ends.map(|(at, _)| at + 1).collect();
        for end in ends[..ends.len() - 1].iter().step_by(5) {
            assert!(load(&text[..*end]).is_err(), "cut off behind {end}");
        }
        for at in (0..text.len()).step_by(101) {
            let mut changed = text.clone();
            changed[at] ^= 4;
            assert!(load(&changed).is_err(), "changed at {at}");
        }
    }
}
