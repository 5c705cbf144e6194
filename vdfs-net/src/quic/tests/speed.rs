//! What the carrier reaches of what quinn alone does over the same sockets.

use futures::StreamExt;
use futures::stream;
use quinn::Connection;

use super::hosts::Hosts;
use super::*;
use crate::limits::{BULK_WINDOW_BYTES, SOCKET_BUFFER_BYTES};
use crate::quic::admission::Admission;
use crate::quic::profile::Transports;
use crate::quic::tls::Tls;
use crate::quic::wire::Wire;

const MIB: usize = 1 << 20;
/// What a round sends each way, in bytes.
const ROUND_BYTES: usize = 256 * MIB;
/// A fixed number: to go on until the figure is good would prove nothing.
const ROUNDS: usize = 11;
/// What the carrier must reach of bare quinn.
const SHARE: f64 = 0.9;
/// The datagrams of the profiles, in bytes, and the largest that an endpoint takes.
const DATAGRAMS: [u16; 4] = [1452, 6500, 8952, 16_336];
/// Datagrams in one batch of quinn.
const GSO_SEGMENTS: usize = 10;
/// Lost batches make it slow, or end it.
const UNCAPPED_BYTES: usize = 16 * MIB;
const UNCAPPED_WAIT: Duration = Duration::from_secs(10);
const CALL_BYTES: usize = 4 * MIB;
const CALLS_AT_ONCE: usize = 4;

/// Gives 4 MiB that are there already, or takes what came.
struct Source(Bytes);

impl Service for Source {
    fn handle(&self, _: Arc<PeerIdentity>, request: Request) -> BoxFuture<'static, Outcome> {
        let payload = match request.payload.is_empty() {
            true => self.0.clone(),
            false => Bytes::new(),
        };
        let body = Bytes::new();
        std::future::ready(Ok(Response { body, payload })).boxed()
    }
}

/// What was sent and lost, in packets.
#[derive(Clone, Copy, Debug, Default)]
struct Packets {
    sent: u64,
    lost: u64,
}

impl Packets {
    fn of(connection: &Connection) -> Packets {
        let path = connection.stats().path;
        Packets {
            sent: path.sent_packets,
            lost: path.lost_packets,
        }
    }

    fn are_mostly_whole(self) -> bool {
        self.lost * 10_000 < self.sent
    }
}

fn mib_per_s(bytes: usize, started: Instant) -> f64 {
    (bytes / MIB) as f64 / started.elapsed().as_secs_f64()
}

/// Starts an end where it belongs.
type Place<'a> = &'a dyn Fn(usize, &mut (dyn FnMut() + Send));

fn on_this_host(_end: usize, start: &mut (dyn FnMut() + Send)) {
    start();
}

fn anywhere() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)
}

/// What lies between quinn and the kernel.
type Wrap = fn(Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket>;

/// One end of a [`Bare`]: a thread that runs nothing but quinn.
struct BareEnd {
    endpoint: quinn::Endpoint,
    runtime: runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl BareEnd {
    fn new(
        tls: &Tls,
        listen: SocketAddr,
        wrap: Wrap,
        transport: Arc<quinn::TransportConfig>,
    ) -> BareEnd {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let socket = socket::bind(listen, SOCKET_BUFFER_BYTES).expect("bound");
        let wire = Wire::Traffic;
        let server = Role::Volume;
        let mut server = tls.server(Admission { server, wire }).expect("good");
        server.transport_config(transport);
        let endpoint = open_endpoint(&runtime, socket, wrap, (tls, wire), Some(server));
        let endpoint = endpoint.expect("opened");
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || drop(runtime.block_on(stopped)));
        BareEnd {
            endpoint,
            runtime: handle,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Running<T> {
        let (done, outcome) = std::sync::mpsc::channel();
        self.runtime
            .spawn(async move { done.send(work.await).ok() });
        Running(outcome)
    }
}

impl Drop for BareEnd {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(JoinHandle::join);
    }
}

struct Running<T>(std::sync::mpsc::Receiver<T>);

impl<T> Running<T> {
    fn wait(self) -> T {
        self.0
            .recv_timeout(2 * LONG)
            .expect("in time, without a panic")
    }
}

/// quinn with our sockets, identities and transports, and nothing else of ours.
struct Bare {
    ends: [BareEnd; 2],
    connections: [Connection; 2],
}

impl Bare {
    fn new(place: Place<'_>, addr: SocketAddr, wrap: Wrap, config: QuicConfig) -> Bare {
        let cluster = Cluster::new();
        let transport =
            Transports::new(config.profile, config.mtu).for_peer(addr, BULK_WINDOW_BYTES);
        let roles = [(0, Role::Volume, "v-1"), (1, Role::Client, "mount")];
        let [server, client] = roles.map(|(host, role, node)| {
            let tls = Tls::new(&cluster.identity(role, node)).expect("good");
            let mut made = None;
            place(host, &mut || {
                let listen = if host == 0 { addr } else { anywhere() };
                made = Some(BareEnd::new(&tls, listen, wrap, transport.clone()));
            });
            (made.expect("ran"), tls)
        });
        let ((server, _), (client, tls)) = (server, client);
        let target = Target {
            addr: server.endpoint.local_addr().expect("bound"),
            role: Role::Volume,
            node: Some("v-1".to_owned()),
        };
        let mut config = ClientConfig::new(tls.client(&target).expect("good"));
        config.transport_config(transport);
        let name = crate::identity::dns_name(Role::Volume, Some("v-1"));
        let endpoint = server.endpoint.clone();
        let accepting = server.run(async move {
            let incoming = endpoint.accept().await.expect("open");
            incoming.await.expect("handshake")
        });
        let endpoint = client.endpoint.clone();
        let dialling = client.run(async move {
            let connecting = endpoint.connect_with(config, target.addr, &name);
            connecting.expect("dials").await.expect("handshake")
        });
        let connections = [accepting.wait(), dialling.wait()];
        Bare {
            ends: [server, client],
            connections,
        }
    }

    /// From one end to the other; in MiB/s.
    fn transfer(&self, from: usize, bytes: usize) -> f64 {
        let to = 1 - from;
        let started = Instant::now();
        let sending = self.ends[from].run(send_all(self.connections[from].clone(), bytes));
        let receiving = self.ends[to].run(receive_all(self.connections[to].clone()));
        assert_eq!(receiving.wait(), bytes);
        sending.wait();
        mib_per_s(bytes, started)
    }

    /// The same, as far as it comes.
    fn try_transfer(&self, from: usize, bytes: usize) {
        let to = 1 - from;
        let _sending = self.ends[from].run(send_all(self.connections[from].clone(), bytes));
        let receiving = self.ends[to].run(receive_all(self.connections[to].clone()));
        receiving.0.recv_timeout(UNCAPPED_WAIT).ok();
    }

    fn packets(&self, from: usize) -> Packets {
        Packets::of(&self.connections[from])
    }
}

async fn send_all(connection: Connection, bytes: usize) {
    let piece = Bytes::from(vec![7; crate::limits::SEND_PIECE_BYTES]);
    let (mut send, mut recv) = connection.open_bi().await.expect("a stream");
    for _ in 0..bytes / piece.len() {
        send.write_chunk(piece.clone()).await.expect("written");
    }
    send.finish().expect("open");
    recv.read_to_end(1).await.expect("read");
}

async fn receive_all(connection: Connection) -> usize {
    let (_send, mut recv) = connection.accept_bi().await.expect("a stream");
    let mut segments: [Bytes; 32] = std::array::from_fn(|_| Bytes::new());
    let mut bytes = 0;
    while let Some(count) = recv.read_chunks(&mut segments).await.expect("read") {
        bytes += segments[..count].iter().map(Bytes::len).sum::<usize>();
    }
    bytes
}

/// The carrier.
struct Ours {
    runtime: runtime::Runtime,
    ends: [QuicEndpoint; 2],
    carrier: Arc<dyn Carrier>,
    payload: Bytes,
}

impl Ours {
    fn new(place: Place<'_>, addr: SocketAddr, config: QuicConfig) -> Ours {
        let cluster = Cluster::new();
        let payload = Bytes::from(vec![7; CALL_BYTES]);
        let source: Arc<dyn Service> = Arc::new(Source(payload.clone()));
        let ends =
            [(0, Role::Volume, "v-1"), (1, Role::Client, "mount")].map(|(host, role, node)| {
                let identity = cluster.identity(role, node);
                let mut made = None;
                place(host, &mut || {
                    let (listen, service) = match host {
                        0 => (addr, Some(source.clone())),
                        _ => (anywhere(), None),
                    };
                    made = Some(
                        QuicEndpoint::start(&identity, listen, service, config).expect("started"),
                    );
                });
                made.expect("ran")
            });
        let [server, client] = &ends;
        let carrier = carrier(client, server);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        Ours {
            runtime,
            ends,
            carrier,
            payload,
        }
    }

    /// From the server to the client (0), or back; in MiB/s.
    fn transfer(&self, from: usize) -> f64 {
        let payload = if from == 0 {
            Bytes::new()
        } else {
            self.payload.clone()
        };
        let carrier = &self.carrier;
        let started = Instant::now();
        self.runtime.block_on(async {
            stream::iter(0..ROUND_BYTES / CALL_BYTES)
                .for_each_concurrent(CALLS_AT_ONCE, |_| async {
                    let answer = carrier.call(bulk("body", payload.clone()), LONG).await;
                    assert!(answer.is_ok());
                })
                .await;
        });
        mib_per_s(ROUND_BYTES, started)
    }

    /// What the two ends have sent and lost.
    fn end(self) -> [Packets; 2] {
        self.ends.map(|end| {
            let common = end.traffic.shared.common.clone();
            end.shutdown(LONG);
            Packets {
                sent: common.counters.packets_sent.get(),
                lost: common.counters.packets_lost.get(),
            }
        })
    }
}

/// What was measured one way, in MiB/s, one entry a round.
#[derive(Debug, Default)]
struct Rates {
    bare: Vec<f64>,
    ours: Vec<f64>,
}

impl Rates {
    /// Of each pair, taken one right after the other, how much ours reached of bare; then the middle of
    /// all: other programs slow down pairs, not one side, and a lucky round of either counts once.
    fn share(&self) -> f64 {
        let pairs = self.ours.iter().zip(&self.bare);
        let mut ratios: Vec<f64> = pairs.map(|(ours, bare)| ours / bare).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    }
}

impl std::fmt::Display for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let best = |rates: &[f64]| rates.iter().copied().fold(0.0, f64::max);
        let (ours, bare) = (best(&self.ours), best(&self.bare));
        let share = self.share();
        write!(
            f,
            "{share:.3} of bare; at best {ours:.0} and {bare:.0} MiB/s"
        )
    }
}

/// Both take turns at going first, so that neither has the warmer machine.
fn compare(place: Place<'_>, listen: [SocketAddr; 2], config: QuicConfig, what: &str) {
    let ours = Ours::new(place, listen[0], config);
    let bare = Bare::new(place, listen[1], BatchCap::around, config);
    let mut ways = [Rates::default(), Rates::default()];
    for round in 0..ROUNDS {
        for (from, rates) in ways.iter_mut().enumerate() {
            if round % 2 == 0 {
                rates.ours.push(ours.transfer(from));
                rates.bare.push(bare.transfer(from, ROUND_BYTES));
            } else {
                rates.bare.push(bare.transfer(from, ROUND_BYTES));
                rates.ours.push(ours.transfer(from));
            }
        }
    }
    let packets = ours.end();
    let [read, written] = &ways;
    let said = format!("{what}: read {read}; written {written}; {packets:?}");
    println!("{said}");
    assert!(ways.iter().all(|rates| rates.share() >= SHARE), "{said}");
    assert!(packets.iter().all(|end| end.are_mostly_whole()), "{said}");
}

fn fixed(mtu: u16) -> QuicConfig {
    QuicConfig {
        mtu: Some(mtu),
        ..QuicConfig::default()
    }
}

#[test]
#[ignore = "says something only on a machine that does nothing else"]
fn carrier_at_every_datagram_size_is_as_fast_as_quinn_and_loses_nothing() {
    for mtu in DATAGRAMS {
        let what = format!("{mtu} bytes a datagram");
        compare(&on_this_host, [LOCALHOST; 2], fixed(mtu), &what);
    }
}

/// The short form of both comparisons, for a machine that does other things.
#[test]
fn carrier_at_every_datagram_size_loses_nothing() {
    for mtu in DATAGRAMS {
        let ours = Ours::new(&on_this_host, LOCALHOST, fixed(mtu));
        for from in [0, 1] {
            ours.transfer(from);
        }
        let packets = ours.end();
        let are_whole = packets.iter().all(|end| end.are_mostly_whole());
        assert!(are_whole, "{mtu} bytes: {packets:?}");
    }
}

/// [`BatchCap`] is what keeps the packets: without it the same connection loses them.
#[test]
fn batches_that_nobody_caps_are_lost() {
    for mtu in DATAGRAMS {
        let bare = Bare::new(&on_this_host, LOCALHOST, |socket| socket, fixed(mtu));
        bare.try_transfer(0, UNCAPPED_BYTES);
        let packets = bare.packets(0);
        let fits = usize::from(mtu) * GSO_SEGMENTS <= crate::limits::UDP_SEND_BYTES_MAX;
        assert_eq!(packets.are_mostly_whole(), fits, "{mtu} bytes: {packets:?}");
    }
}

#[test]
#[ignore = "takes root, and a machine that does nothing else"]
fn carrier_on_a_lan_is_as_fast_as_quinn_and_loses_nothing() {
    for mtu in [1500, 9000] {
        let hosts = Hosts::new(mtu);
        let place = |end: usize, start: &mut (dyn FnMut() + Send)| hosts.on(end, start);
        let listen = [7400, 7401].map(|port| SocketAddr::new(Hosts::addr(0), port));
        let what = format!("links of {mtu} bytes");
        compare(&place, listen, QuicConfig::default(), &what);
    }
}
