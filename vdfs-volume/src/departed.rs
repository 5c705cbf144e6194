//! Frees copies that are nobody's any more ([`Departed`]).
//!
//! Whoever gives this volume a copy holds the same lock, and finds it a member.

use std::time::Duration;

use vdfs_net::clock::boot_ms;
use vdfs_proto::{ChainId, ChunkId};

use crate::chain::{Departed, Unwanted};
use crate::engine::Engine;

/// How long a chain must have been elsewhere: several times what the master takes to give a place back.
const KEPT_MS: u64 = 10_000;
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After which the thread sees to its other work; freeing a chunk of 64 MiB takes some milliseconds.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks for such copies from time to time; never ends.
pub(crate) async fn free_departed(engine: &Engine) {
    let mut departed = Departed::new(KEPT_MS);
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let due = engine.look(|core| departed.look(core.membership(), boot_ms()));
        if due.is_empty() {
            continue;
        }
        for (chunk, chain) in engine.store().chunks_of(|chain| due.contains(&chain)) {
            if free(engine, chunk, chain).await {
                tokio::time::sleep(PAUSE).await;
            }
        }
        departed.note_freed(due);
    }
}

/// False if it is wanted again.
async fn free(engine: &Engine, chunk: ChunkId, chain: ChainId) -> bool {
    let _giving = engine.supplied.lock().await;
    let unwanted = engine.look(|core| Unwanted::of(core.membership(), chain));
    let is_unwanted = unwanted.is_some_and(|unwanted| unwanted.has(chunk));
    if is_unwanted {
        engine.store().drop_copy(chunk);
    }
    is_unwanted
}
