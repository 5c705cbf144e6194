//! Programs on one mount while each volume is killed in turn: none sees an error, a small writer waits
//! for a lease and not much longer, and what they have written is right on the other mount.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vdfs_tests::journal::Journal;
use vdfs_tests::workload::{Scripts, Workload};
use vdfs_tests::{Replicated, mount_tests_skipped};

/// The longest that one record of a writer may take: a volume's lease, the new epoch, and a busy machine.
const PAUSE_MAX: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(120);
const WORKLOAD: Scripts = Scripts {
    sources: SOURCES,
    programs: &PROGRAMS,
    verify: VERIFY,
    patience: PATIENCE,
};

/// Some thousand small files, and a repository of many.
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

#[test]
fn programs_do_not_notice_volumes_that_are_killed_in_turn() {
    if mount_tests_skipped() {
        return;
    }
    let mut cluster = Replicated::start();
    let journal = Journal::start(&cluster.dir().join("journal"), 1);
    let mut programs = Workload::start(&cluster, WORKLOAD);
    for victim in 0..3 {
        let is_over = AtomicBool::new(false);
        let paused = thread::scope(|scope| {
            let pause = scope.spawn(|| longest_pause(&journal, &is_over));
            cluster.volumes[victim].kill9();
            // One that is back within its lease would cost nobody anything.
            cluster.wait_until_short(PATIENCE);
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
