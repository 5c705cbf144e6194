//! Who may connect to whom, and for what.
//!
//! The role in the certificate decides in the TLS handshake, before a byte of the peer is read; the
//! purpose in its hello decides before a request is. What a request may ask is the service's business.

use vdfs_proto::handshake::{Purpose, Role};

use super::wire::Wire;

const ROLES: [Role; 4] = [Role::Master, Role::Volume, Role::Client, Role::Admin];
const PURPOSES: [Purpose; 3] = [Purpose::Control, Purpose::Bulk, Purpose::Heartbeat];

/// What one socket of an endpoint takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission {
    /// The endpoint's own role.
    pub(super) server: Role,
    pub(super) wire: Wire,
}

impl Admission {
    /// `false`: the socket only dials.
    pub(super) fn takes_anybody(self) -> bool {
        ROLES.into_iter().any(|peer| self.takes_role(peer))
    }

    pub(super) fn takes_role(self, peer: Role) -> bool {
        PURPOSES
            .into_iter()
            .any(|purpose| self.takes(peer, purpose))
    }

    pub(super) fn takes(self, peer: Role, purpose: Purpose) -> bool {
        self.wire.carries(purpose) && purposes(self.server, peer).contains(&purpose)
    }
}

/// What a server of role `server` takes connections of a `peer` for. Names alone pass the master, so
/// nobody brings it bulk; only volumes have a lease to keep there by heartbeats.
fn purposes(server: Role, peer: Role) -> &'static [Purpose] {
    match (server, peer) {
        (Role::Master, Role::Client | Role::Admin) => &[Purpose::Control],
        (Role::Master, Role::Volume) => &[Purpose::Control, Purpose::Heartbeat],
        (Role::Volume, Role::Client | Role::Admin) => &[Purpose::Control, Purpose::Bulk],
        // Members of a chain pass changes and chunks on.
        (Role::Volume, Role::Volume) => &[Purpose::Bulk],
        (Role::Master, Role::Master)
        | (Role::Volume, Role::Master)
        | (Role::Client | Role::Admin, _) => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_only_dial_take_nobody() {
        let takes = |server, wire| Admission { server, wire }.takes_anybody();
        assert!(takes(Role::Master, Wire::Traffic));
        assert!(takes(Role::Master, Wire::Heartbeats));
        assert!(takes(Role::Volume, Wire::Traffic));
        assert!(!takes(Role::Volume, Wire::Heartbeats));
        assert!(!takes(Role::Client, Wire::Traffic));
        assert!(!takes(Role::Admin, Wire::Traffic));
    }
}
