//! What was called, when, and what came of it.

use std::path::Path;
use std::{fmt, fs, io};

use serde::{Deserialize, Serialize};

/// One of a few blocks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Register(pub u32);

/// What a write leaves in its registers, or an append in the log: unique in a history. 0 is what
/// registers hold that nobody has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Value(pub u64);

/// A system call. Registers of one call are neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    Write {
        registers: Vec<Register>,
        value: Value,
    },
    Read {
        registers: Vec<Register>,
    },
    Append {
        value: Value,
    },
    /// All of the log.
    ReadLog,
    /// `fstat` of the log.
    SizeLog,
}

/// What a call returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Of a write or an append.
    Done,
    /// Of a read: one for each register, or for each record of the log.
    Values(Vec<Value>),
    /// Records in the log.
    Count(u64),
    /// A block or record that is of no one value, as text.
    Torn(String),
    /// `errno`.
    Failed(i32),
}

/// One call of one client. Times are nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub client: u32,
    #[serde(default)]
    pub mount: u32,
    pub call: Call,
    pub begun: u64,
    /// `None`: its process died before.
    pub ended: Option<End>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub at: u64,
    pub answer: Answer,
}

/// All calls on one pair of files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    pub records: Vec<Record>,
}

impl Record {
    /// When it returned with an answer that is no error.
    pub fn returned(&self) -> Option<u64> {
        let end = self.ended.as_ref()?;
        (!matches!(end.answer, Answer::Failed(_))).then_some(end.at)
    }

    pub fn answer(&self) -> Option<&Answer> {
        Some(&self.ended.as_ref()?.answer)
    }

    pub fn has_failed(&self) -> bool {
        matches!(self.answer(), Some(Answer::Failed(_)))
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record {
            client,
            mount,
            call,
            begun,
            ended,
        } = self;
        write!(f, "client {client} on mount {mount} {begun}..")?;
        match ended {
            Some(End { at, answer }) => write!(f, "{at} {call:?}: {answer:?}"),
            None => write!(f, "died {call:?}"),
        }
    }
}

impl History {
    pub fn load(path: &Path) -> io::Result<History> {
        let text = fs::read_to_string(path)?;
        serde_json::from_str(&text).map_err(io::Error::other)
    }

    /// A record a line, so that it can be looked through.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut records: Vec<&Record> = self.records.iter().collect();
        records.sort_by_key(|record| record.begun);
        let lines: Vec<String> = records
            .iter()
            .map(|record| serde_json::to_string(record).expect("plain data"))
            .collect();
        fs::write(
            path,
            format!("{{\"records\":[\n{}\n]}}\n", lines.join(",\n")),
        )
    }
}
