//! What programs on one mount see of those on another, case by case. What is promised in general is
//! in `vdfs_tests::fsx2` and `vdfs_tests::torture`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use filetime::FileTime;
use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags, getxattr, mkdirat, openat, removexattr};
use rustix::fs::{setxattr, statat, unlinkat};
use rustix::io::Errno;
use vdfs_tests::sys::{MapKind, Mapping};
use vdfs_tests::{Filesystem, Mount, Options, Way, on_up_and_on_a_cluster, pattern};

on_up_and_on_a_cluster!(
    unlinked_elsewhere_stays_mapped,
    replaced_elsewhere_keeps_its_bytes_where_it_is_open,
    truncation_elsewhere_keeps_what_was_synced_below_it,
    truncating_open_elsewhere_takes_unsynced_bytes_with_it,
    attributes_are_seen_at_once,
    links_are_counted_everywhere_at_once,
    listing_follows_changes_made_elsewhere,
    directory_removed_elsewhere_is_empty_where_it_is_held,
    working_directory_removed_elsewhere_does_not_fail_its_program,
    program_written_elsewhere_runs,
    reader_at_the_end_sees_each_record_appended_elsewhere,
    overwriting_elsewhere_is_seen_by_an_open_and_by_direct_reads,
    walking_while_trees_come_and_go_elsewhere_meets_no_error_but_enoent,
    modification_time_moves_with_what_is_written_elsewhere,
);

/// Two mounts of one filesystem.
#[derive(Debug)]
struct Pair {
    second: Mount,
    vdfs: Filesystem,
}

impl Pair {
    fn start(way: Way) -> Pair {
        let vdfs = way.start(Options {
            chunk_size: "64KiB",
            ..Options::default()
        });
        let second = vdfs.second_mount();
        Pair { second, vdfs }
    }

    fn a(&self, name: &str) -> PathBuf {
        self.vdfs.dir().join(name)
    }

    fn b(&self, name: &str) -> PathBuf {
        self.second.dir().join(name)
    }
}

fn read_write() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options
}

fn unlinked_elsewhere_stays_mapped(way: Way) {
    let pair = Pair::start(way);
    let bytes = pattern::bytes(1, 0, 500_000);
    fs::write(pair.a("f"), &bytes).expect("writes");
    let file = File::open(pair.b("f")).expect("opens");
    let mapping = Mapping::new(&file, MapKind::SharedRead, 0, bytes.len()).expect("maps");
    drop(file);
    fs::remove_file(pair.a("f")).expect("unlinks");
    fs::write(pair.a("f"), b"another").expect("writes");
    // Nothing was read before: each page is asked for now.
    assert!(mapping.read() == bytes);
}

fn replaced_elsewhere_keeps_its_bytes_where_it_is_open(way: Way) {
    let pair = Pair::start(way);
    fs::write(pair.a("f"), pattern::bytes(1, 0, 200_000)).expect("writes");
    let open = read_write().open(pair.b("f")).expect("opens");
    fs::write(pair.a("new"), pattern::bytes(2, 0, 300_000)).expect("writes");
    fs::rename(pair.a("new"), pair.a("f")).expect("renames");
    let replacement = fs::read(pair.b("f")).expect("reads");
    assert_eq!(replacement.len(), 300_000);
    pattern::assert_matches(2, 0, &replacement);
    assert_eq!(open.metadata().expect("stats").nlink(), 0);
    open.write_all_at(&pattern::bytes(1, 200_000, 1000), 200_000)
        .expect("writes");
    let mut kept = vec![0; 201_000];
    open.read_exact_at(&mut kept, 0).expect("reads");
    pattern::assert_matches(1, 0, &kept);
}

fn truncation_elsewhere_keeps_what_was_synced_below_it(way: Way) {
    let pair = Pair::start(way);
    let writer = read_write().open(pair.b("f")).expect("opens");
    for round in 0..20u64 {
        let (len, cut) = (100_000 + 7919 * round as usize, 30_000 + 2503 * round);
        writer
            .write_all_at(&pattern::bytes(round, 0, len), 0)
            .expect("writes");
        // Every other time the truncation itself has to get the bytes out.
        if round % 2 == 0 {
            writer.sync_all().expect("syncs");
        }
        let other = OpenOptions::new().write(true).open(pair.a("f"));
        other
            .and_then(|other| other.set_len(cut))
            .expect("truncates");
        let kept = fs::read(pair.a("f")).expect("reads");
        assert_eq!(kept.len() as u64, cut, "round {round}");
        pattern::assert_matches(round, 0, &kept);
        assert_eq!(fs::metadata(pair.b("f")).expect("stats").len(), cut);
    }
}

fn truncating_open_elsewhere_takes_unsynced_bytes_with_it(way: Way) {
    let pair = Pair::start(way);
    for round in 0..20u64 {
        let mut writer = read_write().open(pair.b("f")).expect("opens");
        writer
            .write_all(&pattern::bytes(round, 0, 150_000))
            .expect("writes");
        let emptied = File::create(pair.a("f")).expect("opens");
        assert_eq!(emptied.metadata().expect("stats").len(), 0);
        drop(writer);
        assert_eq!(
            fs::metadata(pair.a("f")).expect("stats").len(),
            0,
            "round {round}"
        );
        assert_eq!(fs::read(pair.b("f")).expect("reads"), b"");
    }
}

fn attributes_are_seen_at_once(way: Way) {
    let pair = Pair::start(way);
    fs::write(pair.a("f"), b"x").expect("writes");
    for round in 0..100u32 {
        let (here, there) = match round % 2 {
            0 => (pair.a("f"), pair.b("f")),
            _ => (pair.b("f"), pair.a("f")),
        };
        let mode = 0o600 | (round % 0o100);
        fs::set_permissions(&here, fs::Permissions::from_mode(mode)).expect("chmod");
        chown(&here, Some(round), Some(round + 1)).expect("chown");
        let time = FileTime::from_unix_time(1_000_000_000 + i64::from(round), round);
        filetime::set_file_times(&here, time, time).expect("utimensat");
        let value = round.to_le_bytes();
        setxattr(&here, "user.round", &value, XattrFlags::empty()).expect("setxattr");
        let seen = fs::metadata(&there).expect("stats");
        assert_eq!(
            (seen.mode() & 0o7777, seen.uid(), seen.gid()),
            (mode, round, round + 1)
        );
        assert_eq!(FileTime::from_last_modification_time(&seen), time);
        assert_eq!(FileTime::from_last_access_time(&seen), time);
        let mut got = [0; 8];
        assert_eq!(getxattr(&there, "user.round", &mut got[..]), Ok(4));
        assert_eq!(got[..4], value);
        removexattr(&here, "user.round").expect("removexattr");
        assert_eq!(
            getxattr(&there, "user.round", &mut got[..]),
            Err(Errno::NODATA)
        );
    }
}

fn links_are_counted_everywhere_at_once(way: Way) {
    let pair = Pair::start(way);
    fs::write(pair.a("f"), b"x").expect("writes");
    let open = File::open(pair.b("f")).expect("opens");
    let links = || open.metadata().expect("stats").nlink();
    for count in 2..20u64 {
        fs::hard_link(pair.a("f"), pair.a(&format!("link-{count}"))).expect("links");
        assert_eq!(links(), count);
    }
    for count in (2..20u64).rev() {
        fs::remove_file(pair.a(&format!("link-{count}"))).expect("unlinks");
        assert_eq!(links(), count - 1);
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("lists");
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name());
    let mut names: Vec<String> = entries
        .map(|entry| name(entry).expect("lists").into_string().expect("plain"))
        .collect();
    names.sort();
    names
}

fn listing_follows_changes_made_elsewhere(way: Way) {
    let pair = Pair::start(way);
    fs::create_dir(pair.a("d")).expect("makes");
    let mut expected = Vec::new();
    for round in 0..150 {
        let name = format!("d/{round:03}");
        fs::write(pair.a(&name), b"x").expect("writes");
        expected.push(format!("{round:03}"));
        if round % 3 == 2 {
            let first = expected.remove(0);
            fs::remove_file(pair.a(&format!("d/{first}"))).expect("unlinks");
        }
        if round % 5 == 4 {
            let first = expected.remove(0);
            let moved = format!("z{first}");
            let to = pair.a(&format!("d/{moved}"));
            fs::rename(pair.a(&format!("d/{first}")), to).expect("renames");
            expected.push(moved);
        }
        expected.sort();
        assert_eq!(names(&pair.b("d")), expected, "round {round}");
    }
}

/// On a local disk a directory that is gone gives `ENOENT` for every name, never `ESTALE`.
fn directory_removed_elsewhere_is_empty_where_it_is_held(way: Way) {
    let pair = Pair::start(way);
    fs::create_dir(pair.a("d")).expect("makes");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let held = rustix::fs::open(pair.b("d"), flags, Mode::empty()).expect("opens");
    fs::remove_dir(pair.a("d")).expect("removes");
    let create = OFlags::CREATE | OFlags::RDWR;
    let mode = Mode::from_raw_mode(0o644);
    assert_eq!(openat(&held, "x", create, mode).err(), Some(Errno::NOENT));
    assert_eq!(
        openat(&held, "x", OFlags::RDONLY, mode).err(),
        Some(Errno::NOENT)
    );
    assert_eq!(mkdirat(&held, "x", mode), Err(Errno::NOENT));
    assert_eq!(unlinkat(&held, "x", AtFlags::empty()), Err(Errno::NOENT));
    assert_eq!(
        statat(&held, "x", AtFlags::empty()).err(),
        Some(Errno::NOENT)
    );
    let gone = rustix::fs::fstat(&held).expect("a removed directory can be asked");
    assert_eq!(gone.st_nlink, 0);
}

fn working_directory_removed_elsewhere_does_not_fail_its_program(way: Way) {
    let pair = Pair::start(way);
    fs::create_dir(pair.a("d")).expect("makes");
    let script = "read -r line; ls -a; stat -c %h . ; cat < x 2>&1; mkdir y 2>&1; cd .. && ls";
    let mut child = Command::new("sh");
    child
        .args(["-c", script])
        .current_dir(pair.b("d"))
        .env("LC_ALL", "C");
    child
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = child.spawn().expect("sh runs");
    fs::remove_dir(pair.a("d")).expect("removes");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(b"go\n")
        .expect("it waits");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        !text.contains("Stale") && !text.contains("Input/output"),
        "{text}"
    );
}

fn program_written_elsewhere_runs(way: Way) {
    let pair = Pair::start(way);
    for round in 0..10 {
        let source = if round % 2 == 0 {
            "/bin/echo"
        } else {
            "/bin/cat"
        };
        fs::copy(source, pair.a("new")).expect("copies");
        fs::rename(pair.a("new"), pair.a("program")).expect("renames");
        let output = Command::new(pair.b("program")).arg("/dev/null").output();
        let output = output.expect("it runs");
        let expected: &[u8] = if round % 2 == 0 { b"/dev/null\n" } else { b"" };
        assert_eq!(
            (output.status.success(), &output.stdout[..]),
            (true, expected)
        );
    }
}

fn reader_at_the_end_sees_each_record_appended_elsewhere(way: Way) {
    let pair = Pair::start(way);
    let append = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(pair.a("log"))
    };
    let mut appender = append().expect("opens");
    let mut reader = File::open(pair.b("log")).expect("opens");
    for round in 0..300 {
        let record = format!("{round:05} {}\n", "x".repeat(round * 7 % 300));
        appender.write_all(record.as_bytes()).expect("appends");
        let mut got = String::new();
        reader.read_to_string(&mut got).expect("reads");
        assert_eq!(got, record);
    }
}

fn overwriting_elsewhere_is_seen_by_an_open_and_by_direct_reads(way: Way) {
    let pair = Pair::start(way);
    fs::write(pair.a("f"), pattern::bytes(0, 0, 300_000)).expect("writes");
    let writer = read_write().open(pair.a("f")).expect("opens");
    let held = File::open(pair.b("f")).expect("opens");
    let mut direct = OpenOptions::new();
    direct.read(true).custom_flags(libc::O_DIRECT);
    let direct = direct.open(pair.b("f")).expect("opens");
    let mut bytes = vec![0; 300_000];
    for round in 1..30u64 {
        held.read_exact_at(&mut bytes, 0).expect("reads");
        writer
            .write_all_at(&pattern::bytes(round, 0, 300_000), 0)
            .expect("writes");
        writer.sync_data().expect("syncs");
        direct.read_exact_at(&mut bytes, 0).expect("reads");
        pattern::assert_matches(round, 0, &bytes);
        let opened = File::open(pair.b("f")).expect("opens");
        opened.read_exact_at(&mut bytes, 0).expect("reads");
        pattern::assert_matches(round, 0, &bytes);
        // One page cache serves both: what the open has dropped is dropped for all.
        held.read_exact_at(&mut bytes, 0).expect("reads");
        pattern::assert_matches(round, 0, &bytes);
    }
}

/// Trees that come and go, and files that the walker reads meanwhile, at least.
const ROUNDS: u64 = 12;
const FILES_MET: usize = 200;
const WALK_LIMIT: Duration = Duration::from_secs(120);

/// Whoever walks a tree that another mount changes meets names that have gone, and nothing worse.
fn walking_while_trees_come_and_go_elsewhere_meets_no_error_but_enoent(way: Way) {
    let pair = Pair::start(way);
    let (is_over, files) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let walker = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                files.fetch_add(walk(&pair.second.dir()), Ordering::Relaxed);
            }
        });
        let begun = Instant::now();
        let mut round = 0;
        while round < ROUNDS || files.load(Ordering::Relaxed) < FILES_MET {
            make_tree(&pair.a("tree"), round);
            fs::rename(pair.a("tree"), pair.a("moved")).expect("renames");
            fs::remove_dir_all(pair.a("moved")).expect("removes");
            round += 1;
            assert!(begun.elapsed() < WALK_LIMIT && !walker.is_finished());
        }
        is_over.store(true, Ordering::Relaxed);
        walker.join().expect("the walker meets no error");
    });
}

fn make_tree(root: &Path, round: u64) {
    for directory in 0..6 {
        let dir = root.join(format!("d{directory}"));
        fs::create_dir_all(&dir).expect("makes");
        for file in 0..20 {
            let bytes = pattern::bytes(round, 0, 100 * file);
            fs::write(dir.join(format!("f{file}")), bytes).expect("writes");
        }
    }
}

/// Reads everything below; gives the number of files that were read.
fn walk(dir: &Path) -> usize {
    let Some(entries) = unless_gone(fs::read_dir(dir)) else {
        return 0;
    };
    let mut files = 0;
    for entry in entries {
        let Some(entry) = unless_gone(entry) else {
            continue;
        };
        let Some(metadata) = unless_gone(fs::symlink_metadata(entry.path())) else {
            continue;
        };
        if metadata.is_dir() {
            files += walk(&entry.path());
        } else if unless_gone(fs::read(entry.path())).is_some() {
            files += 1;
        }
    }
    files
}

fn unless_gone<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}

fn modification_time_moves_with_what_is_written_elsewhere(way: Way) {
    let pair = Pair::start(way);
    fs::write(pair.a("f"), b"one").expect("writes");
    let before = fs::metadata(pair.b("f")).and_then(|seen| seen.modified());
    let before: SystemTime = before.expect("stats");
    thread::sleep(Duration::from_millis(20));
    fs::write(pair.a("f"), b"two").expect("writes");
    let after = fs::metadata(pair.b("f")).and_then(|seen| seen.modified());
    assert!(after.expect("stats") > before);
}
