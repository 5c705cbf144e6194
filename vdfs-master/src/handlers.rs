//! One file a method: who may ask, and what is asked of the core. Bodies are parsed into types that
//! cannot be wrong, so nothing is checked twice.

use bytes::Bytes;
use vdfs_net::PeerIdentity;
use vdfs_proto::codec;

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

/// The body of a reply: the bare envelope of the method's service.
pub(crate) fn encode(reply: &CoreReply) -> Bytes {
    match reply {
        CoreReply::Mutate(reply) => codec::encode(reply),
        CoreReply::Query(reply) => codec::encode(reply),
        CoreReply::Session(reply) => codec::encode(reply),
        CoreReply::Admin(reply) => codec::encode(reply),
        CoreReply::Volume(reply) => codec::encode(reply),
    }
}
