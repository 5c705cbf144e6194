//! What one mount has done, the other sees.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use vdfs_tests::{Options, Way, eventually, on_up_and_on_a_cluster, pattern};

on_up_and_on_a_cluster!(
    closed_on_one_is_seen_on_the_other,
    appends_from_both_interleave_whole_records,
    second_mount_outlives_the_death_and_return_of_the_rest,
    truncation_by_one_keeps_what_the_other_syncs_later,
    unlinked_on_one_lives_where_it_is_open_also_over_a_restart,
    directory_removed_on_one_is_empty_where_it_is_open,
    killed_mount_gives_its_append_right_back,
);

fn closed_on_one_is_seen_on_the_other(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    for round in 0..50u64 {
        let (from, to) = match round % 2 {
            0 => (vdfs.dir(), second.dir()),
            _ => (second.dir(), vdfs.dir()),
        };
        let len = 1000 + 37_777 * round as usize % 600_000;
        fs::write(from.join("file"), pattern::bytes(round, 0, len)).expect("writes");
        let bytes = fs::read(to.join("file")).expect("reads");
        assert_eq!(bytes.len(), len, "round {round}");
        pattern::assert_matches(round, 0, &bytes);
        fs::rename(to.join("file"), to.join("moved")).expect("renames");
        assert!(!from.join("file").exists() && from.join("moved").exists());
    }
}

fn appends_from_both_interleave_whole_records(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let writers: Vec<_> = [vdfs.dir(), second.dir(), vdfs.dir(), second.dir()]
        .into_iter()
        .enumerate()
        .map(|(writer, dir)| {
            std::thread::spawn(move || {
                let file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(dir.join("log"));
                let mut file = file.expect("opens");
                for line in 0..500 {
                    let text = format!("{writer} {line:05} {}\n", "x".repeat(91));
                    file.write_all(text.as_bytes()).expect("appends");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().expect("a writer does not fail");
    }
    let text = fs::read_to_string(vdfs.dir().join("log")).expect("reads");
    assert_eq!(text.lines().count(), 2000);
    for writer in 0..4 {
        let prefix = format!("{writer} ");
        let own: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with(&prefix))
            .collect();
        assert!(own.is_sorted(), "writer {writer}: out of order");
        assert_eq!(own.len(), 500);
        assert!(own.iter().all(|line| line.len() == 99), "a torn record");
    }
}

fn second_mount_outlives_the_death_and_return_of_the_rest(way: Way) {
    let mut vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    fs::write(second.dir().join("before"), b"1").expect("writes");
    vdfs.kill9();
    vdfs.run_again();
    let written = second.dir().join("after");
    fs::write(&written, b"2").expect("a mount waits for the master where it was");
    assert_eq!(fs::read(second.dir().join("before")).expect("reads"), b"1");
    assert_eq!(fs::read(vdfs.dir().join("after")).expect("reads"), b"2");
}

fn truncation_by_one_keeps_what_the_other_syncs_later(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let writer = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(vdfs.dir().join("f"));
    let writer = writer.expect("opens");
    for round in 0..20u64 {
        writer
            .write_all_at(&pattern::bytes(1, 0, 400_000), 0)
            .expect("writes");
        fs::File::create(second.dir().join("f")).expect("truncates");
        writer
            .write_all_at(&pattern::bytes(2 + round, 0, 100_000), 0)
            .expect("writes");
        writer.sync_all().expect("syncs");
        let bytes = fs::read(second.dir().join("f")).expect("reads");
        assert_eq!(bytes.len(), 100_000, "round {round}");
        pattern::assert_matches(2 + round, 0, &bytes);
    }
}

fn unlinked_on_one_lives_where_it_is_open_also_over_a_restart(way: Way) {
    let mut vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    fs::write(vdfs.dir().join("f"), pattern::bytes(9, 0, 500_000)).expect("writes");
    fs::write(vdfs.dir().join("new"), b"new").expect("writes");
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.open(second.dir().join("f")).expect("opens")
    };
    let files = [open(), open()];
    fs::rename(vdfs.dir().join("new"), vdfs.dir().join("f")).expect("replaces it");
    let check = |round: u64| {
        for file in &files {
            assert_eq!(file.metadata().expect("it is open").nlink(), 0);
        }
        let bytes = pattern::bytes(9 + round, 0, 500_000);
        files[0].write_all_at(&bytes, 0).expect("writes");
        files[0].sync_all().expect("syncs");
        let mut bytes = vec![0; 500_000];
        files[1].read_exact_at(&mut bytes, 0).expect("reads");
        pattern::assert_matches(9 + round, 0, &bytes);
    };
    check(1);
    vdfs.kill9();
    vdfs.run_again();
    check(2);
    assert_eq!(fs::read(second.dir().join("f")).expect("reads"), b"new");
    // What was replaced goes with its last handle.
    let files_in_use = || {
        let stats = rustix::fs::statvfs(second.dir()).expect("statvfs");
        stats.f_files - stats.f_ffree
    };
    let before = files_in_use();
    drop(files);
    eventually("it is gone", Duration::from_secs(10), || {
        files_in_use() == before - 1
    });
}

fn directory_removed_on_one_is_empty_where_it_is_open(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    fs::create_dir(vdfs.dir().join("d")).expect("makes");
    let open = fs::File::open(second.dir().join("d")).expect("opens");
    fs::remove_dir(vdfs.dir().join("d")).expect("is empty");
    assert_eq!(open.metadata().expect("it is open").nlink(), 0);
    let made = rustix::fs::mkdirat(&open, "below", rustix::fs::Mode::from(0o755));
    assert_eq!(made, Err(rustix::io::Errno::NOENT));
    let listed = rustix::fs::Dir::read_from(&open).expect("lists");
    let names = listed
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_owned());
    let others = names.filter(|name| ![c".", c".."].contains(&name.as_c_str()));
    assert_eq!(others.count(), 0);
}

fn killed_mount_gives_its_append_right_back(way: Way) {
    let vdfs = way.start(Options::default());
    let mut second = vdfs.second_mount();
    let append = |dir: std::path::PathBuf, text: &str| {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(dir.join("log"));
        file.and_then(|mut file| file.write_all(text.as_bytes()))
    };
    append(second.dir(), "one\n").expect("appends");
    let holder = OpenOptions::new()
        .append(true)
        .open(second.dir().join("log"))
        .expect("opens");
    second.kill9();
    drop(holder);
    let dir = vdfs.dir();
    vdfs_tests::within("the right comes back", Duration::from_secs(20), move || {
        append(dir, "two\n").expect("appends");
    });
    eventually("both lines are there", Duration::from_secs(5), || {
        fs::read_to_string(vdfs.dir().join("log")).is_ok_and(|text| text == "one\ntwo\n")
    });
}
