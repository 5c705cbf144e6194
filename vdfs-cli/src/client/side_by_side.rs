//! Many small copies at once: each waits mostly for its round trips.

use futures::StreamExt;
use futures::stream;

use vdfs_program::Failure;

/// Copies under way at once; each holds at most a few MiB.
const COPIES_MAX: usize = 16;

/// Works on all of `items` and gives the first failure. After one nothing more is begun, but what
/// has begun is brought to its end, so that it cleans up behind itself.
pub(crate) async fn side_by_side<T>(
    items: Vec<T>,
    work: impl AsyncFn(T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let first_failure = std::cell::RefCell::new(None);
    stream::iter(items)
        .for_each_concurrent(COPIES_MAX, async |item| {
            if first_failure.borrow().is_some() {
                return;
            }
            if let Err(failure) = work(item).await {
                first_failure.borrow_mut().get_or_insert(failure);
            }
        })
        .await;
    first_failure.into_inner().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn side_by_side_finishes_what_has_begun_and_begins_nothing_after_a_failure() {
        let (begun, ended) = (Cell::new(0), Cell::new(0));
        let outcome = side_by_side((0..100).collect(), async |item| {
            begun.set(begun.get() + 1);
            tokio::task::yield_now().await;
            ended.set(ended.get() + 1);
            if item == 3 {
                Err(Failure::new(item, "fails"))
            } else {
                Ok(())
            }
        })
        .await;
        assert_eq!(outcome, Err(Failure::new(3, "fails")));
        assert_eq!(begun.get(), ended.get());
        assert!(begun.get() < 100);
    }
}
