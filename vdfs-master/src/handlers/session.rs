//! A client's life: opening, events, the end.

use vdfs_net::PeerIdentity;
use vdfs_net::rpc::require_role;
use vdfs_proto::Status;
use vdfs_proto::codec::decode;
use vdfs_proto::handshake::Role;
use vdfs_proto::session::SessionRequest;

use crate::core::{CoreRequest, Peer};
use crate::dispatch::Admitted;

pub(crate) fn admit(peer: &PeerIdentity, caller: &Peer, body: &[u8]) -> Result<Admitted, Status> {
    require_role(peer, &[Role::Client, Role::Admin])?;
    let request: SessionRequest = decode(body)?;
    Ok(Admitted {
        op: request.name(),
        request: CoreRequest::Session(caller.clone(), request),
    })
}
