//! The way to whichever of several peers serves: they are tried in turn, the next one after each
//! that does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use vdfs_proto::Status;

use crate::carrier::{Carrier, Connector, Outcome, Request, Target};

/// One call goes to one peer; only the next call goes to another, so nothing is sent twice.
#[derive(Debug)]
pub struct Rotation {
    carriers: Vec<Arc<dyn Carrier>>,
    at: AtomicUsize,
}

impl Rotation {
    /// Panics if there are no targets.
    pub fn new(connector: &dyn Connector, targets: &[Target]) -> Rotation {
        assert!(!targets.is_empty(), "somebody must be there to be asked");
        Rotation {
            carriers: targets.iter().map(|at| connector.carrier(at)).collect(),
            at: AtomicUsize::new(0),
        }
    }

    async fn call_current(&self, request: Request, deadline: Duration) -> Outcome {
        let at = self.at.load(Ordering::Relaxed);
        let outcome = self.carriers[at % self.carriers.len()]
            .call(request, deadline)
            .await;
        if let Err(Status::Disconnected | Status::NotServing | Status::ShuttingDown) = outcome {
            // Callers that failed together move on by one together.
            self.at.store(at.wrapping_add(1), Ordering::Relaxed);
        }
        outcome
    }
}

impl Carrier for Rotation {
    fn call(&self, request: Request, deadline: Duration) -> BoxFuture<'_, Outcome> {
        self.call_current(request, deadline).boxed()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vdfs_proto::frame::Method;
    use vdfs_proto::handshake::{Purpose, Role};

    use super::*;

    /// Answers with its port, unless that is 1.
    #[derive(Debug)]
    struct Peer(u16);

    impl Carrier for Peer {
        fn call(&self, request: Request, _: Duration) -> BoxFuture<'_, Outcome> {
            let outcome = match self.0 {
                1 => Err(Status::Disconnected),
                port => Ok(crate::Response {
                    body: Bytes::from(port.to_string()),
                    payload: request.payload,
                }),
            };
            async { outcome }.boxed()
        }
    }

    #[derive(Debug)]
    struct Peers;

    impl Connector for Peers {
        fn carrier(&self, target: &Target) -> Arc<dyn Carrier> {
            Arc::new(Peer(target.addr.port()))
        }
    }

    #[test]
    fn rotation_goes_on_after_a_peer_that_does_not_serve_and_stays_with_one_that_does() {
        let target = |port| Target {
            addr: ([127, 0, 0, 1], port).into(),
            role: Role::Master,
            node: None,
        };
        let rotation = Rotation::new(&Peers, &[target(1), target(7), target(8)]);
        let ask = || {
            let request = Request {
                method: Method::Query,
                body: Bytes::new(),
                payload: Bytes::new(),
                purpose: Purpose::Control,
            };
            let answer = rotation.call(request, Duration::from_secs(1));
            let answer = answer.now_or_never().expect("answers at once");
            answer.map(|response| response.body)
        };
        assert_eq!(ask().err(), Some(Status::Disconnected));
        assert_eq!(ask(), Ok(Bytes::from("7")));
        assert_eq!(ask(), Ok(Bytes::from("7")));
    }
}
