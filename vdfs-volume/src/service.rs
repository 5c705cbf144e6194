//! What clients and other volumes reach: decodes, checks the role, calls the handler, encodes.
//!
//! A read is done within one poll of its future, unless its chunk is closed. A write belongs to the
//! engine once it has begun: dropping the future ends only the wait for its answer.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use vdfs_net::carrier::{Outcome, PeerIdentity, Request, Response, Service};
use vdfs_proto::Status;
use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::codec::{decode, encode};
use vdfs_proto::data::{DataReply, DataRequest};
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::Role;
use vdfs_proto::peer::{PeerReply, PeerRequest};

use crate::handlers;
use crate::node::Node;
use crate::panics::PanicHook;
use crate::relay;

/// Serves [`Method::Data`], and [`Method::Peer`] and [`Method::Relay`] with their like.
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
            let work = AssertUnwindSafe(dispatch(&node, &peer, request)).catch_unwind();
            tokio::select! {
                biased;
                outcome = work => outcome.unwrap_or_else(|_| panic_hook.abort()),
                // What it waits for may never come.
                () = node.ended() => Err(Status::ShuttingDown),
            }
        }
        .boxed()
    }

    fn answer_payload_bytes(&self, request: &Request) -> usize {
        if matches!(request.method, Method::Peer | Method::PeerBehind) {
            return match decode(&request.body) {
                Ok(PeerRequest::FetchBlocks(fetch)) => fetch.sums.len() * BLOCK_BYTES as usize,
                Ok(_) | Err(_) => 0,
            };
        }
        match decode(&request.body) {
            Ok(DataRequest::Read(read)) => read.len as usize,
            Ok(
                DataRequest::Write(_)
                | DataRequest::ChangeSpace(_)
                | DataRequest::CopyBytes(_)
                | DataRequest::Seek(_)
                | DataRequest::CountBlocks(_)
                | DataRequest::Doubt(_)
                | DataRequest::Inventory(_)
                | DataRequest::Mend(_)
                | DataRequest::Scrub(_),
            )
            | Err(_) => 0,
        }
    }
}

async fn dispatch(node: &Arc<Node>, peer: &PeerIdentity, request: Request) -> Outcome {
    node.check_running()?;
    match request.method {
        Method::Data => dispatch_data(node, peer, request).await,
        Method::Peer | Method::PeerBehind | Method::PeerEarly => {
            dispatch_peer(node, peer, request).await
        }
        Method::Relay => dispatch_relayed(node, peer, request).await,
        _ => Err(Status::NotSupported),
    }
}

async fn dispatch_peer(node: &Arc<Node>, peer: &PeerIdentity, request: Request) -> Outcome {
    if peer.role != Role::Volume {
        return Err(Status::WrongRole);
    }
    let message: PeerRequest = decode(&request.body)?;
    // Answers with bytes have room only where it was asked for.
    if request.method == Method::PeerEarly && !matches!(message, PeerRequest::Forward(_)) {
        return Err(Status::Invalid);
    }
    let operation = message.name();
    let outcome = execute_peer(node, &peer.node, message, request.payload).await;
    if let Err(status) = &outcome {
        tracing::debug!(op = operation, peer = %peer.node, %status, "refused");
    }
    let (reply, payload) = outcome?;
    Ok(Response {
        body: encode(&reply),
        payload,
    })
}

async fn execute_peer(
    node: &Arc<Node>,
    asker: &str,
    message: PeerRequest,
    payload: Bytes,
) -> Result<(PeerReply, Bytes), Status> {
    use handlers::peer;
    let reply = match message {
        PeerRequest::Forward(forward) => {
            PeerReply::Forward(peer::follow(node, asker, forward, payload).await?)
        }
        PeerRequest::LearnReplies(lesson) => {
            peer::learn(node, asker, lesson).await?;
            PeerReply::LearnReplies(())
        }
        PeerRequest::ListChunks(list) => {
            PeerReply::ListChunks(peer::list(node, asker, list).await?)
        }
        PeerRequest::PutChunk(put) => {
            PeerReply::PutChunk(peer::put(node, asker, put, payload).await?)
        }
        PeerRequest::DropChunk(drop) => {
            peer::drop_chunk(node, asker, drop).await?;
            PeerReply::DropChunk(())
        }
        PeerRequest::CheckChunk(check) => {
            peer::check_chunk(node, asker, check).await?;
            PeerReply::CheckChunk(())
        }
        PeerRequest::FetchBlocks(fetch) => {
            let (fetched, bytes) = peer::fetch(node, asker, &fetch)?;
            return Ok((PeerReply::FetchBlocks(fetched), bytes));
        }
    };
    Ok((reply, Bytes::new()))
}

async fn dispatch_data(node: &Arc<Node>, peer: &PeerIdentity, request: Request) -> Outcome {
    if !matches!(peer.role, Role::Client | Role::Admin) {
        return Err(Status::WrongRole);
    }
    let message: DataRequest = decode(&request.body)?;
    // It takes time from all others.
    let is_for_admins = matches!(
        message,
        DataRequest::Scrub(_) | DataRequest::Inventory(_) | DataRequest::Mend(_)
    );
    if is_for_admins && peer.role != Role::Admin {
        return Err(Status::WrongRole);
    }
    if matches!(message, DataRequest::Read(_) | DataRequest::Write(_)) {
        node.engine.traffic().note();
    }
    if let Some(head) = relay::head_elsewhere(&node.engine, &message) {
        return relay::to_head(&node.engine, head, request).await;
    }
    answer_data(node, peer, message, request.payload).await
}

/// A change of a client, which another member of the chain has brought.
async fn dispatch_relayed(node: &Arc<Node>, peer: &PeerIdentity, request: Request) -> Outcome {
    if peer.role != Role::Volume {
        return Err(Status::WrongRole);
    }
    let message: DataRequest = decode(&request.body)?;
    let (chain, epoch) = relay::relayed_chain(&message).ok_or(Status::NotSupported)?;
    handlers::peer::check_beside(node, &peer.node, chain, epoch)?;
    node.engine.traffic().note();
    answer_data(node, peer, message, request.payload).await
}

async fn answer_data(
    node: &Arc<Node>,
    peer: &PeerIdentity,
    message: DataRequest,
    payload: Bytes,
) -> Outcome {
    let operation = message.name();
    let outcome = execute(node, message, payload).await;
    if let Err(status) = &outcome {
        tracing::debug!(op = operation, peer = %peer.node, %status, "refused");
    }
    let (reply, payload) = outcome?;
    Ok(Response {
        body: encode(&reply),
        payload,
    })
}

async fn execute(
    node: &Arc<Node>,
    message: DataRequest,
    payload: Bytes,
) -> Result<(DataReply, Bytes), Status> {
    let nothing = Bytes::new();
    Ok(match message {
        DataRequest::Write(write) => {
            let begun = handlers::write::handle(node, write, payload)?;
            (DataReply::Write(begun.written().await?), nothing)
        }
        DataRequest::Read(read) => {
            let (done, bytes) = handlers::read::handle(node, &read).await?;
            (DataReply::Read(done), bytes)
        }
        DataRequest::ChangeSpace(ask) => {
            let begun = handlers::space::handle(node, ask)?;
            (DataReply::ChangeSpace(begun.written().await?), nothing)
        }
        DataRequest::CopyBytes(copy) => {
            let written = handlers::copy::handle(node, copy).await?;
            (DataReply::CopyBytes(written), nothing)
        }
        DataRequest::Seek(seek) => {
            let sought = handlers::seek::handle(node, &seek).await?;
            (DataReply::Seek(sought), nothing)
        }
        DataRequest::CountBlocks(count) => {
            let blocks = handlers::blocks::handle(node, &count).await?;
            (DataReply::CountBlocks(blocks), nothing)
        }
        DataRequest::Doubt(doubt) => {
            let doubted = handlers::doubt::handle(node, doubt);
            (DataReply::Doubt(doubted), nothing)
        }
        DataRequest::Inventory(inventory) => {
            let stock = handlers::inventory::handle(node, inventory).await;
            (DataReply::Inventory(stock), nothing)
        }
        DataRequest::Mend(mend) => {
            handlers::mend::handle(node, &mend).await?;
            (DataReply::Mend(()), nothing)
        }
        DataRequest::Scrub(scrub) => {
            let report = handlers::scrub::handle(node, scrub)?;
            (DataReply::Scrub(report), nothing)
        }
    })
}
