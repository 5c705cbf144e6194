//! Counts by operation, and of the door: for the status, and for whoever is in the process.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use vdfs_net::quic::NetCounters;
use vdfs_proto::{NetTotals, OpTotals};

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
    /// Of the door that others come in by, if there is one.
    net: OnceLock<Arc<NetCounters>>,
}

impl Metrics {
    pub(crate) fn count(&self, op: &'static str, is_error: bool, time: Duration) {
        let mut ops = self.ops.lock();
        let op = ops.entry(op).or_default();
        op.count += 1;
        op.errors += u64::from(is_error);
        op.time += time;
    }

    /// The first door given counts.
    pub(crate) fn count_door(&self, counters: Arc<NetCounters>) {
        self.net.get_or_init(|| counters);
    }

    pub(crate) fn net(&self) -> NetTotals {
        self.net
            .get()
            .map_or_else(NetTotals::default, |net| net.totals())
    }

    pub(crate) fn ops(&self) -> Vec<OpTotals> {
        let totals = |(name, op): (&&str, &OpCount)| OpTotals {
            name: (*name).to_owned(),
            count: op.count,
            errors: op.errors,
            time_us: op.time.as_micros() as u64,
        };
        self.ops.lock().iter().map(totals).collect()
    }

    pub fn snapshot(&self) -> BTreeMap<&'static str, OpCount> {
        self.ops.lock().clone()
    }
}
