//! A client's way to the others that tests can cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use vdfs_net::{Carrier, Connector, Outcome, Request, Target};
use vdfs_proto::Status;
use vdfs_proto::frame::Method;

/// What is cut.
#[derive(Debug, Default)]
struct Cuts {
    mutations: AtomicBool,
    all: AtomicBool,
}

/// Shared with the carriers that it has given.
#[derive(Clone, Debug)]
pub(crate) struct Wires {
    inner: Arc<dyn Connector>,
    cuts: Arc<Cuts>,
}

impl Wires {
    pub(crate) fn through(inner: Arc<dyn Connector>) -> Wires {
        Wires {
            inner,
            cuts: Arc::default(),
        }
    }

    /// Nothing that changes the namespace arrives any more: no commit does.
    pub(crate) fn cut_mutations(&self) {
        self.cuts.mutations.store(true, Ordering::SeqCst);
    }

    /// Nothing arrives any more: to the others the client is dead.
    pub(crate) fn cut_all(&self) {
        self.cuts.all.store(true, Ordering::SeqCst);
    }
}

impl Connector for Wires {
    fn carrier(&self, target: &Target) -> Arc<dyn Carrier> {
        Arc::new(Wire {
            inner: self.inner.carrier(target),
            cuts: self.cuts.clone(),
        })
    }
}

#[derive(Debug)]
struct Wire {
    inner: Arc<dyn Carrier>,
    cuts: Arc<Cuts>,
}

impl Carrier for Wire {
    fn call(&self, request: Request, deadline: Duration) -> BoxFuture<'_, Outcome> {
        let is_mutation = matches!(request.method, Method::Mutate);
        let cut_mutation = is_mutation && self.cuts.mutations.load(Ordering::SeqCst);
        if cut_mutation || self.cuts.all.load(Ordering::SeqCst) {
            return std::future::ready(Err(Status::Disconnected)).boxed();
        }
        self.inner.call(request, deadline)
    }
}
