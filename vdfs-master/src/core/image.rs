//! One instant of the state, to be written while the state goes on; and the way back.
//!
//! A section is a sequence of postcard items, cut into blocks between items:
//!
//! | section | items |
//! |---|---|
//! | `base` | [`Base`], once |
//! | `inodes` | `Inode`, one for each slot in order |
//! | `names` | (directory's `Ino`, `NameKey`, `Entry`) |
//! | `xattrs` | (`Ino`, all attributes) |
//! | `orphans` | `Ino` |
//! | `trims` | (`Ino`, `PendingTrim`) |
//! | `reaps` | (`VolumeId`, `DataId`) |
//! | `sessions` | (`SessionId`, `Session` with its stored replies) |
//! | `writers` | (`SessionId`, `Ino`) |
//! | `locks` | (`Ino`, its locks by holder) |

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vdfs_proto::{ChainId, ChainTable, DataId, Ino, Member, SessionId, StoreId, VolumeId};

use super::budget::Images;
use super::check::flaws_of;
use super::cow::{CowMap, Place};
use super::directory::{Entry, NameKey};
use super::dump::Progress;
use super::groups::Group;
use super::inode::Inode;
use super::inodes::{Counters, Inodes};
use super::limits::SECTION_BLOCK_BYTES;
use super::locks::InodeLocks;
use super::state::{Numbers, PendingTrim, Session, State, StoredVolume, Xattrs};
use super::weight::Weights;
use super::{FsConfig, RestoreError};

/// One instant of everything that is logged. Cheap to make; encoded where it is written.
#[derive(Debug)]
pub struct Image {
    state: State,
    images: Arc<Images>,
}

/// Outlives the iterator that an image becomes; to be dropped with it.
#[derive(Clone, Debug)]
pub struct Recall(Arc<Images>);

impl Recall {
    /// There is no more memory for what images keep alive: whoever has one drops it.
    pub fn is_made(&self) -> bool {
        self.0.are_recalled()
    }
}

/// Everything that is small.
#[derive(Debug, Serialize, Deserialize)]
struct Base {
    config: FsConfig,
    records: u64,
    numbers: Numbers,
    counters: Counters,
    volumes: Vec<(VolumeId, StoredVolume)>,
    removed: Vec<StoreId>,
    is_balance_paused: bool,
    table: ChainTable,
    in_sync: Vec<(ChainId, Vec<Member>)>,
    groups: Vec<Group>,
}

type Block = (&'static str, Vec<u8>);

impl Image {
    pub(crate) fn of(state: &State, images: Arc<Images>) -> Self {
        Image {
            state: state.clone(),
            images,
        }
    }

    /// What does not hold of the invariants, in words; nothing if all is well.
    pub fn check(&self, progress: &mut dyn FnMut(Progress)) -> Vec<String> {
        flaws_of(&self.state, progress)
    }

    /// Inodes in use.
    pub fn files(&self) -> u64 {
        self.state.inodes.counters.used
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Tells when the image must be dropped.
    pub fn recall(&self) -> Recall {
        Recall(self.images.clone())
    }

    /// The last record that the image contains.
    pub fn records(&self) -> u64 {
        self.state.records
    }

    /// Blocks of about 4 MiB, each made when it is asked for. A section's blocks follow each other
    /// under the same name; the order is part of the format.
    pub fn sections(self) -> impl Iterator<Item = Block> {
        let names = [
            "base", "inodes", "names", "xattrs", "orphans", "trims", "reaps", "sessions",
            "writers", "locks",
        ];
        let image = Arc::new(self);
        names
            .into_iter()
            .flat_map(move |name| Blocks::new(image.clone(), name))
    }
}

/// The blocks of one section.
struct Blocks {
    image: Arc<Image>,
    name: &'static str,
    /// Where the next block begins.
    from: Option<Cursor>,
}

/// A place in a section: of the first item that is not encoded yet.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    slot: usize,
    /// Behind this cookie of the directory in the slot.
    cookie: u64,
    /// In a map.
    place: Place,
}

impl Blocks {
    fn new(image: Arc<Image>, name: &'static str) -> Self {
        Blocks {
            image,
            name,
            from: Some(Cursor::default()),
        }
    }
}

impl Iterator for Blocks {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        let from = self.from?;
        let state = &self.image.state;
        let mut block = BlockWriter::default();
        self.from = match self.name {
            "base" => block.fill(std::iter::once((from, base_of(state)))),
            "inodes" => block.fill(slots_at(state, from)),
            "names" => block.fill_names(state, from),
            "xattrs" => block.fill(entries_at(&state.xattrs, from)),
            "orphans" => block.fill(keys_at(&state.orphans, from)),
            "trims" => block.fill(entries_at(&state.trims, from)),
            "reaps" => block.fill(keys_at(&state.reaps, from)),
            "sessions" => block.fill(entries_at(&state.sessions, from)),
            "writers" => block.fill(keys_at(&state.writers, from)),
            "locks" => block.fill(entries_at(state.locks.by_inode(), from)),
            name => unreachable!("no section is named {name}"),
        };
        Some((self.name, block.bytes))
    }
}

fn slots_at(state: &State, from: Cursor) -> impl Iterator<Item = (Cursor, &Inode)> {
    let slots = state.inodes.slots_from(from.slot);
    slots.map(|(slot, inode)| {
        let cursor = Cursor {
            slot,
            ..Cursor::default()
        };
        (cursor, inode)
    })
}

fn entries_at<K: Ord + Copy, V: Clone>(
    map: &CowMap<K, V>,
    from: Cursor,
) -> impl Iterator<Item = (Cursor, (K, &V))> {
    map.iter_at(from.place).map(|(place, key, value)| {
        let cursor = Cursor {
            place,
            ..Cursor::default()
        };
        (cursor, (key, value))
    })
}

fn keys_at<K: Ord + Copy>(map: &CowMap<K, ()>, from: Cursor) -> impl Iterator<Item = (Cursor, K)> {
    entries_at(map, from).map(|(cursor, (key, ()))| (cursor, key))
}

#[derive(Debug, Default)]
struct BlockWriter {
    bytes: Vec<u8>,
}

impl BlockWriter {
    fn is_full(&self) -> bool {
        self.bytes.len() >= SECTION_BLOCK_BYTES
    }

    fn push<T: Serialize>(&mut self, item: &T) {
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(item, bytes).expect("the state is plain data");
    }

    /// Takes items until the block is full. Gives where the next block begins.
    fn fill<T: Serialize>(&mut self, items: impl Iterator<Item = (Cursor, T)>) -> Option<Cursor> {
        for (cursor, item) in items {
            if self.is_full() {
                return Some(cursor);
            }
            self.push(&item);
        }
        None
    }

    /// The same for names: a large directory fills many blocks.
    fn fill_names(&mut self, state: &State, from: Cursor) -> Option<Cursor> {
        let mut cookie = from.cookie;
        for (slot, inode) in state.inodes.slots_from(from.slot) {
            let Some(directory) = inode.directory() else {
                continue;
            };
            let ino = Ino::new(slot as u64, inode.generation);
            for (key, entry) in directory.entries_behind(cookie) {
                if self.is_full() {
                    return Some(Cursor {
                        slot,
                        cookie,
                        ..Cursor::default()
                    });
                }
                self.push(&(ino, key, entry));
                cookie = key.0;
            }
            cookie = 0;
        }
        None
    }
}

fn base_of(state: &State) -> Base {
    let volumes = state.volumes.iter();
    Base {
        config: state.config.clone(),
        records: state.records,
        numbers: state.numbers.clone(),
        counters: state.inodes.counters.clone(),
        volumes: volumes
            .map(|(volume, stored)| (*volume, stored.clone()))
            .collect(),
        removed: (*state.removed).clone(),
        is_balance_paused: state.is_balance_paused,
        table: (*state.table).clone(),
        in_sync: state
            .in_sync
            .iter()
            .map(|(id, of)| (*id, of.clone()))
            .collect(),
        groups: (*state.groups).clone(),
    }
}

/// Builds the state that [`Image::sections`] encoded.
pub(crate) fn restore(
    sections: impl Iterator<Item = (String, Vec<u8>)>,
) -> Result<State, RestoreError> {
    let mut sections = sections.filter(|(_, bytes)| !bytes.is_empty());
    let (name, bytes) = sections.next().ok_or(RestoreError::MissingSection)?;
    if name != "base" {
        return Err(RestoreError::MissingSection);
    }
    let mut base = decode_items::<Base>(&bytes)?;
    let mut state = empty_state(base.pop().ok_or(RestoreError::MissingSection)?);
    for (name, bytes) in sections {
        restore_block(&mut state, &name, &bytes)?;
    }
    if !state.inodes.is_complete() {
        return Err(RestoreError::MissingSection);
    }
    state.weights = Weights::of(&state);
    Ok(state)
}

fn empty_state(base: Base) -> State {
    State {
        config: base.config,
        records: base.records,
        numbers: base.numbers,
        inodes: Inodes::restoring(base.counters),
        xattrs: Default::default(),
        orphans: Default::default(),
        trims: Default::default(),
        reaps: Default::default(),
        sessions: Default::default(),
        writers: Default::default(),
        locks: Default::default(),
        volumes: Arc::new(base.volumes.into_iter().collect()),
        removed: Arc::new(base.removed),
        is_balance_paused: base.is_balance_paused,
        table: Arc::new(base.table),
        in_sync: Arc::new(base.in_sync.into_iter().collect()),
        groups: Arc::new(base.groups),
        weights: Weights::default(),
    }
}

fn restore_block(state: &mut State, name: &str, bytes: &[u8]) -> Result<(), RestoreError> {
    match name {
        "inodes" => {
            for inode in decode_items::<Inode>(bytes)? {
                state.inodes.restore_slot(inode);
            }
        }
        "names" => restore_names(state, decode_items(bytes)?)?,
        "xattrs" => {
            for (ino, xattrs) in decode_items::<(Ino, Arc<Xattrs>)>(bytes)? {
                state.xattrs.insert(ino, xattrs);
            }
        }
        "orphans" => {
            for ino in decode_items::<Ino>(bytes)? {
                state.orphans.insert(ino, ());
            }
        }
        "trims" => {
            for (ino, trim) in decode_items::<(Ino, PendingTrim)>(bytes)? {
                state.trims.insert(ino, trim);
            }
        }
        "reaps" => {
            for key in decode_items::<(VolumeId, DataId)>(bytes)? {
                state.reaps.insert(key, ());
            }
        }
        "sessions" => {
            for (session, stored) in decode_items::<(SessionId, Session)>(bytes)? {
                state.sessions.insert(session, stored);
            }
        }
        "writers" => {
            for writer in decode_items::<(SessionId, Ino)>(bytes)? {
                state.writers.insert(writer, ());
            }
        }
        "locks" => {
            for (ino, locks) in decode_items::<(Ino, Arc<InodeLocks>)>(bytes)? {
                state.locks.restore(ino, locks);
            }
        }
        _ => return Err(RestoreError::BadSection),
    }
    Ok(())
}

fn restore_names(state: &mut State, names: Vec<(Ino, NameKey, Entry)>) -> Result<(), RestoreError> {
    for (ino, key, entry) in names {
        if state.directory(ino).is_err() {
            return Err(RestoreError::BadSection);
        }
        let directory = state.inodes.get_mut(ino).directory_mut();
        let restored = directory.expect("asked above").restore(key, entry);
        if !restored {
            return Err(RestoreError::BadSection);
        }
    }
    Ok(())
}

fn decode_items<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<Vec<T>, RestoreError> {
    let mut items = Vec::new();
    while !bytes.is_empty() {
        let (item, rest) =
            postcard::take_from_bytes(bytes).map_err(|_| RestoreError::BadSection)?;
        items.push(item);
        bytes = rest;
    }
    Ok(items)
}

#[cfg(test)]
impl State {
    /// A text that is equal exactly for equal states.
    pub(crate) fn dump(&self) -> String {
        // What directories weigh depends on how their pieces came to be.
        let weights = Weights::default();
        format!(
            "{:?}",
            State {
                weights,
                ..self.clone()
            }
        )
    }
}
