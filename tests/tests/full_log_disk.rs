//! The master's disk fills up under load and has room again: nothing that was acknowledged is gone,
//! nothing that was refused is there, files can be read meanwhile, and the status says what is wrong.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::XattrFlags;
use serde_json::Value;
use vdfs_tests::{Cluster, Network, Options, eventually, mount_tests_skipped, within};

/// Room for what the log takes ahead, and for some hundreds of changes of the size below.
const DISK: &str = "size=16m";
/// Of an attribute that each change carries, so that the disk is full soon.
const CHANGE_BYTES: usize = 16 << 10;
const LIMIT: Duration = Duration::from_secs(30);

/// Makes directories until it is told to stop.
struct Worker {
    stop: Arc<AtomicBool>,
    /// Somebody waits for it to be refused, or to be served again.
    refused: Arc<AtomicBool>,
    thread: JoinHandle<Made>,
}

#[derive(Default)]
struct Made {
    acknowledged: Vec<PathBuf>,
    refused: Vec<PathBuf>,
}

impl Worker {
    fn start(dir: PathBuf) -> Worker {
        let stop = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicBool::new(false));
        let (told, tells) = (stop.clone(), refused.clone());
        let thread = thread::spawn(move || {
            let mut made = Made::default();
            for number in 0.. {
                if told.load(Ordering::Relaxed) {
                    break;
                }
                let path = dir.join(number.to_string());
                tells.store(make(&path, &mut made).is_err(), Ordering::Relaxed);
            }
            made
        });
        Worker {
            stop,
            refused,
            thread,
        }
    }

    fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    fn stop(self) -> Made {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the worker does not fail")
    }
}

fn make(path: &Path, made: &mut Made) -> io::Result<()> {
    let outcome = fs::create_dir(path);
    match &outcome {
        Ok(()) => made.acknowledged.push(path.to_owned()),
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
            made.refused.push(path.to_owned());
            // The rest of the test is not about how fast one can be refused.
            thread::sleep(Duration::from_millis(20));
        }
    }
    outcome?;
    let value = vec![1; CHANGE_BYTES];
    let set = rustix::fs::setxattr(path, "user.big", &value, XattrFlags::empty());
    Ok(set?)
}

/// Puts the log on a disk of its own, as small as it can be. The master is not running.
fn move_log(cluster: &Cluster) -> PathBuf {
    let log = cluster.master_state().join("log");
    let before = cluster.master_state().join("log-before");
    fs::rename(&log, &before).expect("moves");
    fs::create_dir(&log).expect("makes");
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", DISK, "small"]).arg(&log);
    assert!(mount.status().expect("mount runs").success());
    for entry in fs::read_dir(&before).expect("lists") {
        let path = entry.expect("lists").path();
        let name = path.file_name().expect("has a name");
        fs::copy(&path, log.join(name)).expect("copies");
    }
    log
}

/// Takes all room that the log has not taken ahead.
fn fill(log: &Path) -> PathBuf {
    let path = log.join("ballast");
    let mut ballast = fs::File::create(&path).expect("makes");
    while ballast.write_all(&[0; 4096]).is_ok() {}
    path
}

fn status(cluster: &Cluster) -> Value {
    let output = cluster.vdfs(&["status", "--json"]);
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn says_full(status: &Value) -> bool {
    let problems = status["problems"].as_array().expect("a list");
    let mut texts = problems.iter().map(|problem| problem.to_string());
    status["health"] == "failing" && texts.any(|text| text.contains("no room on the disk"))
}

/// A name of each mount, read through the other one.
fn assert_reads(dirs: &[PathBuf; 2]) {
    for dir in dirs.clone() {
        within("a full log serves reads", LIMIT, move || {
            let text = fs::read(dir.join("file")).expect("reads");
            assert_eq!(text, b"before");
            assert!(fs::read_dir(&dir).expect("lists").count() > 2);
        });
    }
}

#[test]
fn full_disk_under_the_log_refuses_changes_and_loses_nothing() {
    if mount_tests_skipped() {
        return;
    }
    let options = Options {
        volumes: 1,
        ..Options::default()
    };
    let mut cluster = Cluster::start(options, Network::Loopback, 2);
    cluster.master.stop();
    let log = move_log(&cluster);
    cluster.master.start();
    let dirs = [cluster.mounts[0].dir(), cluster.mounts[1].dir()];
    fs::write(dirs[0].join("file"), b"before").expect("there is room");
    let workers: Vec<Worker> = (0..2)
        .map(|number| {
            let dir = dirs[number].join(number.to_string());
            fs::create_dir(&dir).expect("there is room");
            Worker::start(dir)
        })
        .collect();
    let ballast = fill(&log);
    let refused = || workers.iter().all(Worker::is_refused);
    eventually("the log is full", LIMIT, refused);
    eventually("the status says so", LIMIT, || says_full(&status(&cluster)));
    assert_reads(&dirs);

    fs::remove_file(ballast).expect("removes");
    let served = || workers.iter().all(|worker| !worker.is_refused());
    eventually("there is room again", LIMIT, served);
    eventually("all is well", LIMIT, || status(&cluster)["health"] == "ok");
    let made: Vec<Made> = workers.into_iter().map(Worker::stop).collect();
    cluster.master.kill9();
    cluster.master.start();
    for (number, made) in made.iter().enumerate() {
        let counts = (made.acknowledged.len(), made.refused.len());
        println!("worker {number}: {counts:?} acknowledged and refused");
        assert!(counts.0 > 20 && counts.1 > 2, "{counts:?}");
        let is_there = |path: &&PathBuf| fs::symlink_metadata(path).is_ok();
        let lost = made.acknowledged.iter().find(|path| !is_there(path));
        assert_eq!(lost, None, "acknowledged and gone");
        assert_eq!(
            made.refused.iter().find(is_there),
            None,
            "refused and there"
        );
    }
}
