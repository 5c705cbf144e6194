//! Servers as systemd runs them: told of by notifications, a volume as an ordinary user without any
//! capability, in a mount namespace that goes with it.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;
use vdfs_tests::mount::unmount_lazily;
use vdfs_tests::mount_tests_skipped;
use vdfs_tests::pattern;
use vdfs_tests::programs::{self, run};

/// How long a start may take on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);
/// `nobody`: the unit's own user need not exist here.
const USER: u32 = 65534;
const RAM_UNIT: &str = include_str!("../../systemd/var-lib-vdfs-volumes-1-ram.mount");

/// A server; killed with its process group when dropped.
struct Server {
    child: Child,
    ready: String,
}

impl Server {
    /// Returns when it is ready.
    fn start(command: &mut Command) -> Server {
        let mut server = Server::spawn(command);
        let stdout = server.child.stdout.take().expect("stdout is piped");
        let line = first_line(stdout).recv_timeout(START_LIMIT);
        server.ready = line.expect("a ready line in time");
        assert!(server.ready.starts_with("ready "), "{}", server.ready);
        server
    }

    fn spawn(command: &mut Command) -> Server {
        command.process_group(0).stdout(Stdio::piped());
        Server {
            child: command.spawn().expect("it starts"),
            ready: String::new(),
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What systemd does to what is left of a service.
    fn kill_group(&mut self) {
        let has_ended = self.child.try_wait().expect("a child of ours").is_some();
        if !has_ended {
            kill_process_group(self.pid(), Signal::KILL).expect("it is there until waited for");
            self.child.wait().expect("a child of ours");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// Reads the first line of `stdout`, and the rest without looking at it.
fn first_line(stdout: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            drop(sender.send(line));
        }
    });
    receiver
}

fn path_text(path: &Path) -> String {
    path.to_str().expect("scratch paths are text").to_owned()
}

/// Directories of a cluster, and what is mounted on them.
struct Places {
    scratch: TempDir,
}

impl Places {
    fn new() -> Places {
        let scratch = tempfile::Builder::new().prefix("vdfs-test-").tempdir();
        let scratch = scratch.expect("a scratch directory");
        // Another user goes through it.
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        Places { scratch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        path_text(&self.path(name))
    }

    fn master(&self) -> Command {
        let mut command = Command::new(programs::vdfs_master());
        command.args(["--state", &self.text("master"), "--listen", "127.0.0.1:0"]);
        command
    }

    fn volume_arguments(&self) -> Vec<String> {
        let addr = fs::read_to_string(self.path("master/addr")).expect("the master wrote it");
        let words = ["--state", &self.text("volume"), "--master", addr.trim()];
        let words = words.into_iter().chain(["--listen", "127.0.0.1:0"]);
        words.map(str::to_owned).collect()
    }

    fn issue_volume_identity(&self) {
        let words = ["cert", "issue", "--role", "volume", "--name", "v1"];
        let (ca, out) = (self.text("master"), self.text("volume/identity"));
        let words = [&words[..], &["--ca", &ca, "--out", &out]].concat();
        run(&path_text(&programs::vdfs()), &words, Path::new("/"));
    }

    /// `vdfs WORDS` of an administrator.
    fn vdfs(&self, words: &[&str]) -> Vec<u8> {
        let state = self.text("master");
        let words = [words, &["--state", &state]].concat();
        run(&path_text(&programs::vdfs()), &words, Path::new("/")).stdout
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        for mounted in ["mnt", "volume/ram", "up/ram"] {
            unmount_lazily(&self.path(mounted));
        }
    }
}

/// Mounts the tmpfs as the shipped unit says, for another user and of another size.
fn mount_ram(dir: &Path) {
    let options = RAM_UNIT
        .lines()
        .find_map(|line| line.strip_prefix("Options="));
    let options = options.expect("the unit has options");
    let options = options
        .replace("=vdfs", &format!("={USER}"))
        .replace("size=25%", "size=256M");
    assert!(
        options.contains("size=256M") && options.contains("uid=65534"),
        "{options}"
    );
    fs::create_dir_all(dir).expect("a mountpoint");
    let dir = path_text(dir);
    run(
        "mount",
        &["-t", "tmpfs", "-o", &options, "vdfs-ram", &dir],
        Path::new("/"),
    );
}

/// What `StateDirectory=` does before the first start.
fn give_away(path: &Path) {
    chown(path, Some(USER), Some(USER)).expect("root gives it away");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("readable") {
            give_away(&entry.expect("readable").path());
        }
    }
}

/// The volume without capabilities, in a mount namespace that ends with it and gives nothing back.
fn sandboxed(program: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "slave", "--"]);
    command.args([
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
    ]);
    command.args([
        "--no-new-privs",
        "--inh-caps=-all",
        "--bounding-set=-all",
        "--",
    ]);
    command.arg(program).args(arguments);
    command
}

fn mount_namespace(process: &str) -> u64 {
    fs::metadata(format!("/proc/{process}/ns/mnt"))
        .expect("the process lives")
        .ino()
}

fn status_line(pid: Pid, key: &str) -> String {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = fs::read_to_string(path).expect("the process lives");
    let line = status.lines().find(|line| line.starts_with(key));
    line.expect("a line of proc(5)").to_owned()
}

#[test]
fn volume_killed_with_its_mount_namespace_brings_every_byte_back() {
    let places = Places::new();
    let _master = Server::start(&mut places.master());
    places.issue_volume_identity();
    mount_ram(&places.path("volume/ram"));
    give_away(&places.path("volume"));
    // The programs may lie where the user cannot go.
    let program = places.path("vdfs-volume");
    fs::copy(programs::vdfs_volume(), &program).expect("copied");
    let arguments = places.volume_arguments();

    let mut volume = Server::start(&mut sandboxed(&program, &arguments));
    let pid = volume.child.id().to_string();
    assert_ne!(mount_namespace(&pid), mount_namespace("self"));
    assert_eq!(
        status_line(volume.pid(), "CapBnd:"),
        "CapBnd:\t0000000000000000"
    );
    assert!(status_line(volume.pid(), "Uid:").starts_with("Uid:\t65534\t65534"));
    let bytes = pattern::bytes(1, 0, 48 << 20);
    let local = places.path("local");
    fs::write(&local, &bytes).expect("written");
    places.vdfs(&["put", &path_text(&local), "/file"]);

    volume.kill_group();
    let _again = Server::start(&mut sandboxed(&program, &arguments));
    assert!(
        places.vdfs(&["cat", "/file"]) == bytes,
        "other bytes came back"
    );
}

/// The test's end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(places: &Places) -> Manager {
        let path = places.path("notify");
        // Left by the manager of another program.
        drop(fs::remove_file(&path));
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Manager { socket, path }
    }

    /// `command` under this manager.
    fn manage(&self, command: &mut Command, watchdog: Duration) {
        command.env("NOTIFY_SOCKET", &self.path);
        command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
    }

    /// Waits for a line that begins with `begin`; gives the lines that came until then.
    fn wait_for(&self, begin: &str, limit: Duration) -> Vec<String> {
        let until = Instant::now() + limit;
        let mut lines: Vec<String> = Vec::new();
        while !lines.iter().any(|line| line.starts_with(begin)) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {begin} within {limit:?} but {lines:?}");
            lines.extend(self.message(left));
        }
        lines
    }

    fn message(&self, limit: Duration) -> Vec<String> {
        self.socket.set_read_timeout(Some(limit)).expect("not zero");
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(len) => {
                let text = String::from_utf8_lossy(&buffer[..len]);
                text.lines().map(str::to_owned).collect()
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Vec::new(),
            Err(error) => panic!("the notify socket: {error}"),
        }
    }
}

const WATCHDOG: Duration = Duration::from_secs(2);
/// More than an interval: the machine may be busy; much less than several.
const WATCHDOG_LATE: Duration = Duration::from_secs(4);

/// Ready with a word about it, signs of life if `is_watched`, and a word at the end.
fn check_notifications(manager: &Manager, command: &mut Command, is_watched: bool) {
    manager.manage(command, WATCHDOG);
    let mut server = Server::start(command);
    let before = manager.wait_for("READY=1", START_LIMIT);
    let has_status = before.iter().any(|line| line.starts_with("STATUS="));
    assert!(has_status, "{before:?}");
    if is_watched {
        check_signs_of_life(manager);
    }
    kill_process(server.pid(), Signal::TERM).expect("it runs");
    manager.wait_for("STOPPING=1", START_LIMIT);
    let status = server.child.wait().expect("a child of ours");
    assert!(status.success(), "{status}");
}

/// Twice an interval is what sd_watchdog_enabled(3) recommends; the first may come at once.
fn check_signs_of_life(manager: &Manager) {
    let start = Instant::now();
    for _ in 0..4 {
        manager.wait_for("WATCHDOG=1", WATCHDOG_LATE);
    }
    let elapsed = start.elapsed();
    assert!(elapsed >= WATCHDOG, "too often: {elapsed:?}");
}

#[test]
fn master_tells_its_manager_of_its_life() {
    let places = Places::new();
    let manager = Manager::new(&places);
    check_notifications(&manager, &mut places.master(), true);
}

#[test]
fn volume_tells_its_manager_of_its_life() {
    let places = Places::new();
    let _master = Server::start(&mut places.master());
    places.issue_volume_identity();
    let mut command = Command::new(programs::vdfs_volume());
    command
        .args(places.volume_arguments())
        .args(["--ram", "64MiB"]);
    check_notifications(&Manager::new(&places), &mut command, true);
}

#[test]
fn up_tells_its_manager_of_its_life() {
    if mount_tests_skipped() {
        return;
    }
    let places = Places::new();
    let mut command = Command::new(programs::vdfs());
    command.args(["up", &places.text("mnt"), "--ram", "64MiB"]);
    command.args(["--state", &places.text("up")]);
    check_notifications(&Manager::new(&places), &mut command, true);
}

#[test]
fn mount_in_the_foreground_tells_its_manager_of_its_life() {
    if mount_tests_skipped() {
        return;
    }
    let places = Places::new();
    let _master = Server::start(&mut places.master());
    let addr = fs::read_to_string(places.path("master/addr")).expect("the master wrote it");
    let identity = format!("identity={}", places.text("master/identity-client"));
    fs::create_dir(places.path("mnt")).expect("a mountpoint");
    let mut command = Command::new(programs::mount_vdfs());
    command.args([
        addr.trim(),
        &places.text("mnt"),
        "--foreground",
        "-o",
        &identity,
    ]);
    check_notifications(&Manager::new(&places), &mut command, false);
}

#[test]
fn volume_that_waits_for_its_master_is_alive_and_not_ready() {
    let places = Places::new();
    let mut master = Server::start(&mut places.master());
    places.issue_volume_identity();
    let manager = Manager::new(&places);
    let mut command = Command::new(programs::vdfs_volume());
    command
        .args(places.volume_arguments())
        .args(["--ram", "64MiB"]);
    manager.manage(&mut command, WATCHDOG);
    let listen = master
        .ready
        .rsplit(' ')
        .next()
        .expect("an address")
        .to_owned();
    master.kill_group();

    let _volume = Server::spawn(&mut command);
    let mut lines = manager.wait_for("STATUS=waiting", START_LIMIT);
    for _ in 0..3 {
        lines.extend(manager.wait_for("WATCHDOG=1", WATCHDOG_LATE));
    }
    assert!(!lines.contains(&"READY=1".to_owned()), "{lines:?}");
    let mut master = Command::new(programs::vdfs_master());
    master.args(["--state", &places.text("master"), "--listen", &listen]);
    let _master = Server::start(&mut master);
    manager.wait_for("READY=1", START_LIMIT);
}
