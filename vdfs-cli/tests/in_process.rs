//! A whole filesystem in the test's own process.

use std::path::Path;

use vdfs_cli::up::{Up, UpConfig};
use vdfs_program::Size;
use vdfs_volume::Ram;

fn config(scratch: &Path) -> UpConfig {
    UpConfig {
        dir: scratch.join("mnt"),
        state: scratch.join("state"),
        ram: Some(Size(64 << 20)),
        volumes: Some(2),
        chunk_size: None,
        fresh: false,
        listen: None,
    }
}

#[test]
fn up_stopped_and_started_again_elsewhere_has_its_files() {
    if std::env::var_os("VDFS_SKIP_MOUNT_TESTS").is_some_and(|value| value == "1") {
        eprintln!("skipped: VDFS_SKIP_MOUNT_TESTS=1");
        return;
    }
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let mut config = config(scratch.path());
    let up = Up::start(&config).expect("starts");
    assert_eq!(up.lost(), Ok((0, 0)));
    std::fs::write(config.dir.join("file"), vec![7; 100_000]).expect("writes");
    let refused = Up::start(&config).expect_err("runs already").to_string();
    assert!(refused.contains("already running as pid"), "{refused}");
    let stopped = up.stop();
    assert_eq!((stopped.not_flushed, stopped.busy), (None, vec![]));
    assert!(stopped.ram_bytes >= 100_000);

    config.dir = scratch.path().join("elsewhere");
    config.volumes = Some(1);
    let refused = Up::start(&config).expect_err("fewer volumes").to_string();
    assert!(refused.starts_with("--volumes 1"), "{refused}");
    config.volumes = None;
    let up = Up::start(&config).expect("starts again");
    assert_eq!(
        std::fs::read(config.dir.join("file")).expect("reads"),
        vec![7; 100_000]
    );
    up.stop();
    Ram::destroy(&config.state.join("ram")).expect("freed");
}
