//! Planted damage of each kind is found, and nothing is written by who looks for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use vdfs_proto::ClusterId;

use super::*;
use crate::checkpoint;
use crate::core::tests::dumping::{Flaw, a_bit_of_everything, dump_of};
use crate::core::{Core, FsConfig};
use crate::disk::DirectoryDisk;
use crate::log::{LocalLog, LogOptions, OpLog};

const CLUSTER: ClusterId = ClusterId(7);

/// A log directory with checkpoints of two generations and a log behind them.
struct Scene {
    dir: TempDir,
}

impl Scene {
    /// Of a filesystem with nothing but changes of its term.
    fn new() -> Scene {
        let dir = tempfile::tempdir().expect("a directory");
        let disk: Arc<dyn Disk> = Arc::new(DirectoryDisk::open(dir.path()).expect("opens"));
        let options = LogOptions {
            segment_bytes: 200,
            after: 0,
            synced: 0,
        };
        let log = LocalLog::open(disk.clone(), options, &mut |_, _| Ok(()));
        let mut log = log.expect("a new log");
        let (mut core, first) = Core::format(config(), crate::shell::now());
        log.append(&[first]).expect("there is room");
        for round in 0..40u64 {
            let mut effects = Vec::new();
            core.start(crate::shell::now(), true, &mut effects);
            let records: Vec<Vec<u8>> = effects
                .into_iter()
                .filter_map(|effect| match effect {
                    crate::core::Effect::Append(record) => Some(record),
                    _ => None,
                })
                .collect();
            log.append(&records).expect("there is room");
            log.flush().expect("syncs");
            if round == 10 || round == 20 {
                let written = checkpoint::write(&*disk, CLUSTER, core.image());
                written.expect("writes").publish().expect("renames");
            }
        }
        log.close().expect("closes");
        Scene { dir }
    }

    /// Of a state, in one checkpoint.
    fn of(core: &Core) -> Scene {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = DirectoryDisk::open(dir.path()).expect("opens");
        log::begin_behind(&disk, core.records()).expect("there is room");
        let written = checkpoint::write(&disk, CLUSTER, core.image());
        written.expect("writes").publish().expect("renames");
        Scene { dir }
    }

    fn files(&self, prefix: &str) -> Vec<PathBuf> {
        let names = fs::read_dir(self.dir.path()).expect("lists");
        let mut paths: Vec<PathBuf> = names.map(|entry| entry.expect("a name").path()).collect();
        paths.retain(|path| text(path).starts_with(prefix));
        paths.sort();
        paths
    }

    /// Checks, and that looking has changed nothing.
    fn check(&self) -> Vec<Finding> {
        let before = contents(self.dir.path());
        let checked = check(self.dir.path(), &mut |_| {}).expect("can be checked");
        assert_eq!(contents(self.dir.path()), before, "a check wrote something");
        checked.findings
    }

    fn assert_found(&self, words: &[&str]) {
        let findings = self.check();
        let says = |finding: &Finding| words.iter().all(|word| finding.what.contains(word));
        assert!(
            findings.iter().any(says),
            "{findings:?} does not say {words:?}"
        );
        assert!(findings.iter().all(|finding| !finding.way_out.is_empty()));
    }
}

fn config() -> FsConfig {
    FsConfig {
        cluster: CLUSTER,
        chunk_size: vdfs_proto::ChunkSize::MIN,
        replicas: Some(1),
        hash_key: [3; 16],
        root_uid: 0,
        root_gid: 0,
        files_max: 1000,
    }
}

/// The lines of a dump without its numbers and its end.
fn objects(dump: &[u8]) -> Vec<String> {
    let lines = String::from_utf8(dump.to_vec()).expect("ASCII");
    let is_object = |line: &&str| {
        let mut others = ["{\"numbers\"", "{\"slots\"", "{\"end\""].into_iter();
        !others.any(|other| line.starts_with(other))
    };
    lines.lines().filter(is_object).map(str::to_owned).collect()
}

fn text(path: &Path) -> String {
    let name = path.file_name().expect("has a name");
    name.to_string_lossy().into_owned()
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let names = fs::read_dir(dir).expect("lists");
    let paths = names.map(|entry| entry.expect("a name").path());
    paths
        .map(|path| (path.clone(), fs::read(&path).expect("reads")))
        .collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("reads");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("writes");
}

#[test]
fn check_of_a_whole_log_finds_nothing() {
    assert_eq!(Scene::new().check(), []);
    assert_eq!(Scene::of(&a_bit_of_everything()).check(), []);
}

#[test]
fn check_finds_a_flipped_bit_in_each_checkpoint() {
    for index in 0..2 {
        let scene = Scene::new();
        let file = &scene.files("checkpoint-")[index];
        flip(file, 60);
        scene.assert_found(&[&text(file), "byte offset"]);
    }
}

#[test]
fn check_finds_flipped_bits_cuts_and_gaps_in_the_log_behind_the_oldest_checkpoint() {
    let count = Scene::new().files("wal-").len();
    let first = count / 2;
    for index in first..count {
        let scene = Scene::new();
        let file = &scene.files("wal-")[index];
        flip(file, 20);
        scene.assert_found(&[&text(file), "damaged at byte offset 0"]);
        let scene = Scene::new();
        let file = &scene.files("wal-")[index];
        let whole = fs::read(file).expect("reads");
        fs::write(file, &whole[..whole.len() - 3]).expect("writes");
        scene.assert_found(&[&text(file), "truncated within"]);
        let scene = Scene::new();
        let file = &scene.files("wal-")[index];
        fs::remove_file(file).expect("removes");
        let is_last = index + 1 == count;
        // Without the last one the one before is too short for what was synced.
        let words: &[&str] = if is_last {
            &["was on the disk"]
        } else {
            &["missing"]
        };
        scene.assert_found(words);
    }
}

#[test]
fn check_finds_a_damaged_id() {
    let scene = Scene::new();
    flip(&scene.files("id")[0], 3);
    scene.assert_found(&["id", "damaged or missing"]);
}

#[test]
fn check_finds_every_flaw_of_a_state() {
    for flaw in Flaw::ALL {
        // Weights are made when a state is loaded.
        if matches!(flaw, Flaw::Weights) {
            continue;
        }
        let mut core = a_bit_of_everything();
        let word = flaw.plant(&mut core);
        Scene::of(&core).assert_found(&[word]);
    }
}

#[test]
fn load_makes_what_was_dumped_and_refuses_what_is_there_or_of_others() {
    let scene = Scene::of(&a_bit_of_everything());
    let mut text = Vec::new();
    dump(scene.dir.path(), &mut text, &mut |_| {}).expect("dumps");
    assert_eq!(text, dump_of(&a_bit_of_everything()));
    let scratch = tempfile::tempdir().expect("a directory");
    let log_dir = scratch.path().join("log");
    let load = |cluster| load(&log_dir, cluster, &mut &text[..], &mut |_| {});
    let other = load(ClusterId(8)).expect_err("of another cluster");
    assert!(matches!(other, MetaError::OtherCluster { .. }), "{other}");
    load(CLUSTER).expect("loads");
    let present = load(CLUSTER).expect_err("there is one");
    assert!(matches!(present, MetaError::Present { .. }), "{present}");
    let mut again = Vec::new();
    dump(&log_dir, &mut again, &mut |_| {}).expect("dumps");
    // Numbers go on beyond what another master may have given out.
    assert_eq!(objects(&again), objects(&text));
    let checked = check(&log_dir, &mut |_| {}).expect("can be checked");
    assert_eq!(checked.findings, []);
}
