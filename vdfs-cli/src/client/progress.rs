//! A bar on standard error for copies that take longer than a second, where a person can see it.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const QUIET_FOR: Duration = Duration::from_secs(1);
const TEMPLATE: &str =
    "{msg:30!} [{bar:30}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta}";

#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    shown: AtomicBool,
}

impl Progress {
    pub(crate) fn start() -> Progress {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress {
            bar,
            started: Instant::now(),
            shown: AtomicBool::new(false),
        }
    }

    /// Another `bytes` are to be copied, of the file called `name`.
    pub(crate) fn expect(&self, name: &str, bytes: u64) {
        self.bar.set_message(name.to_owned());
        self.bar.inc_length(bytes);
    }

    pub(crate) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
        let late = self.started.elapsed() > QUIET_FOR;
        if late && std::io::stderr().is_terminal() && !self.shown.swap(true, Ordering::Relaxed) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
