//! The far door: from a method and a body to a handler, and its reply back.
//!
//! Checks the peer's role, decodes, counts, encodes. What a request means is the core's business.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use vdfs_net::{Outcome, PeerIdentity, Request, Response, Service};
use vdfs_proto::Status;
use vdfs_proto::frame::Method;
use vdfs_proto::meta::AdminReply;
use vdfs_proto::volume::{VolumeReply, VolumeRequest};

use crate::certificates::Certificates;
use crate::core::{CoreReply, CoreRequest};
use crate::handlers;
use crate::metrics::Metrics;
use crate::shell::pulse::Pulse;
use crate::shell::turns::Turns;

#[derive(Debug)]
pub(crate) struct Dispatch {
    turns: Arc<Turns>,
    pulse: Arc<Pulse>,
    metrics: Arc<Metrics>,
    certificates: Arc<Certificates>,
}

impl Dispatch {
    pub(crate) fn new(
        turns: Arc<Turns>,
        pulse: Arc<Pulse>,
        metrics: Arc<Metrics>,
        certificates: Arc<Certificates>,
    ) -> Self {
        Dispatch {
            turns,
            pulse,
            metrics,
            certificates,
        }
    }
}

/// The answer to a heartbeat never waits for a turn.
async fn answer(turns: &Turns, pulse: &Pulse, request: CoreRequest) -> Result<CoreReply, Status> {
    match request {
        CoreRequest::Volume {
            request: VolumeRequest::Heartbeat(heartbeat),
            ..
        } => {
            let ack = pulse.beat(&heartbeat)?;
            Ok(CoreReply::Volume(VolumeReply::Heartbeat(ack)))
        }
        request => turns.submit(request)?.await,
    }
}

/// What the core's report lacks, because it is not the core's.
fn complete(reply: &mut CoreReply, certificates: &Certificates) {
    if let CoreReply::Admin(reply) = reply
        && let AdminReply::GetStatus(report) = &mut **reply
    {
        report.certificates = certificates.ending();
    }
}

/// A request that may be asked of the core.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// The operation's name.
    pub(crate) op: &'static str,
    pub(crate) request: CoreRequest,
}

impl Service for Dispatch {
    fn handle(&self, peer: Arc<PeerIdentity>, request: Request) -> BoxFuture<'static, Outcome> {
        let (turns, pulse) = (self.turns.clone(), self.pulse.clone());
        let (metrics, certificates) = (self.metrics.clone(), self.certificates.clone());
        certificates.see(&peer);
        async move {
            let begun = Instant::now();
            let Admitted { op, request } = admit(&peer, &request)?;
            let answer = answer(&turns, &pulse, request).await;
            let time = begun.elapsed();
            metrics.count(op, answer.is_err(), time);
            log(&peer, op, time, &answer);
            answer.map(|mut reply| {
                complete(&mut reply, &certificates);
                Response {
                    body: handlers::encode(&reply),
                    payload: Bytes::new(),
                }
            })
        }
        .boxed()
    }
}

fn admit(peer: &PeerIdentity, request: &Request) -> Result<Admitted, Status> {
    if !request.payload.is_empty() {
        return Err(Status::Malformed);
    }
    match request.method {
        Method::Mutate => handlers::mutate::admit(peer, &request.body),
        Method::Query => handlers::query::admit(peer, &request.body),
        Method::Session => handlers::session::admit(peer, &request.body),
        Method::Admin => handlers::admin::admit(peer, &request.body),
        Method::Volume => handlers::volume::admit(peer, &request.body),
        Method::Data => Err(Status::NotSupported),
    }
}

fn log(peer: &PeerIdentity, op: &str, time: Duration, answer: &Result<CoreReply, Status>) {
    let elapsed_us = time.as_micros() as u64;
    match answer {
        Ok(_) => tracing::debug!(op, peer = peer.node, elapsed_us),
        Err(status) => tracing::debug!(op, peer = peer.node, elapsed_us, %status),
    }
}

#[cfg(test)]
mod tests {
    use vdfs_proto::ClusterId;
    use vdfs_proto::VolumeId;
    use vdfs_proto::codec::encode;
    use vdfs_proto::handshake::{Purpose, Role};
    use vdfs_proto::ids::SessionId;
    use vdfs_proto::meta::{AdminRequest, GetStatus, Query, QueryRequest, StatFs};
    use vdfs_proto::session::{CloseSession, SessionRequest};
    use vdfs_proto::volume::NextCommands;

    use super::*;

    fn peer(role: Role) -> PeerIdentity {
        PeerIdentity {
            cluster: ClusterId(1),
            role,
            node: "n1".to_owned(),
            addr: None,
            same_host: true,
            certificate_ends: None,
        }
    }

    fn request(method: Method, body: Bytes) -> Request {
        Request {
            method,
            body,
            payload: Bytes::new(),
            purpose: Purpose::Control,
        }
    }

    /// One good request of every method.
    fn requests() -> Vec<Request> {
        let session = SessionId(1);
        let query = QueryRequest {
            session,
            query: Query::StatFs(StatFs {}),
        };
        let close = SessionRequest::CloseSession(CloseSession { session });
        let commands = NextCommands {
            volume: VolumeId(1),
            incarnation: 1,
            registration: 1,
            seen: 0,
            wall: vdfs_proto::Timestamp::default(),
            results: Vec::new(),
        };
        vec![
            request(Method::Query, encode(&query)),
            request(Method::Session, encode(&close)),
            request(
                Method::Admin,
                encode(&AdminRequest::GetStatus(GetStatus {})),
            ),
            request(
                Method::Volume,
                encode(&VolumeRequest::NextCommands(commands)),
            ),
        ]
    }

    fn admits(role: Role) -> Vec<Method> {
        let peer = peer(role);
        let is_admitted = |request: &Request| match admit(&peer, request) {
            Ok(_) => true,
            Err(status) => {
                assert_eq!(status, Status::WrongRole);
                false
            }
        };
        requests()
            .into_iter()
            .filter(is_admitted)
            .map(|request| request.method)
            .collect()
    }

    #[test]
    fn admit_goes_by_the_role_of_the_certificate() {
        let all_but_volume = [Method::Query, Method::Session, Method::Admin];
        assert_eq!(admits(Role::Client), all_but_volume);
        assert_eq!(admits(Role::Admin), all_but_volume);
        assert_eq!(admits(Role::Volume), [Method::Volume]);
        assert_eq!(admits(Role::Master), []);
    }

    #[test]
    fn admit_takes_a_volumes_name_from_its_certificate() {
        let request = requests().pop().expect("the volume's");
        let admitted = admit(&peer(Role::Volume), &request).expect("good");
        assert!(matches!(admitted.request, CoreRequest::Volume { node, .. } if node == "n1"));
        assert_eq!(admitted.op, "NextCommands");
    }

    #[test]
    fn admit_refuses_malformed_bodies_and_payloads() {
        let peer = peer(Role::Client);
        for mut request in requests().into_iter().take(3) {
            request.body = Bytes::from([&request.body[..], &[0]].concat());
            assert_eq!(
                admit(&peer, &request).expect_err("a byte too many"),
                Status::Malformed
            );
            request.payload = Bytes::from_static(b"x");
            assert_eq!(
                admit(&peer, &request).expect_err("no payload here"),
                Status::Malformed
            );
        }
        let data = request(Method::Data, Bytes::new());
        assert_eq!(
            admit(&peer, &data).expect_err("a volume's"),
            Status::NotSupported
        );
    }
}
