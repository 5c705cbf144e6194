//! Checking, dumping and loading the names of a real filesystem.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use vdfs_tests::{Filesystem, Options, Way, eventually, on_up_and_on_a_cluster, pattern};

on_up_and_on_a_cluster!(
    names_that_were_dumped_and_loaded_keep_all_bytes,
    check_says_what_is_damaged_while_running_and_when_stopped,
);

const FILES: u64 = 60;
const WAIT: Duration = Duration::from_secs(30);

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn run(vdfs: &Filesystem, args: &[&str]) -> String {
    let output = vdfs.cli(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    text(&output)
}

/// Files of several chunks and of none, links, attributes, odd names.
fn populate(dir: &Path) {
    for number in 0..FILES {
        let sub = dir.join(format!("d{}", number % 7));
        fs::create_dir_all(&sub).expect("a directory");
        let bytes = pattern::bytes(number, 0, (number * 17_011) as usize);
        fs::write(sub.join(format!("f{number}")), bytes).expect("writes");
    }
    fs::hard_link(dir.join("d1/f1"), dir.join("second name")).expect("links");
    std::os::unix::fs::symlink("d1/f1", dir.join("link \u{fc}\n")).expect("links");
    fs::write(dir.join("gone"), b"gone").expect("writes");
    fs::remove_file(dir.join("gone")).expect("removes");
}

/// What can be seen below `dir`: for each path its length or its target.
fn seen(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(&next).expect("lists") {
            let path = entry.expect("a name").path();
            let meta = fs::symlink_metadata(&path).expect("is there");
            let what = format!(
                "{:?} {} {:?}",
                meta.file_type(),
                meta.len(),
                meta.modified()
            );
            seen.insert(path.clone(), what);
            if meta.is_dir() {
                pending.push(path);
            }
        }
    }
    seen
}

fn verify(dir: &Path) {
    for number in 0..FILES {
        let path = dir.join(format!("d{}/f{number}", number % 7));
        let bytes = fs::read(&path).expect("reads");
        assert_eq!(bytes.len() as u64, number * 17_011, "{}", path.display());
        pattern::assert_matches(number, 0, &bytes);
    }
}

fn names_that_were_dumped_and_loaded_keep_all_bytes(way: Way) {
    let mut vdfs = way.start(Options::default());
    populate(&vdfs.dir());
    let before = seen(&vdfs.dir());
    let running = vdfs.outside().join("running.dump");
    let running = running.to_str().expect("UTF-8");
    run(&vdfs, &["meta", "dump", running]);
    vdfs.stop();
    let stopped = vdfs.outside().join("stopped.dump");
    let stopped = stopped.to_str().expect("UTF-8");
    run(&vdfs, &["meta", "dump", stopped]);
    assert!(run(&vdfs, &["meta", "check"]).contains("nothing is wrong"));
    let refused = vdfs.cli(&["meta", "load", running]);
    assert!(
        text(&refused).contains("is there already"),
        "{}",
        text(&refused)
    );
    let log_dir = vdfs.log_dir();
    for dump in [running, stopped] {
        fs::rename(&log_dir, vdfs.outside().join("old log")).expect("moves");
        let whole = fs::read(dump).expect("reads");
        fs::write(dump, &whole[..whole.len() / 2]).expect("writes");
        let cut = vdfs.cli(&["meta", "load", dump]);
        assert_eq!(cut.status.code(), Some(1), "{}", text(&cut));
        fs::write(dump, &whole).expect("writes");
        run(&vdfs, &["meta", "load", dump]);
        vdfs.run_again();
        eventually("everything is there", WAIT, || seen(&vdfs.dir()) == before);
        verify(&vdfs.dir());
        let after = vdfs.dir().join("d1/written after");
        fs::write(&after, b"new").expect("writes");
        fs::remove_file(&after).expect("removes");
        assert!(run(&vdfs, &["meta", "check"]).contains("nothing is wrong"));
        vdfs.stop();
        fs::remove_dir_all(vdfs.outside().join("old log")).expect("removes");
    }
}

fn check_says_what_is_damaged_while_running_and_when_stopped(way: Way) {
    let mut vdfs = way.start(Options::default());
    populate(&vdfs.dir());
    assert!(run(&vdfs, &["meta", "check"]).contains("nothing is wrong"));
    let sessions: serde_json::Value =
        serde_json::from_str(&run(&vdfs, &["sessions", "--json"])).expect("JSON");
    let mounts = sessions["sessions"].as_array().expect("a list");
    assert!(
        mounts
            .iter()
            .any(|session| session["slots"].as_u64() > Some(0))
    );
    vdfs.kill9();
    let segment = first_segment(&vdfs.log_dir());
    flip(&segment);
    let damaged = fs::read(&segment).expect("reads");
    let found = vdfs.cli(&["meta", "check"]);
    assert_eq!(found.status.code(), Some(1));
    let name = segment.file_name().expect("has a name").to_string_lossy();
    let said = text(&found);
    assert!(
        said.contains(&*name) && said.contains("byte offset 0"),
        "{said}"
    );
    assert_eq!(fs::read(&segment).expect("reads"), damaged, "a check wrote");
    flip(&segment);
    vdfs.run_again();
    flip(&segment);
    let found = vdfs.cli(&["meta", "check", "--json"]);
    assert_eq!(found.status.code(), Some(1), "{}", text(&found));
    let json: serde_json::Value = serde_json::from_slice(&found.stdout).expect("JSON");
    let what = json["findings"][0]["what"].as_str().expect("says what");
    assert!(json["online"] == true && what.contains(&*name), "{json}");
    flip(&segment);
    verify(&vdfs.dir());
}

/// One bit of the first batch, there and back; the master may be appending.
fn flip(segment: &Path) {
    const AT: u64 = 60;
    let file = fs::OpenOptions::new().read(true).write(true).open(segment);
    let file = file.expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, AT).expect("reads");
    file.write_all_at(&[byte[0] ^ 1], AT).expect("writes");
}

fn first_segment(log_dir: &Path) -> PathBuf {
    let names = fs::read_dir(log_dir).expect("lists");
    let paths = names.map(|entry| entry.expect("a name").path());
    let is_segment = |path: &PathBuf| {
        let name = path.file_name().expect("has a name");
        name.to_string_lossy().starts_with("wal-")
    };
    paths.filter(is_segment).min().expect("there is one")
}
