//! Faults on a cluster whose every part has a host of its own: two mounts that agree, parts that die,
//! stand still or are cut off, and what programs notice of it.
//!
//! Long forms are ignored unless asked for: `cargo test -p vdfs-tests --test faults -- --ignored`.

mod agreement;
mod cuts;
mod dead_client;
mod outages;
mod stopped_client;
mod workload;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vdfs_tests::{Cluster, Network, Options};

/// The longest that one client may hold up another: its lease, the fence, and the wait of the
/// volumes.
const HELD_UP_MAX: Duration = Duration::from_secs(14);

/// A master, two volumes and two mounts, each on a host of its own. One cluster at a time: there are
/// deadlines, and what one test starts while another one's mount is cut off would wait for that
/// mount, as it inherits its open files.
fn cluster() -> (MutexGuard<'static, ()>, Cluster) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let network = Network::Hosts { mtu: 1500 };
    (turn, Cluster::start(Options::default(), network, 2))
}
