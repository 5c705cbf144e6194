//! Programs at work on a mount while something fails: `cp -r`, `fio --verify`, and a transaction of
//! sqlite that stays open.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use vdfs_tests::programs::shell;
use vdfs_tests::{Cluster, eventually};

/// Each script runs in a directory of its own on the mount until there is a file `$OUT/stop`, and
/// leaves `$OUT/NAME.busy` when it is at work.
const PROGRAMS: [(&str, &str); 3] = [
    (
        "cp",
        r#"
        round=0
        while [ ! -e $OUT/stop ]; do
            rm -rf copy-$((round % 2)); cp -r $OUT/tree copy-$((round % 2))
            round=$((round + 1)); touch $OUT/cp.busy
        done
        test -d copy-1
        "#,
    ),
    (
        "fio",
        r#"
        while [ ! -e $OUT/stop ]; do
            touch $OUT/fio.busy
            fio --name=job --filename=data --size=24M --bs=64k --rw=randwrite --rate=6m \
                --verify=crc32c --end_fsync=1 --output=$OUT/fio.out
        done
        "#,
    ),
    (
        "sqlite",
        r#"
        sqlite3 db 'create table t(a integer primary key, b)'
        {
            # Few pages are kept in memory, so that the transaction writes all the time.
            echo 'pragma cache_size = 10; begin immediate;'
            while [ ! -e $OUT/stop ]; do
                echo "insert into t(b) values(hex(randomblob(2000)));"; echo >> $OUT/inserts
                touch $OUT/sqlite.busy; sleep 0.02
            done
            echo 'commit;'
        } | sqlite3 -bail -batch db
        "#,
    ),
];

/// Run in the other mount when all have ended.
const VERIFY: &str = r#"
    diff -r $OUT/tree cp/copy-0; diff -r $OUT/tree cp/copy-1
    fio --name=job --filename=fio/data --size=24M --bs=64k --rw=randwrite \
        --verify=crc32c --verify_only --output=$OUT/verify.out
    test "$(sqlite3 sqlite/db 'pragma integrity_check')" = ok
    test "$(sqlite3 sqlite/db 'select count(*) from t')" = "$(wc -l < $OUT/inserts)"
"#;

const TREE: &str = r#"
    mkdir -p tree/a/b; for i in $(seq 200); do echo "file $i" > tree/a/b/$i; done
    for i in $(seq 8); do head -c 1000000 /dev/urandom > tree/big-$i; done; ln -s b/7 tree/a/link
"#;

/// How long a program may take to be at work, or to end when it was told to.
const PATIENCE: Duration = Duration::from_secs(90);

/// The programs at work; killed when dropped.
#[derive(Debug)]
pub(crate) struct Workload {
    outside: PathBuf,
    programs: Vec<(&'static str, Child)>,
}

impl Workload {
    /// Starts all on the first mount; returns when each is at work.
    pub(crate) fn start(cluster: &Cluster) -> Workload {
        let mut workload = Workload {
            outside: cluster.outside(),
            programs: Vec::new(),
        };
        shell(TREE, &workload.outside);
        for (name, script) in PROGRAMS {
            let child = workload.spawn(name, script, &cluster.dir().join(name));
            workload.programs.push((name, child));
        }
        for (name, _) in PROGRAMS {
            let busy = workload.outside.join(format!("{name}.busy"));
            eventually(name, PATIENCE, || busy.exists());
        }
        workload
    }

    fn spawn(&self, name: &str, script: &str, dir: &Path) -> Child {
        fs::create_dir(dir).expect("a directory");
        let log = File::create(self.log(name)).expect("a log");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "sh", "-exc", script]);
        command.current_dir(dir).env("OUT", &self.outside);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command.spawn().expect("starts")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.outside.join(format!("{name}.log"))
    }

    /// Panics if one has ended: nothing may have failed, and nobody has told it to.
    pub(crate) fn assert_running(&mut self) {
        for (name, child) in &mut self.programs {
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none(), "{name}: {ended:?}");
        }
    }

    /// Lets each end; panics unless all succeed, and what they wrote is right on the other mount.
    pub(crate) fn finish(mut self, cluster: &Cluster) {
        fs::write(self.outside.join("stop"), b"").expect("writes");
        for (name, child) in &mut self.programs {
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

impl Drop for Workload {
    fn drop(&mut self) {
        for (name, child) in &mut self.programs {
            drop(child.kill());
            drop(child.wait());
            if thread::panicking() {
                let log = fs::read_to_string(self.outside.join(format!("{name}.log")));
                let log = log.unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                eprintln!(
                    "--- last lines of {name}, last first ---\n{}",
                    tail.join("\n")
                );
            }
        }
    }
}
