//! Programs on one mount while each volume is killed in turn: none sees an error, a small writer waits
//! for a lease and not much longer, and what they have written is right on the other mount.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vdfs_tests::journal::Journal;
use vdfs_tests::programs::shell;
use vdfs_tests::{Replicated, eventually, mount_tests_skipped};

/// The longest that one record of a writer may take: a volume's lease, the new epoch, and a busy machine.
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// How long a program may take to be at work, or to end when it was told to.
const PATIENCE: Duration = Duration::from_secs(120);

/// Run on the disk beforehand: some thousand small files, and a repository of many.
const SOURCES: &str = r#"
    for d in $(seq 30); do
        mkdir -p tree/$d; for f in $(seq 100); do echo "file $f of $d" > tree/$d/$f; done
    done
    export HOME=$PWD GIT_CONFIG_NOSYSTEM=1
    git config --global user.name n; git config --global user.email e@x
    git config --global gc.auto 0; git config --global init.defaultBranch main
    git init -q source; cd source
    for c in $(seq 20); do
        mkdir d$c; for f in $(seq 20); do echo "commit $c, file $f" > d$c/f$f; done
        git add -A; git commit -qm "$c"
    done
"#;

/// Each runs in a directory of its own on the mount until there is a file `$OUT/stop`, and leaves
/// `$OUT/NAME.busy` when it is at work.
const PROGRAMS: [(&str, &str); 4] = [
    (
        "cp",
        r#"
        round=0
        while [ ! -e $OUT/stop ]; do
            touch $OUT/cp.busy
            rm -rf copy-$((round % 2)); cp -r $OUT/tree copy-$((round % 2)); round=$((round + 1))
        done
        "#,
    ),
    (
        "fio",
        r#"
        while [ ! -e $OUT/stop ]; do
            touch $OUT/fio.busy
            fio --name=job --filename=data --size=16M --bs=16k --rw=randwrite --rate=4m \
                --verify=crc32c --verify_fatal=1 --end_fsync=1 --output=$OUT/fio.out
        done
        "#,
    ),
    (
        "git",
        r#"
        export HOME=$OUT GIT_CONFIG_NOSYSTEM=1
        while [ ! -e $OUT/stop ]; do
            touch $OUT/git.busy
            rm -rf clone; git clone -q --no-local $OUT/source clone
            git -C clone fsck --full --strict
        done
        "#,
    ),
    (
        "sqlite",
        r#"
        sqlite3 -bail db 'pragma journal_mode=delete; create table total(count);
            insert into total values(0); create table rows(number primary key, filler)'
        number=0
        while [ ! -e $OUT/stop ]; do
            number=$((number + 1)); touch $OUT/sqlite.busy
            sqlite3 -bail db "begin immediate; insert into rows values($number,
                hex(randomblob(3000))); update total set count = count + 1; commit"
            echo $number >> $OUT/committed
        done
        "#,
    ),
];

/// Run in the other mount when all have ended.
const VERIFY: &str = r#"
    export HOME=$OUT GIT_CONFIG_NOSYSTEM=1
    diff -r $OUT/tree cp/copy-0
    test ! -e cp/copy-1 || diff -r $OUT/tree cp/copy-1
    fio --name=job --filename=fio/data --size=16M --bs=16k --rw=randwrite \
        --verify=crc32c --verify_fatal=1 --verify_only --output=$OUT/verify.out
    git config --global --add safe.directory '*'
    git -C git/clone fsck --full --strict; test -z "$(git -C git/clone status --porcelain)"
    diff -r -x .git $OUT/source git/clone
    test "$(sqlite3 sqlite/db 'pragma integrity_check')" = ok
    test "$(sqlite3 sqlite/db 'select number from rows order by number')" = "$(cat $OUT/committed)"
    test "$(sqlite3 sqlite/db 'select count from total')" = "$(wc -l < $OUT/committed)"
"#;

/// The programs at work; killed when dropped.
struct Programs {
    outside: PathBuf,
    running: Vec<(&'static str, Child)>,
}

impl Programs {
    fn start(cluster: &Replicated) -> Programs {
        let mut programs = Programs {
            outside: cluster.outside(),
            running: Vec::new(),
        };
        shell(SOURCES, &programs.outside);
        for (name, script) in PROGRAMS {
            let child = programs.spawn(name, script, &cluster.dir().join(name));
            programs.running.push((name, child));
        }
        for (name, _) in PROGRAMS {
            let busy = programs.outside.join(format!("{name}.busy"));
            eventually(name, PATIENCE, || busy.exists());
        }
        programs
    }

    fn spawn(&self, name: &str, script: &str, dir: &Path) -> Child {
        fs::create_dir(dir).expect("a directory");
        let log = File::create(self.log(name)).expect("a log");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "sh", "-exc", script]);
        command.current_dir(dir).env("OUT", &self.outside);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(log).spawn().expect("starts")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.outside.join(format!("{name}.log"))
    }

    /// Panics if one has ended: nothing may have failed, and nobody has told it to.
    fn assert_running(&mut self) {
        for (name, child) in &mut self.running {
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none(), "{name}: {ended:?}");
        }
    }

    /// Lets each end behind its round; panics unless all succeed, and what they wrote is right.
    fn finish(mut self, cluster: &Replicated) {
        fs::write(self.outside.join("stop"), b"").expect("writes");
        for (name, child) in &mut self.running {
            let mut status = None;
            eventually(name, PATIENCE, || {
                status = child.try_wait().expect("a child");
                status.is_some()
            });
            assert!(status.is_some_and(|status| status.success()), "{name}");
        }
        let script = format!("OUT={:?}\n{VERIFY}", self.outside);
        shell(&script, &cluster.mounts[1].dir());
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        for (name, child) in &mut self.running {
            drop(child.kill());
            drop(child.wait());
            if thread::panicking() {
                let log = self.outside.join(format!("{name}.log"));
                let log = fs::read_to_string(log).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                eprintln!("--- {name}, last line first ---\n{}", tail.join("\n"));
            }
        }
    }
}

/// The longest time in which no record of the journal was acknowledged.
fn longest_pause(journal: &Journal, is_over: &AtomicBool) -> Duration {
    let (mut longest, mut last) = (Duration::ZERO, (journal.acknowledged(), Instant::now()));
    while !is_over.load(Ordering::Relaxed) {
        let known = journal.acknowledged();
        longest = longest.max(last.1.elapsed());
        if known != last.0 {
            last = (known, Instant::now());
        }
        thread::sleep(Duration::from_millis(5));
    }
    longest
}

/// A volume that is back within its lease would cost nobody anything.
fn wait_until_missed(cluster: &Replicated) {
    eventually("the chains are short", PATIENCE, || {
        let chains = &cluster.json(&["status", "--json"])["chains"];
        chains["short"].as_u64() > Some(0)
    });
}

#[test]
fn programs_do_not_notice_volumes_that_are_killed_in_turn() {
    if mount_tests_skipped() {
        return;
    }
    let mut cluster = Replicated::start();
    let journal = Journal::start(&cluster.dir().join("journal"), 1);
    let mut programs = Programs::start(&cluster);
    for victim in 0..3 {
        let is_over = AtomicBool::new(false);
        let paused = thread::scope(|scope| {
            let pause = scope.spawn(|| longest_pause(&journal, &is_over));
            cluster.volumes[victim].kill9();
            wait_until_missed(&cluster);
            cluster.wait_until_whole();
            programs.assert_running();
            cluster.volumes[victim].start();
            cluster.wait_until_whole();
            is_over.store(true, Ordering::Relaxed);
            pause.join().expect("it only looks")
        });
        eprintln!("volume {victim} killed: longest pause {paused:?}");
        assert!(paused < PAUSE_MAX, "{paused:?}");
        programs.assert_running();
    }
    programs.finish(&cluster);
    let written = journal.finish();
    assert_eq!(written.errno, None, "no program notices");
    for mount in &cluster.mounts {
        written.check(&mount.dir().join("journal"));
    }
    cluster.wait_until_whole();
}
