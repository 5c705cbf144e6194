//! `lock-counter FILE WORKER WAY...`: see [`vdfs_tests::lock_torture`].

use std::env;
use std::io;
use std::path::Path;

use vdfs_tests::lock_torture::{Way, run_worker};

fn main() -> io::Result<()> {
    let mut args = env::args().skip(1);
    let file = args.next().expect("FILE");
    let worker = args.next().and_then(|worker| worker.parse().ok());
    let ways = args.map(|name| Way::named(&name).expect("a WAY"));
    run_worker(Path::new(&file), worker.expect("WORKER"), ways.collect())
}
