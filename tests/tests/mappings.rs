//! Shared mappings, and the opens of a file that another mount writes: page caches of two mounts
//! cannot be one.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use vdfs_tests::sys::{MapKind, Mapping};
use vdfs_tests::{Options, Way, eventually, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    shared_mapping_is_refused_while_another_mount_writes,
    handle_opened_while_another_mount_writes_sees_what_is_out,
    read_past_the_page_cache_sees_what_a_mapping_has_written,
    private_mapping_past_the_page_cache_is_filled_at_once,
);

const BYTES: usize = 10_000;

fn open_to_write(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    options.truncate(false).open(path).expect("opens")
}

/// A handle for reading of a file that another mount has had open for writing for a while.
fn open_uncached(path: &Path) -> File {
    let open = || File::open(path).expect("opens");
    eventually("it bypasses the cache", Duration::from_secs(10), || {
        is_refused(&open(), MapKind::SharedRead)
    });
    open()
}

/// Two handles of a new file. The second appends, and so bypasses the page cache.
fn open_cached_and_not(path: &Path) -> (File, File) {
    let file = open_to_write(path);
    file.write_all_at(&[1; BYTES], 0).expect("writes");
    let appender = OpenOptions::new().read(true).append(true).open(path);
    (file, appender.expect("opens"))
}

fn is_refused(file: &File, kind: MapKind) -> bool {
    match Mapping::new(file, kind, 0, BYTES) {
        Ok(_) => false,
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => true,
        Err(error) => panic!("{kind:?}: {error}"),
    }
}

fn shared_mapping_is_refused_while_another_mount_writes(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let (here, there) = (vdfs.dir().join("f"), second.dir().join("f"));
    let first = open_to_write(&here);
    first.write_all_at(&[1; BYTES], 0).expect("writes");
    let mut mapping = Mapping::new(&first, MapKind::SharedWrite, 0, BYTES).expect("is alone");
    let late = [open_to_write(&there), open_uncached(&there)];
    for file in &late {
        assert!(is_refused(file, MapKind::SharedRead));
        assert!(!is_refused(file, MapKind::PrivateRead));
    }
    assert!(is_refused(&late[0], MapKind::SharedWrite));
    // Whoever came first goes on, and so do the next ones on its mount.
    assert!(!is_refused(&open_to_write(&here), MapKind::SharedWrite));
    mapping.write(&[2; BYTES]);
    mapping.sync().expect("syncs");
    let mut bytes = [0; BYTES];
    for file in &late {
        file.read_exact_at(&mut bytes, 0).expect("reads");
        assert_eq!(bytes, [2; BYTES]);
        let private = Mapping::new(file, MapKind::PrivateRead, 0, BYTES).expect("maps");
        assert_eq!(private.read(), bytes);
    }
    drop((mapping, first, late));
    // The kernel tells of a close some time after it.
    eventually("the other mount is alone", Duration::from_secs(10), || {
        !is_refused(&open_to_write(&there), MapKind::SharedWrite)
    });
}

fn handle_opened_while_another_mount_writes_sees_what_is_out(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let writer = open_to_write(&vdfs.dir().join("f"));
    writer.write_all_at(&[0; BYTES], 0).expect("writes");
    writer.sync_all().expect("syncs");
    let reader = open_uncached(&second.dir().join("f"));
    for round in 1..50 {
        // The size stays, so nothing but the open tells the reader's kernel.
        writer.write_all_at(&[round; BYTES], 0).expect("writes");
        writer.sync_data().expect("syncs");
        let mut bytes = [0; BYTES];
        reader.read_exact_at(&mut bytes, 0).expect("reads");
        assert_eq!(bytes, [round; BYTES], "round {round}");
    }
}

fn read_past_the_page_cache_sees_what_a_mapping_has_written(way: Way) {
    let vdfs = way.start(Options::default());
    let (file, appender) = open_cached_and_not(&vdfs.dir().join("f"));
    assert!(
        is_refused(&appender, MapKind::SharedRead),
        "an O_APPEND handle bypasses the page cache"
    );
    let mut mapping = Mapping::new(&file, MapKind::SharedWrite, 0, BYTES).expect("maps");
    for round in 2..20 {
        mapping.write(&[round; BYTES]);
        let mut bytes = [0; BYTES];
        appender.read_exact_at(&mut bytes, 0).expect("reads");
        assert_eq!(bytes, [round; BYTES]);
        appender.write_all_at(&[0; 100], 0).expect("appends");
        assert_eq!(mapping.read(), bytes);
    }
}

/// The page is locked until it is filled: whoever waits for it to be dropped first waits for himself.
fn private_mapping_past_the_page_cache_is_filled_at_once(way: Way) {
    const ROUNDS: u8 = 20;
    let vdfs = way.start(Options::default());
    let (file, appender) = open_cached_and_not(&vdfs.dir().join("f"));
    let mut shared = Mapping::new(&file, MapKind::SharedWrite, 0, BYTES).expect("maps");
    let begun = Instant::now();
    for round in 0..ROUNDS {
        shared.write(&[round; BYTES]);
        let private = Mapping::new(&appender, MapKind::PrivateRead, 0, BYTES).expect("maps");
        assert_eq!(private.read(), [round; BYTES]);
    }
    let took = begun.elapsed();
    assert!(
        took < Duration::from_secs(10),
        "{ROUNDS} rounds in {took:?}"
    );
}
