//! The congestion window on the loopback.
//!
//! There the only bottleneck is the receiver's socket buffer. Flow control keeps what is in flight
//! below it, so the window is open, which also turns quinn's pacer off. Only if many connections
//! fill one buffer together does anything get lost; then the window closes for a while.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};

/// Beyond `u32::MAX` quinn sends without pacing.
const OPEN_BYTES: u64 = 1 << 33;
/// After the first loss the window is half of it, then half again.
const CLOSING_BYTES: u64 = 2 << 20;
const CLOSED_BYTES: u64 = 256 << 10;
/// Without a loss for this long the window is open again.
const CALM: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct LoopbackWindowConfig;

impl ControllerFactory for LoopbackWindowConfig {
    fn build(self: Arc<Self>, _now: Instant, _mtu: u16) -> Box<dyn Controller> {
        Box::new(LoopbackWindow {
            bytes: OPEN_BYTES,
            lost_at: None,
        })
    }
}

#[derive(Clone, Debug)]
struct LoopbackWindow {
    bytes: u64,
    lost_at: Option<Instant>,
}

impl Controller for LoopbackWindow {
    fn on_congestion_event(&mut self, now: Instant, _sent: Instant, _persistent: bool, _lost: u64) {
        self.bytes = (self.bytes.min(CLOSING_BYTES) / 2).max(CLOSED_BYTES);
        self.lost_at = Some(now);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        _in_flight: u64,
        _app_limited: bool,
        _largest_acked: Option<u64>,
    ) {
        if self
            .lost_at
            .is_some_and(|lost| now.saturating_duration_since(lost) > CALM)
        {
            self.bytes = OPEN_BYTES;
            self.lost_at = None;
        }
    }

    fn on_mtu_update(&mut self, _mtu: u16) {}

    fn window(&self) -> u64 {
        self.bytes
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        OPEN_BYTES
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_after_a_loss_closes_and_opens_again_when_calm() {
        let start = Instant::now();
        let mut window = Arc::new(LoopbackWindowConfig).build(start, 6500);
        assert_eq!(window.window(), OPEN_BYTES);
        for expected in [1 << 20, 512 << 10, 256 << 10, 256 << 10] {
            window.on_congestion_event(start, start, false, 6500);
            assert_eq!(window.window(), expected);
        }
        window.on_end_acks(start + CALM, 0, false, None);
        assert_eq!(window.window(), CLOSED_BYTES);
        window.on_end_acks(start + 2 * CALM, 0, false, None);
        assert_eq!(window.window(), OPEN_BYTES);
    }
}
