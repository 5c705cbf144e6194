//! Addresses: where to listen, what to dial, and where others reach what said less than it should.
//!
//! A program that was told nothing listens on the wildcard. Nobody can dial that, and nobody on
//! another machine can dial a loopback address, so what a program says of itself is completed by
//! what its peers see.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;

use crate::socket;

/// The wildcard: every IPv4 and IPv6 address of this machine, or every IPv4 address where there is
/// no IPv6.
pub fn anywhere(port: u16) -> SocketAddr {
    static HAS_IPV6: LazyLock<bool> =
        LazyLock::new(|| socket::bind_plain(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).is_ok());
    match *HAS_IPV6 {
        true => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        false => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
    }
}

/// The same address as people write it: an IPv4 address is never wrapped into an IPv6 one.
pub fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Where this machine reaches what listens at `addr`: the wildcard becomes the loopback.
pub fn dialable(addr: SocketAddr) -> SocketAddr {
    let addr = plain(addr);
    match addr.ip().is_unspecified() {
        // An IPv6 wildcard listens on IPv4 too, and its loopback may be switched off.
        true => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), addr.port()),
        false => addr,
    }
}

/// Where a server is that says it listens at `told` and is seen at `seen` (`None`: in this process).
/// Only a wildcard or loopback address needs completing; the port is always its own.
pub fn as_seen(told: SocketAddr, seen: Option<SocketAddr>) -> SocketAddr {
    let told = dialable(told);
    match seen {
        Some(seen) if told.ip().is_loopback() => {
            SocketAddr::new(seen.ip().to_canonical(), told.port())
        }
        Some(_) | None => told,
    }
}

/// Where to dial `addr` that a peer at `via` has named: what is on the peer's loopback is where the
/// peer is.
pub fn named_by(via: IpAddr, addr: SocketAddr) -> SocketAddr {
    match addr.ip().is_loopback() && !via.is_unspecified() {
        true => SocketAddr::new(via.to_canonical(), addr.port()),
        false => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn dialable_makes_a_wildcard_the_loopback_and_leaves_the_rest() {
        for (listens, expected) in [
            ("[::]:7400", "127.0.0.1:7400"),
            ("0.0.0.0:7400", "127.0.0.1:7400"),
            ("[::ffff:10.0.0.1]:7400", "10.0.0.1:7400"),
            ("[fd77::1]:7400", "[fd77::1]:7400"),
            ("10.0.0.1:7400", "10.0.0.1:7400"),
        ] {
            assert_eq!(dialable(addr(listens)), addr(expected), "{listens}");
        }
    }

    #[test]
    fn as_seen_completes_only_what_others_cannot_dial() {
        let seen = Some(addr("[::ffff:10.0.0.2]:50123"));
        assert_eq!(as_seen(addr("[::]:7401"), seen), addr("10.0.0.2:7401"));
        assert_eq!(as_seen(addr("127.0.0.1:7401"), seen), addr("10.0.0.2:7401"));
        assert_eq!(as_seen(addr("10.0.0.9:7401"), seen), addr("10.0.0.9:7401"));
        assert_eq!(as_seen(addr("0.0.0.0:7401"), None), addr("127.0.0.1:7401"));
        let near = Some(addr("127.0.0.1:50123"));
        assert_eq!(as_seen(addr("[::]:7401"), near), addr("127.0.0.1:7401"));
    }

    #[test]
    fn named_by_moves_a_loopback_address_to_its_machine() {
        let via: IpAddr = [10, 0, 0, 1].into();
        assert_eq!(named_by(via, addr("127.0.0.1:7401")), addr("10.0.0.1:7401"));
        assert_eq!(named_by(via, addr("10.0.0.9:1")), addr("10.0.0.9:1"));
    }

    #[test]
    fn anywhere_can_be_bound_and_takes_both_families() {
        let socket = socket::bind_plain(anywhere(0)).expect("bound");
        let port = socket.local_addr().expect("bound").port();
        let sender = socket::bind_plain(addr("127.0.0.1:0")).expect("bound");
        sender
            .send_to(b"x", SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .expect("sent");
        let mut buffer = [0];
        let (_, from) = socket.recv_from(&mut buffer).expect("received");
        assert!(plain(from).ip().is_loopback());
    }
}
