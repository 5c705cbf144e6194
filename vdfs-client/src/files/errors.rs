//! Errors of what was written behind: each comes back once at every handle that was open for
//! writing when it happened (as errseq does in the kernel).

use vdfs_proto::Status;

/// The last error of an inode, numbered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StickyError {
    count: u64,
    last: Option<Status>,
}

impl StickyError {
    pub(crate) fn record(&mut self, status: Status) {
        self.count += 1;
        self.last = Some(status);
    }

    /// What a handle opened now has seen.
    pub(crate) fn mark(&self) -> u64 {
        self.count
    }

    /// The error that a handle with this mark has not seen.
    pub(crate) fn check(&self, seen: &mut u64) -> Result<(), Status> {
        if *seen == self.count {
            return Ok(());
        }
        *seen = self.count;
        Err(self.last.expect("a count above 0 has an error"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_comes_back_once_at_each_handle_that_was_open() {
        let mut error = StickyError::default();
        let (mut first, mut second) = (error.mark(), error.mark());
        error.record(Status::NoSpace);
        let mut later = error.mark();
        assert_eq!(error.check(&mut first), Err(Status::NoSpace));
        assert_eq!(error.check(&mut first), Ok(()));
        assert_eq!(error.check(&mut second), Err(Status::NoSpace));
        assert_eq!(error.check(&mut later), Ok(()));
    }
}
