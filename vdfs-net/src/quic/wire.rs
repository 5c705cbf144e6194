//! Heartbeats have a socket and a thread of their own, so that no other work of a process, not even
//! one that blocks the thread of everything else, makes it look dead.
//!
//! Both sockets of a server are bound to one port. Which of them a datagram reaches is written in the
//! connection id that it is sent to: the lowest bit of its first byte. Servers choose their ids by it,
//! and a dialler the id of its first datagram. Who dials heartbeats does so from another port than
//! everything else, or the network could join a heartbeat to a datagram that goes elsewhere.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator, InvalidCid};
use vdfs_proto::handshake::{Purpose, Role};

use crate::{socket, sys};

/// One of the two ways of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Traffic,
    Heartbeats,
}

const MARK: u8 = 1;
/// The first id that a dialler sends to, in bytes: as long as QUIC allows, and so as hard to guess.
const FIRST_ID_BYTES: usize = 20;

impl Wire {
    pub(super) fn of(purpose: Purpose) -> Wire {
        match purpose {
            Purpose::Heartbeat => Wire::Heartbeats,
            Purpose::Control | Purpose::Bulk => Wire::Traffic,
        }
    }

    /// What a connection that came this way may be for. Where there is one socket, it takes all.
    pub(super) fn carries(self, purpose: Purpose) -> bool {
        self == Wire::Traffic || Wire::of(purpose) == Wire::Heartbeats
    }

    pub(super) fn thread_name(self) -> &'static str {
        match self {
            Wire::Traffic => "vdfs-net",
            Wire::Heartbeats => "vdfs-heartbeats",
        }
    }

    fn marks(self, id: &[u8]) -> bool {
        let is_marked = id.first().is_some_and(|first| first & MARK != 0);
        is_marked == (self == Wire::Heartbeats)
    }

    /// Gives the id of the first datagram to a server.
    pub(super) fn first_ids(self) -> Arc<dyn Fn() -> ConnectionId + Send + Sync> {
        Arc::new(move || {
            let mut id: [u8; FIRST_ID_BYTES] = rand::random();
            id[0] = match self {
                Wire::Traffic => id[0] & !MARK,
                Wire::Heartbeats => id[0] | MARK,
            };
            ConnectionId::new(&id)
        })
    }
}

/// Ids that lead to one of the two sockets.
pub(super) struct MarkedIds {
    pub(super) wire: Wire,
    pub(super) inner: HashedConnectionIdGenerator,
}

impl ConnectionIdGenerator for MarkedIds {
    fn generate_cid(&mut self) -> ConnectionId {
        loop {
            // Every second one fits.
            let id = self.inner.generate_cid();
            if self.wire.marks(&id) {
                return id;
            }
        }
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        self.inner.validate(id)
    }

    fn cid_len(&self) -> usize {
        self.inner.cid_len()
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        self.inner.cid_lifetime()
    }
}

/// The sockets of an endpoint, by what its role has to do with heartbeats: a master hears them, a
/// volume sends them.
pub(super) fn sockets(
    role: Role,
    listen: SocketAddr,
    buffer_bytes: usize,
) -> io::Result<(UdpSocket, Option<UdpSocket>)> {
    // Whatever leads from the one address leads from the other.
    let beside = SocketAddr::new(listen.ip(), 0);
    let bind = |addr| socket::bind(addr, buffer_bytes);
    match role {
        Role::Master => bind_pair(listen, buffer_bytes),
        Role::Volume => Ok((bind(listen)?, Some(bind(beside)?))),
        Role::Client | Role::Admin => Ok((bind(listen)?, None)),
    }
}

/// Two sockets at one port. Where the kernel cannot tell them apart, one for everything.
fn bind_pair(
    listen: SocketAddr,
    buffer_bytes: usize,
) -> io::Result<(UdpSocket, Option<UdpSocket>)> {
    // Fails if anybody has the port, which a shared bind does not. It also finds a free port.
    let alone = socket::bind_plain(listen)?;
    let addr = alone.local_addr()?;
    drop(alone);
    let traffic = socket::bind_shared(addr, buffer_bytes)?;
    if let Err(error) = sys::steer_group(&traffic, &BY_MARK) {
        tracing::warn!(%error, "heartbeats share a thread with everything else");
        return Ok((traffic, None));
    }
    let heartbeats = socket::bind_shared(addr, buffer_bytes)?;
    Ok((traffic, Some(heartbeats)))
}

const fn op(code: u32, jump: [u8; 2], k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: jump[0],
        jf: jump[1],
        k,
    }
}

/// The number of the socket: the mark in the destination id, which is at byte 6 of a long header and
/// at byte 1 of a short one (RFC 8999, 5).
const BY_MARK: [libc::sock_filter; 7] = [
    op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, [0, 0], 0),
    op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, [0, 2], 0x80),
    op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, [0, 0], 6),
    op(libc::BPF_JMP | libc::BPF_JA, [0, 0], 1),
    op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, [0, 0], 1),
    op(
        libc::BPF_ALU | libc::BPF_AND | libc::BPF_K,
        [0, 0],
        MARK as u32,
    ),
    op(libc::BPF_RET | BPF_A, [0, 0], 0),
];
/// Return what was computed; `libc` does not name it.
const BPF_A: u32 = 0x10;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::address;

    const BUFFER: usize = 1 << 20;

    fn long_header(id: &[u8]) -> Vec<u8> {
        [&[0xc0, 0, 0, 0, 1, id.len() as u8], id].concat()
    }

    fn short_header(id: &[u8]) -> Vec<u8> {
        [&[0x40], id].concat()
    }

    #[test]
    fn datagram_reaches_the_socket_that_its_id_names() {
        for listen in [(Ipv4Addr::LOCALHOST, 0).into(), address::anywhere(0)] {
            let (traffic, heartbeats) = sockets(Role::Master, listen, BUFFER).expect("bound");
            let heartbeats = heartbeats.expect("this kernel can steer");
            let to = address::dialable(traffic.local_addr().expect("bound"));
            let sender = socket::bind_plain((Ipv4Addr::LOCALHOST, 0).into()).expect("bound");
            for (wire, socket) in [(Wire::Traffic, traffic), (Wire::Heartbeats, heartbeats)] {
                let wait = Some(Duration::from_secs(10));
                socket.set_read_timeout(wait).expect("set");
                let mut ids = MarkedIds {
                    wire,
                    inner: HashedConnectionIdGenerator::new(),
                };
                for datagram in [
                    long_header(&(wire.first_ids())()),
                    short_header(&ids.generate_cid()),
                ] {
                    sender.send_to(&datagram, to).expect("sent");
                    let mut buffer = [0; 64];
                    let got = socket.recv(&mut buffer).expect("it comes here");
                    assert_eq!(buffer[..got], datagram, "{wire:?}");
                }
            }
        }
    }

    #[test]
    fn port_of_a_pair_is_nobody_elses() {
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let (traffic, _heartbeats) = sockets(Role::Master, listen, BUFFER).expect("bound");
        let addr = traffic.local_addr().expect("bound");
        let taken = sockets(Role::Master, addr, BUFFER).expect_err("in use");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let taken = socket::bind_plain(addr).expect_err("in use");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
