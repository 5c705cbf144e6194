//! A scrub of real volumes: a sound one reports nothing, and a bit that has flipped in memory is found,
//! named, and never read.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use vdfs_tests::chunk_files::{children, chunk_files};
use vdfs_tests::{Filesystem, Options, Way, eventually, on_up_and_on_a_cluster, pattern};

on_up_and_on_a_cluster!(
    damage_is_found_and_named,
    scrub_keeps_to_its_rate_beside_writers_and_can_be_stopped,
);

const CHUNK_BYTES: u64 = 4 << 20;
const WAIT: Duration = Duration::from_secs(30);

fn start(way: Way) -> Filesystem {
    way.start(Options {
        chunk_size: "4MiB",
        ..Options::default()
    })
}

fn scrub(vdfs: &Filesystem, args: &[&str]) -> (Option<i32>, Value) {
    let output = vdfs.cli(&[&["scrub", "--json"], args].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let json = serde_json::from_slice(&output.stdout);
    (
        output.status.code(),
        json.unwrap_or_else(|_| panic!("no JSON: {said}")),
    )
}

fn sum(json: &Value, key: &str) -> u64 {
    let volumes = json["volumes"].as_array().expect("a list");
    volumes
        .iter()
        .map(|volume| volume[key].as_u64().expect("a number"))
        .sum()
}

fn all_chunk_files(vdfs: &Filesystem) -> Vec<PathBuf> {
    let dirs = vdfs.ram_dirs();
    let volumes = dirs.iter().flat_map(|dir| volumes_in(dir));
    volumes.flat_map(|ram| chunk_files(&ram)).collect()
}

/// A volume alone has its RAM in the directory, several of an `up` have a directory each.
fn volumes_in(ram: &Path) -> Vec<PathBuf> {
    let mut dirs = vec![ram.to_owned()];
    dirs.extend(children(ram));
    dirs.retain(|dir| dir.join("chunks").is_dir());
    dirs
}

fn flip(file: &File, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("reads");
    byte[0] ^= 4;
    file.write_all_at(&byte, at).expect("writes");
}

fn damage_is_found_and_named(way: Way) {
    let vdfs = start(way);
    let dir = vdfs.dir();
    fs::create_dir(dir.join("d")).expect("makes");
    let len = 2 * CHUNK_BYTES as usize + 5000;
    fs::write(dir.join("d/large"), pattern::bytes(1, 0, len)).expect("writes");
    for number in 0..50 {
        let bytes = pattern::bytes(number, 0, 100 + number as usize * 700);
        fs::write(dir.join(format!("f{number}")), bytes).expect("writes");
    }
    let sparse = File::create(dir.join("sparse")).expect("makes");
    sparse
        .write_all_at(b"end", 3 * CHUNK_BYTES)
        .expect("writes");
    drop(sparse);

    let (code, sound) = scrub(&vdfs, &["--rate", "1GiB"]);
    assert_eq!(code, Some(0), "{sound}");
    assert_eq!(sound["damaged"].as_array().map(Vec::len), Some(0));
    assert!(sum(&sound, "checked_bytes") as usize > len, "{sound}");
    assert!(sum(&sound, "checked_chunks") >= 54, "{sound}");

    let large: Vec<PathBuf> = all_chunk_files(&vdfs)
        .into_iter()
        .filter(|path| fs::metadata(path).expect("is there").len() == CHUNK_BYTES)
        .collect();
    assert_eq!(large.len(), 2, "the whole chunks of the large file");
    let open = |path| OpenOptions::new().read(true).write(true).open(path);
    let file = open(&large[0]).expect("opens");
    flip(&file, 17);
    flip(&file, 3 << 20);
    let (code, damaged) = scrub(&vdfs, &["--rate", "1GiB"]);
    assert_eq!(code, Some(1), "{damaged}");
    let list = damaged["damaged"].as_array().expect("a list");
    assert_eq!(list.len(), 1, "{damaged}");
    assert_eq!(list[0]["path"], "/d/large", "{damaged}");
    assert_eq!(list[0]["bad_bytes"], 8192, "{damaged}");
    let (_, later) = scrub(&vdfs, &["--status"]);
    assert_eq!(later["damaged"], damaged["damaged"]);

    let second = vdfs.second_mount();
    let read = fs::read(second.dir().join("d/large")).expect_err("damaged");
    assert_eq!(read.raw_os_error(), Some(libc::EIO));
    flip(&file, 17);
    flip(&file, 3 << 20);
    let (code, mended) = scrub(&vdfs, &["--rate", "1GiB"]);
    assert_eq!(code, Some(0), "{mended}");
}

fn scrub_keeps_to_its_rate_beside_writers_and_can_be_stopped(way: Way) {
    let vdfs = start(way);
    let bytes = pattern::bytes(7, 0, 8 << 20);
    for number in 0..4 {
        fs::write(vdfs.dir().join(number.to_string()), &bytes).expect("writes");
    }
    let status = || scrub(&vdfs, &["--status"]).1;
    std::thread::scope(|scope| {
        let command = scope.spawn(|| scrub(&vdfs, &["--rate", "4MiB"]));
        eventually("the scrub has begun", WAIT, || {
            sum(&status(), "checked_bytes") > 0
        });
        // What is written meanwhile is not taken for damage.
        for number in 0..4 {
            let path = vdfs.dir().join(number.to_string());
            fs::write(path, pattern::bytes(number, 0, 6 << 20)).expect("writes");
        }
        let running = status();
        let volumes = running["volumes"].as_array().expect("a list").len() as u64;
        let (checked, ms) = (sum(&running, "checked_bytes"), sum(&running, "took_ms"));
        // A piece more than the time allows, on each volume.
        let allowed = (4 << 20) * ms / 1000 + volumes * (1 << 20);
        assert!(checked <= allowed, "{checked} of {allowed} allowed");
        let (code, stopped) = scrub(&vdfs, &["--stop"]);
        assert_eq!(code, Some(0), "{stopped}");
        let (code, seen) = command.join().expect("the command ends");
        assert_eq!(code, Some(0), "{seen}");
        assert_eq!(seen["damaged"].as_array().map(Vec::len), Some(0));
    });
    let states = status();
    let states = states["volumes"].as_array().expect("a list").iter();
    assert!(
        states
            .map(|volume| volume["state"].as_str())
            .all(|state| state == Some("stopped")),
        "stopped"
    );
}
