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
/// Frames that a caller's lane holds until they are written, in bytes: as many as the credits of one
/// lane pay for.
pub const LANE_OUTBOX_BYTES_MAX: usize = LANE_CREDITS * CREDIT_BYTES;
/// Replies that are gathered into one write to a lane, in bytes: more would delay the first.
pub const REPLY_BATCH_BYTES: usize = 256 << 10;
/// Requests that are begun before their replies are written: more would delay the first.
pub const REPLY_BATCH_FRAMES: usize = 64;
/// Transfers of one bulk connection at once; their bytes are bounded by the endpoint's allowance.
pub const BULK_STREAMS_MAX: u32 = 32;
/// Payloads that one endpoint reads or answers at once, in bytes, unless it is told otherwise.
pub const PAYLOADS_BYTES: usize = 64 << 20;
/// Bodies of control requests that wait for their answers, on all connections of an endpoint, in bytes:
/// those that wait are commits and recalls, of less than 1 KiB each.
pub const PARKED_BYTES_MAX: usize = 32 << 20;
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
/// Of these, connections of one certificate: so many mounts may share one, and none of them can keep
/// the others out.
pub const CONNECTIONS_PER_CERTIFICATE_MAX: usize = CONNECTIONS_MAX / 12;
/// Peers at once from their first datagram to their welcome: a handshake costs about 40 KiB until then.
pub const HALF_OPEN_MAX: usize = 1024;
/// Of these, peers that have not shown that they receive at the address they send from: more than come
/// together in peace. Others pay for it with one round trip.
pub const HALF_OPEN_UNPROVEN_MAX: usize = 64;
/// Of these, peers at one address: a host with as many mounts is not held up, and cannot hold up others.
pub const HALF_OPEN_PER_ADDRESS_MAX: usize = HALF_OPEN_MAX / 4;
/// What is kept of a peer until its first datagram is looked at, in bytes: more than the first flight of
/// a TLS handshake.
pub const KNOCK_BYTES_MAX: u64 = 16 << 10;
/// The body of a hello, in bytes: it has two short texts.
pub const HELLO_BYTES_MAX: usize = 512;
/// What a peer may send before its hello is accepted, in bytes.
pub const HELLO_WINDOW_BYTES: u32 = 4 << 10;
/// What a peer may send of one transfer before it is read, in bytes: what a link of 10 Gbit/s carries
/// in 200 us.
pub const BULK_STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// The same for all transfers of a connection, if nobody else needs the socket's buffer: those that
/// wait to be read never keep the others from being sent.
pub const BULK_WINDOW_BYTES: u32 = BULK_STREAMS_MAX * BULK_STREAM_WINDOW_BYTES;
/// The same for control: a quarter of the longest body, which is read as it comes.
pub const CONTROL_WINDOW_BYTES: u32 = 256 << 10;
/// The same for heartbeats, which are short.
pub const HEARTBEAT_WINDOW_BYTES: u32 = 16 << 10;
/// The least that a connection has, however many there are.
pub const WINDOW_BYTES_MIN: u32 = 16 << 10;
/// Targets that a connector remembers after nobody uses them any more.
pub const CARRIERS_IDLE_MAX: usize = 1024;

/// The datagram that an endpoint accepts, in bytes: with four segments a buffer it makes 64 KiB, the
/// most that the kernel joins into one.
pub const DATAGRAM_BYTES_MAX: u16 = 16_384;
/// The bytes that Linux takes in one UDP send, over IPv4: 65,535 less the two headers.
pub const UDP_SEND_BYTES_MAX: usize = 65_507;
/// What is asked for the socket's buffers, in bytes; the kernel may give less. As much as
/// `systemd/vdfs.sysctl.conf` allows.
pub const SOCKET_BUFFER_BYTES: usize = 16 << 20;

/// From a dial to the peer's welcome; a peer that takes longer is tried again.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// From a peer's first datagram to its welcome.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
const _: () = assert!(HELLO_TIMEOUT.as_millis() > CONNECT_TIMEOUT.as_millis());
/// A connection that is silent for this long is over.
///
/// Far shorter than a session's lease: after a cut QUIC's own probes come at twice the distance each
/// time, and the first behind the cut could be too late. A new dial is there within a second.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// So much earlier something is said: two may be lost.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long a peer may leave a frame half sent, or a reply unread.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after the first failed dial; it doubles with each.
pub const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// The longest pause between two dials; a connection that lived no longer counts as a failed dial.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);
