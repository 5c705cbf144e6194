//! Nobody answers: programs wait, `^C` works, and everything goes on when the answer comes.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use vdfs_tests::{Options, Way, eventually, on_up_and_on_a_cluster, pattern, within};

on_up_and_on_a_cluster!(
    programs_wait_while_master_and_volumes_are_stopped,
    ctrl_c_ends_a_waiting_program_within_a_second,
    open_file_goes_on_after_kill_9_of_the_rest,
);

fn programs_wait_while_master_and_volumes_are_stopped(way: Way) {
    let mut vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    fs::write(vdfs.dir().join("file"), pattern::bytes(5, 0, 1 << 20)).expect("writes");
    vdfs.freeze_servers();
    let path = second.dir().join("file");
    let reader = std::thread::spawn(move || fs::read(path).expect("waits instead of failing"));
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(12) {
        assert!(!reader.is_finished(), "nobody can have answered");
        std::thread::sleep(Duration::from_millis(100));
    }
    vdfs.thaw_servers();
    let bytes = within("the reader goes on", Duration::from_secs(20), move || {
        reader.join()
    });
    pattern::assert_matches(5, 0, &bytes.expect("the reader does not panic"));
}

fn ctrl_c_ends_a_waiting_program_within_a_second(way: Way) {
    let mut vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    fs::write(vdfs.dir().join("file"), b"bytes").expect("writes");
    vdfs.freeze_servers();
    let programs = [
        "cat $D/file",
        "ls -l $D",
        "touch $D/new",
        "mkdir $D/d",
        "mv $D/file $D/other",
        "echo x > $D/file",
        "cd $D",
    ];
    for program in programs {
        // A runner in the background ignores SIGINT, and so would what it starts.
        let mut child = Command::new("env")
            .args(["--default-signal=INT", "sh", "-c", program])
            .env("D", second.dir())
            .process_group(0)
            .spawn()
            .expect("starts");
        std::thread::sleep(Duration::from_millis(700));
        assert!(
            child.try_wait().expect("a child").is_none(),
            "{program}: does not wait"
        );
        // As a terminal does: to the whole group.
        kill_process_group(Pid::from_child(&child), Signal::INT).expect("is there");
        eventually(program, Duration::from_secs(1), || {
            child.try_wait().expect("a child").is_some()
        });
    }
    vdfs.thaw_servers();
    let path = second.dir().join("after");
    within(
        "the mount works again",
        Duration::from_secs(20),
        move || {
            fs::write(&path, b"works").expect("writes");
            assert_eq!(fs::read(&path).expect("reads"), b"works");
        },
    );
}

fn open_file_goes_on_after_kill_9_of_the_rest(way: Way) {
    let mut vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let path = second.dir().join("file");
    fs::write(&path, pattern::bytes(6, 0, 1 << 20)).expect("writes");
    let file = fs::File::open(&path).expect("opens");
    vdfs.kill9();
    vdfs.run_again();
    let bytes = within("the open file reads", Duration::from_secs(30), move || {
        let mut bytes = vec![0; 1 << 20];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).expect("reads");
        bytes
    });
    pattern::assert_matches(6, 0, &bytes);
    fs::write(second.dir().join("new"), b"new").expect("writes");
    assert_eq!(fs::read(vdfs.dir().join("new")).expect("reads"), b"new");
}
