//! A UDP socket on a reactor's epoll.
//!
//! Each datagram that leaves makes its socket writable anew, and whoever watches for that is woken
//! once more for everything it sends. So a socket is watched for what arrives; for room only while a
//! send has found none, by a registration of its own. And a read that did not fill its buffers has
//! seen the queue empty: it is not tried again to hear that.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{self, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys::watch;

#[derive(Debug)]
pub(super) struct Socket {
    arrivals: AsyncFd<net::UdpSocket>,
    state: UdpSocketState,
    /// A send has found no room, and nobody has seen any since.
    is_full: AtomicBool,
}

impl Socket {
    /// To be called within the runtime that will poll it.
    pub(super) fn new(socket: net::UdpSocket) -> io::Result<Socket> {
        let state = UdpSocketState::new((&socket).into())?;
        let arrivals = watch(socket, Interest::READABLE)?;
        Ok(Socket {
            arrivals,
            state,
            is_full: AtomicBool::new(false),
        })
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room {
            socket: self,
            registration: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send(self.arrivals.get_ref().into(), transmit);
        if matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.is_full.store(true, Ordering::Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut arrived = ready!(self.arrivals.poll_read_ready(cx))?;
            let read = |socket: &AsyncFd<net::UdpSocket>| {
                self.state.recv(socket.get_ref().into(), bufs, meta)
            };
            // An error is that of one datagram sent earlier; reading has taken it away.
            if let Ok(Ok(count)) = arrived.try_io(read) {
                if count < bufs.len() {
                    arrived.clear_ready();
                }
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.arrivals.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// The wait for room in a socket's send buffer.
struct Room {
    socket: Arc<Socket>,
    /// Of a duplicate: one descriptor is watched once.
    registration: Option<AsyncFd<net::UdpSocket>>,
}

impl UdpPoller for Room {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let room = match self.registration.take() {
            Some(room) => room,
            None if !self.socket.is_full.load(Ordering::Relaxed) => return Poll::Ready(Ok(())),
            None => {
                let duplicate = self.socket.arrivals.get_ref().try_clone()?;
                watch(duplicate, Interest::WRITABLE)?
            }
        };
        let ready = room.poll_write_ready(cx).map_ok(drop);
        match ready.is_pending() {
            true => self.registration = Some(room),
            false => self.socket.is_full.store(false, Ordering::Relaxed),
        }
        ready
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Room").field(&self.socket).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const DATAGRAM_BYTES: usize = 1200;

    fn socket() -> Arc<Socket> {
        let socket = net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        Arc::new(Socket::new(socket).expect("a socket"))
    }

    fn send(from: &Socket, to: &Socket, contents: &[u8]) -> io::Result<()> {
        from.try_send(&Transmit {
            destination: to.local_addr().expect("an address"),
            ecn: None,
            contents,
            segment_size: None,
            src_ip: None,
        })
    }

    async fn receive(socket: &Socket, buffers: usize) -> usize {
        let mut memory = vec![vec![0; 1 << 16]; buffers];
        let mut meta = vec![RecvMeta::default(); buffers];
        let read = poll_fn(|cx| {
            let mut bufs: Vec<_> = memory.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
            socket.poll_recv(cx, &mut bufs, &mut meta)
        });
        let count = timeout(Duration::from_secs(10), read).await;
        let count = count.expect("in time").expect("read");
        meta[..count].iter().map(|meta| meta.len).sum()
    }

    #[tokio::test]
    async fn datagrams_that_come_between_reads_are_all_read() {
        let (a, b) = (socket(), socket());
        for buffers in [1, 2, 4] {
            for _ in 0..100 {
                send(&a, &b, &[7; DATAGRAM_BYTES]).expect("sent");
                send(&a, &b, &[7; DATAGRAM_BYTES]).expect("sent");
                let mut bytes = 0;
                while bytes < 2 * DATAGRAM_BYTES {
                    bytes += receive(&b, buffers).await;
                }
                assert_eq!(bytes, 2 * DATAGRAM_BYTES);
            }
        }
    }

    #[tokio::test]
    async fn room_is_told_once_there_is_some() {
        let (a, b) = (socket(), socket());
        let mut room = a.clone().create_io_poller();
        for is_full in [false, true, true, false] {
            a.is_full.store(is_full, Ordering::Relaxed);
            let told = poll_fn(|cx| room.as_mut().poll_writable(cx));
            let told = timeout(Duration::from_secs(10), told).await;
            told.expect("in time").expect("watched");
            assert!(!a.is_full.load(Ordering::Relaxed));
            send(&a, &b, &[7; DATAGRAM_BYTES]).expect("sent");
        }
    }
}
