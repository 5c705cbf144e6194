//! Counts by operation, kept in memory for whoever is in the process.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

/// What became of one kind of operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpCount {
    pub count: u64,
    /// Of these, answered with a status.
    pub errors: u64,
    /// From the request's arrival to its reply, added up.
    pub time: Duration,
}

/// The key is the operation's name, from the closed set of the protocol.
#[derive(Debug, Default)]
pub struct Metrics {
    ops: Mutex<BTreeMap<&'static str, OpCount>>,
}

impl Metrics {
    pub(crate) fn count(&self, op: &'static str, is_error: bool, time: Duration) {
        let mut ops = self.ops.lock();
        let op = ops.entry(op).or_default();
        op.count += 1;
        op.errors += u64::from(is_error);
        op.time += time;
    }

    pub fn snapshot(&self) -> BTreeMap<&'static str, OpCount> {
        self.ops.lock().clone()
    }
}
