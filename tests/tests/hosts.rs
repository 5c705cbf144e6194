//! The network that the fault suites stand on: what is cut is lost, both ways, and nothing else.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use vdfs_tests::hosts::{Host, Hosts};
use vdfs_tests::mount_tests_skipped;
use vdfs_tests::scratch::Scratch;

const PORT: u16 = 4000;
const WAIT: Duration = Duration::from_millis(300);

/// A socket on a host: a socket stays in the namespace of the thread that made it.
fn socket_on(host: &Host) -> UdpSocket {
    let namespace = File::open(host.net_namespace()).expect("a namespace");
    let addr = (host.addr(), PORT);
    let bind = move || {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), kind).expect("enters");
        UdpSocket::bind(addr).expect("binds")
    };
    let socket = thread::spawn(bind).join().expect("does not panic");
    socket.set_read_timeout(Some(WAIT)).expect("a timeout");
    socket
}

/// Whether a datagram comes through. Those of earlier calls may still be on their way.
fn reaches(from: &UdpSocket, to: &UdpSocket) -> bool {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    let target = to.local_addr().expect("is bound");
    (0..3).any(|_| {
        drop(from.send_to(&call, target));
        received(to).any(|datagram| datagram == call)
    })
}

/// What arrives until nothing has for a while.
fn received(socket: &UdpSocket) -> impl Iterator<Item = [u8; 4]> {
    std::iter::from_fn(|| {
        let mut datagram = [0; 4];
        socket.recv(&mut datagram).ok().map(|_| datagram)
    })
}

#[test]
fn cut_hosts_are_unreachable_until_they_are_healed() {
    if mount_tests_skipped() {
        return;
    }
    let scratch = Scratch::new();
    let mut hosts = Hosts::new(&scratch, 1500);
    let hosts = [(); 3].map(|()| hosts.add());
    let [a, b, c] = [0, 1, 2].map(|index| socket_on(&hosts[index]));
    assert!(reaches(&a, &b) && reaches(&b, &c));
    hosts[0].cut();
    assert!(!reaches(&a, &b) && !reaches(&b, &a) && reaches(&b, &c));
    hosts[0].heal();
    assert!(reaches(&a, &b) && reaches(&b, &a));
    hosts[0].cut_from(&hosts[1]);
    assert!(!reaches(&a, &b) && !reaches(&b, &a));
    assert!(reaches(&a, &c) && reaches(&c, &b) && reaches(&c, &a));
    hosts[0].heal_with(&hosts[1]);
    assert!(reaches(&a, &b) && reaches(&b, &a));
    hosts[0].lose_packets_to(&hosts[1]);
    assert!(!reaches(&a, &b) && reaches(&b, &a));
}
