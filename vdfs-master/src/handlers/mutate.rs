//! Changes of the namespace, by clients.

use vdfs_net::PeerIdentity;
use vdfs_net::rpc::require_role;
use vdfs_proto::Status;
use vdfs_proto::codec::decode;
use vdfs_proto::handshake::Role;
use vdfs_proto::meta::MutateRequest;

use crate::core::{CoreRequest, Peer};
use crate::dispatch::Admitted;

pub(crate) fn admit(peer: &PeerIdentity, caller: &Peer, body: &[u8]) -> Result<Admitted, Status> {
    require_role(peer, &[Role::Client, Role::Admin])?;
    let request: MutateRequest = decode(body)?;
    Ok(Admitted {
        op: request.mutation.name(),
        request: CoreRequest::Mutate(caller.clone(), request),
    })
}
