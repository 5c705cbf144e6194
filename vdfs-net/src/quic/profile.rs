//! How connections are tuned, by where the peer is.
//!
//! On the loopback the kernel joins and splits datagrams for nothing and loses none unless the
//! receiver's buffer is full: a large fixed datagram, and flow control in place of congestion
//! control. Who dials a loopback address that is forwarded to a link with smaller packets (a published
//! port of a container) gets no answer, and has to dial the address behind it. Elsewhere the datagram
//! is found by probing, up to what the first link carries, and Cubic shares the link.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{AckFrequencyConfig, MtuDiscoveryConfig, TransportConfig, VarInt};

use super::loopback_window::LoopbackWindowConfig;
use crate::limits::{
    BULK_STREAM_WINDOW_BYTES, DATAGRAM_BYTES_MAX, HELLO_STREAMS_MAX, IDLE_TIMEOUT, KEEP_ALIVE,
};
use crate::socket::route_mtu;

/// The datagram on the loopback, in bytes, measured best: ten of them are one send.
const LOOPBACK_MTU: u16 = 6500;
/// A jumbo frame of 9000 bytes less IPv6 and UDP headers.
const LAN_MTU_MAX: u16 = 8952;
/// The headers of a datagram over IPv6, the longer ones, in bytes.
const HEADER_BYTES: u32 = 48;
/// Only the loopback device carries the longest packets there are, in bytes: a peer behind it is on
/// this machine.
const LOOPBACK_ROUTE_MTU: u32 = 65_535;
/// Every path carries it (RFC 9000, 14).
const MTU_MIN: u16 = 1200;

/// Bytes that wait here for the peer's acknowledgement.
const SEND_WINDOW_BYTES: u64 = 64 << 20;
/// The first congestion window on a LAN: 10 Gbit/s times 200 us, doubled.
const LAN_INITIAL_WINDOW_BYTES: u64 = 512 << 10;

/// Which tuning a connection gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// [`Profile::Loopback`] for a peer on this machine, else [`Profile::Lan`].
    #[default]
    ByAddress,
    Loopback,
    Lan,
}

/// The transports of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transports {
    profile: Profile,
    mtu: Option<u16>,
}

impl Transports {
    /// `mtu` fixes the datagram, in bytes, whatever the path.
    pub(super) fn new(profile: Profile, mtu: Option<u16>) -> Transports {
        Transports { profile, mtu }
    }

    /// The peer may send `window_bytes` before [`super::windows`] gives the connection its share.
    pub(super) fn for_peer(&self, addr: SocketAddr, window_bytes: u32) -> Arc<TransportConfig> {
        let route_mtu = route_mtu(addr.ip());
        let near = match self.profile {
            Profile::ByAddress => route_mtu.is_some_and(|mtu| mtu >= LOOPBACK_ROUTE_MTU),
            Profile::Loopback => true,
            Profile::Lan => false,
        };
        let mut transport = match near {
            true => loopback(),
            false => lan(lan_mtu(route_mtu)),
        };
        transport.receive_window(window_bytes.into());
        if let Some(mtu) = self.mtu {
            fix_mtu(&mut transport, mtu);
        }
        Arc::new(transport)
    }
}

/// What a datagram to a peer behind a link of `route_mtu` bytes can be at most. Probes beyond it
/// would all be lost, one after another, while bytes travel in the smallest datagrams.
fn lan_mtu(route_mtu: Option<u32>) -> u16 {
    let fits = route_mtu.map_or(LAN_MTU_MAX.into(), |mtu| mtu.saturating_sub(HEADER_BYTES));
    u16::try_from(fits)
        .unwrap_or(LAN_MTU_MAX)
        .clamp(MTU_MIN, LAN_MTU_MAX)
}

fn base() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(HELLO_STREAMS_MAX.into())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(BULK_STREAM_WINDOW_BYTES.into())
        .send_window(SEND_WINDOW_BYTES)
        .send_fairness(false)
        .initial_rtt(Duration::from_millis(10))
        .max_idle_timeout(Some(IDLE_TIMEOUT.try_into().expect("some seconds fit")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .persistent_congestion_threshold(8)
        .datagram_receive_buffer_size(None)
        .allow_spin(false)
        .ack_frequency_config(Some(ack_frequency()));
    transport
}

/// The default of 25 ms before an ack makes every retransmission late. What comes in a row is acknowledged
/// in some tens: an ack costs both ends as much as a batch of packets.
fn ack_frequency() -> AckFrequencyConfig {
    let mut ack = AckFrequencyConfig::default();
    ack.ack_eliciting_threshold(VarInt::from_u32(24))
        .max_ack_delay(Some(Duration::from_millis(2)))
        .reordering_threshold(VarInt::from_u32(2));
    ack
}

fn loopback() -> TransportConfig {
    let mut transport = base();
    transport.congestion_controller_factory(Arc::new(LoopbackWindowConfig));
    fix_mtu(&mut transport, LOOPBACK_MTU);
    transport
}

fn lan(mtu_max: u16) -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery
        .upper_bound(mtu_max)
        .black_hole_cooldown(Duration::from_secs(5));
    let mut cubic = CubicConfig::default();
    cubic.initial_window(LAN_INITIAL_WINDOW_BYTES);
    let mut transport = base();
    transport
        .initial_mtu(MTU_MIN)
        .mtu_discovery_config(Some(discovery))
        .congestion_controller_factory(Arc::new(cubic));
    transport
}

/// With the smallest equal to the first datagram nothing shrinks it after a loss.
fn fix_mtu(transport: &mut TransportConfig, mtu: u16) {
    assert!(
        (MTU_MIN..=DATAGRAM_BYTES_MAX).contains(&mtu),
        "an MTU of {mtu} bytes"
    );
    transport
        .min_mtu(mtu)
        .initial_mtu(mtu)
        .mtu_discovery_config(None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lan_mtu_follows_the_link_within_its_bounds() {
        assert_eq!(lan_mtu(Some(1500)), 1452);
        assert_eq!(lan_mtu(Some(9000)), 8952);
        assert_eq!(lan_mtu(Some(65_536)), 8952);
        assert_eq!(lan_mtu(Some(576)), 1200);
        assert_eq!(lan_mtu(None), 8952);
    }
}
