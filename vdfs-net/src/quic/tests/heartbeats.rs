//! Heartbeats go on while everything else stands still.

use std::sync::mpsc as threads;

use super::*;

/// Blocks the thread that brings a control request until it is told to go on; answers the rest.
struct Stuck {
    begun: threads::Sender<()>,
    go_on: Mutex<threads::Receiver<()>>,
}

impl Service for Stuck {
    fn handle(&self, _: Arc<PeerIdentity>, request: Request) -> BoxFuture<'static, Outcome> {
        if request.purpose == Purpose::Control {
            self.begun.send(()).expect("the test waits");
            self.go_on.lock().recv().ok();
        }
        std::future::ready(Ok(Response::default())).boxed()
    }
}

fn heartbeat() -> Request {
    Request {
        purpose: Purpose::Heartbeat,
        method: Method::Volume,
        ..control("alive")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_answered_while_the_thread_of_control_is_blocked() {
    let cluster = Cluster::new();
    let (begun, has_begun) = threads::channel();
    let (go_on, may_go_on) = threads::channel();
    let stuck = Stuck {
        begun,
        go_on: Mutex::new(may_go_on),
    };
    let server = cluster.serve(Arc::new(stuck));
    let volume = dial_as(&cluster.identity(Role::Volume, "v"), QuicConfig::default());
    let carrier = carrier(&volume, &server);
    let waiting = carrier.clone();
    let waiting = tokio::spawn(async move { waiting.call(control("blocks"), LONG).await });
    has_begun.recv_timeout(LONG).expect("the request came");
    // A connection that is there already, and one that is made now.
    for _ in 0..10 {
        carrier.call(heartbeat(), LONG).await.expect("answered");
    }
    let other = dial_as(&cluster.identity(Role::Volume, "w"), QuicConfig::default());
    let other = super::carrier(&other, &server);
    other.call(heartbeat(), LONG).await.expect("answered");
    assert!(!waiting.is_finished(), "nothing was blocked");
    go_on.send(()).expect("it waits");
    waiting.await.expect("ran").expect("answered");
}

#[tokio::test]
async fn heartbeats_are_answered_by_a_server_restarted_at_its_port() {
    let cluster = Cluster::new();
    let server = cluster.serve(Echo::new().0);
    let addr = server.local_addr();
    let volume = dial_as(&cluster.identity(Role::Volume, "v"), QuicConfig::default());
    let carrier = carrier(&volume, &server);
    carrier.call(heartbeat(), LONG).await.expect("answered");
    server.kill();
    let identity = cluster.identity(Role::Master, "m-1");
    let _server = serve_as(&identity, addr, Echo::new().0, QuicConfig::default());
    let give_up = Instant::now() + LONG;
    while carrier.call(heartbeat(), LONG).await.is_err() {
        assert!(Instant::now() < give_up, "never answered");
    }
}
