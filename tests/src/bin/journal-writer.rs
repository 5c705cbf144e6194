//! `journal-writer PATH SEED`: see [`vdfs_tests::journal`].

use std::env;
use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    let mut args = env::args().skip(1);
    let path = args.next().expect("PATH");
    let seed = args.next().and_then(|seed| seed.parse().ok());
    vdfs_tests::journal::run_writer(Path::new(&path), seed.expect("SEED"))
}
