//! From a run that fails to the few steps that it takes.

use super::step::Step;
use super::{Target, run_steps};

/// Leaves out whatever is not needed for a failure, by halves, quarters, and so on. A failure that
/// depends on chance may need several attempts.
pub fn shrink(target: &Target, steps: &[Step]) -> Vec<Step> {
    let mut kept = steps.to_vec();
    let mut len = kept.len() / 2;
    while len > 0 {
        let before = kept.len();
        kept = without_pieces(target, kept, len);
        // What was left out may have been what other steps were needed for.
        let may_repeat = len == 1 && kept.len() < before;
        if !may_repeat {
            len /= 2;
        }
    }
    kept
}

/// Leaves out every piece of `len` steps that is not needed, from the back.
fn without_pieces(target: &Target, mut steps: Vec<Step>, len: usize) -> Vec<Step> {
    let mut end = steps.len();
    while end > 0 {
        let start = end.saturating_sub(len);
        let rest = [&steps[..start], &steps[end..]].concat();
        if let Err(failure) = run_steps(target, &rest) {
            // What comes behind the failing step is not needed at all.
            let done = rest
                .iter()
                .take_while(|step| Some(**step) != failure.step.as_deref().copied());
            let done = done.count() + 1;
            steps = rest;
            steps.truncate(done);
        }
        end = start.min(steps.len());
    }
    steps
}
