//! The log on the disk stays bounded under endless change, and a restart has everything.

use std::fs;
use std::path::Path;
use std::time::Duration;

use vdfs_proto::XattrName;
use vdfs_proto::meta::XattrMode;

use crate::cluster::{Cluster, regular};
use crate::seeds::runtime;

const CHECKPOINT_LOG_BYTES: u64 = 8 << 20;
/// The log since the older of two checkpoints and what comes while the next is written, in segments
/// of the checkpoint's size, the preallocated one included.
const LOG_DIR_BYTES_MAX: u64 = 6 * CHECKPOINT_LOG_BYTES;
const VALUE_BYTES: usize = 60_000;
const ROUNDS: u32 = 2_000;

#[test]
fn log_directory_stays_bounded_while_120_mb_are_logged() {
    runtime().block_on(async {
        let mut cluster = Cluster::start_with(1, Some(CHECKPOINT_LOG_BYTES)).await;
        let client = cluster.client("a").await;
        let ino = client.create(regular("file")).await.expect("made").ino;
        let name = XattrName::new(b"user.note").expect("a plain name");
        for round in 0..ROUNDS {
            let value = vec![round as u8; VALUE_BYTES];
            let set = client.set_xattr(ino, name.clone(), value, XattrMode::Set);
            set.await.expect("set");
            if round % 100 == 0 {
                let bytes = directory_bytes(&cluster.log_dir());
                assert!(bytes < LOG_DIR_BYTES_MAX, "{bytes} bytes of log");
            }
        }
        cluster.restart_master(Duration::ZERO).await;
        let value = client.get_xattr(ino, name).await.expect("there");
        assert_eq!(value, vec![(ROUNDS - 1) as u8; VALUE_BYTES]);
    });
}

fn directory_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("the log is there");
    // A file may be purged while it is counted.
    let sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    sizes.sum()
}
