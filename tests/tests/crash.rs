//! `kill -9` in the middle of writes: every acknowledged byte is compared.

use std::time::Duration;

use vdfs_tests::journal::Journal;
use vdfs_tests::{Options, Way, eventually, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(kill_9_amid_writes_loses_no_acknowledged_byte);

fn kill_9_amid_writes_loses_no_acknowledged_byte(way: Way) {
    let mut vdfs = way.start(Options::default());
    let mut hit_in_flight = 0;
    for round in 0..5 {
        let path = vdfs.dir().join(format!("journal-{round}"));
        let journal = Journal::start(&path, round);
        let enough = 50 + 40 * round;
        eventually("the writer is at work", Duration::from_secs(30), || {
            journal.acknowledged() > enough
        });
        vdfs.kill9();
        let written = journal.finish();
        vdfs.run_again();
        written.check(&path);
        hit_in_flight += u32::from(written.errno.is_some());
    }
    assert!(
        hit_in_flight > 0,
        "no kill met a write in flight: that proves nothing"
    );
}
