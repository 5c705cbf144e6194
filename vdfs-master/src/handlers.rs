//! One file a method: who may ask, and what is asked of the core. Bodies are parsed into types that
//! cannot be wrong, so nothing is checked twice.

use bytes::Bytes;
use vdfs_net::PeerIdentity;
use vdfs_proto::{Status, codec};

use crate::core::{CoreReply, Peer};

pub(crate) mod admin;
pub(crate) mod mutate;
pub(crate) mod query;
pub(crate) mod session;
pub(crate) mod volume;

/// Whom the core takes the peer for.
pub(crate) fn caller(peer: &PeerIdentity) -> Peer {
    Peer {
        role: peer.role,
        node: peer.node.as_str().into(),
    }
}

/// The body of a reply: the bare envelope of the method's service. `TooLarge` for a report of more
/// sessions and paths than a frame holds.
pub(crate) fn encode(reply: &CoreReply) -> Result<Bytes, Status> {
    match reply {
        CoreReply::Mutate(reply) => codec::try_encode(reply),
        CoreReply::Query(reply) => codec::try_encode(reply),
        CoreReply::Session(reply) => codec::try_encode(reply),
        CoreReply::Admin(reply) => codec::try_encode(reply),
        CoreReply::Volume(reply) => codec::try_encode(reply),
    }
}
