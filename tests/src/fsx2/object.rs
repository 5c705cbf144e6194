//! The bytes of one file, and which earlier ones a mount may still show.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use super::step::Span;

/// A difference between a file and its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    Bytes {
        at: u64,
        /// From the first wrong byte to the last one.
        wrong: u64,
        got: u8,
        expected: Vec<u8>,
    },
    Length {
        got: u64,
        least: u64,
        most: u64,
    },
    /// A byte that is not zero lies in what was called a hole.
    Hole {
        at: u64,
        hole: Range<u64>,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Bytes {
                at,
                wrong,
                got,
                expected,
            } => write!(
                f,
                "byte {at} ({at:#x}) is {got:#04x}, expected one of {expected:#04x?}; \
                 {wrong} bytes from the first wrong one to the last"
            ),
            Mismatch::Hole { at, hole } => {
                write!(f, "there is data at {at} ({at:#x}) in the hole {hole:#x?}")
            }
            Mismatch::Length { got, least, most } => {
                write!(f, "length {got}, expected {least} to {most}")
            }
        }
    }
}

/// How a mount looks at the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Through the page cache.
    Cached,
    /// Past it.
    Direct,
}

/// A change that some mount may not see.
#[derive(Clone, Debug)]
struct Change {
    author: usize,
    range: Range<u64>,
    /// What was in the front of the range; behind that the file had ended.
    before: Vec<u8>,
    size_before: u64,
    size_after: u64,
    is_out: bool,
    /// Mounts that have not opened the file since it was out.
    hidden_from: Vec<usize>,
}

/// One inode.
#[derive(Clone, Debug)]
pub(super) struct Object {
    mounts: usize,
    bytes: Vec<u8>,
    /// Oldest first.
    changes: Vec<Change>,
    /// Mounts that have, or have had, it open for writing.
    writers: BTreeSet<usize>,
}

impl Change {
    /// `None` if the change did not touch the byte.
    fn before(&self, at: u64) -> Option<Option<u8>> {
        let index = self.range.contains(&at).then(|| at - self.range.start)?;
        Some(self.before.get(index as usize).copied())
    }

    fn may_hide_from(&self, mount: usize, view: View) -> bool {
        match view {
            View::Cached => self.hidden_from.contains(&mount),
            View::Direct => self.author != mount && !self.is_out,
        }
    }

    /// It has cut the file off, and the mount has not opened it since.
    fn may_look_uncut(&self, mount: usize) -> bool {
        self.size_after < self.size_before && self.hidden_from.contains(&mount)
    }

    fn resizes(&self) -> bool {
        self.size_before != self.size_after
    }
}

impl Object {
    /// A file that no mount has seen.
    pub(super) fn new(mounts: usize, bytes: Vec<u8>) -> Object {
        Object {
            mounts,
            bytes,
            changes: Vec::new(),
            writers: BTreeSet::new(),
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(super) fn note_writer(&mut self, mount: usize) {
        self.writers.insert(mount);
    }

    pub(super) fn has_had_other_writer(&self, mount: usize) -> bool {
        self.writers.iter().any(|&writer| writer != mount)
    }

    /// Bytes kept for what may still be shown.
    pub(super) fn history_bytes(&self) -> usize {
        self.changes.iter().map(|change| change.before.len()).sum()
    }

    // Changes.

    pub(super) fn write(&mut self, author: usize, at: u64, bytes: &[u8], is_out: bool) {
        let end = at + bytes.len() as u64;
        self.note(
            author,
            at.min(self.size())..end,
            self.size().max(end),
            is_out,
        );
        if end > self.size() {
            self.bytes.resize(end as usize, 0);
        }
        self.bytes[at as usize..end as usize].copy_from_slice(bytes);
    }

    /// Zeroes what there is of a range, and gets that out.
    pub(super) fn punch(&mut self, author: usize, span: Span) {
        let end = span.end().min(self.size());
        if span.at < end {
            let zeros = vec![0; (end - span.at) as usize];
            self.write(author, span.at, &zeros, true);
        }
    }

    /// What a copy of a range takes.
    pub(super) fn copy_of(&self, span: Span) -> Vec<u8> {
        let end = span.end().min(self.size());
        let start = span.at.min(end);
        self.bytes[start as usize..end as usize].to_vec()
    }

    /// Gets everything out.
    pub(super) fn resize(&mut self, author: usize, size: u64) {
        let range = size.min(self.size())..size.max(self.size());
        self.note(author, range, size, true);
        self.bytes.resize(size as usize, 0);
        self.changes
            .iter_mut()
            .for_each(|change| change.is_out = true);
        self.forget_seen();
    }

    /// Lets the file grow.
    pub(super) fn allocate(&mut self, author: usize, end: u64) {
        if end > self.size() {
            self.note(author, self.size()..end, end, false);
            self.bytes.resize(end as usize, 0);
        }
    }

    fn note(&mut self, author: usize, range: Range<u64>, size_after: u64, is_out: bool) {
        let present = range.start.min(self.size())..range.end.min(self.size());
        let before = self.bytes[present.start as usize..present.end as usize].to_vec();
        self.changes.push(Change {
            author,
            before,
            range,
            size_before: self.size(),
            size_after,
            is_out,
            hidden_from: (0..self.mounts).filter(|&mount| mount != author).collect(),
        });
        self.forget_seen();
    }

    /// What this mount has changed is out.
    pub(super) fn get_out(&mut self, author: usize) {
        let own = self
            .changes
            .iter_mut()
            .filter(|change| change.author == author);
        own.for_each(|change| change.is_out = true);
        self.forget_seen();
    }

    /// The mount opens the file: it sees all that is out.
    pub(super) fn open(&mut self, mount: usize) {
        let out = self.changes.iter_mut().filter(|change| change.is_out);
        out.for_each(|change| change.hidden_from.retain(|&hidden| hidden != mount));
        self.forget_seen();
    }

    fn forget_seen(&mut self) {
        let is_seen = |change: &Change| change.is_out && change.hidden_from.is_empty();
        // A change that all see also covers older ones of the same bytes: it goes only with them.
        let seen = self
            .changes
            .iter()
            .take_while(|change| is_seen(change))
            .count();
        self.changes.drain(..seen);
    }

    // What there is to be careful about.

    /// Another mount has changed some of these bytes, and that is not out.
    pub(super) fn others_write(&self, mount: usize, span: Span) -> bool {
        self.others_pending(mount)
            .any(|change| change.range.start < span.end() && span.at < change.range.end)
    }

    /// Another mount has changed the size, and that is not out.
    pub(super) fn others_resize(&self, mount: usize) -> bool {
        self.others_pending(mount).any(Change::resizes)
    }

    fn others_pending(&self, mount: usize) -> impl Iterator<Item = &Change> {
        let is_pending = move |change: &&Change| change.author != mount && !change.is_out;
        self.changes.iter().filter(is_pending)
    }

    /// Another mount that has changes which are not out.
    pub(super) fn pending_other(&self, mount: usize) -> Option<usize> {
        self.others_pending(mount)
            .map(|change| change.author)
            .next()
    }

    /// The mount has changes that are not out.
    pub(super) fn is_pending(&self, author: usize) -> bool {
        let mut changes = self.changes.iter();
        changes.any(|change| change.author == author && !change.is_out)
    }

    /// The mount's pages may be older than the file.
    pub(super) fn is_hidden_from(&self, mount: usize) -> bool {
        let mut changes = self.changes.iter();
        changes.any(|change| change.hidden_from.contains(&mount))
    }

    // Comparing.

    /// A size that `stat` on this mount gave.
    pub(super) fn check_size(&self, mount: usize, got: u64) -> Result<(), Mismatch> {
        let (mut least, mut most) = (self.size(), self.size());
        for change in self.changes.iter().rev() {
            if change.may_hide_from(mount, View::Direct) {
                least = least.min(change.size_before);
                most = most.max(change.size_before);
            } else if change.resizes() {
                break;
            }
        }
        check_length(got, least, most)
    }

    /// What was called a hole, within the file, by a mount that sees everything.
    pub(super) fn check_hole(&self, hole: Range<u64>) -> Result<(), Mismatch> {
        let bytes = &self.bytes[hole.start as usize..hole.end as usize];
        match bytes.iter().position(|byte| *byte != 0) {
            None => Ok(()),
            Some(data) => Err(Mismatch::Hole {
                at: hole.start + data as u64,
                hole,
            }),
        }
    }

    /// Bytes that a read of `wanted` on this mount gave.
    pub(super) fn check_read(
        &self,
        mount: usize,
        view: View,
        wanted: Span,
        got: &[u8],
    ) -> Result<(), Mismatch> {
        let (least, most) = self.lengths(mount, view, wanted);
        check_length(got.len() as u64, least, most)?;
        let is_wrong = |at: u64, byte: u8| !self.may_be(mount, view, at, byte);
        let places = (wanted.at..).zip(got.iter().copied());
        let Some((at, byte)) = places.clone().find(|&(at, byte)| is_wrong(at, byte)) else {
            return Ok(());
        };
        let wrong = places.filter(|&(at, byte)| is_wrong(at, byte));
        let last = wrong.map(|(at, _)| at).last().unwrap_or(at);
        Err(Mismatch::Bytes {
            at,
            wrong: last - at + 1,
            got: byte,
            expected: self.candidates(mount, view, at),
        })
    }

    fn lengths(&self, mount: usize, view: View, wanted: Span) -> (u64, u64) {
        let (mut least, mut most) = (self.size(), self.size());
        let is_unseen =
            |change: &&Change| change.may_hide_from(mount, view) || change.may_look_uncut(mount);
        for change in self.changes.iter().filter(is_unseen) {
            least = least.min(change.size_before).min(change.size_after);
            most = most.max(change.size_before).max(change.size_after);
        }
        let within = |size: u64| size.clamp(wanted.at, wanted.end()) - wanted.at;
        (within(least), within(most))
    }

    fn may_be(&self, mount: usize, view: View, at: u64, byte: u8) -> bool {
        self.bytes.get(at as usize) == Some(&byte)
            || self.candidates(mount, view, at).contains(&byte)
    }

    /// What this mount may show at an offset.
    fn candidates(&self, mount: usize, view: View, at: u64) -> Vec<u8> {
        let mut candidates: Vec<u8> = self.bytes.get(at as usize).copied().into_iter().collect();
        let mut may_be_zero = false;
        for change in self.changes.iter().rev() {
            let grows_over = change.author == mount && change.size_after > at && change.resizes();
            let is_cut_off = change.may_look_uncut(mount) && change.range.contains(&at);
            may_be_zero |= grows_over || is_cut_off;
            let Some(before) = change.before(at) else {
                continue;
            };
            if is_cut_off {
                candidates.push(0);
            }
            if !change.may_hide_from(mount, view) {
                break;
            }
            candidates.extend(before.or(may_be_zero.then_some(0)));
        }
        candidates
    }
}

fn check_length(got: u64, least: u64, most: u64) -> Result<(), Mismatch> {
    match (least..=most).contains(&got) {
        true => Ok(()),
        false => Err(Mismatch::Length { got, least, most }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(object: &Object, mount: usize, view: View, got: &[u8]) -> bool {
        let wanted = Span { at: 0, len: 100 };
        object.check_read(mount, view, wanted, got).is_ok()
    }

    #[test]
    fn own_change_is_seen_at_once() {
        let mut object = Object::new(2, b"aaaa".to_vec());
        object.write(0, 1, b"b", false);
        assert!(read(&object, 0, View::Cached, b"abaa"));
        assert!(!read(&object, 0, View::Cached, b"aaaa"));
    }

    #[test]
    fn change_is_seen_elsewhere_by_an_open_once_it_is_out() {
        let mut object = Object::new(2, b"aaaa".to_vec());
        object.write(0, 1, b"b", false);
        object.open(1);
        assert!(read(&object, 1, View::Cached, b"aaaa"));
        assert!(read(&object, 1, View::Cached, b"abaa"));
        assert!(!read(&object, 1, View::Cached, b"acaa"));
        object.get_out(0);
        assert!(read(&object, 1, View::Cached, b"aaaa"));
        assert!(!read(&object, 1, View::Direct, b"aaaa"));
        object.open(1);
        assert!(!read(&object, 1, View::Cached, b"aaaa"));
    }

    #[test]
    fn older_bytes_are_not_seen_behind_an_own_change() {
        let mut object = Object::new(2, b"a".to_vec());
        object.write(0, 0, b"b", true);
        object.write(1, 0, b"c", true);
        assert!(read(&object, 0, View::Cached, b"b"));
        assert!(!read(&object, 0, View::Cached, b"a"));
        assert!(!read(&object, 1, View::Cached, b"a") && !read(&object, 1, View::Cached, b"b"));
    }

    #[test]
    fn stat_sees_what_is_out_and_no_more_is_asked() {
        let mut object = Object::new(2, b"a".to_vec());
        object.write(0, 0, b"bbbb", false);
        assert!(object.check_size(0, 1).is_err() && object.check_size(1, 1).is_ok());
        object.get_out(0);
        assert!(object.check_size(1, 1).is_err() && object.check_size(1, 4).is_ok());
    }

    #[test]
    fn truncation_gets_everything_out() {
        let mut object = Object::new(2, b"a".to_vec());
        object.write(0, 0, b"bbbb", false);
        object.resize(1, 2);
        assert!(!object.is_pending(0));
        assert!(
            read(&object, 0, View::Cached, b"bbbb"),
            "until it is opened again"
        );
        object.open(0);
        assert!(!read(&object, 0, View::Cached, b"bbbb"));
        assert!(read(&object, 0, View::Cached, b"bb"));
    }

    #[test]
    fn zeros_are_seen_where_the_mount_has_grown_over_an_end_that_it_believed_in() {
        let mut object = Object::new(2, b"a".to_vec());
        object.write(0, 1, b"bb", true);
        assert!(!read(&object, 1, View::Cached, b"a\0\0"));
        object.write(1, 4, b"c", false);
        assert!(read(&object, 1, View::Cached, b"a\0\0\0c"));
        assert!(!read(&object, 1, View::Direct, b"a\0\0\0c"));
        object.open(1);
        assert!(!read(&object, 1, View::Cached, b"a\0\0\0c"));
    }

    #[test]
    fn mismatch_names_the_place_and_the_extent() {
        let object = Object::new(1, b"aaaaaa".to_vec());
        let wanted = Span { at: 1, len: 5 };
        let mismatch = object.check_read(0, View::Cached, wanted, b"axayz");
        let expected = Mismatch::Bytes {
            at: 2,
            wrong: 4,
            got: b'x',
            expected: vec![b'a'],
        };
        assert_eq!(mismatch, Err(expected));
        let short = object.check_read(0, View::Cached, wanted, b"aa");
        let expected = Mismatch::Length {
            got: 2,
            least: 5,
            most: 5,
        };
        assert_eq!(short, Err(expected));
    }
}
