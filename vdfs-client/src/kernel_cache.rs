//! The seam to whoever caches what this client has said.

use std::fmt::Debug;

use futures::FutureExt;
use futures::future::BoxFuture;

use vdfs_proto::Ino;

/// What a kernel may have cached of this client. Called from the client's tasks: an implementation
/// must not block, so it hands over to threads of its own.
pub trait KernelCache: Debug + Send + Sync + 'static {
    /// Drops the pages of `len` bytes at `offset`; `len` 0 reaches to the end.
    fn invalidate_data(&self, ino: Ino, offset: u64, len: u64);
    /// Drops all pages, and is done when they are dropped. What was written through mappings is
    /// written to the client first.
    fn drop_data(&self, ino: Ino) -> BoxFuture<'static, ()>;
    /// Drops the attributes, and is done when they are dropped.
    fn drop_attributes(&self, ino: Ino) -> BoxFuture<'static, ()>;
}

/// For programs without a mount.
#[derive(Debug)]
pub struct NoKernelCache;

impl KernelCache for NoKernelCache {
    fn invalidate_data(&self, _ino: Ino, _offset: u64, _len: u64) {}

    fn drop_data(&self, _ino: Ino) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }

    fn drop_attributes(&self, _ino: Ino) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
}
