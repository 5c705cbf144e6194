//! `lock-counter FILE WORKER`: see [`vdfs_tests::lock_torture`].

use std::env;
use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    let mut args = env::args().skip(1);
    let file = args.next().expect("FILE");
    let worker = args.next().and_then(|worker| worker.parse().ok());
    vdfs_tests::lock_torture::run_worker(Path::new(&file), worker.expect("WORKER"))
}
