//! Every bound of the transport that is not part of the protocol, with its reason.

use std::time::Duration;

use vdfs_proto::limits::REQUESTS_PER_CONNECTION_MAX;

/// Lanes of a control connection. Each has credits of its own, so that the answer to a recall never
/// waits behind mutations that are parked until that very answer comes.
pub const CONTROL_LANES: usize = 2;
/// Credits of one lane: one request takes one, and one more for each [`CREDIT_BYTES`] of its body.
/// So a lane holds at most `LANE_CREDITS * CREDIT_BYTES` (16 MiB) of requests.
pub const LANE_CREDITS: usize = REQUESTS_PER_CONNECTION_MAX / CONTROL_LANES;
/// The part of a body that one more credit pays for.
pub const CREDIT_BYTES: usize = 64 << 10;
/// Replies that are gathered into one write to a lane, in bytes: more would delay the first.
pub const REPLY_BATCH_BYTES: usize = 256 << 10;
/// Requests that are begun before their replies are written: more would delay the first.
pub const REPLY_BATCH_FRAMES: usize = 64;
/// Transfers of one bulk connection at once. All of them are being read, so that none can starve
/// another of the connection's window; their bytes are what such a connection may cost: 160 MiB.
pub const BULK_STREAMS_MAX: u32 = 32;
/// Streams before the peer has said what the connection is for.
pub const HELLO_STREAMS_MAX: u32 = 4;
/// The piece in which a payload is handed to the transport, in bytes: its memory is given back
/// piece by piece as the peer acknowledges it.
pub const SEND_PIECE_BYTES: usize = 512 << 10;

/// Memory kept between transfers, in bytes, in a whole process: a few of the largest payloads, which
/// is what a busy mount has in flight.
pub const BUFFERS_KEPT_BYTES: usize = 32 << 20;

/// Connections that one endpoint serves: three from each of `SESSIONS_MAX` mounts.
pub const CONNECTIONS_MAX: usize = 3 * vdfs_proto::limits::SESSIONS_MAX;
/// Targets that a connector remembers after nobody uses them any more.
pub const CARRIERS_IDLE_MAX: usize = 1024;

/// The datagram that an endpoint accepts, in bytes: with four segments a buffer it makes 64 KiB, the
/// most that the kernel joins into one.
pub const DATAGRAM_BYTES_MAX: u16 = 16_384;
/// The bytes that Linux takes in one UDP send, over IPv4: 65,535 less the two headers.
pub const UDP_SEND_BYTES_MAX: usize = 65_507;
/// What is asked for the socket's buffers, in bytes; the kernel may give less.
pub const SOCKET_BUFFER_BYTES: usize = 16 << 20;

/// From a dial to the peer's welcome; a peer that takes longer is tried again.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// From the end of the TLS handshake to the peer's hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
const _: () = assert!(HELLO_TIMEOUT.as_millis() > CONNECT_TIMEOUT.as_millis());
/// A connection that is silent for this long is over.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// So much earlier something is said: two may be lost.
pub const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// How long a peer may leave a frame half sent, or a reply unread.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after the first failed dial; it doubles with each.
pub const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// The longest pause between two dials; a connection that lived no longer counts as a failed dial.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);
