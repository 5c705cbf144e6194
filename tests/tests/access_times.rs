//! Access times, as `relatime` wants them.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use filetime::FileTime;
use vdfs_tests::{Options, Way, eventually, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    reading_moves_the_access_time_once_after_each_change,
    access_time_that_was_set_stays_until_a_read,
    noatime_leaves_access_times,
);

/// Longer than the kernel's idea of now may be behind.
const LATER: Duration = Duration::from_millis(30);

fn atime(path: &Path) -> (i64, i64) {
    let metadata = fs::metadata(path).expect("stats");
    (metadata.atime(), metadata.atime_nsec())
}

fn read(path: &Path) {
    std::thread::sleep(LATER);
    let mut file = File::open(path).expect("opens");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("reads");
    let shown = file.metadata().expect("stats");
    drop(file);
    // What was shown while it was open does not go back.
    assert!(atime(path) >= (shown.atime(), shown.atime_nsec()));
}

fn reading_moves_the_access_time_once_after_each_change(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let (here, there) = (vdfs.dir().join("f"), second.dir().join("f"));
    fs::write(&here, b"one").expect("writes");
    let made = atime(&here);
    read(&there);
    let first = atime(&there);
    assert!(first > made);
    // The other mount knows when the close has arrived.
    eventually("both agree", Duration::from_secs(5), || {
        atime(&here) == first
    });
    read(&there);
    read(&here);
    assert_eq!(
        (atime(&here), atime(&there)),
        (first, first),
        "once is enough"
    );
    fs::write(&here, b"two").expect("writes");
    // Its own pages are in this mount's kernel, which reads them without a word.
    read(&here);
    assert!(atime(&here) > first);

    let (dir, listed) = (vdfs.dir().join("d"), second.dir().join("d"));
    fs::create_dir(&dir).expect("makes");
    let made = atime(&dir);
    std::thread::sleep(LATER);
    assert_eq!(fs::read_dir(&listed).expect("lists").count(), 0);
    let first = atime(&dir);
    assert!(first > made);
    std::thread::sleep(LATER);
    assert_eq!(fs::read_dir(&dir).expect("lists").count(), 0);
    assert_eq!(atime(&listed), first);
}

fn access_time_that_was_set_stays_until_a_read(way: Way) {
    let vdfs = way.start(Options::default());
    let path = vdfs.dir().join("f");
    fs::write(&path, b"text").expect("writes");
    let mut open = File::open(&path).expect("opens");
    let mut byte = [0];
    open.read_exact(&mut byte).expect("reads");
    // As `tar --atime-preserve` does before it closes.
    let long_ago = FileTime::from_unix_time(-5, 7);
    filetime::set_file_atime(&path, long_ago).expect("utimensat");
    assert_eq!(atime(&path), (-5, 7));
    drop(open);
    std::thread::sleep(LATER);
    assert_eq!(
        atime(&path),
        (-5, 7),
        "the close says nothing of reads before"
    );
    read(&path);
    assert!(atime(&path) > (0, 0));
}

fn noatime_leaves_access_times(way: Way) {
    let vdfs = way.start(Options::default());
    let path = vdfs.dir().join("f");
    fs::write(&path, b"text").expect("writes");
    let made = atime(&path);
    std::thread::sleep(LATER);
    let mut open = File::options()
        .read(true)
        .custom_flags(libc::O_NOATIME)
        .open(&path)
        .expect("the owner may");
    let mut text = String::new();
    open.read_to_string(&mut text).expect("reads");
    drop(open);
    assert_eq!(atime(&path), made, "O_NOATIME");
    let second = vdfs.second_mount_with("noatime");
    read(&second.dir().join("f"));
    assert_eq!(fs::read_dir(second.dir()).expect("lists").count(), 1);
    assert_eq!(atime(&path), made, "noatime");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    for (dir, word) in [(second.dir(), "noatime"), (vdfs.dir(), "relatime")] {
        let is_of = |line: &&str| line.contains(&*dir.to_string_lossy());
        let line = mounts.lines().find(is_of);
        assert!(line.is_some_and(|line| line.contains(word)), "{line:?}");
    }
}
