//! How far a long look at names has come, on standard error, where a person can see it.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vdfs_master::meta::Progress;

const SLOTS: &str = "{msg} [{bar:30}] {percent} %, {eta}";
const LINES: &str = "{msg} {human_pos} lines, {per_sec}";
/// Between two words on lines.
const LINES_EACH: u64 = 10_000;
const TICK: Duration = Duration::from_secs(1);

/// By slots of inodes, whose number is known.
#[derive(Debug)]
pub(crate) struct SlotsBar(ProgressBar);

/// By lines, whose number is not.
#[derive(Debug)]
pub(super) struct LinesBar(ProgressBar);

impl SlotsBar {
    pub(crate) fn start(what: &'static str) -> SlotsBar {
        SlotsBar(bar(what, SLOTS))
    }

    pub(crate) fn show(&self, progress: Progress) {
        self.0.set_length(progress.total);
        self.0.set_position(progress.done);
    }
}

impl LinesBar {
    pub(super) fn start(what: &'static str) -> LinesBar {
        LinesBar(bar(what, LINES))
    }

    pub(super) fn show(&self, lines: u64) {
        if lines.is_multiple_of(LINES_EACH) {
            self.0.set_position(lines);
        }
    }
}

fn bar(what: &'static str, template: &str) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what);
    bar.enable_steady_tick(TICK);
    bar
}

impl Drop for SlotsBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Drop for LinesBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
