//! A scrub: everything that the volume holds is compared with its sums, on a thread of its own, at a
//! bounded rate.
//!
//! Invariants: one scrub at a time; the thread holds neither store nor chunk while it waits, and ends
//! with the volume. The report of the last scrub stays until the next one begins.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use vdfs_proto::data::{DamagedChunk, ScrubReport, ScrubState};

use crate::limits::DAMAGED_CHUNKS_LISTED_MAX;
use crate::node::Node;
use crate::pace::Rate;
use crate::panics::PanicHook;
use crate::store::{ScrubCursor, ScrubbedPiece};

/// How soon a scrub that waits notices that it was stopped.
const PAUSE: Duration = Duration::from_millis(100);

/// The scrub that runs, or the last one.
pub(crate) struct Scrubs {
    last: Mutex<Option<Arc<Run>>>,
    panic_hook: PanicHook,
}

impl fmt::Debug for Scrubs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubs").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Run {
    bytes_per_second: u64,
    begun: Instant,
    stop: AtomicBool,
    report: Mutex<ScrubReport>,
}

impl Scrubs {
    pub(crate) fn new(panic_hook: PanicHook) -> Self {
        Scrubs {
            last: Mutex::default(),
            panic_hook,
        }
    }

    /// What the scrub has found so far.
    pub(crate) fn report(&self) -> ScrubReport {
        let last = self.last.lock().clone();
        last.map_or_else(ScrubReport::default, |run| run.report())
    }

    pub(crate) fn stop(&self) {
        if let Some(run) = &*self.last.lock() {
            run.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Begins a scrub in place of one that runs.
pub(crate) fn begin(node: &Arc<Node>, bytes_per_second: u64) -> io::Result<()> {
    let run = Arc::new(Run {
        bytes_per_second: bytes_per_second.max(1),
        begun: Instant::now(),
        stop: AtomicBool::new(false),
        report: Mutex::new(ScrubReport {
            state: ScrubState::Running,
            total_bytes: node.engine.store().usage().used_bytes,
            ..ScrubReport::default()
        }),
    });
    let mut last = node.scrubs.last.lock();
    let (work, hook) = (run.clone(), node.scrubs.panic_hook.clone());
    let node = Arc::downgrade(node);
    std::thread::Builder::new()
        .name("volume-scrub".to_owned())
        .spawn(move || hook.guard(|| work.go(&node)))?;
    if let Some(before) = last.replace(run) {
        before.stop.store(true, Ordering::Relaxed);
    }
    Ok(())
}

impl Run {
    fn report(&self) -> ScrubReport {
        let mut report = self.report.lock().clone();
        if report.state == ScrubState::Running {
            report.took_ms = self.begun.elapsed().as_millis() as u64;
        }
        report
    }

    fn go(&self, node: &Weak<Node>) {
        let mut cursor = ScrubCursor::default();
        let mut rate = Rate::new(self.bytes_per_second);
        let mut next = Instant::now();
        let state = loop {
            if !self.waits_until(next) {
                break ScrubState::Stopped;
            }
            let Some(node) = node.upgrade().filter(|node| node.check_running().is_ok()) else {
                break ScrubState::Stopped;
            };
            let Some(piece) = node.engine.store().scrub_next(&mut cursor) else {
                break ScrubState::Done;
            };
            if self.note(piece) {
                node.engine.doubt(piece.chunk, piece.chain);
            }
            next = rate.take(piece.bytes, Instant::now()).end;
        };
        let mut report = self.report.lock();
        report.state = state;
        report.took_ms = self.begun.elapsed().as_millis() as u64;
        tracing::info!(
            ?state,
            report.checked_bytes,
            report.damaged_chunks,
            "scrub ended"
        );
    }

    /// False if it is stopped before.
    fn waits_until(&self, next: Instant) -> bool {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(PAUSE));
        }
    }

    /// Whether it is damaged.
    fn note(&self, piece: ScrubbedPiece) -> bool {
        let mut report = self.report.lock();
        report.checked_bytes += piece.bytes;
        report.checked_chunks += u64::from(piece.is_last_of_chunk);
        if piece.bad_blocks == 0 && !piece.is_bad_copy {
            return false;
        }
        if let Some(known) = report.damaged.last_mut()
            && known.chunk == piece.chunk
        {
            known.bad_blocks += piece.bad_blocks;
            return true;
        }
        report.damaged_chunks += 1;
        if report.damaged.len() < DAMAGED_CHUNKS_LISTED_MAX {
            report.damaged.push(DamagedChunk {
                chunk: piece.chunk,
                bad_blocks: piece.bad_blocks,
                is_bad_copy: piece.is_bad_copy,
            });
        }
        true
    }
}
