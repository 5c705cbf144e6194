//! Whether one machine could have shown a history.

use std::collections::BTreeSet;
use std::{error, fmt};

use super::history::{Answer, Call, History, Record, Register, Value};
use super::log::check_log;
use super::search::{Verdict, search};

/// How many calls before the one that cannot be explained are shown.
const SHOWN: usize = 30;

/// What a history that is possible consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub calls: usize,
    /// Pairs of calls that went on at the same time.
    pub overlaps: usize,
    pub failed: usize,
    /// Registers whose search was given up.
    pub undecided: usize,
    pub longest_ms: u64,
}

/// Something that one machine could not have shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A block or record is of two values, or of none.
    Torn(Record),
    /// No order of the calls of this register explains them; the last ones up to the answer with which
    /// that is certain.
    Register(Register, Vec<Record>),
    /// A record is twice in the log.
    Twice(Value),
    /// A record of the log that nobody has appended.
    OfNobody(Value),
    /// An acknowledged record is not in the log.
    Missing(Record),
    /// This read of the log shows records that others later did not see there.
    Rewritten(Record),
    /// The first returned before the second began, and yet took place after it.
    BackInTime(Box<[Record; 2]>),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Torn(record) => write!(f, "torn: {record}"),
            Fault::Register(register, records) => {
                write!(f, "no order explains {register:?}:")?;
                records
                    .iter()
                    .try_for_each(|record| write!(f, "\n{record}"))
            }
            Fault::Twice(value) => write!(f, "{value:?} is in the log twice"),
            Fault::OfNobody(value) => write!(f, "nobody has appended {value:?}"),
            Fault::Missing(record) => write!(f, "missing in the log: {record}"),
            Fault::Rewritten(record) => write!(f, "not how the log begins: {record}"),
            Fault::BackInTime(pair) => write!(f, "back in time:\n{}\n{}", pair[0], pair[1]),
        }
    }
}

impl error::Error for Fault {}

pub fn check(history: &History) -> Result<Summary, Fault> {
    let records = &history.records;
    let is_torn = |record: &&Record| matches!(record.answer(), Some(Answer::Torn(_)));
    if let Some(torn) = records.iter().find(is_torn) {
        return Err(Fault::Torn(torn.clone()));
    }
    check_log(records)?;
    let mut summary = summarize(records);
    for register in registers(records) {
        match search(records, register) {
            Verdict::Explained => {}
            Verdict::Undecided => summary.undecided += 1,
            Verdict::Impossible { at } => {
                let last = last_calls(records, register, at);
                return Err(Fault::Register(register, last));
            }
        }
    }
    Ok(summary)
}

fn registers_of(call: &Call) -> &[Register] {
    match call {
        Call::Write { registers, .. } | Call::Read { registers } => registers,
        Call::Append { .. } | Call::ReadLog | Call::SizeLog => &[],
    }
}

fn registers(records: &[Record]) -> BTreeSet<Register> {
    let all = records.iter().flat_map(|record| registers_of(&record.call));
    all.copied().collect()
}

fn last_calls(records: &[Record], register: Register, at: u64) -> Vec<Record> {
    let is_own =
        |record: &&Record| registers_of(&record.call).contains(&register) && record.begun <= at;
    let mut own: Vec<Record> = records.iter().filter(is_own).cloned().collect();
    own.sort_by_key(|record| record.begun);
    own.split_off(own.len().saturating_sub(SHOWN))
}

fn summarize(records: &[Record]) -> Summary {
    let end = |record: &Record| record.ended.as_ref().map_or(u64::MAX, |end| end.at);
    let overlaps = |(at, one): (usize, &Record)| {
        let others = records[..at].iter();
        let overlaps = |other: &&Record| one.begun < end(other) && other.begun < end(one);
        others.filter(overlaps).count()
    };
    let times = records.iter().filter_map(|record| {
        let end = record.ended.as_ref()?;
        Some(end.at - record.begun)
    });
    Summary {
        calls: records.len(),
        overlaps: records.iter().enumerate().map(overlaps).sum(),
        failed: records.iter().filter(|record| record.has_failed()).count(),
        undecided: 0,
        longest_ms: times.max().unwrap_or_default() / 1_000_000,
    }
}
