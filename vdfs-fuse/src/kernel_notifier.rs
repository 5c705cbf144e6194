//! Tells the kernel what it must not believe any longer.
//!
//! Dropping pages waits for those that are being read or written back, and dropping attributes for an
//! inode that the kernel is giving up, whose pages may be under way. From a loop thread or a runtime
//! thread either could wait for a reply that the same thread has to give, so both happen on others.
//!
//! Invariant: the pages of an inode are dropped by one thread, in order; requests for one inode
//! that wait are merged into one range.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::{io, thread};

use fuser::{INodeNo, Notifier};
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use parking_lot::{Condvar, Mutex};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, error, warn};
use vdfs_client::KernelCache;
use vdfs_proto::Ino;

use crate::limits::{DROP_OLDER_MAX, DROP_PAGES_MAX, NOTIFIER_INODES_MAX, NOTIFIER_THREADS};
use crate::refills::Refills;

/// The kernel's cache of one mount. Made before the client, and attached when the mount stands;
/// until then the kernel has nothing cached.
#[derive(Debug)]
pub struct KernelNotifier {
    notifier: Arc<Mutex<Option<Notifier>>>,
    lines: Vec<Arc<Line>>,
    refills: Refills,
}

/// What one thread has to do.
#[derive(Debug, Default)]
struct Line {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<Ino>,
    ranges: HashMap<Ino, Range>,
    closed: bool,
}

/// Bytes whose pages go; `end` is `u64::MAX` if all behind `start` do.
#[derive(Debug)]
struct Range {
    start: u64,
    end: u64,
    done: Vec<oneshot::Sender<()>>,
}

impl KernelNotifier {
    /// Starts the threads.
    pub fn start() -> io::Result<Arc<Self>> {
        let notifier = Arc::new(Mutex::new(None));
        let lines = (0..NOTIFIER_THREADS)
            .map(|_| Arc::default())
            .collect::<Vec<Arc<Line>>>();
        for line in &lines {
            let (line, notifier) = (line.clone(), notifier.clone());
            let builder = thread::Builder::new().name("vdfs-notify".into());
            builder.spawn(move || line.run(&notifier))?;
        }
        Ok(Arc::new(KernelNotifier {
            notifier,
            lines,
            refills: Refills::default(),
        }))
    }

    pub(crate) fn attach(&self, notifier: Notifier) {
        *self.notifier.lock() = Some(notifier);
    }

    /// From now on the kernel is told nothing: its mount is going away.
    pub(crate) fn detach(&self) {
        *self.notifier.lock() = None;
    }

    /// Drops the pages of `len` bytes at `offset` (0: to the end), those written through a mapping
    /// after they are written out, and waits until it is done.
    pub(crate) async fn drop_now(&self, ino: Ino, offset: u64, len: u64) {
        let dropped = self.begin_drop(ino, offset, len);
        if timeout(DROP_PAGES_MAX, dropped).await.is_err() {
            warn!(%ino, "the kernel takes long to drop pages; a reader may see old ones for a moment");
        }
    }

    /// The kernel is about to fill pages.
    pub(crate) fn note_fill(&self, ino: Ino) {
        self.refills.note_fill(ino);
    }

    /// Drops pages that were filled with what was there before the write of `len` bytes at `offset`.
    pub(crate) async fn drop_older(&self, ino: Ino, offset: u64, len: u64) {
        if self.refills.may_be_older(ino) {
            let dropped = self.begin_drop(ino, offset, len);
            timeout(DROP_OLDER_MAX, dropped).await.ok();
        }
    }

    /// Says when it is done. The sender is dropped if there is nothing to drop any longer.
    fn begin_drop(&self, ino: Ino, offset: u64, len: u64) -> oneshot::Receiver<()> {
        let (done, dropped) = oneshot::channel();
        self.enqueue(ino, offset, len, Some(done));
        dropped
    }

    fn enqueue(&self, ino: Ino, offset: u64, len: u64, done: Option<oneshot::Sender<()>>) {
        if self.notifier.lock().is_none() {
            return;
        }
        let end = if len == 0 {
            u64::MAX
        } else {
            offset.saturating_add(len)
        };
        self.refills.note_drop(ino);
        let line = &self.lines[ino.slot() as usize % self.lines.len()];
        if line.queue.lock().add(
            ino,
            Range {
                start: offset,
                end,
                done: done.into_iter().collect(),
            },
        ) {
            line.changed.notify_one();
        } else {
            error!(%ino, "too many inodes wait for their pages to be dropped; these stay");
        }
    }
}

impl Drop for KernelNotifier {
    fn drop(&mut self) {
        for line in &self.lines {
            line.queue.lock().closed = true;
            line.changed.notify_one();
        }
    }
}

impl KernelCache for KernelNotifier {
    fn invalidate_data(&self, ino: Ino, offset: u64, len: u64) {
        self.enqueue(ino, offset, len, None);
    }

    fn drop_data(&self, ino: Ino) -> BoxFuture<'static, ()> {
        // However long it takes: who gets a lock must not see what was before it.
        self.begin_drop(ino, 0, 0).map(drop).boxed()
    }

    fn drop_attributes(&self, ino: Ino) -> BoxFuture<'static, ()> {
        let notifier = self.notifier.lock().clone();
        let drop = move || {
            if let Some(notifier) = notifier {
                report(ino, notifier.inval_inode(INodeNo(ino.0), -1, 0));
            }
        };
        // An error means that the runtime is going away.
        async move { spawn_blocking(drop).await.unwrap_or(()) }.boxed()
    }
}

impl Queue {
    /// False if there is no room.
    fn add(&mut self, ino: Ino, range: Range) -> bool {
        if let Some(waiting) = self.ranges.get_mut(&ino) {
            waiting.start = waiting.start.min(range.start);
            waiting.end = waiting.end.max(range.end);
            waiting.done.extend(range.done);
            return true;
        }
        if self.order.len() >= NOTIFIER_INODES_MAX {
            return false;
        }
        self.order.push_back(ino);
        self.ranges.insert(ino, range);
        assert_eq!(
            self.order.len(),
            self.ranges.len(),
            "each waiting inode has one range"
        );
        true
    }

    fn take(&mut self) -> Option<(Ino, Range)> {
        let ino = self.order.pop_front()?;
        let range = self
            .ranges
            .remove(&ino)
            .expect("each waiting inode has a range");
        Some((ino, range))
    }
}

impl Line {
    fn run(&self, notifier: &Mutex<Option<Notifier>>) {
        while let Some((ino, range)) = self.next() {
            let notifier = notifier.lock().clone();
            if let Some(notifier) = notifier {
                let (offset, len) = kernel_range(range.start, range.end);
                report(ino, notifier.inval_inode(INodeNo(ino.0), offset, len));
            }
            for done in range.done {
                // Nobody waits any more if it is refused.
                done.send(()).unwrap_or(());
            }
        }
    }

    /// `None` when it is over.
    fn next(&self) -> Option<(Ino, Range)> {
        let mut queue = self.queue.lock();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(next) = queue.take() {
                return Some(next);
            }
            self.changed.wait(&mut queue);
        }
    }
}

/// Offset and length as `FUSE_NOTIFY_INVAL_INODE` takes them: a length of 0 reaches to the end.
fn kernel_range(start: u64, end: u64) -> (i64, i64) {
    let offset = i64::try_from(start).unwrap_or(i64::MAX);
    let len = if end == u64::MAX {
        0
    } else {
        end.saturating_sub(start)
    };
    (offset, i64::try_from(len).unwrap_or(0))
}

fn report(ino: Ino, outcome: io::Result<()>) {
    if let Err(error) = outcome {
        debug!(%ino, %error, "the kernel did not take an invalidation");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> Range {
        Range {
            start,
            end,
            done: Vec::new(),
        }
    }

    #[test]
    fn queue_merges_what_waits_for_one_inode() {
        let mut queue = Queue::default();
        assert!(queue.add(Ino(1), range(10, 20)));
        assert!(queue.add(Ino(2), range(0, 5)));
        assert!(queue.add(Ino(1), range(5, 12)));
        let (ino, first) = queue.take().expect("two wait");
        assert_eq!((ino, first.start, first.end), (Ino(1), 5, 20));
        assert_eq!(queue.take().map(|(ino, _)| ino), Some(Ino(2)));
        assert!(queue.take().is_none());
    }

    #[test]
    fn queue_refuses_more_inodes_than_its_bound() {
        let mut queue = Queue::default();
        assert!((0..NOTIFIER_INODES_MAX as u64).all(|ino| queue.add(Ino(ino), range(0, 1))));
        assert!(!queue.add(Ino(u64::MAX), range(0, 1)));
        assert!(
            queue.add(Ino(3), range(0, 2)),
            "one that waits already is merged"
        );
    }

    #[test]
    fn kernel_range_to_the_end_has_no_length() {
        assert_eq!(kernel_range(4096, u64::MAX), (4096, 0));
        assert_eq!(kernel_range(4096, 4097), (4096, 1));
    }

    #[test]
    fn drop_now_without_a_mount_ends_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let notifier = KernelNotifier::start().expect("threads");
        let dropped = runtime.block_on(async {
            // Inside, since a timeout needs its clock.
            futures::FutureExt::now_or_never(notifier.drop_now(Ino(9), 0, 0))
        });
        assert!(dropped.is_some(), "no kernel to wait for");
    }
}
