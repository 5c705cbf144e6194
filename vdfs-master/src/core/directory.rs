//! The names of one directory, ordered by a keyed hash.
//!
//! | bits of the key | meaning |
//! |---|---|
//! | 63 | 0: a cookie is a positive `off_t` |
//! | 62..8 | SipHash-1-3 of the name, at least 1 |
//! | 7..0 | ordinal among names of equal hash |
//!
//! The key of an entry is its readdir cookie: it does not change while the entry lives, whatever
//! else comes and goes. No key is below 256, so smaller cookies are free for `.` and `..`.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use vdfs_proto::{FileName, Ino, Status};

use super::cow::CowMap;
use super::weight::heap_bytes;

const ORDINAL_BITS: u32 = 8;
const HASH_MASK: u64 = (1 << (63 - ORDINAL_BITS)) - 1;

/// Place of a name in its directory, and its readdir cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct NameKey(pub(crate) u64);

/// The hash of a name, before it has an ordinal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameHash(u64);

impl NameHash {
    pub(crate) fn of(hash_key: &[u8; 16], name: &FileName) -> Self {
        let mut hasher = SipHasher13::new_with_key(hash_key);
        hasher.write(name.as_bytes());
        NameHash((hasher.finish() & HASH_MASK).max(1))
    }

    /// A name of this hash can be there.
    pub(crate) fn has(self, key: NameKey) -> bool {
        key.0 >> ORDINAL_BITS == self.0
    }

    fn key(self, ordinal: u64) -> NameKey {
        NameKey(self.0 << ORDINAL_BITS | ordinal)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) ino: Ino,
    pub(crate) name: FileName,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Directory {
    /// What `..` is; the root's is the root.
    pub(crate) parent: Ino,
    pub(crate) subdirectories: u32,
    /// In a section of its own in a checkpoint.
    #[serde(skip)]
    entries: CowMap<NameKey, Entry>,
    /// What the entries' names take of the heap.
    #[serde(skip)]
    name_bytes: u64,
}

impl Directory {
    pub(crate) fn new(parent: Ino) -> Self {
        Directory {
            parent,
            subdirectories: 0,
            entries: CowMap::default(),
            name_bytes: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What the names take of the heap.
    pub(crate) fn bytes(&self) -> u64 {
        self.entries.bytes() + self.name_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn get(&self, hash: NameHash, name: &FileName) -> Option<Ino> {
        self.find(hash, name).map(|(_, entry)| entry.ino)
    }

    /// `NoSpace` if 256 other names have the same hash, which takes an attacker who knows the key.
    pub(crate) fn check_room(&self, hash: NameHash) -> Result<(), Status> {
        match self.free_key(hash) {
            Some(_) => Ok(()),
            None => Err(Status::NoSpace),
        }
    }

    /// Panics if the name is there, or `check_room` was not asked.
    pub(crate) fn insert(&mut self, hash: NameHash, name: FileName, ino: Ino) {
        assert!(self.get(hash, &name).is_none(), "{name:?} is there already");
        let key = self.free_key(hash).expect("check_room found a key");
        self.name_bytes += heap_bytes(name.as_bytes().len());
        self.entries.insert(key, Entry { ino, name });
    }

    /// Puts an entry of a checkpoint back. False if its place is taken.
    pub(crate) fn restore(&mut self, key: NameKey, entry: Entry) -> bool {
        self.name_bytes += heap_bytes(entry.name.as_bytes().len());
        self.entries.insert(key, entry).is_none()
    }

    /// Panics if the name is not there.
    pub(crate) fn remove(&mut self, hash: NameHash, name: &FileName) -> Ino {
        let (key, _) = self.find(hash, name).expect("the name was planned for");
        let entry = self.entries.remove(key).expect("find gave its key");
        self.name_bytes -= heap_bytes(entry.name.as_bytes().len());
        entry.ino
    }

    /// Makes `name` stand for another inode; its cookie stays.
    pub(crate) fn replace(&mut self, hash: NameHash, name: &FileName, ino: Ino) -> Ino {
        let (key, _) = self.find(hash, name).expect("the name was planned for");
        let entry = self.entries.get_mut(key).expect("find gave its key");
        std::mem::replace(&mut entry.ino, ino)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (NameKey, &Entry)> {
        self.entries.iter()
    }

    /// Entries behind the cookie, in cookie order.
    pub(crate) fn entries_behind(&self, cookie: u64) -> impl Iterator<Item = (NameKey, &Entry)> {
        self.entries.iter_from(NameKey(cookie.saturating_add(1)))
    }

    fn find(&self, hash: NameHash, name: &FileName) -> Option<(NameKey, &Entry)> {
        self.of_hash(hash).find(|(_, entry)| entry.name == *name)
    }

    fn of_hash(&self, hash: NameHash) -> impl Iterator<Item = (NameKey, &Entry)> {
        self.entries
            .iter_from(hash.key(0))
            .take_while(move |(key, _)| key.0 >> ORDINAL_BITS == hash.0)
    }

    fn free_key(&self, hash: NameHash) -> Option<NameKey> {
        let mut taken = self.of_hash(hash).map(|(key, _)| key);
        let mut next_taken = taken.next();
        for ordinal in 0..1 << ORDINAL_BITS {
            let key = hash.key(ordinal);
            if next_taken != Some(key) {
                return Some(key);
            }
            next_taken = taken.next();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u32) -> FileName {
        FileName::new(format!("n{number}").as_bytes()).expect("a good name")
    }

    #[test]
    fn directory_with_colliding_hashes_keeps_all_names_and_their_cookies() {
        let mut directory = Directory::new(Ino::ROOT);
        let hash = NameHash(7);
        for number in 0..256 {
            directory.check_room(hash).expect("has room");
            directory.insert(hash, name(number), Ino(u64::from(number) + 2));
        }
        assert_eq!(directory.check_room(hash), Err(Status::NoSpace));
        assert_eq!(directory.remove(hash, &name(3)), Ino(5));
        let cookie_of_4 = directory.find(hash, &name(4)).expect("there").0;
        assert_eq!(cookie_of_4, hash.key(4));
        directory.insert(hash, name(300), Ino(999));
        assert_eq!(
            directory.find(hash, &name(300)).expect("there").0,
            hash.key(3)
        );
    }

    #[test]
    fn name_hash_gives_keys_above_the_cookies_of_dot_and_dotdot_and_below_2_to_63() {
        for number in 0..10_000 {
            let key = NameHash::of(&[9; 16], &name(number)).key(255).0;
            assert!((256..1 << 63).contains(&key), "{key}");
        }
    }
}
