//! The search for an order of the calls of one register that explains what was read.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::history::{Answer, Call, Record, Register, Value};

/// States that are looked at before a register is given up as undecided.
const STATES_MAX: usize = 1_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Explained,
    /// Whatever order: the read that returned at this time, or one before it, gave what was not there.
    Impossible {
        at: u64,
    },
    /// The search took too long.
    Undecided,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Write(Value),
    Read(Value),
}

/// One call of the register.
#[derive(Clone, Copy, Debug)]
struct Op {
    begun: u64,
    /// `u64::MAX` if it may take place at any later time.
    returned: u64,
    act: Act,
}

pub(super) fn search(records: &[Record], register: Register) -> Verdict {
    let ops: Vec<Op> = records.iter().filter_map(|r| op_of(r, register)).collect();
    match Search::explains(ops.clone()) {
        Some(true) => Verdict::Explained,
        Some(false) => Verdict::Impossible {
            at: first_wrong(&ops),
        },
        None => Verdict::Undecided,
    }
}

fn op_of(record: &Record, register: Register) -> Option<Op> {
    let op = |returned, act| Op {
        begun: record.begun,
        returned,
        act,
    };
    match (&record.call, record.answer()) {
        (Call::Write { registers, value }, _) => {
            let returned = record.returned().unwrap_or(u64::MAX);
            let is_own = registers.contains(&register);
            is_own.then_some(op(returned, Act::Write(*value)))
        }
        (Call::Read { registers }, Some(Answer::Values(values))) => {
            let at = registers.iter().position(|&one| one == register)?;
            Some(op(record.returned()?, Act::Read(values[at])))
        }
        _ => None,
    }
}

/// Up to which time the history must go on to be impossible: each that begins as it does is, too.
fn first_wrong(ops: &[Op]) -> u64 {
    let mut times: Vec<u64> = ops.iter().map(|op| op.returned).collect();
    times.sort_unstable();
    let is_possible = |&at: &u64| Search::explains(until(ops, at)) != Some(false);
    let first = times.partition_point(is_possible);
    times[first.min(times.len() - 1)]
}

/// What was known at a time: who had not returned may or may not have taken place.
fn until(ops: &[Op], at: u64) -> Vec<Op> {
    let known = ops.iter().filter_map(|op| match op.act {
        _ if op.begun > at => None,
        Act::Read(_) if op.returned > at => None,
        _ if op.returned > at => Some(Op {
            returned: u64::MAX,
            ..*op
        }),
        _ => Some(*op),
    });
    known.collect()
}

/// A set of calls.
#[derive(Clone, Debug, Hash)]
struct Done {
    /// All before are in it.
    first_open: usize,
    bits: Vec<u64>,
}

impl Done {
    fn contains(&self, at: usize) -> bool {
        self.bits[at / 64] >> (at % 64) & 1 == 1
    }

    fn insert(&mut self, at: usize) {
        self.bits[at / 64] |= 1 << (at % 64);
    }
}

#[derive(Debug)]
struct Search {
    /// By begin.
    ops: Vec<Op>,
    reads_of: HashMap<Value, usize>,
    seen: HashSet<(u64, u64)>,
}

impl Search {
    /// `None` if the search was given up.
    fn explains(mut ops: Vec<Op>) -> Option<bool> {
        let mut reads_of = HashMap::new();
        for op in &ops {
            if let Act::Read(value) = op.act {
                *reads_of.entry(value).or_default() += 1;
            }
        }
        // Who may never have taken place, and was seen by nobody, explains nothing.
        ops.retain(|op| match op.act {
            Act::Write(value) => op.returned != u64::MAX || reads_of.contains_key(&value),
            Act::Read(_) => true,
        });
        ops.sort_by_key(|op| op.begun);
        let done = Done {
            first_open: 0,
            bits: vec![0; ops.len().div_ceil(64)],
        };
        let mut search = Search {
            ops,
            reads_of,
            seen: HashSet::new(),
        };
        match search.is_explained(done, Value(0)) {
            true => Some(true),
            false if search.seen.len() >= STATES_MAX => None,
            false => Some(false),
        }
    }

    fn is_explained(&mut self, mut done: Done, value: Value) -> bool {
        let reads = self.reads_of.get(&value).copied().unwrap_or_default();
        // A value comes once: whoever has not read it by now never will.
        if self.read_all(&mut done, value) < reads {
            return false;
        }
        if done.first_open == self.ops.len() {
            return true;
        }
        if self.seen.len() >= STATES_MAX || !self.seen.insert(fingerprint(&done, value)) {
            return false;
        }
        for at in self.candidates(&done) {
            let Act::Write(value) = self.ops[at].act else {
                continue;
            };
            let mut done = done.clone();
            done.insert(at);
            if self.is_explained(done, value) {
                return true;
            }
        }
        false
    }

    /// Lets all reads take place that can: a read changes nothing, so the sooner, the better. Gives
    /// how many.
    fn read_all(&self, done: &mut Done, value: Value) -> usize {
        let mut count = 0;
        loop {
            while done.first_open < self.ops.len() && done.contains(done.first_open) {
                done.first_open += 1;
            }
            let mut ready = self.candidates(done);
            ready.retain(|&at| self.ops[at].act == Act::Read(value));
            if ready.is_empty() {
                return count;
            }
            count += ready.len();
            ready.into_iter().for_each(|at| done.insert(at));
        }
    }

    /// Calls that began before any that is not done returned; those that returned first come first.
    fn candidates(&self, done: &Done) -> Vec<usize> {
        let mut first_return = u64::MAX;
        let mut candidates = Vec::new();
        for at in done.first_open..self.ops.len() {
            let op = &self.ops[at];
            if op.begun > first_return {
                break;
            }
            if !done.contains(at) {
                first_return = first_return.min(op.returned);
                candidates.push(at);
            }
        }
        candidates.sort_by_key(|&at| self.ops[at].returned);
        candidates
    }
}

fn fingerprint(done: &Done, value: Value) -> (u64, u64) {
    let hash = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, done, value).hash(&mut hasher);
        hasher.finish()
    };
    (hash(1), hash(2))
}
