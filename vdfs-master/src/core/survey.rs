//! Which files wait for a volume that is away, and which have lost bytes.
//!
//! The tree is walked a piece at a time, by the timer and by those who ask, as long as something is
//! amiss. Invariant: a piece looks at a bounded number of names and chains, however many files there
//! are. Names that move under the walk may be missed or seen twice; the next walk is right.

use std::collections::{BTreeMap, BTreeSet};

use vdfs_proto::limits::CHAINS_PER_GROUP;
use vdfs_proto::{Chain, ChainId, FileName, Ino, VolumeId};

use super::chains::serving;
use super::inode::FileBody;
use super::limits::{SURVEY_GOOD_MS, SURVEY_LINKS_MAX, SURVEY_NAMES, SURVEY_PIECE};
use super::state::State;

#[derive(Debug, Default)]
pub(crate) struct Survey {
    walk: Option<Walk>,
    /// The last walk that came to its end.
    last: Option<(Walk, u64)>,
}

/// What is amiss. Another subject begins another walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) table_version: u64,
    pub(crate) away: BTreeSet<VolumeId>,
}

/// What a walk has found so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// Files with chunks on each volume that is away.
    pub(crate) waiting: BTreeMap<VolumeId, Tally>,
    /// Files with bytes that are gone.
    pub(crate) lost: Tally,
    pub(crate) lost_chains: BTreeSet<ChainId>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Paths of some.
    pub(crate) names: Vec<String>,
}

#[derive(Debug)]
struct Walk {
    subject: Subject,
    /// From the root to where the walk is.
    path: Vec<Level>,
    /// Files of several names that were seen.
    linked: BTreeSet<Ino>,
    looks: usize,
    found: Found,
}

#[derive(Debug)]
struct Level {
    directory: Ino,
    name: String,
    /// Of the last entry that was looked at.
    cookie: u64,
}

impl Survey {
    /// Goes on by one piece; begins again if the last walk was about something else or is old.
    pub(crate) fn go_on(&mut self, state: &State, subject: Subject, now_ms: u64) {
        self.go_on_if_older(state, subject, now_ms, SURVEY_GOOD_MS);
    }

    /// The same for somebody who asks: what one piece covers is looked at afresh.
    pub(crate) fn go_on_now(&mut self, state: &State, subject: Subject, now_ms: u64) {
        let is_short = |(walk, _): &(Walk, u64)| walk.looks <= SURVEY_PIECE;
        let good_ms = match self.last.as_ref().is_none_or(is_short) {
            true => 0,
            false => SURVEY_GOOD_MS,
        };
        self.go_on_if_older(state, subject, now_ms, good_ms);
    }

    fn go_on_if_older(&mut self, state: &State, subject: Subject, now_ms: u64, good_ms: u64) {
        let is_good = |(walk, ended_ms): &(Walk, u64)| {
            walk.subject == subject && now_ms < ended_ms.saturating_add(good_ms)
        };
        if self.last.as_ref().is_some_and(is_good) {
            return;
        }
        let begun = self.walk.take().filter(|walk| walk.subject == subject);
        let mut walk = begun.unwrap_or_else(|| Walk::begin(subject));
        match walk.go_on(state) {
            true => self.last = Some((walk, now_ms)),
            false => self.walk = Some(walk),
        }
    }

    /// What is known of the subject, and whether all files were looked at.
    pub(crate) fn found(&self, subject: &Subject) -> (Found, bool) {
        let last = self.last.as_ref().map(|(walk, _)| walk);
        let of_subject = |walk: &&Walk| walk.subject == *subject;
        match (
            last.filter(of_subject),
            self.walk.as_ref().filter(of_subject),
        ) {
            (Some(walk), _) => (walk.found.clone(), true),
            (None, Some(walk)) => (walk.found.clone(), false),
            (None, None) => (Found::default(), false),
        }
    }
}

impl Walk {
    fn begin(subject: Subject) -> Self {
        let root = Level {
            directory: Ino::ROOT,
            name: String::new(),
            cookie: 0,
        };
        Walk {
            subject,
            path: vec![root],
            linked: BTreeSet::new(),
            looks: 0,
            found: Found::default(),
        }
    }

    /// Looks at one piece. True at the end of the tree.
    fn go_on(&mut self, state: &State) -> bool {
        let until = self.looks + SURVEY_PIECE;
        while self.looks < until {
            if self.path.is_empty() {
                return true;
            }
            self.looks += 1;
            self.look_at_next(state);
        }
        self.path.is_empty()
    }

    fn look_at_next(&mut self, state: &State) {
        let level = self.path.last_mut().expect("not at the end");
        let entries = state.directory(level.directory).ok();
        let next = entries.and_then(|entries| entries.entries_behind(level.cookie).next());
        let Some((key, entry)) = next else {
            self.path.pop();
            return;
        };
        level.cookie = key.0;
        let Ok(inode) = state.inode(entry.ino) else {
            return;
        };
        if inode.directory().is_some() {
            self.path.push(Level {
                directory: entry.ino,
                name: text(&entry.name),
                cookie: 0,
            });
        } else if let Some(file) = inode.file() {
            let is_first = inode.nlink == 1 || self.is_first_name(entry.ino);
            if is_first {
                self.weigh(state, file, &entry.name);
            }
        }
    }

    fn is_first_name(&mut self, ino: Ino) -> bool {
        self.linked.len() >= SURVEY_LINKS_MAX || self.linked.insert(ino)
    }

    fn weigh(&mut self, state: &State, file: &FileBody, name: &FileName) {
        let mut waits_for = BTreeSet::new();
        let mut lost_bytes = 0;
        // Chains repeat: what lies on one is known from its first chunk.
        for first in 0..file.chunks.min(CHAINS_PER_GROUP) {
            self.looks += usize::from(first > 0);
            let id = file.layout().chain(first);
            let Some(chain) = state.table.chain(id) else {
                continue;
            };
            waits_for.extend(self.missed(chain));
            if file.data < chain.lost_below {
                lost_bytes += bytes_on_chain(state, file, first);
                self.found.lost_chains.insert(id);
            }
        }
        if waits_for.is_empty() && lost_bytes == 0 {
            return;
        }
        let path = self.path_of(name);
        if lost_bytes > 0 {
            self.found.lost.add(lost_bytes, &path);
        }
        for volume in waits_for {
            let tally = self.found.waiting.entry(volume).or_default();
            tally.add(file.size, &path);
        }
    }

    /// Members whose return the chain waits for: none as long as one of them serves.
    fn missed(&self, chain: &Chain) -> impl Iterator<Item = VolumeId> {
        let is_away = |volume: &VolumeId| self.subject.away.contains(volume);
        let is_served = serving(chain).any(|volume| !is_away(&volume));
        let members = chain.members.iter().map(|member| member.volume);
        members.filter(move |volume| !is_served && is_away(volume))
    }

    fn path_of(&self, name: &FileName) -> String {
        let above = self.path.iter().map(|level| level.name.as_str());
        let mut parts: Vec<&str> = above.collect();
        let name = text(name);
        parts.push(&name);
        parts.join("/")
    }
}

impl Tally {
    fn add(&mut self, bytes: u64, path: &str) {
        self.files += 1;
        self.bytes += bytes;
        if self.names.len() < SURVEY_NAMES {
            self.names.push(path.to_owned());
        }
    }
}

/// Bytes of the file's chunks `first`, `first` + 256, ...
fn bytes_on_chain(state: &State, file: &FileBody, first: u32) -> u64 {
    let others = (file.chunks - 1 - first) / CHAINS_PER_GROUP;
    let last = first + others * CHAINS_PER_GROUP;
    let chunk_size = state.config.chunk_size;
    u64::from(others) * u64::from(chunk_size.bytes())
        + u64::from(chunk_size.chunk_len(file.size, last))
}

fn text(name: &FileName) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}
