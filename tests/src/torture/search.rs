//! The search for an order of the calls of a round that explains all their answers.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::history::{Answer, Call, Node, Record, Round};
use super::tree::{Inode, Tree};

/// States that are looked at before a round is given up as undecided.
const STATES_MAX: usize = 2_000_000;

/// Calls of a round at most.
pub const RECORDS_MAX: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Indexes of the calls in an order that explains them.
    Explained(Vec<usize>),
    Impossible,
    /// The search took too long.
    Undecided,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Ahead,
    /// It has looked at its first name and found this.
    Found(Node),
    Done,
}

#[derive(Debug)]
struct Search<'a> {
    /// Without those that are not in the order.
    records: Vec<(usize, &'a Record)>,
    after: &'a Tree,
    seen: HashSet<(u64, u64)>,
    order: Vec<usize>,
}

/// Looks for an order of all calls but listings and those that gave up.
pub fn search(round: &Round) -> Verdict {
    let calls = round.records.iter().enumerate();
    let is_searched = |record: &Record| {
        // A call that gave up has changed nothing.
        !matches!(record.call, Call::List { .. }) && !round.gave_up(record)
    };
    let records: Vec<_> = calls.filter(|(_, record)| is_searched(record)).collect();
    assert!(records.len() <= RECORDS_MAX, "rounds are short");
    let phases = vec![Phase::Ahead; records.len()];
    let mut search = Search {
        records,
        after: &round.after,
        seen: HashSet::new(),
        order: Vec::new(),
    };
    match search.is_explained(&phases, &round.before) {
        true => Verdict::Explained(search.order),
        false if search.seen.len() >= STATES_MAX => Verdict::Undecided,
        false => Verdict::Impossible,
    }
}

impl Search<'_> {
    fn is_explained(&mut self, phases: &[Phase], tree: &Tree) -> bool {
        if phases.iter().all(|phase| *phase == Phase::Done) {
            return tree.looks_like(self.after);
        }
        if self.seen.len() >= STATES_MAX || !self.seen.insert(fingerprint(phases, tree)) {
            return false;
        }
        for at in self.candidates(phases) {
            for (phase, next) in self.moves(at, phases[at], tree) {
                let mut phases = phases.to_vec();
                phases[at] = phase;
                let is_done = phase == Phase::Done;
                if is_done {
                    self.order.push(self.records[at].0);
                }
                if self.is_explained(&phases, &next) {
                    return true;
                }
                if is_done {
                    self.order.pop();
                }
            }
        }
        false
    }

    /// Calls that began before any that is not done returned; those that returned first come first.
    fn candidates(&self, phases: &[Phase]) -> Vec<usize> {
        let open = (0..phases.len()).filter(|&at| phases[at] != Phase::Done);
        let first_return = open.clone().map(|at| self.records[at].1.returned).min();
        let first_return = first_return.expect("one is not done");
        let mut candidates: Vec<usize> = open
            .filter(|&at| self.records[at].1.begun <= first_return)
            .collect();
        candidates.sort_by_key(|&at| self.records[at].1.returned);
        candidates
    }

    /// The next steps that the call at `at` can take in agreement with its answer.
    fn moves(&self, at: usize, phase: Phase, tree: &Tree) -> Vec<(Phase, Tree)> {
        let (index, record) = self.records[at];
        match (record.call, phase) {
            (Call::Stat { .. } | Call::Link { .. } | Call::Rename { .. }, _) => {
                two_steps(record, phase, tree)
            }
            _ => one_step(index, record, tree),
        }
    }
}

fn fingerprint(phases: &[Phase], tree: &Tree) -> (u64, u64) {
    let hash = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, phases, tree).hash(&mut hasher);
        hasher.finish()
    };
    (hash(1), hash(2))
}

/// Calls that take place at one instant.
fn one_step(index: usize, record: &Record, tree: &Tree) -> Vec<(Phase, Tree)> {
    let mut next = tree.clone();
    let answer = match record.call {
        Call::Create { at, exclusive } => {
            let made = match record.answer {
                Answer::File { node, .. } => Some(node),
                _ => Some(Node::made_by(index)),
            };
            next.create(at, exclusive, made)
                .map(|node| file_answer(record, node))
        }
        Call::Open { at } => tree.open(at).map(|node| match tree.entries(node) {
            Some(_) => Answer::Directory,
            None => file_answer(record, node),
        }),
        Call::ReadLink { at } => tree.read_link(at).map(Answer::Target),
        Call::Mkdir { at } => next.mkdir(at, Node::made_by(index)).map(|()| Answer::Done),
        Call::Symlink { at, target } => {
            let made = Node::made_by(index);
            next.symlink(at, made, target).map(|()| Answer::Done)
        }
        Call::Rmdir { at } => next.rmdir(at).map(|()| Answer::Done),
        Call::Unlink { at } => next.unlink(at).map(|()| Answer::Done),
        Call::Stat { .. } | Call::Link { .. } | Call::Rename { .. } | Call::List { .. } => {
            unreachable!("not of one step")
        }
    };
    let answer = answer.unwrap_or_else(Answer::Failed);
    let agrees = answer == record.answer;
    agrees.then_some((Phase::Done, next)).into_iter().collect()
}

/// The answer of an open that found `node`; how much was in it is checked elsewhere.
fn file_answer(record: &Record, node: Node) -> Answer {
    let bytes = match record.answer {
        Answer::File { bytes, .. } => bytes,
        _ => 0,
    };
    Answer::File { node, bytes }
}

/// Calls that look twice.
fn two_steps(record: &Record, phase: Phase, tree: &Tree) -> Vec<(Phase, Tree)> {
    let mut moves = Vec::new();
    let mut done = |next: Tree| moves.push((Phase::Done, next));
    match (record.call, phase) {
        (Call::Stat { at }, Phase::Ahead) => return look(record, tree, tree.find(at)),
        (Call::Link { from, .. }, Phase::Ahead) => return look(record, tree, tree.find(from)),
        (Call::Stat { .. }, Phase::Found(node)) => {
            if agrees_with_stat(record, tree, node) {
                done(tree.clone());
            }
        }
        (Call::Link { to, .. }, Phase::Found(node)) => {
            let mut next = tree.clone();
            let linked = next.link(node, to);
            if link_agrees(record, tree, node, linked) {
                done(next);
            }
        }
        (
            Call::Rename {
                from,
                to,
                no_replace,
            },
            Phase::Ahead,
        ) => {
            let mut next = tree.clone();
            if record.answer == Answer::Done && next.rename(from, to, no_replace).is_some() {
                done(next);
            }
            moves.extend(look(record, tree, tree.find(from)));
        }
        (
            Call::Rename {
                from,
                to,
                no_replace,
            },
            Phase::Found(old),
        ) => {
            let ends = tree.rename_ends(old, from, to, no_replace);
            let agrees = match record.answer {
                Answer::Done => ends.does_nothing,
                Answer::Failed(errno) => ends.errors.contains(&errno),
                _ => false,
            };
            if agrees {
                done(tree.clone());
            }
        }
        _ => unreachable!("of one step, or done"),
    }
    moves
}

/// The first look at a name: it ends the call if nothing is there.
fn look(record: &Record, tree: &Tree, found: Option<Node>) -> Vec<(Phase, Tree)> {
    match found {
        Some(node) => vec![(Phase::Found(node), tree.clone())],
        None if record.answer == Answer::Failed(libc::ENOENT) => vec![(Phase::Done, tree.clone())],
        None => Vec::new(),
    }
}

fn agrees_with_stat(record: &Record, tree: &Tree, node: Node) -> bool {
    let answer = match tree.inode(node).expect("it was found") {
        Inode::Directory { .. } => Answer::DirectoryStat,
        Inode::Symlink { .. } => Answer::SymlinkStat,
        Inode::File { links } => Answer::FileStat {
            node,
            links: *links,
        },
    };
    answer == record.answer
}

/// A directory cannot be linked, whatever else is wrong.
fn link_agrees(record: &Record, tree: &Tree, node: Node, linked: Result<(), i32>) -> bool {
    let is_directory = tree.entries(node).is_some();
    match record.answer {
        Answer::Done => linked.is_ok(),
        Answer::Failed(libc::EPERM) => is_directory,
        Answer::Failed(errno) => linked == Err(errno),
        _ => false,
    }
}
