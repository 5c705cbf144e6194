//! The first exchange of every connection, on its first stream.

use serde::{Deserialize, Serialize};

use crate::ids::ClusterId;
use crate::status::Status;

/// ALPN of the protocol (RFC 7301).
pub const ALPN: &[u8] = b"vdfs/1";
/// Version of messages; both sides must name the same.
pub const PROTOCOL_VERSION: u32 = 1;

/// What a peer may do is decided by the role in its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    Master,
    Volume,
    Client,
    Admin,
}

impl Role {
    /// The role as it stands in the certificate's URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Master => "master",
            Role::Volume => "volume",
            Role::Client => "client",
            Role::Admin => "admin",
        }
    }

    pub fn parse(text: &str) -> Result<Self, Status> {
        match text {
            "master" => Ok(Role::Master),
            "volume" => Ok(Role::Volume),
            "client" => Ok(Role::Client),
            "admin" => Ok(Role::Admin),
            _ => Err(Status::Invalid),
        }
    }
}

/// What a connection is used for; control never queues behind bulk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Purpose {
    Control,
    Bulk,
    Heartbeat,
}

/// Sent by the side that dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: u32,
    pub cluster: ClusterId,
    pub purpose: Purpose,
    /// `/proc/sys/kernel/random/boot_id` and the inode of the network namespace: equal on both
    /// sides means the same host.
    pub boot_id: String,
    pub net_namespace: u64,
}

/// The answer; a refusal is a [`Status`] and the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub version: u32,
    pub boot_id: String,
    pub net_namespace: u64,
}
