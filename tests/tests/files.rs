//! Single operations as a program makes them, on one mount.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{CWD, FallocateFlags, FileType, Mode, RenameFlags};
use vdfs_tests::{Options, Way, on_up_and_on_a_cluster, pattern};

on_up_and_on_a_cluster!(single_operations_behave_as_on_a_local_filesystem,);

type Case = (&'static str, fn(&Path));

/// Every case of this file; one filesystem for all, a directory for each.
const CASES: &[Case] = &[
    (
        "write_at_any_offset_reads_back",
        write_at_any_offset_reads_back,
    ),
    ("gap_reads_as_zeros", gap_reads_as_zeros),
    ("append_goes_to_the_end", append_goes_to_the_end),
    (
        "truncate_cuts_and_extends_with_zeros",
        truncate_cuts_and_extends_with_zeros,
    ),
    ("open_with_trunc_empties", open_with_trunc_empties),
    (
        "unlinked_file_lives_while_it_is_open",
        unlinked_file_lives_while_it_is_open,
    ),
    ("rename_replaces_atomically", rename_replaces_atomically),
    ("rename_noreplace_refuses", rename_noreplace_refuses),
    (
        "rename_into_itself_is_refused",
        rename_into_itself_is_refused,
    ),
    ("directory_links_are_counted", directory_links_are_counted),
    (
        "rmdir_of_a_full_directory_is_refused",
        rmdir_of_a_full_directory_is_refused,
    ),
    ("names_have_255_bytes_at_most", names_have_255_bytes_at_most),
    (
        "setgid_directory_gives_its_group",
        setgid_directory_gives_its_group,
    ),
    (
        "write_by_another_user_clears_suid",
        write_by_another_user_clears_suid,
    ),
    ("fifo_and_socket_exist", fifo_and_socket_exist),
    ("xattrs_are_kept", xattrs_are_kept),
    ("plain_fallocate_extends", plain_fallocate_extends),
    ("fallocate_is_a_modification", fallocate_is_a_modification),
    ("what_is_absent_says_so", what_is_absent_says_so),
    ("readdir_survives_deletion", readdir_survives_deletion),
    (
        "mtime_is_the_time_of_the_write",
        mtime_is_the_time_of_the_write,
    ),
    ("statfs_shows_use", statfs_shows_use),
    (
        "fifo_carries_bytes_between_processes",
        fifo_carries_bytes_between_processes,
    ),
    (
        "write_or_chown_takes_capabilities_away",
        write_or_chown_takes_capabilities_away,
    ),
    (
        "suid_that_is_set_after_a_write_stays",
        suid_that_is_set_after_a_write_stays,
    ),
    (
        "exchange_swaps_what_two_names_stand_for",
        exchange_swaps_what_two_names_stand_for,
    ),
    (
        "o_tmpfile_is_refused_so_that_programs_fall_back",
        o_tmpfile_is_refused,
    ),
];

fn single_operations_behave_as_on_a_local_filesystem(way: Way) {
    let vdfs = way.start(Options::default());
    for (name, case) in CASES {
        eprintln!("{name}");
        let dir = vdfs.dir().join(name);
        fs::create_dir(&dir).expect("a directory for the case");
        case(&dir);
    }
}

fn open_rw(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .expect("opens")
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result
        .expect_err("must be refused")
        .raw_os_error()
        .expect("an errno")
}

fn write_at_any_offset_reads_back(dir: &Path) {
    let file = open_rw(&dir.join("f"));
    let chunk = 256 << 10;
    for (offset, len) in [
        (0, 10),
        (chunk - 3, 7),
        (5, 4096),
        (3 * chunk + 1, 2 * chunk),
        (4095, 2),
    ] {
        file.write_all_at(&pattern::bytes(3, offset, len as usize), offset)
            .expect("writes");
    }
    for (offset, len) in [
        (0, 10),
        (chunk - 3, 7),
        (5, 4096),
        (3 * chunk + 1, 2 * chunk),
    ] {
        let mut buffer = vec![0; len as usize];
        file.read_exact_at(&mut buffer, offset).expect("reads");
        pattern::assert_matches(3, offset, &buffer);
    }
}

fn gap_reads_as_zeros(dir: &Path) {
    let file = open_rw(&dir.join("f"));
    file.write_all_at(b"end", 1_000_000).expect("writes");
    drop(file);
    let bytes = fs::read(dir.join("f")).expect("reads");
    assert_eq!(bytes.len(), 1_000_003);
    assert!(bytes[..1_000_000].iter().all(|&byte| byte == 0));
    assert_eq!(&bytes[1_000_000..], b"end");
}

fn append_goes_to_the_end(dir: &Path) {
    let path = dir.join("f");
    let mut first = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .expect("opens");
    let mut second = OpenOptions::new().append(true).open(&path).expect("opens");
    for round in 0..50 {
        first
            .write_all(format!("a{round}\n").as_bytes())
            .expect("appends");
        second
            .write_all(format!("b{round}\n").as_bytes())
            .expect("appends");
    }
    let expected: String = (0..50)
        .map(|round| format!("a{round}\nb{round}\n"))
        .collect();
    assert_eq!(fs::read_to_string(&path).expect("reads"), expected);
}

fn truncate_cuts_and_extends_with_zeros(dir: &Path) {
    let file = open_rw(&dir.join("f"));
    file.write_all_at(&pattern::bytes(4, 0, 700_000), 0)
        .expect("writes");
    file.set_len(300_001).expect("cuts");
    file.set_len(600_000).expect("extends");
    let mut buffer = vec![1; 600_000];
    file.read_exact_at(&mut buffer, 0).expect("reads");
    pattern::assert_matches(4, 0, &buffer[..300_001]);
    assert!(
        buffer[300_001..].iter().all(|&byte| byte == 0),
        "old bytes must not come back"
    );
    file.set_len(0).expect("empties");
    assert_eq!(file.metadata().expect("stats").len(), 0);
}

fn open_with_trunc_empties(dir: &Path) {
    fs::write(dir.join("f"), b"old bytes").expect("writes");
    let other = File::open(dir.join("f")).expect("opens");
    fs::write(dir.join("f"), b"new").expect("writes");
    let mut bytes = Vec::new();
    let mut reader = &other;
    reader
        .read_to_end(&mut bytes)
        .expect("an older handle reads the new bytes");
    assert_eq!(bytes, b"new");
}

fn unlinked_file_lives_while_it_is_open(dir: &Path) {
    let mut file = open_rw(&dir.join("f"));
    fs::remove_file(dir.join("f")).expect("unlinks");
    file.write_all(b"still here").expect("writes");
    assert_eq!(file.metadata().expect("stats").nlink(), 0);
    file.seek(SeekFrom::Start(0)).expect("seeks");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("reads");
    assert_eq!(text, "still here");
    file.sync_all().expect("syncs");
}

fn rename_replaces_atomically(dir: &Path) {
    fs::write(dir.join("a"), b"a").expect("writes");
    fs::write(dir.join("b"), b"b").expect("writes");
    let inode = fs::metadata(dir.join("a")).expect("stats").ino();
    fs::rename(dir.join("a"), dir.join("b")).expect("renames");
    assert_eq!(fs::read(dir.join("b")).expect("reads"), b"a");
    assert_eq!(fs::metadata(dir.join("b")).expect("stats").ino(), inode);
    assert_eq!(errno(fs::metadata(dir.join("a"))), libc::ENOENT);
}

fn rename_noreplace_refuses(dir: &Path) {
    fs::write(dir.join("a"), b"a").expect("writes");
    fs::write(dir.join("b"), b"b").expect("writes");
    let (a, b) = (dir.join("a"), dir.join("b"));
    let refused = rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::NOREPLACE);
    assert_eq!(refused, Err(rustix::io::Errno::EXIST));
    let free = dir.join("c");
    rustix::fs::renameat_with(CWD, &a, CWD, &free, RenameFlags::NOREPLACE).expect("renames");
}

fn rename_into_itself_is_refused(dir: &Path) {
    fs::create_dir_all(dir.join("a/b")).expect("makes directories");
    assert_eq!(
        errno(fs::rename(dir.join("a"), dir.join("a/b/c"))),
        libc::EINVAL
    );
}

fn directory_links_are_counted(dir: &Path) {
    fs::create_dir(dir.join("x")).expect("makes");
    fs::create_dir(dir.join("y")).expect("makes");
    assert_eq!(fs::metadata(dir).expect("stats").nlink(), 4);
    fs::rename(dir.join("x"), dir.join("y/x")).expect("moves");
    assert_eq!(fs::metadata(dir).expect("stats").nlink(), 3);
    assert_eq!(fs::metadata(dir.join("y")).expect("stats").nlink(), 3);
}

fn rmdir_of_a_full_directory_is_refused(dir: &Path) {
    fs::create_dir_all(dir.join("a/b")).expect("makes");
    assert_eq!(errno(fs::remove_dir(dir.join("a"))), libc::ENOTEMPTY);
    assert_eq!(errno(fs::remove_file(dir.join("a"))), libc::EISDIR);
    fs::write(dir.join("f"), b"").expect("writes");
    assert_eq!(errno(fs::remove_dir(dir.join("f"))), libc::ENOTDIR);
}

fn names_have_255_bytes_at_most(dir: &Path) {
    fs::write(dir.join("n".repeat(255)), b"").expect("255 bytes are allowed");
    assert_eq!(
        errno(fs::write(dir.join("n".repeat(256)), b"")),
        libc::ENAMETOOLONG
    );
}

fn setgid_directory_gives_its_group(dir: &Path) {
    std::os::unix::fs::chown(dir, None, Some(4321)).expect("chgrp");
    fs::set_permissions(dir, fs::Permissions::from_mode(0o2775)).expect("chmod");
    fs::write(dir.join("f"), b"").expect("writes");
    fs::create_dir(dir.join("d")).expect("makes");
    assert_eq!(fs::metadata(dir.join("f")).expect("stats").gid(), 4321);
    let sub = fs::metadata(dir.join("d")).expect("stats");
    assert_eq!((sub.gid(), sub.mode() & 0o2000), (4321, 0o2000));
}

fn write_by_another_user_clears_suid(dir: &Path) {
    let path = dir.join("f");
    fs::write(&path, b"x").expect("writes");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).expect("chmod");
    let path = path.to_str().expect("plain");
    let script =
        format!("setpriv --reuid 65534 --regid 65534 --clear-groups sh -c 'echo y >> {path}'");
    vdfs_tests::programs::shell(&script, dir);
    assert_eq!(fs::metadata(path).expect("stats").mode() & 0o7777, 0o777);
}

fn fifo_and_socket_exist(dir: &Path) {
    let fifo = dir.join("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from(0o600), 0).expect("mkfifo");
    assert!(fs::metadata(&fifo).expect("stats").file_type().is_fifo());
    let listener = std::os::unix::net::UnixListener::bind(dir.join("s")).expect("binds");
    assert!(
        fs::metadata(dir.join("s"))
            .expect("stats")
            .file_type()
            .is_socket()
    );
    std::os::unix::net::UnixStream::connect(dir.join("s")).expect("connects");
    drop(listener);
}

fn xattrs_are_kept(dir: &Path) {
    use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
    let path = dir.join("f");
    fs::write(&path, b"").expect("writes");
    setxattr(&path, "user.colour", b"blue", XattrFlags::empty()).expect("sets");
    let again = setxattr(&path, "user.colour", b"red", XattrFlags::CREATE);
    assert_eq!(again, Err(rustix::io::Errno::EXIST));
    let mut value = [0; 16];
    let len = getxattr(&path, "user.colour", &mut value[..]).expect("gets");
    assert_eq!(&value[..len], b"blue");
    let mut names = [0; 64];
    let len = listxattr(&path, &mut names[..]).expect("lists");
    assert_eq!(&names[..len], b"user.colour\0");
    let unknown = setxattr(&path, "colour", b"blue", XattrFlags::empty());
    assert_eq!(unknown, Err(rustix::io::Errno::OPNOTSUPP));
    let nameless = setxattr(&path, "user.", b"blue", XattrFlags::empty());
    assert_eq!(nameless, Err(rustix::io::Errno::INVAL));
    removexattr(&path, "user.colour").expect("removes");
    let gone = getxattr(&path, "user.colour", &mut value[..]);
    assert_eq!(gone, Err(rustix::io::Errno::NODATA));
}

fn plain_fallocate_extends(dir: &Path) {
    let file = open_rw(&dir.join("f"));
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 100_000).expect("allocates");
    assert_eq!(file.metadata().expect("stats").len(), 100_000);
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 200_000).expect("allocates");
    assert_eq!(file.metadata().expect("stats").len(), 100_000);
    let mut byte = [1];
    file.read_exact_at(&mut byte, 99_999).expect("reads");
    assert_eq!(byte, [0]);
}

fn fallocate_is_a_modification(dir: &Path) {
    let path = dir.join("f");
    fs::write(&path, pattern::bytes(1, 0, 50_000)).expect("writes");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).expect("chmod");
    filetime::set_file_mtime(&path, filetime::FileTime::from_unix_time(1000, 0)).expect("sets");
    let path = path.to_str().expect("plain");
    let script =
        format!("setpriv --reuid 65534 --regid 65534 --clear-groups fallocate -l 100 {path}");
    vdfs_tests::programs::shell(&script, dir);
    let metadata = fs::metadata(path).expect("stats");
    assert_eq!((metadata.mode() & 0o7777, metadata.len()), (0o777, 50_000));
    assert!(metadata.mtime() > 1000);
    pattern::assert_matches(1, 0, &fs::read(path).expect("reads"));
}

fn what_is_absent_says_so(dir: &Path) {
    let file = open_rw(&dir.join("f"));
    file.write_all_at(b"0123456789", 0).expect("writes");
    let collapsed = rustix::fs::fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 5);
    assert_eq!(collapsed, Err(rustix::io::Errno::OPNOTSUPP));
    let (f, g) = (dir.join("f"), dir.join("g"));
    let whiteout = rustix::fs::renameat_with(CWD, &f, CWD, &g, RenameFlags::WHITEOUT);
    assert_eq!(whiteout, Err(rustix::io::Errno::INVAL));
    assert_eq!(fs::read(&f).expect("reads"), b"0123456789");
}

/// Two processes: one waits in its open for the other.
fn fifo_carries_bytes_between_processes(dir: &Path) {
    let script = "mkfifo pipe; cat pipe > got & seq 1000 > pipe; wait; seq 1000 | cmp - got";
    vdfs_tests::programs::shell(script, dir);
}

/// Whoever writes to a program, or gives it away, does not pass its capabilities on.
fn write_or_chown_takes_capabilities_away(dir: &Path) {
    use rustix::fs::{XattrFlags, getxattr, setxattr};
    let path = dir.join("program");
    // `cap_net_raw=ep`, as `struct vfs_cap_data` of revision 2 (capability.h).
    let capability = [1u32 | 0x0200_0000, 1 << 13, 0, 0, 0].map(u32::to_le_bytes);
    let capability = capability.concat();
    let mut value = [0; 64];
    let mut after = |change: &dyn Fn()| {
        let name = "security.capability";
        setxattr(&path, name, &capability, XattrFlags::empty()).expect("sets");
        assert_eq!(getxattr(&path, name, &mut value[..]), Ok(20));
        change();
        getxattr(&path, name, &mut value[..])
    };
    fs::write(&path, b"x").expect("writes");
    let chmod = || fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    assert_eq!(after(&chmod), Ok(20));
    let open = open_rw(&path);
    let changes: [&dyn Fn(); 3] = [
        &|| open.write_all_at(b"y", 0).expect("writes"),
        &|| open.set_len(1).expect("truncates"),
        &|| std::os::unix::fs::chown(&path, Some(1), None).expect("chown"),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let left = after(change);
        assert_eq!(left, Err(rustix::io::Errno::NODATA), "change {number}");
    }
    // Ones that are set after a write stay.
    open.write_all_at(b"z", 0).expect("writes");
    assert_eq!(after(&|| open.sync_all().expect("syncs")), Ok(20));
}

/// An ordinary user may make a program of its own suid; bytes that were written before do not undo
/// it.
fn suid_that_is_set_after_a_write_stays(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).expect("chmod");
    let inside = File::open(dir).expect("opens");
    // Ids are those of a thread, for the kernel.
    let user = std::thread::spawn(move || {
        use rustix::thread::{Gid, Uid, set_thread_gid, set_thread_groups, set_thread_uid};
        set_thread_groups(&[]).expect("root may");
        set_thread_gid(Gid::from_raw(65534)).expect("root may");
        set_thread_uid(Uid::from_raw(65534)).expect("root may");
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        let file = rustix::fs::openat(&inside, "f", flags, Mode::from(0o600)).expect("creates");
        let file = File::from(file);
        file.write_all_at(&[1; 100_000], 0).expect("writes");
        file.set_permissions(fs::Permissions::from_mode(0o4755))
            .expect("fchmod");
    });
    user.join().expect("the user's thread");
    let mode = fs::metadata(dir.join("f")).expect("stats").mode();
    assert_eq!(mode & 0o7777, 0o4755);
}

fn exchange_swaps_what_two_names_stand_for(dir: &Path) {
    fs::create_dir_all(dir.join("left/dir/below")).expect("makes directories");
    fs::create_dir(dir.join("right")).expect("makes a directory");
    fs::write(dir.join("right/file"), b"file").expect("writes");
    let exchange = |from: &str, to: &str| {
        let (from, to) = (dir.join(from), dir.join(to));
        rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE)
    };
    let inside = File::open(dir.join("left/dir")).expect("opens");
    exchange("left/dir", "right/file").expect("exchanges");
    assert_eq!(fs::read(dir.join("left/dir")).expect("reads"), b"file");
    assert!(dir.join("right/file/below").is_dir());
    let nlink = |name: &str| fs::metadata(dir.join(name)).expect("stats").nlink();
    assert_eq!((nlink("left"), nlink("right")), (2, 3));
    let up = rustix::fs::openat(&inside, "..", rustix::fs::OFlags::PATH, Mode::empty());
    let up = rustix::fs::fstat(up.expect("opens")).expect("stats");
    let right = fs::metadata(dir.join("right")).expect("stats");
    assert_eq!(up.st_ino, right.ino(), "what is above has changed");
    for (from, to) in [("right", "right/file"), ("right/file", "right")] {
        let refused = exchange(from, to);
        assert_eq!(refused, Err(rustix::io::Errno::INVAL), "{from} and {to}");
    }
    assert_eq!(exchange("left", "none"), Err(rustix::io::Errno::NOENT));
}

fn readdir_survives_deletion(dir: &Path) {
    for index in 0..3000 {
        File::create(dir.join(format!("f{index}"))).expect("creates");
    }
    // Deleting while listing must show each name that stays exactly once.
    let mut seen = 0;
    for entry in fs::read_dir(dir).expect("lists") {
        fs::remove_file(entry.expect("an entry").path()).expect("deletes");
        seen += 1;
    }
    assert_eq!(seen, 3000);
    fs::remove_dir(dir).expect("it is empty");
}

fn mtime_is_the_time_of_the_write(dir: &Path) {
    let file = open_rw(&dir.join("f"));
    let before = file.metadata().expect("stats").modified().expect("a time");
    std::thread::sleep(std::time::Duration::from_millis(20));
    file.write_all_at(b"x", 0).expect("writes");
    let written = file.metadata().expect("stats").modified().expect("a time");
    assert!(written > before, "a write moves mtime before it is flushed");
    drop(file);
    let closed = fs::metadata(dir.join("f"))
        .expect("stats")
        .modified()
        .expect("a time");
    assert_eq!(closed, written, "close does not");
}

fn statfs_shows_use(dir: &Path) {
    let before = rustix::fs::statvfs(dir).expect("statvfs");
    assert_eq!(before.f_namemax, 255);
    assert!(before.f_blocks * before.f_frsize <= 256 << 20);
    fs::write(dir.join("f"), vec![1; 20 << 20]).expect("writes");
    let used = || {
        let now = rustix::fs::statvfs(dir).expect("statvfs");
        before.f_bfree.saturating_sub(now.f_bfree) * now.f_frsize
    };
    let limit = std::time::Duration::from_secs(5);
    vdfs_tests::eventually("df shows 20 MiB", limit, || used() >= 20 << 20);
    assert!(used() < 24 << 20, "{} bytes", used());
}

fn o_tmpfile_is_refused(dir: &Path) {
    use rustix::fs::OFlags;
    let opened = rustix::fs::open(dir, OFlags::TMPFILE | OFlags::RDWR, Mode::from(0o600));
    assert_eq!(opened.err(), Some(rustix::io::Errno::OPNOTSUPP));
}
