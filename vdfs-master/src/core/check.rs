//! The invariants of the whole state, asserted.

use std::collections::{BTreeMap, BTreeSet};

use vdfs_proto::{DataId, Ino, SessionId};

use super::inode::{Body, Inode};
use super::live::Live;
use super::locks::check_locks;
use super::state::State;

pub(crate) fn check_state(state: &State) {
    check_names(state);
    check_free_list(state);
    check_orphans(state);
    check_data_ids(state);
    check_locks(state);
    for ((session, ino), ()) in state.writers.iter() {
        assert!(
            state.sessions.contains(session),
            "{session} has ended and writes to {ino}"
        );
    }
    for (ino, xattrs) in state.xattrs.iter() {
        assert!(
            state.inode(ino).is_ok(),
            "attributes of {ino}, which is dead"
        );
        assert!(!xattrs.is_empty(), "{ino} has an empty set of attributes");
    }
}

/// Every name has an inode, every inode as many names as links; directories form one tree.
fn check_names(state: &State) {
    let mut names: BTreeMap<Ino, u32> = BTreeMap::new();
    for (parent, inode) in state.inodes.iter() {
        let Some(directory) = inode.directory() else {
            continue;
        };
        let mut subdirectories = 0;
        for (_, entry) in directory.entries() {
            *names.entry(entry.ino).or_default() += 1;
            let child = state.inode(entry.ino).expect("a name has an inode");
            if let Some(below) = child.directory() {
                assert_eq!(below.parent, parent, "parent of {}", entry.ino);
                subdirectories += 1;
            }
        }
        assert_eq!(
            directory.subdirectories, subdirectories,
            "subdirectories of {parent}"
        );
        check_reaches_root(state, parent);
    }
    for (ino, inode) in state.inodes.iter() {
        let links = u32::from(inode.nlink);
        let found = names.get(&ino).copied().unwrap_or(0) + u32::from(ino == Ino::ROOT);
        assert_eq!(found, links, "names of {ino}");
    }
}

fn check_reaches_root(state: &State, directory: Ino) {
    let mut at = directory;
    for _ in 0..=state.inodes.counters.used {
        if at == Ino::ROOT {
            return;
        }
        at = state.directory(at).expect("a parent is a directory").parent;
    }
    panic!("{directory} does not lie below the root");
}

fn check_free_list(state: &State) {
    let listed: BTreeSet<u32> = state.inodes.free_slots().collect();
    assert_eq!(
        listed.len() as u64,
        state.inodes.free_count(),
        "length of the free list"
    );
    let is_free = |inode: &Inode| matches!(inode.body, Body::Free { .. });
    let free = state
        .inodes
        .slots()
        .enumerate()
        .filter(|(_, inode)| is_free(inode));
    assert!(
        free.map(|(slot, _)| slot as u32).eq(listed.iter().copied()),
        "free slots are in the free list"
    );
    let used = state.inodes.iter().count() as u64;
    assert_eq!(used, state.inodes.counters.used, "inodes in use");
}

fn check_orphans(state: &State) {
    let orphans: Vec<Ino> = state.orphans.iter().map(|(ino, ())| ino).collect();
    let nameless = state.inodes.iter().filter(|(_, inode)| inode.nlink == 0);
    assert!(
        nameless.map(|(ino, _)| ino).eq(sorted_by_slot(orphans)),
        "orphans have no names"
    );
    for (ino, _) in state.trims.iter() {
        assert!(state.file(ino).is_ok(), "{ino} is trimmed and no file");
    }
}

fn sorted_by_slot(mut inos: Vec<Ino>) -> Vec<Ino> {
    inos.sort_by_key(|ino| ino.slot());
    inos
}

/// Data ids are used once, and none that is to be dropped.
fn check_data_ids(state: &State) {
    let mut used: BTreeSet<DataId> = BTreeSet::new();
    for (ino, inode) in state.inodes.iter() {
        if let Some(file) = inode.file() {
            assert!(file.data < state.numbers.data, "data id of {ino}");
            assert!(used.insert(file.data), "{} is used twice", file.data);
        }
    }
    for ((volume, data), ()) in state.reaps.iter() {
        assert!(!used.contains(&data), "{data} is in use and reaped");
        assert!(state.volumes.contains_key(&volume), "{volume} is unknown");
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
