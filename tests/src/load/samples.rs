//! How long replies were waited for.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// In microseconds.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    waits_us: Vec<u32>,
}

/// Waits during which a mark was set, and the others.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    pub marked: Latencies,
    pub others: Latencies,
}

impl Samples {
    pub(crate) async fn time<T>(&mut self, mark: &AtomicBool, call: impl Future<Output = T>) -> T {
        let was_marked = mark.load(Ordering::Relaxed);
        let begin = Instant::now();
        let outcome = call.await;
        let is_marked = was_marked || mark.load(Ordering::Relaxed);
        self.push(is_marked, begin.elapsed());
        outcome
    }

    pub fn push(&mut self, is_marked: bool, wait: Duration) {
        let side = match is_marked {
            true => &mut self.marked,
            false => &mut self.others,
        };
        side.waits_us.push(wait.as_micros() as u32);
    }

    pub fn joined(mut self, other: Samples) -> Samples {
        self.marked.extend(other.marked);
        self.others.extend(other.others);
        self
    }
}

impl Latencies {
    pub fn extend(&mut self, others: Latencies) {
        self.waits_us.extend(others.waits_us);
    }

    pub fn count(&self) -> usize {
        self.waits_us.len()
    }

    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.waits_us.iter().copied().max().unwrap_or(0).into())
    }

    /// What all but so many of a thousand were shorter than.
    pub fn per_mille(&self, of_thousand: f64) -> Duration {
        let mut sorted = self.waits_us.clone();
        sorted.sort_unstable();
        let at = (sorted.len() as f64 * of_thousand / 1000.0) as usize;
        let wait = sorted.get(at.min(sorted.len().saturating_sub(1)));
        Duration::from_micros(wait.copied().unwrap_or(0).into())
    }
}
