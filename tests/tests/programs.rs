//! The programs of a cluster at their edges: ready lines, refusals, certificates, config files.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use vdfs_tests::{eventually, mount::unmount_lazily, mount_tests_skipped, programs, within};

const LIMIT: Duration = Duration::from_secs(40);

/// A program that runs until it is stopped; killed when dropped.
struct Program {
    child: Child,
    stderr: PathBuf,
}

impl Program {
    fn spawn(home: &Home, program: &Path, args: &[&str]) -> Program {
        static STARTS: AtomicU32 = AtomicU32::new(0);
        let start = STARTS.fetch_add(1, Ordering::Relaxed);
        let stderr = home.path(&format!("stderr-{start}"));
        let log = fs::File::create(&stderr).expect("a log");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command.args(args).stdout(Stdio::piped()).stderr(log);
        let child = command.spawn().expect("it starts");
        Program { child, stderr }
    }

    /// The first line on standard output.
    fn ready(&mut self) -> String {
        let stdout = self.child.stdout.take().expect("piped");
        within("a ready line", LIMIT, move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line);
            read.expect("standard output is text");
            line.trim_end().to_owned()
        })
    }

    fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).expect("a log")
    }

    fn stop(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", LIMIT, || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.expect("just seen")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where a test keeps what it makes; detaches the RAM of volumes and mounts when dropped.
struct Home {
    scratch: TempDir,
}

impl Home {
    fn new() -> Home {
        let scratch = tempfile::Builder::new().prefix("vdfs-test-").tempdir();
        Home {
            scratch: scratch.expect("a scratch directory"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("plain").to_owned()
    }

    /// A master in the directory `m`; gives its address too.
    fn master(&self, listen: &str) -> (Program, String) {
        let state = self.text("m");
        let args = ["--state", &state, "--listen", listen];
        let mut master = Program::spawn(self, &programs::vdfs_master(), &args);
        let line = master.ready();
        let addr = line.strip_prefix("ready master ").expect("a ready line");
        (master, addr.to_owned())
    }

    fn issue(&self, role: &str, name: &str, out: &str) -> Output {
        self.issue_with(&[], role, name, out)
    }

    fn renew(&self, role: &str, name: &str, out: &str) -> Output {
        self.issue_with(&["--renew"], role, name, out)
    }

    fn issue_with(&self, more: &[&str], role: &str, name: &str, out: &str) -> Output {
        let (ca, out) = (self.text("m"), self.text(out));
        let args = ["--ca", &ca, "--role", role, "--name", name, "--out", &out];
        let mut command = Command::new(programs::vdfs());
        command.args(["cert", "issue"]).args(more).args(args);
        command.output().expect("vdfs runs")
    }

    fn volume(&self, state: &str, master: &str, more: &[&str]) -> Program {
        let state = self.text(state);
        let ends = ["--state", &state, "--master", master];
        let args = [&ends[..], &["--listen", "127.0.0.1:0"], more].concat();
        Program::spawn(self, &programs::vdfs_volume(), &args)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for name in ["v/ram", "v2/ram", "mnt"] {
            unmount_lazily(&self.path(name));
        }
    }
}

/// Runs to the end; status 1 and one line, which is given.
fn refused(program: PathBuf, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect("it runs");
    line_of_refusal(&output)
}

fn line_of_refusal(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

fn succeeded(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        programs::both_streams(output)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn master_says_where_it_is_and_is_alone_in_its_state() {
    let home = Home::new();
    let (master, addr) = home.master("127.0.0.1:0");
    let written = fs::read_to_string(home.path("m/addr")).expect("an address");
    assert_eq!(written.trim(), addr);
    for identity in ["identity", "identity-client", "identity-admin"] {
        assert!(home.path("m").join(identity).join("key.pem").exists());
    }
    let second = refused(programs::vdfs_master(), &["--state", &home.text("m")]);
    let pid = master.child.id();
    assert!(
        second.ends_with(&format!("in use by pid {pid}\n")),
        "{second}"
    );
    assert_eq!(master.stop().code(), Some(0));
    let state = home.text("m");
    let other = [
        "--state",
        &state,
        "--chunk-size",
        "1MiB",
        "--listen",
        "127.0.0.1:0",
    ];
    let line = refused(
        programs::vdfs_master(),
        &[&other[..], &["--log", "error"]].concat(),
    );
    assert!(
        line.contains("made with chunks of 64MiB; name that"),
        "{line}"
    );
}

#[test]
fn master_whose_port_is_taken_names_the_way_out() {
    let home = Home::new();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("bound").to_string();
    let args = [
        "--state",
        &home.text("m"),
        "--listen",
        &addr,
        "--log",
        "error",
    ];
    let line = refused(programs::vdfs_master(), &args);
    assert!(line.contains(&addr) && line.contains("--listen"), "{line}");
}

#[test]
fn certificates_are_issued_once_a_name_and_never_overwritten() {
    let home = Home::new();
    let (_master, _) = home.master("127.0.0.1:0");
    let line = succeeded(&home.issue("volume", "a", "a"));
    assert!(line.starts_with("volume a of cluster "), "{line}");
    let mode = |path: &str| {
        fs::metadata(home.path(path))
            .expect("made")
            .permissions()
            .mode()
    };
    assert_eq!(
        (mode("a") & 0o777, mode("a/key.pem") & 0o777),
        (0o700, 0o600)
    );
    let again = line_of_refusal(&home.issue("volume", "a", "b"));
    assert!(
        again.contains("was issued before; take another name") && again.contains("--renew"),
        "{again}"
    );
    assert!(!home.path("b").exists());
    let over = line_of_refusal(&home.issue("volume", "c", "a"));
    assert!(over.contains("key.pem: is there already"), "{over}");
    succeeded(&home.issue("client", "a", "c"));
    let shown = Command::new(programs::vdfs())
        .args(["cert", "show"])
        .arg(home.path("c"))
        .output();
    let shown = succeeded(&shown.expect("vdfs runs"));
    assert!(shown.starts_with("client a of cluster "), "{shown}");
    let args = ["--role", "client", "--name", "x", "--out", &home.text("x")];
    let nowhere = [&["cert", "issue", "--ca", "/nowhere"][..], &args].concat();
    let line = refused(programs::vdfs(), &nowhere);
    assert!(line.contains("state directory of its master"), "{line}");
}

#[test]
fn volume_waits_for_its_master_and_says_so_once() {
    let home = Home::new();
    let (master, addr) = home.master("127.0.0.1:0");
    succeeded(&home.issue("volume", "a", "v/identity"));
    assert_eq!(master.stop().code(), Some(0));
    let mut volume = home.volume("v", &addr, &["--ram", "64MiB"]);
    eventually("it says that it waits", LIMIT, || {
        volume.stderr().contains("; waiting")
    });
    let (_master, _) = home.master(&addr);
    let line = volume.ready();
    assert!(line.starts_with("ready volume a 127.0.0.1:"), "{line}");
    assert_eq!(volume.stderr().matches("; waiting").count(), 1);
    let second = refused(
        programs::vdfs_volume(),
        &["--state", &home.text("v"), "--master", &addr],
    );
    assert!(second.contains("in use by pid"), "{second}");
    assert_eq!(volume.stop().code(), Some(0));
}

#[test]
fn volume_goes_on_with_a_renewed_certificate() {
    let home = Home::new();
    let (_master, addr) = home.master("127.0.0.1:0");
    let never = line_of_refusal(&home.renew("volume", "a", "new"));
    assert!(never.contains("was never issued"), "{never}");
    succeeded(&home.issue("volume", "a", "v/identity"));
    let mut volume = home.volume("v", &addr, &["--ram", "64MiB"]);
    volume.ready();
    assert_eq!(volume.stop().code(), Some(0));
    let line = succeeded(&home.renew("volume", "a", "new"));
    assert!(line.starts_with("volume a of cluster "), "{line}");
    fs::rename(home.path("v/identity"), home.path("old")).expect("moves");
    fs::rename(home.path("new"), home.path("v/identity")).expect("moves");
    let mut volume = home.volume("v", &addr, &["--ram", "64MiB"]);
    let line = volume.ready();
    assert!(line.starts_with("ready volume a "), "{line}");
    assert_eq!(volume.stop().code(), Some(0));
}

#[test]
fn volume_that_is_no_volume_of_the_cluster_is_told_so() {
    let (home, other) = (Home::new(), Home::new());
    let (_master, addr) = home.master("127.0.0.1:0");
    let (_stranger, _) = other.master("127.0.0.1:0");
    let state = home.text("v");
    let start = |identity: &str| {
        let args = [
            "--state",
            &state,
            "--master",
            &addr,
            "--listen",
            "127.0.0.1:0",
        ];
        let more = ["--ram", "64MiB", "--log", "error", "--identity", identity];
        refused(programs::vdfs_volume(), &[&args[..], &more].concat())
    };
    let line = start(&home.text("m/identity-client"));
    assert!(line.contains("is a client's, not a volume's"), "{line}");
    succeeded(&other.issue("volume", "a", "identity"));
    let line = start(&other.text("identity"));
    assert!(line.contains("of another cluster"), "{line}");
    let line = start(&home.text("nowhere"));
    assert!(line.contains("no identity there"), "{line}");
}

#[test]
fn volume_takes_the_tmpfs_that_is_there() {
    if mount_tests_skipped() {
        return;
    }
    let home = Home::new();
    let (_master, addr) = home.master("127.0.0.1:0");
    succeeded(&home.issue("volume", "a", "v/identity"));
    fs::create_dir(home.path("v/ram")).expect("a mountpoint");
    let ram = home.text("v/ram");
    let mount = ["-t", "tmpfs", "-o", "size=64m,mode=0700", "somebody", &ram];
    programs::run("mount", &mount, Path::new("/"));
    let state = home.text("v");
    let args = ["--state", &state, "--master", &addr, "--ram", "1GiB"];
    let listen = ["--listen", "127.0.0.1:0", "--log", "error"];
    let line = refused(programs::vdfs_volume(), &[&args[..], &listen].concat());
    assert!(
        line.contains("64 MiB") && line.contains("1 GiB") && line.contains("remount"),
        "{line}"
    );
    let mut volume = home.volume("v", &addr, &[]);
    let ready = volume.ready();
    assert!(
        ready.starts_with("ready volume a ") && ready.contains(" 6"),
        "{ready}"
    );
    assert_eq!(volume.stop().code(), Some(0));
}

#[test]
fn volume_without_the_right_to_mount_uses_what_was_mounted_for_it() {
    if mount_tests_skipped() {
        return;
    }
    let home = Home::new();
    let (_master, addr) = home.master("127.0.0.1:0");
    succeeded(&home.issue("volume", "a", "v/identity"));
    let (state, ram, volume) = (home.text("v"), home.text("v/ram"), programs::vdfs_volume());
    let start = |ram_size: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all", "--"]);
        command
            .arg(&volume)
            .args(["--state", &state, "--master", &addr]);
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--log",
            "error",
            "--ram",
            ram_size,
        ]);
        command
    };
    let refused = line_of_refusal(&start("64MiB").output().expect("it runs"));
    assert!(
        refused.contains("CAP_SYS_ADMIN") && refused.contains("mount -t tmpfs"),
        "{refused}"
    );
    let mount = ["-t", "tmpfs", "-o", "size=64m,mode=0700", "vdfs-ram", &ram];
    programs::run("mount", &mount, Path::new("/"));
    let refused = line_of_refusal(&start("65MiB").output().expect("it runs"));
    assert!(refused.contains("the tmpfs there has 64 MiB"), "{refused}");
    let child = start("64MiB").stdout(Stdio::piped()).spawn();
    let mut volume = Program {
        child: child.expect("it starts"),
        stderr: home.path("none"),
    };
    let line = volume.ready();
    assert!(line.starts_with("ready volume a "), "{line}");
    assert_eq!(volume.stop().code(), Some(0));
}

#[test]
fn config_file_is_read_and_printed_with_the_place_of_each_value() {
    let home = Home::new();
    let (file, state) = (home.text("x.toml"), home.text("m"));
    fs::write(&file, "sync_log = true\nchunk_size = \"1MiB\"\n").expect("writes");
    let print = |more: &[&str]| {
        let args = [
            &["--config", &file, "--print-config", "--state", &state][..],
            more,
        ]
        .concat();
        Command::new(programs::vdfs_master())
            .args(args)
            .output()
            .expect("it runs")
    };
    let text = succeeded(&print(&["--chunk-size", "2MiB"]));
    assert!(
        text.contains("chunk_size = \"2MiB\" # command line"),
        "{text}"
    );
    assert!(
        text.contains(&format!("sync_log = true # {file}")),
        "{text}"
    );
    assert!(text.contains("log = \"info\" # default"), "{text}");
    assert!(!home.path("m").exists(), "printing touches nothing");
    fs::write(&file, "\nlisten_on = \"x\"\n").expect("writes");
    let line = line_of_refusal(&print(&[]));
    let expected = format!("{file}: line 2: unknown key `listen_on`; did you mean `listen`?");
    assert!(line.contains(&expected), "{line}");
}

/// Lays a copy of `/usr/sbin` with `mount.vdfs` in it over the real one, in a mount namespace of
/// its own, and runs `script` there with `$1` the home.
fn run_where_mount_knows_vdfs(home: &Home, script: &str) -> String {
    let prologue = r#"set -ex
        exec </dev/null
        sbin=$(readlink -f /sbin)
        cp -a "$sbin" "$1/sbin"
        cp "$2" "$1/sbin/mount.vdfs"
        cp "$2" "$1/sbin/mount.fuse.vdfs"
        mount --bind "$1/sbin" "$sbin"
        cd "$1"
    "#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.args([&format!("{prologue}{script}"), "sh"]);
    command.arg(home.scratch.path()).arg(programs::mount_vdfs());
    let output = within("the script", LIMIT * 2, move || command.output());
    succeeded(&output.expect("unshare runs"))
}

#[test]
fn mount_8_mounts_by_type_and_from_fstab_and_config() {
    if mount_tests_skipped() {
        return;
    }
    let home = Home::new();
    let (_master, addr) = home.master("127.0.0.1:0");
    succeeded(&home.issue("volume", "a", "v/identity"));
    let mut volume = home.volume("v", &addr, &["--ram", "64MiB"]);
    volume.ready();
    fs::create_dir(home.path("mnt")).expect("a mountpoint");
    let identity = home.text("m/identity-client");
    // A master that is gone comes first.
    let masters = format!("\"127.0.0.1:1\", \"{addr}\"");
    let client = format!("master = [{masters}]\nidentity = \"{identity}\"\n");
    fs::write(home.path("client.toml"), client).expect("writes");
    let (mnt, config) = (home.text("mnt"), home.text("client.toml"));
    let fstab = format!("none {mnt} vdfs config={config},_netdev,nofail 0 0\n");
    fs::write(home.path("fstab"), fstab).expect("writes");
    let script = format!(
        r#"
        mount -t vdfs {addr} "$1/mnt" -o identity={identity}
        findmnt -no SOURCE,FSTYPE "$1/mnt"
        echo content > mnt/file
        mount -o remount,ro "$1/mnt"
        if echo more > mnt/file; then exit 1; fi
        umount "$1/mnt"
        mount --fstab fstab "$1/mnt"
        cat mnt/file
        umount "$1/mnt"
        mount.vdfs "$1/mnt" -o config="$1/client.toml"
        cat mnt/file
        for cmdline in /proc/[0-9]*/cmdline; do
            if tr '\0' ' ' < $cmdline 2>/dev/null | grep -q "^[^ ]*mount.vdfs $1/mnt .*-child"; then
                pid=${{cmdline#/proc/}}
                kill -9 ${{pid%/cmdline}}
            fi
        done
        mount -t vdfs none "$1/mnt" -o config="$1/client.toml"
        cat mnt/file
        umount "$1/mnt"
        "#
    );
    let said = run_where_mount_knows_vdfs(&home, &script);
    let lines: Vec<&str> = said.lines().collect();
    let first = format!("{addr} fuse.vdfs");
    assert_eq!(lines, [&*first, "content", "content", "content"], "{said}");
    let mut status = Command::new(programs::vdfs());
    status.args(["ls", "--state"]).arg(home.path("m")).arg("/");
    let listed = succeeded(&status.output().expect("vdfs runs"));
    assert_eq!(listed, "file\n");
}

#[test]
fn mount_without_any_master_names_the_ways() {
    let home = Home::new();
    let missing = home.text("nowhere.toml");
    let args = [&home.text("mnt"), "-o", &format!("config={missing}")].map(str::to_owned);
    let output = Command::new(programs::mount_vdfs()).args(args).output();
    let output = output.expect("it runs");
    assert_eq!(output.status.code(), Some(32));
    let mut line = String::new();
    (&*output.stderr).read_to_string(&mut line).expect("text");
    assert!(
        line.starts_with(&format!("mount.vdfs: {missing}: No such file")),
        "{line}"
    );
}

#[test]
fn mount_with_a_certificate_of_another_cluster_is_told_so_at_once() {
    let (home, other) = (Home::new(), Home::new());
    let (_master, addr) = home.master("127.0.0.1:0");
    let (_stranger, _) = other.master("127.0.0.1:0");
    fs::create_dir(home.path("mnt")).expect("a directory");
    let options = format!("identity={}", other.text("m/identity-client"));
    let mut mount = Command::new(programs::mount_vdfs());
    mount.args([&addr, &home.text("mnt"), "-o", &options]);
    let output = within("an answer", Duration::from_secs(15), move || {
        mount.output().expect("it runs")
    });
    assert_eq!(output.status.code(), Some(32));
    let line = String::from_utf8_lossy(&output.stderr);
    assert!(line.contains("of another cluster"), "{line}");
}

#[test]
fn second_volume_under_one_certificate_is_refused_and_harms_nothing() {
    let home = Home::new();
    let (_master, addr) = home.master("127.0.0.1:0");
    succeeded(&home.issue("volume", "a", "identity"));
    let identity = home.text("identity");
    let more = ["--identity", &identity, "--ram", "64MiB"];
    let mut first = home.volume("v", &addr, &more);
    assert!(first.ready().starts_with("ready volume a "));
    let state = home.text("m");
    fs::write(home.path("file"), "contents").expect("a file");
    let vdfs = |words: &[&str]| {
        let mut command = Command::new(programs::vdfs());
        command.args(words).args(["--state", &state]);
        succeeded(&command.output().expect("vdfs runs"))
    };
    vdfs(&["put", &home.text("file"), "/"]);

    let second = home.volume("v2", &addr, &more);
    eventually("it says why it waits", LIMIT, || {
        second
            .stderr()
            .contains("another process runs under this certificate")
    });
    assert_eq!(vdfs(&["cat", "/file"]), "contents");
    let status = vdfs(&["status"]);
    assert!(status.starts_with("health    ok"), "{status}");
}
