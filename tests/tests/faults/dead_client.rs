//! A mount is killed while it holds files open for writing, an append token and layouts.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use vdfs_tests::{mount_tests_skipped, pattern};

use crate::{HELD_UP_MAX, cluster};

pub(crate) const FILE_BYTES: usize = 1 << 20;

/// Something that others do to a file that the client holds; its name is the file's.
type Deed = (&'static str, fn(&Path));

const DEEDS: [Deed; 6] = [
    ("append", append),
    ("truncate", truncate),
    ("shorten", shorten),
    ("overwrite", overwrite),
    ("rename over", rename_over),
    ("unlink", unlink),
];

/// Where [`hold_all`] gives the file of a deed.
pub(crate) fn deed_number(deed: &str) -> usize {
    let at = DEEDS.iter().position(|(other, _)| *other == deed);
    at.expect("one of the deeds")
}

/// Opens a file of each deed for writing, with bytes that are synced and bytes that are not.
pub(crate) fn hold_all(dir: &Path) -> Vec<File> {
    let files = DEEDS.map(|(deed, _)| {
        let mut options = OpenOptions::new();
        options.create(true).read(true);
        let path = dir.join(deed);
        if deed == "append" {
            let mut file = options.append(true).open(path).expect("opens");
            file.write_all(b"held\n").expect("appends");
            return file;
        }
        let file = options
            .write(true)
            .truncate(true)
            .open(path)
            .expect("opens");
        file.write_all_at(&pattern::bytes(1, 0, FILE_BYTES), 0)
            .expect("writes");
        file.sync_all().expect("syncs");
        file
    });
    for file in &files[1..] {
        let more = pattern::bytes(1, FILE_BYTES as u64, FILE_BYTES);
        file.write_all_at(&more, FILE_BYTES as u64)
            .expect("is buffered");
    }
    files.into()
}

/// Does each deed from `dir`, all at once; panics if one is held up. Gives the longest time.
pub(crate) fn do_all(dir: &Path, limit: Duration) -> Duration {
    let begin = Instant::now();
    let doers = DEEDS.map(|(deed, act)| {
        let path = dir.join(deed);
        (deed, thread::spawn(move || act(&path)))
    });
    for (deed, doer) in doers {
        vdfs_tests::eventually(deed, limit, || doer.is_finished());
        doer.join().unwrap_or_else(|_| panic!("{deed} failed"));
    }
    let longest = begin.elapsed();
    assert!(longest < limit, "{longest:?}");
    longest
}

fn append(path: &Path) {
    let mut file = OpenOptions::new().append(true).open(path).expect("opens");
    file.write_all(b"mine\n").expect("appends");
}

fn truncate(path: &Path) {
    fs::write(path, pattern::bytes(2, 0, 5000)).expect("replaces the contents");
}

fn shorten(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).expect("opens");
    file.set_len(4321).expect("cuts");
    file.set_len(3 << 20).expect("extends");
}

fn overwrite(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).expect("opens");
    file.write_all_at(&pattern::bytes(2, 0, 5000), 0)
        .expect("writes");
    file.sync_all().expect("syncs");
}

fn rename_over(path: &Path) {
    let beside: PathBuf = path.with_extension("beside");
    fs::write(&beside, pattern::bytes(2, 0, 5000)).expect("writes");
    fs::rename(&beside, path).expect("renames");
}

fn unlink(path: &Path) {
    fs::remove_file(path).expect("unlinks");
}

/// Panics unless each deed is what is seen in `dir`, and nothing of the holder came after it.
pub(crate) fn assert_all_done(dir: &Path) {
    let read = |deed: &str| fs::read(dir.join(deed)).expect("reads");
    assert_eq!(read("append"), b"held\nmine\n");
    for deed in ["truncate", "rename over"] {
        assert_eq!(read(deed).len(), 5000, "{deed}");
        pattern::assert_matches(2, 0, &read(deed));
    }
    let shortened = read("shorten");
    assert_eq!(shortened.len(), 3 << 20);
    pattern::assert_matches(1, 0, &shortened[..4321]);
    assert!(
        shortened[4321..].iter().all(|&byte| byte == 0),
        "dead bytes"
    );
    let overwritten = read("overwrite");
    assert!(overwritten.len() >= FILE_BYTES, "synced bytes are lost");
    pattern::assert_matches(2, 0, &overwritten[..5000]);
    pattern::assert_matches(1, 5000, &overwritten[5000..]);
    assert!(!dir.join("unlink").exists());
}

#[test]
fn killed_mount_holds_nobody_up_for_longer_than_14_s() {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, mut cluster) = cluster();
    let held = hold_all(&cluster.mounts[1].dir());
    cluster.mounts[1].kill9();
    drop(held);
    let longest = do_all(&cluster.dir(), HELD_UP_MAX);
    eprintln!("held up for {longest:?}");
    assert_all_done(&cluster.add_mount().dir());
}

#[test]
fn killed_mount_that_is_made_again_holds_nobody_up() {
    if mount_tests_skipped() {
        return;
    }
    let (_turn, mut cluster) = cluster();
    let held = hold_all(&cluster.mounts[1].dir());
    cluster.mounts[1].kill9();
    drop(held);
    cluster.mounts[1].part.start();
    let longest = do_all(&cluster.dir(), Duration::from_secs(5));
    eprintln!("held up for {longest:?}");
    assert_all_done(&cluster.mounts[1].dir());
}
