//! What volumes ask. Which volume it is, its certificate says; where others reach it, it says itself as
//! far as it can know.

use vdfs_net::PeerIdentity;
use vdfs_net::address;
use vdfs_net::rpc::require_role;
use vdfs_proto::Status;
use vdfs_proto::codec::decode;
use vdfs_proto::handshake::Role;
use vdfs_proto::volume::VolumeRequest;

use crate::core::CoreRequest;
use crate::dispatch::Admitted;

pub(crate) fn admit(peer: &PeerIdentity, body: &[u8]) -> Result<Admitted, Status> {
    require_role(peer, &[Role::Volume])?;
    let mut request: VolumeRequest = decode(body)?;
    if let VolumeRequest::Register(register) = &mut request {
        register.addr = address::as_seen(register.addr, peer.addr);
        if register.host.is_empty() {
            register.host = register.addr.ip().to_string();
        }
    }
    Ok(Admitted {
        op: request.name(),
        request: CoreRequest::Volume {
            node: peer.node.clone(),
            request,
        },
    })
}
