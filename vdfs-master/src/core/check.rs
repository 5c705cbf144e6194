//! The invariants of the whole state: found to hold, or said where they do not.
//!
//! A walk looks at everything once; beside the state it takes 13 bytes a slot and 8 a file.

use std::collections::{BTreeMap, BTreeSet};

use vdfs_proto::limits::{CHAIN_MEMBERS_MAX, CHAINS_PER_GROUP};
use vdfs_proto::{AclKind, Chain, DataId, Ino, MemberState, SessionId, VolumeId};

use super::chains::each_chain;
use super::directory::{Directory, NameHash};
use super::dump::Progress;
use super::inode::{Body, Inode};
use super::live::{Live, Parked, Seat};
use super::locks::check_locks;
use super::state::State;
use super::weight::Weights;

/// Flaws that are told; what damages one thing often damages many.
const FLAWS_MAX: usize = 1000;
/// Slots between two words on progress.
const PROGRESS_SLOTS: u64 = 1 << 16;

pub(crate) fn check_state(state: &State) {
    let flaws = flaws_of(state, &mut |_| {});
    assert!(flaws.is_empty(), "{}", flaws.join("\n"));
}

/// What does not hold, in words, at most [`FLAWS_MAX`]; nothing if all is well.
pub(crate) fn flaws_of(state: &State, progress: &mut dyn FnMut(Progress)) -> Vec<String> {
    let slots = state.inodes.counters.slots as usize;
    let mut check = Check {
        state,
        flaws: Vec::new(),
        names: vec![0; slots],
        is_below_root: vec![false; slots],
    };
    check.names(progress);
    check.links();
    check.free_list();
    check.orphans();
    check.data_ids();
    check.chains();
    check.groups();
    check.owners();
    check.acls();
    check_locks(state, &mut |flaw| check.say(flaw));
    check.weights();
    check.flaws
}

struct Check<'a> {
    state: &'a State,
    flaws: Vec<String>,
    /// Found of each slot's inode.
    names: Vec<u32>,
    is_below_root: Vec<bool>,
}

impl Check<'_> {
    fn say(&mut self, flaw: String) {
        if self.flaws.len() < FLAWS_MAX {
            self.flaws.push(flaw);
        }
    }

    /// Every name has an inode and its place; directories form one tree.
    fn names(&mut self, progress: &mut dyn FnMut(Progress)) {
        let total = u64::from(self.state.inodes.counters.slots);
        for (parent, inode) in self.state.inodes.iter() {
            if let Some(directory) = inode.directory() {
                self.directory(parent, directory);
            }
            if parent.slot().is_multiple_of(PROGRESS_SLOTS) {
                let done = parent.slot();
                progress(Progress { done, total });
            }
        }
    }

    fn directory(&mut self, ino: Ino, directory: &Directory) {
        let mut subdirectories = 0;
        for (key, entry) in directory.entries() {
            let name = &entry.name;
            let hash = NameHash::of(&self.state.config.hash_key, name);
            if !hash.has(key) {
                self.say(format!("name {name:?} in {ino} is not where its hash is"));
            }
            let Ok(child) = self.state.inode(entry.ino) else {
                self.say(format!(
                    "name {name:?} in {ino} stands for {}, which is not there",
                    entry.ino
                ));
                continue;
            };
            self.names[entry.ino.slot() as usize] += 1;
            let Some(below) = child.directory() else {
                continue;
            };
            subdirectories += 1;
            if below.parent != ino {
                self.say(format!(
                    "directory {} lies in {ino} and says that it lies in {}",
                    entry.ino, below.parent
                ));
            }
        }
        if directory.subdirectories != subdirectories {
            self.say(format!(
                "{ino} has {subdirectories} subdirectories and counts {}",
                directory.subdirectories
            ));
        }
        self.reaches_root(ino);
    }

    /// Climbs until a directory that is known to lie below the root.
    fn reaches_root(&mut self, directory: Ino) {
        let mut path = Vec::new();
        let mut at = directory;
        while at != Ino::ROOT && !self.is_below_root[at.slot() as usize] {
            path.push(at);
            let above = self.state.directory(at).map(|directory| directory.parent);
            let is_sane = path.len() as u64 <= self.state.inodes.counters.used;
            match above
                .ok()
                .filter(|above| is_sane && self.state.directory(*above).is_ok())
            {
                Some(above) => at = above,
                None => return self.say(format!("{directory} does not lie below the root")),
            }
        }
        for at in path {
            self.is_below_root[at.slot() as usize] = true;
        }
    }

    /// Every inode has as many names as links, and without names it is an orphan.
    fn links(&mut self) {
        for (ino, inode) in self.state.inodes.iter() {
            let links = u32::from(inode.nlink);
            let found = self.names[ino.slot() as usize] + u32::from(ino == Ino::ROOT);
            if found != links {
                self.say(format!("{ino} has {found} names and counts {links}"));
            }
            if links == 0 && !self.state.orphans.contains(ino) {
                self.say(format!("{ino} has no name and is not among the orphans"));
            }
        }
    }

    fn free_list(&mut self) {
        let counters = &self.state.inodes.counters;
        let mut is_listed = vec![false; counters.slots as usize];
        let mut listed = 0;
        for slot in self.state.inodes.free_slots().take(is_listed.len()) {
            let is_new = is_listed.get_mut(slot as usize);
            let is_new = is_new.is_some_and(|listed| !std::mem::replace(listed, true));
            listed += u64::from(is_new);
            if !is_new {
                self.say(format!(
                    "slot {slot} is twice among the free ones, or is none"
                ));
                break;
            }
        }
        if listed != counters.free_count {
            let counted = counters.free_count;
            self.say(format!("{listed} slots are free and {counted} are counted"));
        }
        let is_free = |inode: &Inode| matches!(inode.body, Body::Free { .. });
        for (slot, inode) in self.state.inodes.slots_from(0) {
            if is_free(inode) != is_listed[slot] {
                self.say(format!(
                    "slot {slot} is free, or listed as free, but not both"
                ));
            }
        }
        let used = self.state.inodes.iter().count() as u64;
        if used != counters.used {
            let counted = counters.used;
            self.say(format!("{used} inodes live and {counted} are counted"));
        }
    }

    fn orphans(&mut self) {
        for (ino, ()) in self.state.orphans.iter() {
            match self.state.inode(ino) {
                Ok(inode) if inode.nlink == 0 => {}
                Ok(_) => self.say(format!("{ino} is among the orphans and has names")),
                Err(_) => self.say(format!("{ino} is among the orphans and is not there")),
            }
        }
        for (ino, _) in self.state.trims.iter() {
            if self.state.file(ino).is_err() {
                self.say(format!("{ino} is being trimmed and is no file"));
            }
        }
    }

    /// Data ids are used once, and none that is to be dropped.
    fn data_ids(&mut self) {
        let files = self.state.inodes.iter();
        let mut used: Vec<DataId> = files
            .filter_map(|(_, inode)| inode.file().map(|file| file.data))
            .collect();
        used.sort_unstable();
        for pair in used.windows(2).filter(|pair| pair[0] == pair[1]) {
            self.say(format!("two files have the bytes of {}", pair[0]));
        }
        if let Some(last) = used.last().filter(|last| **last >= self.state.numbers.data) {
            self.say(format!("{last} is in use and was never given out"));
        }
        for ((volume, data), ()) in self.state.reaps.iter() {
            if used.binary_search(&data).is_ok() {
                self.say(format!("{data} is in use and to be dropped"));
            }
            if !self.state.volumes.contains_key(&volume) {
                self.say(format!(
                    "{data} is to be dropped by {volume}, which is unknown"
                ));
            }
        }
    }

    /// Each has some members, all different; either some serve, or all wait; one may be syncing, behind
    /// all others.
    fn chains(&mut self) {
        let replicas = self.state.replicas() as usize;
        if !(1..=CHAIN_MEMBERS_MAX).contains(&replicas) {
            self.say(format!("there shall be {replicas} copies"));
        }
        for (id, chain) in each_chain(&self.state.table) {
            let members: BTreeSet<VolumeId> = chain.members.iter().map(|of| of.volume).collect();
            let count = chain.members.len();
            if members.len() != count || !(1..=CHAIN_MEMBERS_MAX).contains(&count) {
                self.say(format!(
                    "{id} has {count} members, of {} volumes",
                    members.len()
                ));
            }
            if !has_sound_states(chain) {
                self.say(format!("the members of {id} cannot be in these states"));
            }
            if chain.is_active && self.state.in_sync.contains_key(&id) {
                self.say(format!(
                    "{id} is active, and could go back to an earlier epoch"
                ));
            }
            let is_known = |volume| self.state.volumes.contains_key(volume);
            if !members.iter().all(is_known) {
                self.say(format!("{id} has a member that is unknown"));
            }
        }
    }

    /// All chains are in one, and all files.
    fn groups(&mut self) {
        let (groups, chains) = (self.state.groups.len(), self.state.table.chains.len());
        let room = groups * CHAINS_PER_GROUP as usize;
        let is_first_empty = groups == 1 && chains == 0;
        if !(chains == room || is_first_empty) {
            self.say(format!("there are {groups} groups of {chains} chains"));
        }
        let numbers: BTreeSet<_> = self.state.groups.iter().map(|of| of.copies).collect();
        let is_first_own = self
            .state
            .groups
            .first()
            .is_some_and(|of| of.copies.is_none());
        if numbers.len() != groups || !is_first_own {
            self.say("groups are not one for each number of copies".to_owned());
        }
        for (ino, inode) in self.state.inodes.iter() {
            let group = inode.file().map_or(0, |file| file.group);
            if usize::from(group) >= groups {
                self.say(format!("{ino} lies in group {group} of {groups}"));
            }
        }
    }

    fn owners(&mut self) {
        for ((session, ino), ()) in self.state.writers.iter() {
            if !self.state.sessions.contains(session) {
                self.say(format!("{session} has ended and writes to {ino}"));
            }
        }
        for (ino, xattrs) in self.state.xattrs.iter() {
            if self.state.inode(ino).is_err() || xattrs.is_empty() {
                self.say(format!(
                    "extended attributes of {ino}, which is not there, or none"
                ));
            }
        }
    }

    /// Modes and access ACLs show each other.
    fn acls(&mut self) {
        for (ino, inode) in self.state.inodes.iter() {
            let acl = self.state.acl(ino, AclKind::Access);
            let fits = acl
                .as_ref()
                .is_none_or(|acl| !acl.is_minimal() && acl.mode_bits() == inode.mode() & 0o777);
            if inode.has_acl() != acl.is_some() || !fits {
                self.say(format!("the mode of {ino} is not what its ACL says"));
            }
        }
    }

    fn weights(&mut self) {
        let (counted, found) = (&self.state.weights, Weights::of(self.state));
        if *counted != found {
            self.say(format!("things weigh {found:?} and {counted:?} is counted"));
        }
    }
}

/// All serve, but perhaps the last one, which is syncing; or all wait, but perhaps the first one, which has
/// not taken over yet.
fn has_sound_states(chain: &Chain) -> bool {
    let states = chain.members.iter().map(|member| member.state);
    let states: Vec<MemberState> = states.collect();
    let all_are = |states: &[MemberState], one| states.iter().all(|state| *state == one);
    match states.as_slice() {
        [] => false,
        [first @ .., MemberState::Syncing] => {
            !first.is_empty() && all_are(first, MemberState::Serving)
        }
        [MemberState::Serving, rest @ .., MemberState::Waiting]
        | [rest @ .., MemberState::Waiting] => {
            all_are(rest, MemberState::Waiting) && !chain.is_active
        }
        all => all_are(all, MemberState::Serving),
    }
}

pub(crate) fn check_live(state: &State, live: &Live) {
    for ino in live.lingering.inos() {
        assert!(
            state.orphans.contains(ino),
            "{ino} lingers and is no orphan"
        );
    }
    // Before its first term a core only replays: nobody is known to it.
    let has_begun = !live.sessions.is_empty() || state.sessions.is_empty();
    for (session, _) in state.sessions.iter().filter(|_| has_begun) {
        assert!(
            live.sessions.contains_key(&session),
            "{session} has no lease"
        );
    }
    for session in live.sessions.keys() {
        assert!(state.sessions.contains(*session), "{session} has ended");
    }
    check_handles(state, live);
    check_seats(live);
    live.lock_queues.check();
    for (session, _) in live.in_progress.keys() {
        assert!(
            state.sessions.contains(*session) || !live.works.is_empty(),
            "{session} waits"
        );
    }
    for asked in live.recalls.values() {
        assert!(
            live.sessions.contains_key(&asked.recall.session),
            "{asked:?} of nobody"
        );
    }
}

/// Whoever waits is found by its ticket.
fn check_seats(live: &Live) {
    for ((session, slot), waiting) in &live.in_progress {
        let Some(ticket) = waiting.ticket else {
            continue;
        };
        let seat = live.seats.get(&ticket);
        assert!(
            matches!(seat, Some(Seat::Op(of, at)) if (of, at) == (session, slot)),
            "{ticket:?} waits for {session} {slot} at {seat:?}"
        );
    }
    let queues = live.works.values().map(|work| &work.waiters);
    let queues = queues
        .chain(live.append_waiters.values())
        .chain([&live.resume_waiters]);
    for parked in queues.flatten() {
        if let Parked::Query(ticket, _) = parked {
            let seat = live.seats.get(ticket);
            assert!(
                matches!(seat, Some(Seat::Query(_))),
                "{ticket:?} at {seat:?}"
            );
        }
    }
    for opening in &live.opening {
        let seat = live.seats.get(&opening.ticket);
        assert!(
            matches!(seat, Some(Seat::Opening)),
            "{opening:?} at {seat:?}"
        );
    }
}

fn check_handles(state: &State, live: &Live) {
    let mut counted: BTreeMap<(Ino, SessionId), u32> = BTreeMap::new();
    for (session, of) in &live.sessions {
        for open in of.handles.values() {
            assert!(
                state.file(open.ino).is_ok(),
                "{} is open and dead",
                open.ino
            );
            *counted.entry((open.ino, *session)).or_default() += 1;
            let writer = (*session, open.ino);
            assert!(
                !open.access.write || state.writers.contains(writer),
                "{writer:?} may write and is not logged"
            );
        }
    }
    let handles: u64 = counted.values().map(|handles| u64::from(*handles)).sum();
    assert_eq!(handles, live.opens.handles(), "handles are counted");
    let openers = live.opens.openers();
    let known: BTreeMap<(Ino, SessionId), u32> = openers
        .map(|(ino, session, handles)| ((ino, session), handles))
        .collect();
    assert_eq!(counted, known, "handles are counted by inode");
    for (ino, session) in live.opens.appenders() {
        assert!(
            live.opens.has_handle(ino, session),
            "{session} appends to closed {ino}"
        );
    }
}
