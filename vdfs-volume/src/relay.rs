//! Changes of clients that do not reach the head of a chain: a member that serves brings them there, and the
//! answer back.
//!
//! A client asks another member only if the head does not answer, with the epoch that both know. What is
//! relayed is not relayed again, and finds room of its own at the head: members never wait for one another in
//! a circle.

use std::time::Duration;

use vdfs_net::carrier::{Outcome, Request};
use vdfs_proto::data::DataRequest;
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::Purpose;
use vdfs_proto::{ChainId, Epoch, Status, VolumeId};

use crate::engine::Engine;

/// Less than a client waits for one attempt.
const DEADLINE: Duration = Duration::from_secs(8);

/// The chain of a change that may be relayed, and its epoch as the client knows it.
pub(crate) fn relayed_chain(message: &DataRequest) -> Option<(ChainId, Epoch)> {
    match message {
        DataRequest::Write(write) => Some((write.chain, write.epoch)),
        DataRequest::ChangeSpace(ask) => Some((ask.chain, ask.epoch)),
        _ => None,
    }
}

/// The head that a change is to be brought to, if this volume serves its chain and is not the head.
pub(crate) fn head_elsewhere(engine: &Engine, message: &DataRequest) -> Option<VolumeId> {
    let (chain, epoch) = relayed_chain(message)?;
    engine.look(|core| {
        let place = core.serving_place(chain, epoch).ok()?;
        let head = core.membership().table().chain(chain)?.head()?;
        (!place.is_head).then_some(head.volume)
    })
}

/// `NotServing` if this volume does not reach the head either.
pub(crate) async fn to_head(engine: &Engine, head: VolumeId, request: Request) -> Outcome {
    let peers = engine.peers().ok_or(Status::NotServing)?;
    let carrier = peers.carrier(engine, head)?;
    let relayed = Request {
        method: Method::Relay,
        purpose: Purpose::Bulk,
        ..request
    };
    carrier
        .call(relayed, DEADLINE)
        .await
        .map_err(|status| match status {
            status if status.is_silence() => Status::NotServing,
            status => status,
        })
}
