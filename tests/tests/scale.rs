//! A real master with many files: what each costs, how soon it is back, and that its budget of RAM
//! holds under a kernel limit that kills. Longer: the bin `master-scale`.

use std::process::Output;

use vdfs_tests::cgroup::MemoryCgroup;
use vdfs_tests::load::{Fill, Load};
use vdfs_tests::lone_master::LoneMaster;

const MIB: u64 = 1 << 20;
/// Of RAM, with a name of 20 bytes and 1,000 files a directory.
const FILE_BYTES_MAX: f64 = 200.0;
const SESSIONS: usize = 4;
const IN_FLIGHT: usize = 32;

fn fill(files: u64) -> Fill {
    Fill {
        files,
        in_flight: IN_FLIGHT,
        directory_files: 1000,
    }
}

fn open(master: &LoneMaster) -> Load {
    Load::open(master.addr(), &master.identity(), SESSIONS, SESSIONS)
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn file_costs_at_most_200_bytes_and_all_are_back_after_a_kill() {
    let mut master = LoneMaster::start(&[], None);
    let load = open(&master);
    // What a process has once, whatever it keeps, is there when the first files are.
    load.fill(fill(20_000));
    let before = master.rss_bytes();
    let filled = load.fill(fill(300_000));
    let grown = master.rss_bytes().saturating_sub(before);
    let each = grown as f64 / filled.files as f64;
    println!(
        "{each:.1} bytes a file, {:.0} creates a second",
        filled.per_second()
    );
    assert!(each <= FILE_BYTES_MAX, "{each:.1} bytes a file");
    let files = json(&master.vdfs(&["status", "--json"]))["files"].clone();
    drop(load);
    master.part.kill9();
    master.part.start();
    println!("back in {:?}", master.part.started_in);
    assert_eq!(json(&master.vdfs(&["status", "--json"]))["files"], files);
}

#[test]
fn full_master_refuses_frees_and_takes_again_and_is_never_killed() {
    let ram = 128 * MIB;
    let cgroup = MemoryCgroup::with_limit(ram);
    let master = LoneMaster::start(&["--ram", "128MiB"], Some(&cgroup));
    let load = open(&master);
    let mut held = Vec::new();
    for _ in 0..2 {
        let filled = load.fill(fill(10_000_000));
        assert!(filled.is_full, "the budget has an end");
        held.push(filled.files);
        let status = json(&master.vdfs(&["status", "--json"]));
        let (used, limit) = (&status["metadata_bytes"], &status["metadata_limit_bytes"]);
        assert!(used.as_u64() >= limit.as_u64().map(|limit| limit / 100 * 99));
        let problems = status["problems"].to_string();
        assert!(problems.contains("full with names"), "{problems}");
        // Much is changed while a checkpoint may be written: what is changed is there twice.
        load.change(400_000, IN_FLIGHT);
        assert!(load.empty(IN_FLIGHT) >= filled.files);
    }
    println!(
        "{held:?} files fit, {} checkpoints",
        master.checkpoints().len()
    );
    assert!(held[0] > 150_000, "only {} files fit", held[0]);
    assert!(held[1] * 10 > held[0] * 9, "only {} fit again", held[1]);
    assert!(
        !master.checkpoints().is_empty(),
        "no checkpoint was written meanwhile"
    );
    assert_eq!(cgroup.kills(), 0, "the budget did not hold");
}
