//! UDP sockets, and what the kernel knows of the way to a peer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Once;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind as bind_to, socket_with, sockopt};

/// Binds with buffers of `buffer_bytes`, or as large as the kernel gives.
pub(crate) fn bind(addr: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = bind_plain(addr)?;
    enlarge_buffers(&socket, buffer_bytes)?;
    Ok(socket)
}

/// The same, beside other sockets that were bound so by this user.
pub(crate) fn bind_shared(addr: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = open(addr)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    bind_to(&socket, &addr)?;
    enlarge_buffers(&socket, buffer_bytes)?;
    Ok(socket)
}

/// Binds as it is; an IPv6 wildcard takes IPv4 too, whatever the machine's default.
pub(crate) fn bind_plain(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(addr)?;
    bind_to(&socket, &addr)?;
    Ok(socket)
}

fn open(addr: SocketAddr) -> io::Result<UdpSocket> {
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !addr.ip().is_unspecified())?;
    }
    Ok(socket.into())
}

/// The forced sizes need `CAP_NET_ADMIN`; the others are cut to `net.core.{r,w}mem_max`.
fn enlarge_buffers(socket: &UdpSocket, bytes: usize) -> io::Result<()> {
    if sockopt::set_socket_recv_buffer_size_force(socket, bytes).is_err() {
        sockopt::set_socket_recv_buffer_size(socket, bytes)?;
    }
    if sockopt::set_socket_send_buffer_size_force(socket, bytes).is_err() {
        sockopt::set_socket_send_buffer_size(socket, bytes)?;
    }
    let given = sockopt::socket_recv_buffer_size(socket)?;
    tracing::debug!(asked = bytes, given, "UDP receive buffer");
    if given < bytes {
        SMALL_BUFFERS.call_once(|| warn_of_small_buffers(bytes, given));
    }
    Ok(())
}

static SMALL_BUFFERS: Once = Once::new();

fn warn_of_small_buffers(asked: usize, given: usize) {
    tracing::warn!(
        asked,
        given,
        "small UDP buffers make transfers slow; allow larger ones with: \
         sysctl -w net.core.rmem_max={asked} net.core.wmem_max={asked}"
    );
}

/// What the kernel has given, in bytes; it counts with it what packets take beside what they bring.
pub(crate) fn receive_buffer_bytes(socket: &UdpSocket) -> io::Result<usize> {
    Ok(sockopt::socket_recv_buffer_size(socket)?)
}

/// The largest IP packet that the first link towards `ip` carries, in bytes; `None` if there is no
/// way. Nothing is sent.
pub(crate) fn route_mtu(ip: IpAddr) -> Option<u32> {
    let ip = ip.to_canonical();
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = bind_plain(SocketAddr::new(any, 0)).ok()?;
    // Any port: it is only asked which way packets would go.
    socket.connect(SocketAddr::new(ip, 9)).ok()?;
    match ip {
        IpAddr::V4(_) => sockopt::ip_mtu(&socket).ok(),
        IpAddr::V6(_) => sockopt::ipv6_mtu(&socket).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_mtu_of_the_loopback_is_its_devices() {
        let localhost = Ipv4Addr::LOCALHOST;
        for ip in [localhost.into(), localhost.to_ipv6_mapped().into()] {
            assert!(route_mtu(ip) >= Some(65_535), "{ip}: {:?}", route_mtu(ip));
        }
    }
}
