//! The first exchange of a connection, on a stream of its own: who one is on the network, and what
//! the connection is for. Role, node and cluster are in the certificate and were checked before.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quinn::Connection;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use vdfs_proto::codec::{decode, encode};
use vdfs_proto::frame::FrameKind;
use vdfs_proto::handshake::{Hello, PROTOCOL_VERSION, Purpose, Role, Welcome};
use vdfs_proto::{ClusterId, Status};

use super::admission::Admission;
use super::close::CloseReason;
use super::crowd::Counted;
use super::frames::put_frame;
use super::reactor::{Common, Shared};
use super::transfer::{Break, Inflow, Outflow};
use crate::address;
use crate::carrier::PeerIdentity;
use crate::host::Host;
use crate::identity::Leaf;
use crate::limits::{HELLO_BYTES_MAX, HELLO_TIMEOUT};

/// Why a dialled peer did not welcome us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// Its answer.
    Refused(Status),
    /// It gave none.
    Broken(Break),
}

/// The dialler's side.
pub(super) async fn greet(
    connection: &Connection,
    cluster: ClusterId,
    host: &Host,
    purpose: Purpose,
) -> Result<(), Rejection> {
    let hello = Hello {
        version: PROTOCOL_VERSION,
        cluster,
        purpose,
        boot_id: host.boot_id.clone(),
        net_namespace: host.net_namespace,
    };
    let streams = connection.open_bi().await;
    let (send, recv) = streams.map_err(|_| Rejection::Broken(Break::Gone))?;
    let mut outflow = Outflow::new(send, HELLO_TIMEOUT);
    let mut inflow = Inflow::new(recv, HELLO_TIMEOUT);
    let hello = frame(FrameKind::Request, &hello);
    outflow
        .send(hello, Bytes::new())
        .await
        .map_err(Rejection::Broken)?;
    let answer = inflow.frame(HELLO_BYTES_MAX).await;
    let (header, body) = answer.map_err(Rejection::Broken)?;
    check_answer(header.kind, &body)
}

fn check_answer(kind: FrameKind, body: &[u8]) -> Result<(), Rejection> {
    let malformed = |status| Rejection::Broken(Break::Violation(status));
    match kind {
        FrameKind::Response => match decode::<Welcome>(body).map_err(malformed)?.version {
            PROTOCOL_VERSION => Ok(()),
            _ => Err(Rejection::Refused(Status::WrongVersion)),
        },
        FrameKind::Error => Err(Rejection::Refused(decode(body).map_err(malformed)?)),
        FrameKind::Request | FrameKind::Cancel => Err(malformed(Status::Malformed)),
    }
}

/// Who was welcomed, and for what.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) peer: Arc<PeerIdentity>,
    pub(super) purpose: Purpose,
    /// Among those of its certificate.
    pub(super) _seat: Counted<(Role, String)>,
}

/// The other side. An error says how to close the connection.
pub(super) async fn welcome(
    connection: &Connection,
    shared: &Shared,
) -> Result<Guest, CloseReason> {
    let Common {
        cluster,
        host,
        crowd,
        ..
    } = &shared.common;
    let Leaf { name, not_after } = peer_leaf(connection).ok_or(CloseReason::Refused)?;
    let (send, recv) = connection
        .accept_bi()
        .await
        .map_err(|_| CloseReason::Done)?;
    let mut outflow = Outflow::new(send, HELLO_TIMEOUT);
    let hello = read_hello(recv).await.map_err(close_reason)?;
    let seat = check_hello(&hello, *cluster)
        .and_then(|()| check_purpose(shared.admission, name.role, hello.purpose))
        .and_then(|()| {
            crowd
                .seat(name.role, name.node.as_str())
                .ok_or(Status::Busy)
        });
    let seat = match seat {
        Ok(seat) => seat,
        Err(status) => {
            refuse(outflow, status).await;
            return Err(CloseReason::Refused);
        }
    };
    let welcome = Welcome {
        version: PROTOCOL_VERSION,
        boot_id: host.boot_id.clone(),
        net_namespace: host.net_namespace,
    };
    let welcome = frame(FrameKind::Response, &welcome);
    outflow
        .send(welcome, Bytes::new())
        .await
        .map_err(close_reason)?;
    let peer = PeerIdentity {
        cluster: name.cluster,
        role: name.role,
        node: name.node.to_string(),
        addr: Some(address::plain(connection.remote_address())),
        same_host: host.is_same(&hello.boot_id, hello.net_namespace),
        certificate_ends: Some(not_after),
    };
    Ok(Guest {
        peer: Arc::new(peer),
        purpose: hello.purpose,
        _seat: seat,
    })
}

/// Ends when the peer has heard it, which the close would overtake, or has gone.
async fn refuse(mut outflow: Outflow, status: Status) {
    let refusal = frame(FrameKind::Error, &status);
    if outflow.send(refusal, Bytes::new()).await.is_ok() {
        outflow.until_stopped().await;
    }
}

async fn read_hello(stream: quinn::RecvStream) -> Result<Hello, Break> {
    let mut inflow = Inflow::new(stream, HELLO_TIMEOUT);
    let (header, body) = inflow.frame(HELLO_BYTES_MAX).await?;
    match header.kind {
        FrameKind::Request if header.method == 0 => decode(&body).map_err(Break::Violation),
        _ => Err(Break::Violation(Status::Malformed)),
    }
}

fn check_hello(hello: &Hello, cluster: ClusterId) -> Result<(), Status> {
    if hello.version != PROTOCOL_VERSION {
        return Err(Status::WrongVersion);
    }
    match hello.cluster == cluster {
        true => Ok(()),
        false => Err(Status::WrongCluster),
    }
}

fn check_purpose(admission: Admission, role: Role, purpose: Purpose) -> Result<(), Status> {
    match admission.takes(role, purpose) {
        true => Ok(()),
        false => Err(Status::WrongRole),
    }
}

/// What the certificate says that the handshake has verified.
fn peer_leaf(connection: &Connection) -> Option<Leaf> {
    let chain = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    Leaf::read(chain.first()?).ok()
}

fn close_reason(broken: Break) -> CloseReason {
    broken.close_reason().unwrap_or(CloseReason::Done)
}

fn frame<T: Serialize>(kind: FrameKind, message: &T) -> Bytes {
    let mut wire = BytesMut::new();
    put_frame(&mut wire, kind, None, 0, &encode(message));
    wire.freeze()
}
