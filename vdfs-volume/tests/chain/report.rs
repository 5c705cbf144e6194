//! What the faults of simulations have hit.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::LazyLock;

static IS_TRACING: LazyLock<bool> = LazyLock::new(|| std::env::var_os("VDFS_SIM_TRACE").is_some());

/// Prints what happens, if somebody wants to see it.
pub(crate) fn trace(now_us: u64, who: &dyn Debug, what: &dyn Debug) {
    if *IS_TRACING {
        eprintln!("{now_us:>10} {who:?}: {what:?}");
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(BTreeMap<&'static str, u64>);

/// Every kind of thing that must have happened in a run of some hundred seeds.
pub(crate) const EXPECTED: [&str; 50] = [
    "steps",
    "messages lost",
    "messages twice",
    "links cut both ways",
    "links cut one way",
    "volumes killed",
    "killed between or within effects",
    "killed with changes under way",
    "rolled forward",
    "torn and given up",
    "threads that stood still at the store",
    "volumes that stood still",
    "volumes that stood still beyond their lease",
    "masters killed",
    "masters that stood still",
    "masters killed with their machines",
    "sessions that ended",
    "slow log",
    "volumes full",
    "chains left for damage",
    "clients killed",
    "fenced with changes under way",
    "epochs",
    "changes passed on again",
    "silent successors reported",
    "reads that waited for a closed chunk",
    "reads that lost their lease or place on the way",
    "members added",
    "members in sync",
    "syncs finished",
    "syncs interrupted",
    "supplies within writes",
    "copies that were overtaken",
    "killed within a copy",
    "replies that a chain does not know",
    "chains that wait",
    "waiting chains decided",
    "chains that go on with all back",
    "chains that go on without some",
    "better copies taken",
    "merges interrupted",
    "killed within a merge",
    "chains longer than they shall be",
    "copies freed that were left behind",
    "machines that have lost their RAM",
    "chunks cut by their heads",
    "chains that have lost all",
    "lost data asked for",
    "chunks born while a member is syncing",
    "chunks that a chain does not have",
];

impl Counts {
    pub(crate) fn hit(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    pub(crate) fn add(&mut self, what: &'static str, count: u64) {
        *self.0.entry(what).or_default() += count;
    }

    pub(crate) fn get(&self, what: &'static str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }

    pub(crate) fn merge(&mut self, other: &Counts) {
        for (what, count) in &other.0 {
            self.add(what, *count);
        }
    }

    pub(crate) fn print(&self) {
        for (what, count) in &self.0 {
            eprintln!("{count:>10} {what}");
        }
    }
}
