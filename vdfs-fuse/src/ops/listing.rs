//! A page of a directory as the kernel takes it: `.` and `..` first, then the filesystem's entries.
//!
//! The offset of an entry is where the next reply begins. Those of `.` and `..` are 1 and 2; all
//! others are the filesystem's cookies, which are larger.

use std::ffi::OsStr;

use fuser::{FileAttr, FileType};
use vdfs_proto::meta::{Listing, ListingEntry};
use vdfs_proto::{Ino, Status};

use crate::stat::{dot_attr, file_attr, file_type};

const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

/// Where a reply begins, as the kernel says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position(pub(crate) u64);

impl Position {
    /// The cookie from which the filesystem goes on.
    pub(crate) fn cookie(self) -> u64 {
        if self.0 <= DOT_DOT { 0 } else { self.0 }
    }
}

/// One entry of a plain listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed<'a> {
    pub(crate) ino: Ino,
    pub(crate) offset: u64,
    pub(crate) kind: FileType,
    pub(crate) name: &'a OsStr,
}

/// One entry of a listing with attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListedPlus<'a> {
    pub(crate) offset: u64,
    pub(crate) name: &'a OsStr,
    pub(crate) attr: FileAttr,
}

#[derive(Clone, Debug)]
pub(crate) struct ListingPage {
    dots: Dots,
    entries: Vec<ListingEntry>,
}

#[derive(Clone, Debug)]
pub(crate) struct PlusPage {
    dots: Dots,
    entries: Vec<(ListingEntry, FileAttr)>,
}

/// The two entries that no directory stores.
#[derive(Clone, Copy, Debug)]
struct Dots {
    ino: Ino,
    parent: Ino,
    from: Position,
}

impl Dots {
    /// Those that lie behind the position.
    fn entries(self) -> impl Iterator<Item = (Ino, u64, &'static OsStr)> {
        let both = [
            (self.ino, DOT, OsStr::new(".")),
            (self.parent, DOT_DOT, OsStr::new("..")),
        ];
        both.into_iter()
            .filter(move |&(_, offset, _)| offset > self.from.0)
    }
}

impl ListingPage {
    pub(crate) fn new(ino: Ino, from: Position, listing: Listing) -> Self {
        ListingPage {
            dots: Dots {
                ino,
                parent: listing.parent,
                from,
            },
            entries: listing.entries,
        }
    }

    /// Gives the entries to `add` until it says that there is no room for the one given.
    pub(crate) fn pack(&self, add: impl FnMut(Listed<'_>) -> bool) {
        let kind = FileType::Directory;
        let dots = self.dots.entries().map(|(ino, offset, name)| Listed {
            ino,
            offset,
            kind,
            name,
        });
        let entries = self.entries.iter().map(|entry| Listed {
            ino: entry.ino,
            offset: entry.cookie,
            kind: file_type(entry.kind),
            name: entry.name.as_os_str(),
        });
        add_until_full(dots.chain(entries), add);
    }
}

impl PlusPage {
    /// `Malformed` if an entry came without attributes.
    pub(crate) fn new(ino: Ino, from: Position, listing: Listing) -> Result<Self, Status> {
        let with_attr = |entry: ListingEntry| {
            let attr = file_attr(&entry.attr.ok_or(Status::Malformed)?);
            Ok((entry, attr))
        };
        Ok(PlusPage {
            dots: Dots {
                ino,
                parent: listing.parent,
                from,
            },
            entries: listing
                .entries
                .into_iter()
                .map(with_attr)
                .collect::<Result<_, Status>>()?,
        })
    }

    /// As [`ListingPage::pack`].
    pub(crate) fn pack(&self, add: impl FnMut(ListedPlus<'_>) -> bool) {
        let dots = self.dots.entries();
        let dots = dots.map(|(ino, offset, name)| ListedPlus {
            offset,
            name,
            attr: dot_attr(ino),
        });
        let entries = self.entries.iter().map(|(entry, attr)| ListedPlus {
            offset: entry.cookie,
            name: entry.name.as_os_str(),
            attr: *attr,
        });
        add_until_full(dots.chain(entries), add);
    }
}

fn add_until_full<E>(entries: impl Iterator<Item = E>, mut add: impl FnMut(E) -> bool) {
    for entry in entries {
        if add(entry) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use vdfs_proto::{FileKind, FileName};

    use super::*;

    fn listing(names: &[&str]) -> Listing {
        let entry = |(at, name): (usize, &&str)| ListingEntry {
            name: FileName::new(name.as_bytes()).expect("a name"),
            ino: Ino(100 + at as u64),
            kind: FileKind::Regular,
            cookie: 1000 + at as u64,
            attr: None,
        };
        Listing {
            parent: Ino::ROOT,
            entries: names.iter().enumerate().map(entry).collect(),
            at_end: true,
        }
    }

    fn packed(from: u64, names: &[&str], room: usize) -> Vec<(String, u64)> {
        let mut taken = Vec::new();
        ListingPage::new(Ino(7), Position(from), listing(names)).pack(|entry| {
            let is_full = taken.len() == room;
            if !is_full {
                taken.push((entry.name.to_string_lossy().into_owned(), entry.offset));
            }
            is_full
        });
        taken
    }

    fn named(entries: &[(&str, u64)]) -> Vec<(String, u64)> {
        entries
            .iter()
            .map(|&(name, offset)| (name.to_owned(), offset))
            .collect()
    }

    #[test]
    fn pack_begins_with_the_dots() {
        let all = named(&[(".", 1), ("..", 2), ("a", 1000), ("b", 1001)]);
        assert_eq!(packed(0, &["a", "b"], 9), all);
        assert_eq!(packed(1, &["a", "b"], 9), all[1..]);
        assert_eq!(packed(2, &["a", "b"], 9), all[2..]);
    }

    #[test]
    fn pack_behind_a_cookie_has_no_dots_and_stops_when_full() {
        assert_eq!(packed(1000, &["b"], 9), named(&[("b", 1000)]));
        assert_eq!(
            packed(0, &["a", "b"], 3),
            named(&[(".", 1), ("..", 2), ("a", 1000)])
        );
        assert_eq!(packed(1000, &[], 9), []);
    }

    #[test]
    fn position_within_the_dots_begins_the_filesystems_listing() {
        let cookies = [0, 1, 2, 3, 1 << 62].map(|offset| Position(offset).cookie());
        assert_eq!(cookies, [0, 0, 0, 3, 1 << 62]);
    }

    #[test]
    fn plus_page_without_attributes_is_malformed() {
        let page = PlusPage::new(Ino(7), Position(0), listing(&["a"]));
        assert_eq!(page.err(), Some(Status::Malformed));
    }
}
