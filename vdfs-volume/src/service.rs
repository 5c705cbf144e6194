//! What clients reach: decodes, checks the role, calls the handler, encodes.
//!
//! A request is executed within one poll of its future: once it has begun, dropping the future
//! cannot leave it half done.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use vdfs_net::carrier::{Outcome, PeerIdentity, Request, Response, Service};
use vdfs_proto::Status;
use vdfs_proto::codec::{decode, encode};
use vdfs_proto::data::{DataReply, DataRequest};
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::Role;

use crate::handlers;
use crate::node::Node;
use crate::panics::PanicHook;

/// Serves [`Method::Data`].
pub(crate) struct DataService {
    node: Arc<Node>,
    panic_hook: PanicHook,
}

impl DataService {
    pub(crate) fn new(node: Arc<Node>, panic_hook: PanicHook) -> Self {
        DataService { node, panic_hook }
    }
}

impl fmt::Debug for DataService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataService").finish_non_exhaustive()
    }
}

impl Service for DataService {
    fn handle(&self, peer: Arc<PeerIdentity>, request: Request) -> BoxFuture<'static, Outcome> {
        let node = self.node.clone();
        let panic_hook = self.panic_hook.clone();
        async move {
            let work = || dispatch(&node, &peer, &request);
            match catch_unwind(AssertUnwindSafe(work)) {
                Ok(outcome) => outcome,
                Err(_) => panic_hook.abort(),
            }
        }
        .boxed()
    }

    fn answer_payload_bytes(&self, request: &Request) -> usize {
        match decode(&request.body) {
            Ok(DataRequest::Read(read)) => read.len as usize,
            Ok(
                DataRequest::Write(_)
                | DataRequest::ChangeSpace(_)
                | DataRequest::CopyBytes(_)
                | DataRequest::Seek(_)
                | DataRequest::CountBlocks(_)
                | DataRequest::Scrub(_),
            )
            | Err(_) => 0,
        }
    }
}

fn dispatch(node: &Arc<Node>, peer: &PeerIdentity, request: &Request) -> Outcome {
    node.check_running()?;
    if request.method != Method::Data {
        return Err(Status::NotSupported);
    }
    if !matches!(peer.role, Role::Client | Role::Admin) {
        return Err(Status::WrongRole);
    }
    let message: DataRequest = decode(&request.body)?;
    // It takes time from all others.
    if matches!(message, DataRequest::Scrub(_)) && peer.role != Role::Admin {
        return Err(Status::WrongRole);
    }
    let operation = message.name();
    let outcome = execute(node, message, &request.payload);
    if let Err(status) = &outcome {
        tracing::debug!(op = operation, peer = %peer.node, %status, "refused");
    }
    let (reply, payload) = outcome?;
    Ok(Response {
        body: encode(&reply),
        payload,
    })
}

fn execute(
    node: &Arc<Node>,
    message: DataRequest,
    payload: &[u8],
) -> Result<(DataReply, Bytes), Status> {
    let nothing = Bytes::new();
    Ok(match message {
        DataRequest::Write(write) => {
            let written = handlers::write::handle(node, &write, payload)?;
            (DataReply::Write(written), nothing)
        }
        DataRequest::Read(read) => {
            let (done, bytes) = handlers::read::handle(node, &read)?;
            (DataReply::Read(done), bytes)
        }
        DataRequest::ChangeSpace(ask) => {
            let written = handlers::space::handle(node, &ask)?;
            (DataReply::ChangeSpace(written), nothing)
        }
        DataRequest::CopyBytes(copy) => {
            let written = handlers::copy::handle(node, &copy)?;
            (DataReply::CopyBytes(written), nothing)
        }
        DataRequest::Seek(seek) => {
            let sought = handlers::seek::handle(node, &seek)?;
            (DataReply::Seek(sought), nothing)
        }
        DataRequest::CountBlocks(count) => {
            let blocks = handlers::blocks::handle(node, &count)?;
            (DataReply::CountBlocks(blocks), nothing)
        }
        DataRequest::Scrub(scrub) => {
            let report = handlers::scrub::handle(node, scrub)?;
            (DataReply::Scrub(report), nothing)
        }
    })
}
