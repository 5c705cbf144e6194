//! Typed calls over a [`Carrier`].

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use vdfs_proto::Status;
use vdfs_proto::codec::{decode, encode};
use vdfs_proto::data::{DataReply, DataRequest};
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::{Purpose, Role};
use vdfs_proto::operation::Operation;
use vdfs_proto::peer::{PeerReply, PeerRequest};

use crate::carrier::{Carrier, PeerIdentity, Request, Response};

/// Sends one message over a control lane and decodes the reply as `R`.
pub async fn call<Q: Serialize, R: DeserializeOwned>(
    carrier: &dyn Carrier,
    method: Method,
    message: &Q,
    deadline: Duration,
) -> Result<R, Status> {
    let request = Request {
        method,
        body: encode(message),
        payload: Bytes::new(),
        purpose: Purpose::Control,
    };
    let response = carrier.call(request, deadline).await?;
    decode(&response.body)
}

/// Sends one operation of a service whose body is the bare request enum, and takes the operation's
/// own reply out of the envelope.
pub async fn call_operation<O>(
    carrier: &dyn Carrier,
    method: Method,
    operation: O,
    deadline: Duration,
) -> Result<O::Reply, Status>
where
    O: Operation,
    O::Request: Serialize,
    O::Envelope: DeserializeOwned,
{
    let envelope = call(carrier, method, &operation.wrap(), deadline).await?;
    O::unwrap(envelope).ok_or(Status::Malformed)
}

/// Sends one operation of a client to a volume, with bytes both ways.
pub async fn call_data<O>(
    carrier: &dyn Carrier,
    operation: O,
    payload: Bytes,
    deadline: Duration,
) -> Result<(O::Reply, Bytes), Status>
where
    O: Operation<Request = DataRequest, Envelope = DataReply>,
{
    exchange(carrier, Method::Data, operation, payload, deadline).await
}

/// Sends one operation of a volume to another, with bytes.
pub async fn call_peer<O>(
    carrier: &dyn Carrier,
    method: Method,
    operation: O,
    payload: Bytes,
    deadline: Duration,
) -> Result<O::Reply, Status>
where
    O: Operation<Request = PeerRequest, Envelope = PeerReply>,
{
    let exchanged = exchange(carrier, method, operation, payload, deadline);
    exchanged.await.map(|(reply, _)| reply)
}

/// The same for one that is answered with bytes.
pub async fn fetch_from_peer<O>(
    carrier: &dyn Carrier,
    method: Method,
    operation: O,
    deadline: Duration,
) -> Result<(O::Reply, Bytes), Status>
where
    O: Operation<Request = PeerRequest, Envelope = PeerReply>,
{
    exchange(carrier, method, operation, Bytes::new(), deadline).await
}

/// The same for an operation that is known later than its bytes.
pub async fn call_peer_early<O>(
    carrier: &dyn Carrier,
    operation: impl Future<Output = Option<O>> + Send + 'static,
    payload: Bytes,
    deadline: Duration,
) -> Result<O::Reply, Status>
where
    O: Operation<Request = PeerRequest, Envelope = PeerReply> + Send + 'static,
{
    let request = Request {
        method: Method::PeerEarly,
        body: Bytes::new(),
        payload,
        purpose: Purpose::Bulk,
    };
    let message = async move { Some(encode(&operation.await?.wrap())) };
    let response = carrier.call_early(request, message.boxed(), deadline);
    reply_in::<O>(&response.await?)
}

async fn exchange<O>(
    carrier: &dyn Carrier,
    method: Method,
    operation: O,
    payload: Bytes,
    deadline: Duration,
) -> Result<(O::Reply, Bytes), Status>
where
    O: Operation,
    O::Request: Serialize,
    O::Envelope: DeserializeOwned,
{
    let request = Request {
        method,
        body: encode(&operation.wrap()),
        payload,
        purpose: Purpose::Bulk,
    };
    let response = carrier.call(request, deadline).await?;
    Ok((reply_in::<O>(&response)?, response.payload))
}

/// The operation's own reply, out of the envelope.
fn reply_in<O>(response: &Response) -> Result<O::Reply, Status>
where
    O: Operation,
    O::Envelope: DeserializeOwned,
{
    O::unwrap(decode(&response.body)?).ok_or(Status::Malformed)
}

/// The check at the door of every service: `WrongRole` unless the peer has one of `roles`.
pub fn require_role(peer: &PeerIdentity, roles: &[Role]) -> Result<(), Status> {
    match roles.contains(&peer.role) {
        true => Ok(()),
        false => Err(Status::WrongRole),
    }
}
