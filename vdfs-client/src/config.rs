//! What a client is told at its start.

use std::sync::Arc;
use std::time::Duration;

use vdfs_net::{Connector, Target};

use crate::kernel_cache::KernelCache;

#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Names this mount for ever: a live session of the same identity is ended when this one
    /// begins.
    pub identity: String,
    /// This machine, for status reports.
    pub host: String,
    /// Mountpoint, or what the client is, for status reports.
    pub mount: String,
    /// Tried in order; not empty.
    pub master: Vec<Target>,
    /// The way to the master and the volumes.
    pub connector: Arc<dyn Connector>,
    /// How long one operation may take; `None` waits without limit.
    pub timeout: Option<Duration>,
    /// What the kernel may have cached of this client.
    pub kernel_cache: Arc<dyn KernelCache>,
    /// Changes are answered `ReadOnly`.
    pub read_only: bool,
}
