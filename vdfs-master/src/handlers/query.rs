//! Questions about the namespace, opens and closes, by clients.

use vdfs_net::PeerIdentity;
use vdfs_net::rpc::require_role;
use vdfs_proto::Status;
use vdfs_proto::codec::decode;
use vdfs_proto::handshake::Role;
use vdfs_proto::meta::QueryRequest;

use crate::core::{CoreRequest, Peer};
use crate::dispatch::Admitted;

pub(crate) fn admit(peer: &PeerIdentity, caller: &Peer, body: &[u8]) -> Result<Admitted, Status> {
    require_role(peer, &[Role::Client, Role::Admin])?;
    let request: QueryRequest = decode(body)?;
    Ok(Admitted {
        op: request.query.name(),
        request: CoreRequest::Query(caller.clone(), request),
    })
}
