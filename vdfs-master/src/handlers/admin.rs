//! Questions of operators, which a client may ask too, and their orders.

use vdfs_net::PeerIdentity;
use vdfs_net::rpc::require_role;
use vdfs_proto::Status;
use vdfs_proto::codec::decode;
use vdfs_proto::handshake::Role;
use vdfs_proto::meta::AdminRequest;

use crate::core::CoreRequest;
use crate::dispatch::Admitted;

pub(crate) fn admit(peer: &PeerIdentity, body: &[u8]) -> Result<Admitted, Status> {
    require_role(peer, &[Role::Admin, Role::Client])?;
    let request: AdminRequest = decode(body)?;
    if request.is_order() {
        require_role(peer, &[Role::Admin])?;
    }
    Ok(Admitted {
        op: request.name(),
        request: CoreRequest::Admin(request),
    })
}
