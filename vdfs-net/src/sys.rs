//! What no safe interface offers.
#![allow(unsafe_code)]

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets `program`, in classic BPF, choose by each datagram's payload which socket of the group that
/// `socket` is in gets it: the one of that number, in the order in which they were bound.
pub(crate) fn steer_group(socket: &UdpSocket, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the option takes one `sock_fprog`, whose filters live through the call; the kernel
    // copies them and changes nothing.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Registers a socket with the current runtime, for `interest` alone.
pub(crate) fn watch(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: a socket of the standard library keeps its descriptor, and keeps it open, until it is
    // dropped.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}
