//! Many files: in and out with modes and times, and a restart.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use filetime::FileTime;
use vdfs_tests::{Options, Way, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    many_files_come_out_as_they_went_in,
    restart_with_many_files_is_ready_within_5_s,
);

const FILES: u32 = 20_000;
const FILES_PER_DIRECTORY: u32 = 500;

fn path_of(root: &Path, number: u32) -> PathBuf {
    root.join(format!(
        "d{}/file-{number:05}",
        number / FILES_PER_DIRECTORY
    ))
}

fn mode_of(number: u32) -> u32 {
    [0o644, 0o600, 0o755, 0o4711, 0o444][number as usize % 5]
}

fn many_files_come_out_as_they_went_in(way: Way) {
    let files = way.share(FILES);
    let mut vdfs = way.start(Options::default());
    for number in 0..files {
        let path = path_of(&vdfs.dir(), number);
        if number % FILES_PER_DIRECTORY == 0 {
            fs::create_dir(path.parent().expect("has one")).expect("makes a directory");
        }
        fs::write(&path, format!("content of {number}")).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode_of(number))).expect("chmod");
        let mtime = FileTime::from_unix_time(1_000_000 + i64::from(number), number);
        filetime::set_file_mtime(&path, mtime).expect("utimensat");
    }
    assert_all(&vdfs.dir(), files);
    vdfs.kill9();
    vdfs.run_again();
    assert_all(&vdfs.dir(), files);
    for number in 0..files {
        fs::remove_file(path_of(&vdfs.dir(), number)).expect("removes");
    }
    let left: usize = fs::read_dir(vdfs.dir()).expect("lists").count();
    assert_eq!(left as u32, files / FILES_PER_DIRECTORY);
    for entry in fs::read_dir(vdfs.dir()).expect("lists") {
        fs::remove_dir(entry.expect("an entry").path()).expect("is empty");
    }
}

fn assert_all(root: &Path, files: u32) {
    let mut listed = 0;
    for dir in fs::read_dir(root).expect("lists") {
        listed += fs::read_dir(dir.expect("an entry").path())
            .expect("lists")
            .count() as u32;
    }
    assert_eq!(listed, files);
    for number in 0..files {
        let path = path_of(root, number);
        let meta = fs::metadata(&path).expect("stats");
        assert_eq!(meta.mode() & 0o7777, mode_of(number), "{path:?}");
        assert_eq!(
            (meta.mtime(), meta.mtime_nsec()),
            (1_000_000 + i64::from(number), number.into())
        );
        assert_eq!(
            fs::read_to_string(&path).expect("reads"),
            format!("content of {number}")
        );
    }
}

fn restart_with_many_files_is_ready_within_5_s(way: Way) {
    let mut vdfs = way.start(Options {
        ram_mib: 1024,
        ..Options::default()
    });
    // 1,000 files each.
    let directories = way.share(100);
    for directory in 0..directories {
        let dir = vdfs.dir().join(directory.to_string());
        fs::create_dir(&dir).expect("makes a directory");
        for number in 0..1000 {
            let path = dir.join(format!("file-{number}"));
            if number % 10 == 0 {
                fs::write(path, b"some bytes").expect("writes");
            } else {
                File::create(path).expect("creates");
            }
        }
    }
    vdfs.kill9();
    vdfs.run_again();
    assert!(
        vdfs.started_in < Duration::from_secs(5),
        "ready after {:?}",
        vdfs.started_in
    );
    assert_eq!(
        fs::read(vdfs.dir().join("24/file-990")).expect("reads"),
        b"some bytes"
    );
    assert_eq!(
        fs::read_dir(vdfs.dir().join("21")).expect("lists").count(),
        1000
    );
}
