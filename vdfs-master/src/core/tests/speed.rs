//! What a file costs.

use std::time::Instant;

use vdfs_proto::Ino;
use vdfs_proto::meta::NewKind;

use super::world::{World, create_in};

const FILES: u32 = 100_000;

fn rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split(' ').nth(1).expect("resident pages");
    pages.parse::<u64>().expect("a number") * 4096
}

#[test]
fn creates_of_100_000_files_fit_the_goal_of_ram() {
    let mut world = World::new();
    world.checks = false;
    world.keeps_log = false;
    let session = world.open_session("a");
    let rss = rss_bytes();
    let begin = Instant::now();
    for number in 0..FILES {
        let text = format!("a-name-of-20-b{number:06}");
        world.create(session, create_in(Ino::ROOT, &text, NewKind::Regular));
    }
    let elapsed = begin.elapsed();
    let grown = rss_bytes().saturating_sub(rss);
    println!(
        "{FILES} creates in {elapsed:?}, {:.2} us each; the process grew by {} bytes a file",
        elapsed.as_secs_f64() * 1e6 / f64::from(FILES),
        grown / u64::from(FILES),
    );
    let image = Instant::now();
    let image_made = world.core.image();
    let took = image.elapsed();
    let bytes: usize = image_made.sections().map(|(_, bytes)| bytes.len()).sum();
    println!("image in {took:?}, {} bytes a file", bytes / FILES as usize);
}
