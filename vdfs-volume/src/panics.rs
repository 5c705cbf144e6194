//! A panic in a volume ends the process: its state may be half changed, while the RAM behind it is
//! such that a restart can finish what was under way.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What is done before the process ends; a program with a mount detaches it here.
#[derive(Clone, Default)]
pub struct PanicHook(Option<Arc<dyn Fn() + Send + Sync>>);

impl PanicHook {
    pub fn new(hook: impl Fn() + Send + Sync + 'static) -> Self {
        PanicHook(Some(Arc::new(hook)))
    }

    /// Runs the hook and ends the process.
    pub(crate) fn abort(&self) -> ! {
        if let Some(hook) = &self.0 {
            // A second panic must not keep the process alive.
            drop(catch_unwind(AssertUnwindSafe(|| hook())));
        }
        std::process::abort();
    }

    /// Runs `work`, which must not panic.
    pub(crate) fn guard<T>(&self, work: impl FnOnce() -> T) -> T {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(value) => value,
            Err(_) => self.abort(),
        }
    }
}

impl fmt::Debug for PanicHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PanicHook({})",
            if self.0.is_some() { "set" } else { "none" }
        )
    }
}
