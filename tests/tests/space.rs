//! Holes, room and copies, as programs see them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek};
use rustix::io::Errno;
use vdfs_tests::{Options, Way, eventually, on_up_and_on_a_cluster, pattern};

on_up_and_on_a_cluster!(
    sparse_file_shows_its_holes_and_takes_only_what_it_has,
    huge_hole_costs_no_request_a_chunk,
    punch_and_zero_range_change_bytes_and_room,
    allocation_is_kept_for_its_writes_and_refused_whole,
    copies_within_the_filesystem_are_exact,
);

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The chunk of `Options::default`.
const CHUNK: u64 = 256 * KIB;

fn read_write(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).expect("opened")
}

/// Bytes of room, by `stat`.
fn room(path: &Path) -> u64 {
    fs::metadata(path).expect("stat").blocks() * 512
}

/// Start and end of each run of data, as a walk of seeks finds them.
fn data_runs(file: &File) -> Vec<(u64, u64)> {
    let mut runs = Vec::new();
    let mut at = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return runs,
            Err(error) => panic!("SEEK_DATA from {at}: {error}"),
        };
        at = seek(file, SeekFrom::Hole(start)).expect("the end is a hole");
        runs.push((start, at));
    }
}

/// Runs a program that must succeed; gives what it printed.
fn run(program: &str, arguments: &[&str], path: &Path) -> String {
    let output = Command::new(program).args(arguments).arg(path).output();
    let output = output.expect("the program is there");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes at three places of a file of 4 MiB; what it has.
fn make_sparse(path: &Path) -> Vec<u8> {
    let mut bytes = vec![0; 4 * MIB as usize];
    let file = read_write(path);
    for (at, len) in [(0, 100), (MIB + 5, 10), (3 * MIB - 4096, 8192)] {
        let piece = pattern::bytes(at, at, len);
        file.write_all_at(&piece, at).expect("written");
        bytes[at as usize..at as usize + len].copy_from_slice(&piece);
    }
    file.set_len(4 * MIB).expect("grown");
    bytes
}

const RUNS: [(u64, u64); 3] = [
    (0, 4096),
    (MIB, MIB + 4096),
    (3 * MIB - 4096, 3 * MIB + 4096),
];
const ROOM: u64 = 4 * 4096;

fn sparse_file_shows_its_holes_and_takes_only_what_it_has(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let path = vdfs.dir().join("sparse");
    let bytes = make_sparse(&path);
    for dir in [vdfs.dir(), second.dir()] {
        let path = dir.join("sparse");
        assert_eq!(room(&path), ROOM, "{}", dir.display());
        let file = File::open(&path).expect("opened");
        assert_eq!(data_runs(&file), RUNS, "{}", dir.display());
        assert_eq!(seek(&file, SeekFrom::Hole(50)), Ok(4096));
        assert_eq!(seek(&file, SeekFrom::Hole(2 * MIB)), Ok(2 * MIB));
        assert_eq!(
            seek(&file, SeekFrom::Data(3 * MIB + 4096)),
            Err(Errno::NXIO)
        );
        assert_eq!(seek(&file, SeekFrom::Hole(4 * MIB)), Err(Errno::NXIO));
        assert!(fs::read(&path).expect("read") == bytes);
    }
    let listed = run("du", &["-s", "--block-size=1"], &vdfs.dir());
    assert!(listed.starts_with(&format!("{ROOM}\t")), "du says {listed}");
    for how in ["auto", "always", "never"] {
        let copy = vdfs.dir().join(how);
        let sparse = format!("--sparse={how}");
        let from = path.to_str().expect("text");
        run("cp", &[&sparse, from], &copy);
        assert!(fs::read(&copy).expect("read") == bytes, "{how}");
        let expected = if how == "never" { 4 * MIB } else { ROOM };
        assert_eq!(room(&copy), expected, "{how}");
    }
    unwritten_bytes_count(&vdfs.dir());
}

/// What is still in buffers, or in a mapping, is data and takes room.
fn unwritten_bytes_count(dir: &Path) {
    let path = dir.join("unwritten");
    let file = read_write(&path);
    file.set_len(MIB).expect("grown");
    assert_eq!((room(&path), data_runs(&file)), (0, vec![]));
    file.write_all_at(&[1], 100 * KIB).expect("written");
    assert_ne!(room(&path), 0, "a program would take it for all zeros");
    assert_eq!(data_runs(&file), [(100 * KIB, 104 * KIB)]);
    assert_eq!(room(&path), 4096);
    let kind = vdfs_tests::sys::MapKind::SharedWrite;
    let mut mapping = vdfs_tests::sys::Mapping::new(&file, kind, 200 * KIB, 4).expect("mapped");
    mapping.write(b"data");
    let reader = File::open(&path).expect("opened");
    let runs = [(100 * KIB, 104 * KIB), (200 * KIB, 204 * KIB)];
    assert_eq!(data_runs(&reader), runs, "a mapping's bytes are data");
}

fn huge_hole_costs_no_request_a_chunk(way: Way) {
    let vdfs = way.start(Options {
        chunk_size: "64KiB",
        ..Options::default()
    });
    let path = vdfs.dir().join("huge");
    let file = read_write(&path);
    let size = 1 << 40;
    file.set_len(size).expect("grown");
    file.write_all_at(b"x", size / 2).expect("written");
    let begun = Instant::now();
    assert_eq!(data_runs(&file), [(size / 2, size / 2 + 4096)]);
    assert_eq!(room(&path), 4096);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 0, size).expect("punched");
    assert_eq!((data_runs(&file), room(&path)), (vec![], 0));
    let took = begun.elapsed();
    // 16 million chunks, at a microsecond each, would take longer.
    assert!(took < Duration::from_secs(3), "{took:?}");
}

fn free_bytes(dir: &Path) -> u64 {
    let stats = rustix::fs::statvfs(dir).expect("statvfs");
    stats.f_bavail * stats.f_frsize
}

fn punch_and_zero_range_change_bytes_and_room(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let path = vdfs.dir().join("dense");
    let mut bytes = pattern::bytes(1, 0, 16 * MIB as usize);
    let free_at_first = free_bytes(&vdfs.dir());
    fs::write(&path, &bytes).expect("written");
    let elsewhere = second.dir().join("dense");
    assert!(fs::read(&elsewhere).expect("read") == bytes);
    eventually("df shows the file", Duration::from_secs(10), || {
        free_bytes(&vdfs.dir()) + 16 * MIB <= free_at_first
    });
    let free_before = free_bytes(&vdfs.dir());
    let mtime_before = fs::metadata(&path)
        .expect("stat")
        .modified()
        .expect("a time");

    let (from, to) = (MIB + 100, 12 * MIB + 5000);
    let (offset, len) = (from.to_string(), (to - from).to_string());
    run("fallocate", &["-p", "-o", &offset, "-l", &len], &path);
    bytes[from as usize..to as usize].fill(0);
    for path in [&path, &elsewhere] {
        assert!(fs::read(path).expect("read") == bytes, "{}", path.display());
        let file = File::open(path).expect("opened");
        let (hole, data) = (MIB + 4096, 12 * MIB + 4096);
        assert_eq!(data_runs(&file), [(0, hole), (data, 16 * MIB)]);
        assert_eq!(room(path), 16 * MIB - (data - hole));
    }
    let meta = fs::metadata(&path).expect("stat");
    assert!(meta.modified().expect("a time") > mtime_before && meta.len() == 16 * MIB);
    eventually("df shows the room", Duration::from_secs(10), || {
        free_bytes(&vdfs.dir()) >= free_before + 10 * MIB
    });

    run(
        "fallocate",
        &["-z", "-n", "-o", "4000", "-l", "20MiB"],
        &path,
    );
    bytes[4000..].fill(0);
    assert!(fs::read(&elsewhere).expect("read") == bytes);
    assert_eq!(room(&path), 16 * MIB, "zeros with room under them");
    run("fallocate", &["-z", "-o", "16MiB", "-l", "1MiB"], &path);
    assert_eq!(fs::metadata(&elsewhere).expect("stat").len(), 17 * MIB);
    assert_eq!(room(&elsewhere), 17 * MIB);
    privileges_go_with_a_change(&vdfs.dir());
}

fn privileges_go_with_a_change(dir: &Path) {
    let path = dir.join("privileged");
    for mode in ["-p", "-z", "-x"] {
        fs::write(&path, [1; 8192]).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).expect("chmod");
        let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let change = ["fallocate", mode, "-l", "4096"];
        run("setpriv", &[&user[..], &change[..]].concat(), &path);
        let left = fs::metadata(&path).expect("stat").mode() & 0o7777;
        assert_eq!(left, 0o777, "after fallocate {mode}");
    }
}

fn allocation_is_kept_for_its_writes_and_refused_whole(way: Way) {
    let vdfs = way.start(Options {
        ram_mib: 64,
        volumes: 1,
        ..Options::default()
    });
    let dir = vdfs.dir();
    let (kept, filler, refused) = (dir.join("kept"), dir.join("filler"), dir.join("refused"));
    run("fallocate", &["-l", "16MiB"], &kept);
    assert_eq!(
        (fs::metadata(&kept).expect("stat").len(), room(&kept)),
        (16 * MIB, 16 * MIB)
    );
    run("fallocate", &["-n", "-o", "1MiB", "-l", "32MiB"], &kept);
    assert_eq!(
        (fs::metadata(&kept).expect("stat").len(), room(&kept)),
        (16 * MIB, 16 * MIB)
    );

    let file = read_write(&refused);
    file.write_all_at(&[1; 100], 0).expect("written");
    file.sync_all().expect("written out");
    let error = fill(&filler);
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    let bytes = pattern::bytes(2, 0, 16 * MIB as usize);
    let file = read_write(&kept);
    file.write_all_at(&bytes, 0).expect("its room is kept");
    file.sync_all().expect("written out");
    assert!(fs::read(&kept).expect("read") == bytes);

    let file = read_write(&refused);
    file.write_all_at(&[1; 100], 0)
        .expect("a little room is left");
    let asked = fallocate(&file, FallocateFlags::empty(), 0, 8 * MIB);
    assert_eq!(asked, Err(Errno::NOSPC));
    assert_eq!(fs::metadata(&refused).expect("stat").len(), 100);

    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(read_write(&kept), punch, 0, 16 * MIB).expect("punched");
    eventually(
        "the room of a punch is there",
        Duration::from_secs(10),
        || fallocate(&file, FallocateFlags::empty(), 0, 8 * MIB).is_ok(),
    );
    assert_eq!(room(&refused), 8 * MIB);
    let mut start = vec![0; 8192];
    file.read_exact_at(&mut start, 0).expect("read");
    assert_eq!(
        (&start[..100], &start[100..]),
        (&[1; 100][..], &[0; 8092][..])
    );
}

/// Writes until there is no room, down to the last block.
fn fill(path: &Path) -> io::Error {
    let file = read_write(path);
    let mut at = 0;
    let mut piece = vec![3; MIB as usize];
    loop {
        match file.write_all_at(&piece, at).and_then(|()| file.sync_all()) {
            Ok(()) => at += piece.len() as u64,
            Err(_) if piece.len() > 4096 => piece.truncate(piece.len() / 2),
            Err(error) => return error,
        }
    }
}

/// `copy_file_range(2)` once.
fn copy(from: (&File, u64), to: (&File, u64), len: u64) -> Result<usize, Errno> {
    let (mut from_at, mut to_at) = (from.1, to.1);
    copy_file_range(
        from.0,
        Some(&mut from_at),
        to.0,
        Some(&mut to_at),
        len as usize,
    )
}

fn copies_within_the_filesystem_are_exact(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let source = vdfs.dir().join("source");
    let bytes = pattern::bytes(3, 0, 5 * MIB as usize);
    let from = read_write(&source);
    from.write_all_at(&bytes, 0)
        .expect("written, and not flushed");
    let target = vdfs.dir().join("target");
    let to = read_write(&target);
    let mut expected = vec![0; 1000];
    expected.extend_from_slice(&bytes[777..]);
    let len = bytes.len() - 777;
    assert_eq!(
        copy((&from, 777), (&to, 1000), 1 << 40),
        Ok(len),
        "up to the end"
    );
    assert!(fs::read(&target).expect("read") == expected);
    assert!(fs::read(second.dir().join("target")).expect("read") == expected);
    assert_eq!(copy((&from, 5 * MIB), (&to, 0), 10), Ok(0), "the end");

    let within = copy((&to, 0), (&to, 3 * MIB), MIB);
    assert_eq!(within, Ok(MIB as usize));
    expected.copy_within(..MIB as usize, 3 * MIB as usize);
    assert!(fs::read(&target).expect("read") == expected);
    assert_eq!(
        copy((&to, 0), (&to, CHUNK), CHUNK + 1),
        Err(Errno::INVAL),
        "they overlap"
    );
    let mut appending = OpenOptions::new();
    let appending = appending.append(true).open(&target).expect("opened");
    assert_eq!(copy((&from, 0), (&appending, 0), 10), Err(Errno::BADF));

    copies_on_the_other_mount(&vdfs.dir(), &second.dir());
}

/// A copy takes what the other mount has closed, and holes as zeros.
fn copies_on_the_other_mount(dir: &Path, other: &Path) {
    let bytes = make_sparse(&dir.join("sparse"));
    let from = File::open(other.join("sparse")).expect("opened");
    let to = read_write(&other.join("copied"));
    to.write_all_at(&[9; 4 << 20], 0).expect("written");
    let mut copied = 0;
    while copied < 4 * MIB {
        let more = copy((&from, copied), (&to, copied), 4 * MIB - copied).expect("copied");
        assert!(more > 0, "it ends at {copied}");
        copied += more as u64;
    }
    drop(to);
    assert!(fs::read(dir.join("copied")).expect("read") == bytes);
}
