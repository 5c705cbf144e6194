//! Bits that flip in one of two copies: everybody reads the right bytes, a scrub names what is bad, and
//! whatever somebody has noticed is made good from the other copy.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use vdfs_tests::chunk_files::chunk_files;
use vdfs_tests::part::Part;
use vdfs_tests::{Replicated, eventually, mount_tests_skipped, pattern};

/// From damage that somebody has noticed to none.
const REPAIRED_WITHIN: Duration = Duration::from_secs(60);

/// The volume whose memory is bad.
const BAD: usize = 1;
const FILES: u64 = 24;
/// Some are large enough for several chunks.
const LARGE_BYTES: usize = 900_000;
/// As often as readers of either mount look, so that each copy has its turn.
const LOOKS: usize = 3;
/// `index`: an entry of two records a chunk.
const RECORD_BYTES: usize = 64;
/// In a record, where the length of a chunk is.
const LENGTH_AT: usize = 20;
/// `sums`: leaves of 64 bytes, whose first sum is here.
const LEAF_BYTES: usize = 64;
const SUM_AT: usize = 12;

fn len_of(number: u64) -> usize {
    match number % 3 {
        0 => LARGE_BYTES + number as usize * 1000,
        _ => 100 + number as usize * 1700,
    }
}

fn write_files(dir: &Path) {
    for number in 0..FILES {
        pattern::write_file(&dir.join(number.to_string()), number, len_of(number));
    }
}

/// What volumes have, not what a kernel has kept.
fn read_direct(path: &Path) -> Vec<u8> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_DIRECT);
    let mut file = options.open(path).expect("opens");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    bytes
}

/// Every file, on both mounts.
fn assert_right(cluster: &Replicated) {
    for _ in 0..LOOKS {
        for mount in &cluster.mounts {
            for number in 0..FILES {
                let path = mount.dir().join(number.to_string());
                let expected = pattern::bytes(number, 0, len_of(number));
                assert!(read_direct(&path) == expected, "{} differs", path.display());
            }
        }
    }
}

fn ram(cluster: &Replicated) -> PathBuf {
    cluster.volume_state(BAD).join("ram")
}

fn flip(path: &Path, places: impl IntoIterator<Item = u64>) {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.expect("opens");
    for at in places {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("reads");
        byte[0] ^= 4;
        file.write_all_at(&byte, at).expect("writes");
    }
}

/// Flips a bit in every chunk file; gives how many there are.
fn flip_chunks(cluster: &Replicated) -> usize {
    let files = chunk_files(&ram(cluster));
    let mut count = 0;
    for path in files {
        let len = fs::metadata(&path).expect("is there").len();
        let places = BTreeSet::from([len / 2, len - 1]);
        count += usize::from(len > 0);
        flip(&path, places.into_iter().filter(|_| len > 0));
    }
    count
}

/// Flips a bit at `at` of every part of a table that holds something.
fn flip_table(path: &Path, part_bytes: usize, at: usize) -> usize {
    let table = fs::read(path).expect("reads");
    let parts = table.chunks_exact(part_bytes).enumerate();
    let used = parts.filter(|(_, part)| part.iter().any(|byte| *byte != 0));
    let places: Vec<u64> = used
        .map(|(number, _)| (number * part_bytes + at) as u64)
        .collect();
    let count = places.len();
    flip(path, places);
    count
}

/// What a scrub finds: names of damaged files, and the volumes that have them.
fn damaged(cluster: &Replicated) -> (BTreeSet<String>, BTreeSet<String>) {
    let found = cluster.json(&["scrub", "--json", "--rate", "1GiB"]);
    let list = found["damaged"].as_array().expect("a list");
    let texts = |key: &str| {
        let texts = list.iter().map(|damage| damage[key].as_str());
        texts.map(|text| text.unwrap_or("?").to_owned()).collect()
    };
    (texts("path"), texts("volume"))
}

/// Files with a chunk on the bad volume.
fn files_there(cluster: &Replicated) -> BTreeSet<String> {
    let name = format!("volume-{}", BAD + 1);
    let is_there = |path: &String| cluster.members(path).concat().contains(&name);
    let paths = (0..FILES).map(|number| format!("/{number}"));
    paths.filter(is_there).collect()
}

fn start() -> Option<Replicated> {
    if mount_tests_skipped() {
        return None;
    }
    let cluster = Replicated::start();
    write_files(&cluster.dir());
    assert_right(&cluster);
    let (sound, _) = damaged(&cluster);
    assert!(sound.is_empty(), "{sound:?}");
    Some(cluster)
}

/// One scrub names them all, though they are repaired meanwhile.
fn assert_named(cluster: &Replicated) {
    let there = files_there(cluster);
    let (paths, volumes) = damaged(cluster);
    assert_eq!(paths, there);
    assert_eq!(volumes, BTreeSet::from([format!("volume-{}", BAD + 1)]));
}

/// The chains are whole, and a scrub finds nothing.
fn wait_until_repaired(cluster: &Replicated) {
    eventually("the damage is repaired", REPAIRED_WITHIN, || {
        cluster.wait_until_whole();
        damaged(cluster).0.is_empty()
    });
}

/// The volume that had the damage has all that it had before, and serves it.
fn assert_repaired(cluster: &mut Replicated) {
    wait_until_repaired(cluster);
    let there = files_there(cluster);
    assert!(!there.is_empty());
    assert_right(cluster);
    cluster.volumes[1 - BAD].kill9();
    assert_right(cluster);
    cluster.volumes[1 - BAD].start();
    cluster.wait_until_whole();
}

#[test]
fn flipped_bits_in_chunks_that_a_scrub_finds_are_repaired() {
    let Some(mut cluster) = start() else { return };
    eprintln!("{} chunks", flip_chunks(&cluster));
    assert_named(&cluster);
    assert_repaired(&mut cluster);
}

#[test]
fn flipped_bits_in_chunks_that_are_read_are_repaired() {
    let Some(mut cluster) = start() else { return };
    let before = cluster.epochs("/0");
    let sound = contents(&cluster, &[BAD]);
    flip_chunks(&cluster);
    assert_right(&cluster);
    eventually("what was read is repaired", REPAIRED_WITHIN, || {
        let now = contents(&cluster, &[BAD]);
        let is_sound = |(name, bytes): (&OsString, &Vec<u8>)| {
            let was_flipped = !bytes.is_empty();
            was_flipped && sound.get(name) == Some(bytes)
        };
        now.iter().any(is_sound)
    });
    assert_eq!(cluster.epochs("/0"), before, "no chain was short of a copy");
    assert_repaired(&mut cluster);
}

/// What each chunk file of some volumes has.
fn contents(cluster: &Replicated, volumes: &[usize]) -> BTreeMap<OsString, Vec<u8>> {
    let ram = |volume: &usize| cluster.volume_state(*volume).join("ram");
    let files = volumes.iter().flat_map(|volume| chunk_files(&ram(volume)));
    let name = |path: &Path| path.file_name().expect("a name").to_owned();
    let content = |path: PathBuf| (name(&path), fs::read(&path).expect("reads"));
    files.map(content).collect()
}

/// Each has the blocks that are bad at the other; whoever reads both meanwhile waits.
#[test]
fn flipped_bits_in_different_blocks_of_both_copies_are_repaired() {
    let Some(mut cluster) = start() else { return };
    flip_chunks(&cluster);
    let mut count = 0;
    for path in chunk_files(&cluster.volume_state(1 - BAD).join("ram")) {
        // Beyond it the first block is not among those that are bad at the other.
        if fs::metadata(&path).expect("is there").len() > 8192 {
            flip(&path, [0]);
            count += 1;
        }
    }
    assert!(count > 0);
    assert_right(&cluster);
    assert_repaired(&mut cluster);
}

/// Programs that write parts of blocks notice nothing, whichever copy is the damaged one.
#[test]
fn flipped_bits_in_chunks_that_are_written_are_repaired() {
    let Some(mut cluster) = start() else { return };
    flip_chunks(&cluster);
    for number in 0..FILES {
        let path = cluster.dir().join(number.to_string());
        let file = OpenOptions::new().write(true).open(path).expect("opens");
        let middle = (len_of(number) / 2) as u64;
        let expected = pattern::bytes(number, middle, 10);
        file.write_all_at(&expected, middle).expect("writes");
        file.sync_all().expect("syncs");
    }
    assert_repaired(&mut cluster);
}

#[test]
fn flipped_bits_in_sums_of_one_copy_are_repaired() {
    let Some(mut cluster) = start() else { return };
    let count = flip_table(&ram(&cluster).join("sums"), LEAF_BYTES, SUM_AT);
    eprintln!("{count} leaves");
    assert_named(&cluster);
    assert_repaired(&mut cluster);
}

/// The index is read at a start.
#[test]
fn flipped_bits_in_records_of_one_copy_are_read_by_nobody() {
    let Some(mut cluster) = start() else { return };
    let count = flip_table(&ram(&cluster).join("index"), RECORD_BYTES, LENGTH_AT);
    eprintln!("{count} records");
    assert_right(&cluster);
    cluster.volumes[BAD].kill9();
    cluster.volumes[BAD].start();
    assert_right(&cluster);
    cluster.wait_until_whole();
    assert_right(&cluster);
}

/// Each has what the other has lost: no copy is right as a whole.
#[test]
fn chunks_that_volumes_have_lost_while_all_were_down_are_taken_from_the_others() {
    let Some(mut cluster) = start() else { return };
    cluster.volumes.iter_mut().for_each(Part::kill9);
    let mut copies: BTreeMap<OsString, Vec<PathBuf>> = BTreeMap::new();
    for index in 0..cluster.volumes.len() {
        for path in chunk_files(&cluster.volume_state(index).join("ram")) {
            let name = path.file_name().expect("a name").to_owned();
            copies.entry(name).or_default().push(path);
        }
    }
    for (number, paths) in copies.values().enumerate() {
        assert_eq!(paths.len(), 2, "{paths:?}");
        fs::remove_file(&paths[number % 2]).expect("removes");
    }
    cluster
        .volumes
        .iter_mut()
        .for_each(|volume| drop(volume.start()));
    assert_right(&cluster);
    wait_until_repaired(&cluster);
    assert_right(&cluster);
}

#[test]
fn flipped_bits_in_records_that_a_scrub_finds_are_repaired() {
    let Some(mut cluster) = start() else { return };
    flip_table(&ram(&cluster).join("index"), RECORD_BYTES, LENGTH_AT);
    assert_named(&cluster);
    assert_repaired(&mut cluster);
    cluster.volumes[BAD].kill9();
    cluster.volumes[BAD].start();
    assert_right(&cluster);
    cluster.wait_until_whole();
    let status = cluster.status();
    assert_eq!(status["chains"]["lost"], 0, "{status}");
}
