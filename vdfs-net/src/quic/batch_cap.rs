//! The socket as quinn uses it.
//!
//! quinn hands over batches of ten datagrams whatever their size; Linux refuses a send of more than
//! 65,507 bytes, and quinn-udp takes that refusal for a failed MTU probe and drops the batch without
//! a word. [`BatchCap`] splits batches so that this never happens, and asks for batches that need no
//! splitting.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use crate::limits::{DATAGRAM_BYTES_MAX, UDP_SEND_BYTES_MAX};

/// Four datagrams of the largest size: what the kernel joins into one read fits the buffer.
const RECEIVE_SEGMENTS_MAX: usize = (1 << 16) / DATAGRAM_BYTES_MAX as usize;

/// Sends no batch that Linux would refuse.
pub(super) struct BatchCap {
    inner: Arc<dyn AsyncUdpSocket>,
    /// How many datagrams as large as those of the last batch fit into one send.
    fit: AtomicUsize,
}

impl BatchCap {
    pub(super) fn around(inner: Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> {
        Arc::new(BatchCap {
            inner,
            fit: AtomicUsize::new(usize::MAX),
        })
    }
}

impl fmt::Debug for BatchCap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BatchCap").field(&self.inner).finish()
    }
}

impl AsyncUdpSocket for BatchCap {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    /// `WouldBlock` in the middle makes quinn send the whole batch again; its peer discards what it
    /// has already.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if let Some(datagram_bytes) = transmit.segment_size {
            let fit = UDP_SEND_BYTES_MAX / datagram_bytes;
            self.fit.store(fit, Ordering::Relaxed);
        }
        let Some(piece_bytes) = piece_bytes(transmit) else {
            return self.inner.try_send(transmit);
        };
        for contents in transmit.contents.chunks(piece_bytes) {
            self.inner.try_send(&Transmit {
                contents,
                ..transmit.clone()
            })?;
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Batches go to peers at all sizes of datagrams; the next one is likely to be like the last.
    fn max_transmit_segments(&self) -> usize {
        let fit = self.fit.load(Ordering::Relaxed);
        self.inner.max_transmit_segments().min(fit)
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments().min(RECEIVE_SEGMENTS_MAX)
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// How to split a batch that is too long: at a datagram's end. `None` if it may go as it is.
fn piece_bytes(transmit: &Transmit<'_>) -> Option<usize> {
    let datagram_bytes = transmit.segment_size?;
    if transmit.contents.len() <= UDP_SEND_BYTES_MAX {
        return None;
    }
    let piece_bytes = UDP_SEND_BYTES_MAX / datagram_bytes * datagram_bytes;
    assert!(piece_bytes > 0, "a datagram of {datagram_bytes} bytes");
    Some(piece_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(datagrams: usize, datagram_bytes: usize) -> Option<usize> {
        let contents = vec![0; datagrams * datagram_bytes];
        piece_bytes(&Transmit {
            destination: "127.0.0.1:1".parse().expect("an address"),
            ecn: None,
            contents: &contents,
            segment_size: Some(datagram_bytes),
            src_ip: None,
        })
    }

    /// A socket that takes everything.
    #[derive(Debug)]
    struct Willing;

    impl AsyncUdpSocket for Willing {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!("it has room")
        }

        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            assert!(transmit.contents.len() <= UDP_SEND_BYTES_MAX);
            Ok(())
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn max_transmit_segments(&self) -> usize {
            10
        }
    }

    #[test]
    fn batches_are_asked_for_that_fit_as_the_last_one_should_have() {
        let cap = BatchCap::around(Arc::new(Willing));
        assert_eq!(cap.max_transmit_segments(), 10);
        for (datagram_bytes, fit) in [(16_336, 4), (8952, 7), (1452, 10)] {
            let contents = vec![0; 10 * datagram_bytes];
            let sent = cap.try_send(&Transmit {
                destination: "127.0.0.1:1".parse().expect("an address"),
                ecn: None,
                contents: &contents,
                segment_size: Some(datagram_bytes),
                src_ip: None,
            });
            sent.expect("it is split");
            assert_eq!(cap.max_transmit_segments(), fit);
        }
    }

    #[test]
    fn batch_that_linux_takes_is_not_split() {
        assert_eq!(pieces(10, 1452), None);
        assert_eq!(pieces(10, 6550), None);
        assert_eq!(pieces(4, 16_336), None);
    }

    #[test]
    fn batch_that_linux_refuses_is_split_at_a_datagram() {
        assert_eq!(pieces(10, 6551), Some(9 * 6551));
        assert_eq!(pieces(10, 8952), Some(7 * 8952));
        assert_eq!(pieces(10, 16_336), Some(4 * 16_336));
    }
}
