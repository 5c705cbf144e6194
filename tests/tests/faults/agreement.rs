//! What one mount has closed, the next open or stat on the other sees, and records that several
//! append stay whole.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use vdfs_tests::{mount_tests_skipped, pattern, within};

use crate::cluster;

const ROUNDS: u64 = 200;
const APPENDERS: usize = 4;
const LINES: usize = 10_000;
const LINE_BYTES: usize = 100;

#[test]
fn closed_file_is_seen_by_the_next_open_or_stat_on_the_other_in_200_rounds() {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, cluster) = cluster();
    let dirs = [0, 1].map(|index| cluster.mounts[index].dir());
    let begin = Instant::now();
    within("200 rounds", Duration::from_secs(120), move || {
        for round in 0..ROUNDS {
            let (from, to) = (round % 2, (round + 1) % 2);
            change(&dirs[from as usize], round);
            look(&dirs[to as usize], round);
        }
    });
    let rate = ROUNDS as f64 / begin.elapsed().as_secs_f64();
    eprintln!("{rate:.0} rounds/s");
}

/// Every length is another one, on both sides of block and chunk borders.
fn len_of(round: u64) -> usize {
    (round as usize * 7919) % 600_000
}

/// Closes new contents under the name, in one of three ways.
fn change(dir: &Path, round: u64) {
    let (name, bytes) = (dir.join("file"), pattern::bytes(round, 0, len_of(round)));
    match round % 3 {
        0 => fs::write(name, bytes).expect("writes"),
        1 => {
            fs::write(dir.join("beside"), bytes).expect("writes");
            fs::rename(dir.join("beside"), name).expect("renames over it");
        }
        _ => {
            let file = OpenOptions::new().write(true).open(name).expect("opens");
            file.set_len(0).expect("truncates");
            (&file).write_all(&bytes).expect("writes");
        }
    }
}

fn look(dir: &Path, round: u64) {
    let name = dir.join("file");
    if round.is_multiple_of(4) {
        let len = fs::metadata(&name).expect("stats").len();
        assert_eq!(len as usize, len_of(round), "round {round}");
    }
    let bytes = fs::read(&name).expect("reads");
    assert_eq!(bytes.len(), len_of(round), "round {round}");
    pattern::assert_matches(round, 0, &bytes);
}

#[test]
fn four_appenders_on_two_mounts_lose_tear_and_reorder_nothing() {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, cluster) = cluster();
    let dirs = [0, 1, 0, 1].map(|index| cluster.mounts[index].dir());
    let log = cluster.mounts[1].dir().join("log");
    let begin = Instant::now();
    within("all lines", Duration::from_secs(300), move || {
        let together = Barrier::new(APPENDERS);
        thread::scope(|scope| {
            for (appender, dir) in dirs.iter().enumerate() {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    append_lines(dir, appender);
                });
            }
        });
    });
    let rate = (APPENDERS * LINES) as f64 / begin.elapsed().as_secs_f64();
    eprintln!("{rate:.0} lines/s");
    assert_lines(&fs::read_to_string(log).expect("reads"));
}

fn append_lines(dir: &Path, appender: usize) {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(dir.join("log"));
    let mut file: File = file.expect("opens");
    for line in 0..LINES {
        file.write_all(line_of(appender, line).as_bytes())
            .expect("appends");
    }
}

fn line_of(appender: usize, line: usize) -> String {
    let head = format!("{appender} {line:05} ");
    format!("{head:x<width$}\n", width = LINE_BYTES - 1)
}

fn assert_lines(text: &str) {
    assert_eq!(text.len(), APPENDERS * LINES * LINE_BYTES);
    let mut next = [0; APPENDERS];
    for line in text.split_inclusive('\n') {
        let appender = line[..1].parse::<usize>().expect("a whole line");
        assert_eq!(line, line_of(appender, next[appender]));
        next[appender] += 1;
    }
    assert_eq!(next, [LINES; APPENDERS]);
}
