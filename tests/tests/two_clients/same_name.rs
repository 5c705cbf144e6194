//! Two living clients of one name: the later one stays, the earlier one ends, and neither fights.

use std::time::Duration;

use vdfs_client::WriteFlags;
use vdfs_proto::{Ino, Status};

use crate::cluster::{Cluster, read_write, regular};
use crate::seeds::runtime;

/// Longer than a fight takes to be seen: each round of one is a question to the master.
const PEACE: Duration = Duration::from_secs(3);

#[test]
fn later_client_of_a_name_stays_and_the_earlier_one_is_told_that_it_has_ended() {
    runtime().block_on(async {
        let cluster = Cluster::start().await;
        let earlier = cluster.client("twin").await;
        let ino = earlier.create(regular("file")).await.expect("made").ino;
        let later = cluster.client("twin").await;
        let told = tokio::time::timeout(Duration::from_secs(20), earlier.replaced()).await;
        told.expect("is told");
        let refused = earlier.getattr(Ino::ROOT).await;
        assert_eq!(refused, Err(Status::ShuttingDown));
        let handle = later.open(ino, read_write()).await.expect("opens").handle;
        // Dirty bytes would be lost with the session.
        let flags = WriteFlags::default();
        let written = later.write(handle, 0, vec![1; 1000].into(), flags).await;
        written.expect("taken");
        let fought = tokio::time::timeout(PEACE, later.replaced()).await;
        assert!(fought.is_err(), "nobody ends the later one");
        later.flush(handle).await.expect("flushed");
    });
}
