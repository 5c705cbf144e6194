//! `master-scale [OPTIONS]`: how fast, how small and how soon back a master is with many files.
//!
//! Starts a `vdfs-master` of the same build, asks it over QUIC, and prints what it measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use vdfs_tests::load::{Fill, Latencies, Load, Samples};
use vdfs_tests::lone_master::LoneMaster;

/// How fast, how small and how soon back a master is with many files.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long, default_value_t = 1_000_000)]
    files: u64,
    #[arg(long, default_value_t = 1000)]
    directory_files: u64,
    #[arg(long, default_value_t = 4)]
    sessions: usize,
    /// Connections that the sessions share.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Creates in flight, over all sessions.
    #[arg(long, default_value_t = 32)]
    in_flight: usize,
    /// Lookups, for their rate.
    #[arg(long, default_value_t = 0)]
    lookups: u64,
    /// How many checkpoints a steady stream of creates and lookups goes on for.
    #[arg(long, default_value_t = 0)]
    checkpoints: u32,
    /// Records behind the checkpoint before the process is killed and started again.
    #[arg(long)]
    restart_records: Option<u64>,
    /// Behind a restart: check, dump and load.
    #[arg(long, requires = "restart_records")]
    dump: bool,
    /// Options of `vdfs-master`.
    #[arg(last = true)]
    master: Vec<String>,
}

fn main() {
    let args = Args::parse();
    let extra: Vec<&str> = args.master.iter().map(String::as_str).collect();
    let mut master = LoneMaster::start(&extra, None);
    let empty = master.rss_bytes();
    let load = Load::open(
        master.addr(),
        &master.identity(),
        args.sessions,
        args.connections,
    );
    fill(&args, &master, &load, empty);
    if args.lookups > 0 {
        let rate = load.lookups(args.lookups, args.in_flight);
        say(format!("lookups      {rate:.0} a second"));
    }
    if args.checkpoints > 0 {
        stream(&args, &master, &load);
    }
    if let Some(records) = args.restart_records {
        restart(&args, &mut master, &load, records);
    }
}

fn say(text: String) {
    eprintln!("{text}");
}

fn fill(args: &Args, master: &LoneMaster, load: &Load, empty: u64) {
    let filled = load.fill(Fill {
        files: args.files,
        in_flight: args.in_flight,
        directory_files: args.directory_files,
    });
    let cpu = master_cpu_seconds(master);
    say(format!(
        "creates      {:.0} a second: {} files in {:.2} s; the master ran for {cpu:.2} s",
        filled.per_second(),
        filled.files,
        filled.seconds
    ));
    wait_for_checkpoint(master);
    let rss = master.rss_bytes();
    say(format!(
        "memory       {:.1} bytes a file: {} MiB, {} MiB when empty",
        rss.saturating_sub(empty) as f64 / filled.files as f64,
        rss >> 20,
        empty >> 20
    ));
}

/// User and system time of the process (proc(5), `stat`).
fn master_cpu_seconds(master: &LoneMaster) -> f64 {
    let path = format!("/proc/{}/stat", master.part.pid().as_raw_nonzero());
    let stat = std::fs::read_to_string(path).expect("the process is there");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let ticks = |index: usize| fields[index].parse::<f64>().expect("clock ticks");
    (ticks(11) + ticks(12)) / 100.0
}

fn wait_for_checkpoint(master: &LoneMaster) {
    while master.unfinished_checkpoint().exists() {
        thread::sleep(Duration::from_millis(20));
    }
}

/// Creates and lookups while checkpoints are written, and between them; beside them a thread that only
/// sleeps shows how long the machine lets anybody wait.
fn stream(args: &Args, master: &LoneMaster, load: &Load) {
    let is_writing = Arc::new(AtomicBool::new(false));
    let is_over = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (path, is_writing, is_over) = (
            master.unfinished_checkpoint(),
            is_writing.clone(),
            is_over.clone(),
        );
        thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                is_writing.store(path.exists(), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        })
    };
    let sleeper = {
        let (is_writing, is_over) = (is_writing.clone(), is_over.clone());
        thread::spawn(move || oversleeps(&is_writing, &is_over))
    };
    let mut all = Samples::default();
    for _ in 0..args.checkpoints {
        let calm = Instant::now();
        let quiet = |limit: Duration| move || calm.elapsed() < limit;
        all = all.joined(load.stream(4, &is_writing, quiet(Duration::from_secs(10))));
        // Bytes of log bring a checkpoint.
        let before = master.checkpoints().first().copied();
        while !is_writing.load(Ordering::Relaxed) && master.checkpoints().first().copied() == before
        {
            load.change(50_000, args.in_flight);
        }
        let goes_on = is_writing.clone();
        let until = move || goes_on.load(Ordering::Relaxed);
        all = all.joined(load.stream(4, &is_writing, until));
    }
    is_over.store(true, Ordering::Relaxed);
    watcher.join().expect("the watcher ends");
    let idle = sleeper.join().expect("the sleeper ends");
    report("replies", &all);
    report("sleeper", &idle);
}

fn oversleeps(is_writing: &AtomicBool, is_over: &AtomicBool) -> Samples {
    let pause = Duration::from_millis(1);
    let mut samples = Samples::default();
    while !is_over.load(Ordering::Relaxed) {
        let begin = Instant::now();
        thread::sleep(pause);
        let late = begin.elapsed().saturating_sub(pause);
        samples.push(is_writing.load(Ordering::Relaxed), late);
    }
    samples
}

fn report(what: &str, samples: &Samples) {
    let line = |when: &str, waits: &Latencies| {
        say(format!(
            "{what:<12} {when}: {} waits, median {:?}, p99 {:?}, p99.9 {:?}, longest {:?}",
            waits.count(),
            waits.per_mille(500.0),
            waits.per_mille(990.0),
            waits.per_mille(999.0),
            waits.longest()
        ));
    };
    line("without a checkpoint", &samples.others);
    line("during a checkpoint ", &samples.marked);
}

fn restart(args: &Args, master: &mut LoneMaster, load: &Load, records: u64) {
    load.change(records, args.in_flight);
    wait_for_checkpoint(master);
    let newest = master.checkpoints().first().copied().unwrap_or(0);
    master.part.kill9();
    let all = check(master);
    master.part.start();
    say(format!(
        "restart      {:.2} s, from a checkpoint and {} records behind it",
        master.part.started_in.as_secs_f64(),
        all - newest
    ));
    if args.dump {
        dump(master);
    }
}

/// Checks the files; gives how many records there are.
fn check(master: &LoneMaster) -> u64 {
    let begin = Instant::now();
    let output = master.vdfs(&["meta", "check", "--json"]);
    let checked: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("an object of JSON");
    say(format!(
        "check        {:.2} s, of the files: {}",
        begin.elapsed().as_secs_f64(),
        checked["findings"]
    ));
    checked["records"].as_u64().expect("a number")
}

/// Checks and dumps the running master, and loads what it dumped.
fn dump(master: &LoneMaster) {
    let file = master.outside().join("names.dump");
    let file = file.to_str().expect("UTF-8");
    let state = master.outside().join("loaded");
    std::fs::create_dir(&state).expect("a directory");
    let ca = master.state().join("ca");
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(ca)
        .arg(&state)
        .status();
    assert!(copied.expect("cp runs").success());
    for (what, args) in [
        ("check", vec!["meta", "check"]),
        ("dump", vec!["meta", "dump", file]),
    ] {
        let begin = Instant::now();
        let output = master.vdfs(&args);
        assert!(output.status.success(), "{output:?}");
        let seconds = begin.elapsed().as_secs_f64();
        say(format!("{what:<12} {seconds:.2} s, of the running master"));
    }
    let begin = Instant::now();
    let output = master.vdfs_at(&state, &["meta", "load", file]);
    assert!(output.status.success(), "{output:?}");
    let seconds = begin.elapsed().as_secs_f64();
    let bytes = std::fs::metadata(file).expect("is there").len();
    say(format!(
        "load         {seconds:.2} s, of {} MiB of text",
        bytes >> 20
    ));
}
