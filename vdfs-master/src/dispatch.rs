//! The far door: from a method and a body to a handler, and its reply back.
//!
//! Checks the peer's role, decodes, counts, encodes. What a request means is the core's business.
//! Requests that come together are stepped in one turn, so that they share its write to the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use vdfs_net::clock;
use vdfs_net::{Begun, Outcome, PeerIdentity, Request, Response, Service};
use vdfs_proto::Status;
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::{Purpose, Role};
use vdfs_proto::meta::{AdminReply, AdminRequest};
use vdfs_proto::volume::{Heartbeat, HeartbeatAck, VolumeReply, VolumeRequest};

use crate::certificates::Certificates;
use crate::core::{CoreReply, CoreRequest, Peer};
use crate::handlers;
use crate::metrics::Metrics;
use crate::pulse::Pulse;
use crate::shell::inbox::{Answer, Waiter};
use crate::shell::inspector::Inspector;
use crate::shell::turns::Turns;

#[derive(Debug)]
pub(crate) struct Dispatch {
    desk: Arc<Desk>,
}

/// What answers are made with.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) turns: Arc<Turns>,
    pub(crate) pulse: Arc<Mutex<Pulse>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) inspector: Arc<Inspector>,
}

/// A request that may be asked of the core.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// The operation's name.
    pub(crate) op: &'static str,
    pub(crate) request: CoreRequest,
}

/// A request that was asked.
struct Call {
    op: &'static str,
    peer: Arc<PeerIdentity>,
    begun: Instant,
    asked: Asked,
}

enum Asked {
    Answered(Answer),
    /// In a turn to come.
    Waits(Waiter),
    /// On another thread.
    Elsewhere(BoxFuture<'static, Answer>),
}

impl Dispatch {
    pub(crate) fn new(desk: Desk) -> Self {
        Dispatch {
            desk: Arc::new(desk),
        }
    }

    fn finish(&self, mut call: Call) -> Begun {
        let answer = match &mut call.asked {
            Asked::Answered(answer) => Some(answer.clone()),
            Asked::Waits(waiter) => waiter.take(),
            Asked::Elsewhere(_) => None,
        };
        match answer {
            Some(answer) => Begun::Done(self.desk.reply(&call, answer)),
            None => Begun::Waits(wait(self.desk.clone(), call).boxed()),
        }
    }
}

impl Service for Dispatch {
    fn handle(&self, peer: Arc<PeerIdentity>, request: Request) -> BoxFuture<'static, Outcome> {
        let begun = self.handle_batch(&peer, vec![request]).pop();
        begun.expect("one for each request").boxed()
    }

    fn handle_batch(&self, peer: &Arc<PeerIdentity>, requests: Vec<Request>) -> Vec<Begun> {
        self.desk.certificates.see(peer);
        let caller = handlers::caller(peer);
        let ask = |request: Request| self.desk.ask(peer, &caller, &request);
        let calls: Vec<Result<Call, Status>> = requests.into_iter().map(ask).collect();
        // Never for heartbeats alone: a turn may wait for the disk.
        let is_queued = |call: &Result<Call, Status>| matches!(call, Ok(call) if matches!(call.asked, Asked::Waits(_)));
        if calls.iter().any(is_queued) {
            self.desk.turns.run_queued();
        }
        let finish = |call| match call {
            Ok(call) => self.finish(call),
            Err(status) => Begun::Done(Err(status)),
        };
        calls.into_iter().map(finish).collect()
    }
}

impl Desk {
    fn beat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatAck, Status> {
        let mut pulse = self.pulse.lock();
        // Read under the lock: see the invariant of the pulse.
        pulse.beat(heartbeat, clock::boot_ms())
    }

    /// Queues a request for the next turn. The answer to a heartbeat never waits for one.
    fn ask(
        &self,
        peer: &Arc<PeerIdentity>,
        caller: &Peer,
        request: &Request,
    ) -> Result<Call, Status> {
        let begun = Instant::now();
        let Admitted { op, request } = admit(peer, caller, request)?;
        let asked = match request {
            CoreRequest::Volume {
                request: VolumeRequest::Heartbeat(heartbeat),
                ..
            } => {
                let ack = self.beat(&heartbeat);
                Asked::Answered(ack.map(|ack| CoreReply::Volume(VolumeReply::Heartbeat(ack))))
            }
            CoreRequest::Admin(request) if is_inspection(&request) => {
                Asked::Elsewhere(inspect(self.inspector.clone(), peer.role, request).boxed())
            }
            request => match self.turns.queue(request) {
                Ok(waiter) => Asked::Waits(waiter),
                Err(status) => Asked::Answered(Err(status)),
            },
        };
        Ok(Call {
            op,
            peer: peer.clone(),
            begun,
            asked,
        })
    }

    fn reply(&self, call: &Call, answer: Answer) -> Outcome {
        let time = call.begun.elapsed();
        self.metrics.count(call.op, answer.is_err(), time);
        log(&call.peer, call.op, time, &answer);
        let mut reply = answer?;
        complete(&mut reply, &self.certificates, &self.metrics);
        Ok(Response {
            body: handlers::encode(&reply)?,
            payload: Bytes::new(),
        })
    }
}

async fn wait(desk: Arc<Desk>, mut call: Call) -> Outcome {
    let answer = match &mut call.asked {
        Asked::Answered(answer) => answer.clone(),
        Asked::Waits(waiter) => waiter.await,
        Asked::Elsewhere(answer) => answer.await,
    };
    desk.reply(&call, answer)
}

/// What the core's report lacks, because it is not the core's.
fn complete(reply: &mut CoreReply, certificates: &Certificates, metrics: &Metrics) {
    if let CoreReply::Admin(AdminReply::GetStatus(report)) = reply {
        report.certificates = certificates.ending();
        report.net = metrics.net();
        report.ops = metrics.ops();
    }
}

fn is_inspection(request: &AdminRequest) -> bool {
    matches!(
        request,
        AdminRequest::BeginInspection(_) | AdminRequest::NextInspection(_)
    )
}

/// An inspection shows everything, and costs memory.
async fn inspect(inspector: Arc<Inspector>, role: Role, request: AdminRequest) -> Answer {
    if role != Role::Admin {
        return Err(Status::WrongRole);
    }
    let answer = move || match request {
        AdminRequest::BeginInspection(begin) => {
            let begun = inspector.begin(begin.what)?;
            Ok(AdminReply::BeginInspection(begun))
        }
        AdminRequest::NextInspection(next) => {
            let piece = inspector.next(next.inspection, next.piece)?;
            Ok(AdminReply::NextInspection(piece))
        }
        _ => unreachable!("asked of the core"),
    };
    let answered = tokio::task::spawn_blocking(answer).await;
    let reply = answered.unwrap_or(Err(Status::Internal))?;
    Ok(CoreReply::Admin(reply))
}

/// The thread of heartbeats does nothing else: on it a turn could cost a volume its lease.
fn admit(peer: &PeerIdentity, caller: &Peer, request: &Request) -> Result<Admitted, Status> {
    let admitted = admit_method(peer, caller, request)?;
    let is_heartbeat = matches!(
        &admitted.request,
        CoreRequest::Volume {
            request: VolumeRequest::Heartbeat(_),
            ..
        }
    );
    match request.purpose == Purpose::Heartbeat && !is_heartbeat {
        true => Err(Status::NotSupported),
        false => Ok(admitted),
    }
}

fn admit_method(peer: &PeerIdentity, caller: &Peer, request: &Request) -> Result<Admitted, Status> {
    if !request.payload.is_empty() {
        return Err(Status::Malformed);
    }
    match request.method {
        Method::Mutate => handlers::mutate::admit(peer, caller, &request.body),
        Method::Query => handlers::query::admit(peer, caller, &request.body),
        Method::Session => handlers::session::admit(peer, caller, &request.body),
        Method::Admin => handlers::admin::admit(peer, &request.body),
        Method::Volume => handlers::volume::admit(peer, &request.body),
        Method::Data | Method::Peer | Method::PeerBehind | Method::PeerEarly | Method::Relay => {
            Err(Status::NotSupported)
        }
    }
}

fn log(peer: &PeerIdentity, op: &str, time: Duration, answer: &Answer) {
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
    use vdfs_proto::handshake::Role;
    use vdfs_proto::ids::SessionId;
    use vdfs_proto::meta::{
        AdminRequest, GetStatus, MutateRequest, Mutation, Query, QueryRequest, StatFs, Unlink,
    };
    use vdfs_proto::session::{CloseSession, SessionRequest};
    use vdfs_proto::volume::{Heartbeat, NextCommands};
    use vdfs_proto::{FileName, Ino, OpId};

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

    fn admit_from(peer: &PeerIdentity, request: &Request) -> Result<Admitted, Status> {
        admit(peer, &handlers::caller(peer), request)
    }

    /// One good request of every method.
    fn requests() -> Vec<Request> {
        let session = SessionId(1);
        let query = QueryRequest {
            session,
            query: Query::StatFs(StatFs {}),
        };
        let mutate = MutateRequest {
            op: OpId {
                session,
                slot: 0,
                seq: 1,
            },
            mutation: Mutation::Unlink(Unlink {
                parent: Ino::ROOT,
                name: FileName::new(b"f").expect("a name"),
            }),
        };
        let close = SessionRequest::CloseSession(CloseSession { session });
        let commands = NextCommands {
            volume: VolumeId(1),
            incarnation: 1,
            registration: 1,
            seen: 0,
            wall: vdfs_proto::Timestamp::default(),
            net: vdfs_proto::NetTotals::default(),
            news: Vec::new(),
            results: Vec::new(),
        };
        vec![
            request(Method::Mutate, encode(&mutate)),
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
        let is_admitted = |request: &Request| match admit_from(&peer, request) {
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
        let all_but_volume = [
            Method::Mutate,
            Method::Query,
            Method::Session,
            Method::Admin,
        ];
        assert_eq!(admits(Role::Client), all_but_volume);
        assert_eq!(admits(Role::Admin), all_but_volume);
        assert_eq!(admits(Role::Volume), [Method::Volume]);
        assert_eq!(admits(Role::Master), []);
    }

    #[test]
    fn admit_lets_nothing_but_heartbeats_onto_the_thread_of_heartbeats() {
        let on_that_thread = |request: Request| Request {
            purpose: Purpose::Heartbeat,
            ..request
        };
        for role in [Role::Client, Role::Admin, Role::Volume] {
            for request in requests() {
                let admitted = admit_from(&peer(role), &on_that_thread(request));
                let status = admitted.expect_err("no heartbeat");
                let expected = [Status::NotSupported, Status::WrongRole];
                assert!(expected.contains(&status), "{role:?}: {status}");
            }
        }
        let beat = VolumeRequest::Heartbeat(Heartbeat {
            volume: VolumeId(1),
            registration: 1,
            capacity_bytes: 0,
            used_bytes: 0,
        });
        let beat = on_that_thread(request(Method::Volume, encode(&beat)));
        admit_from(&peer(Role::Volume), &beat).expect("a heartbeat");
        let refused = admit_from(&peer(Role::Client), &beat);
        assert_eq!(refused.expect_err("a client's"), Status::WrongRole);
    }

    #[test]
    fn admit_takes_a_volumes_name_from_its_certificate() {
        let request = requests().pop().expect("the volume's");
        let admitted = admit_from(&peer(Role::Volume), &request).expect("good");
        assert!(matches!(admitted.request, CoreRequest::Volume { node, .. } if node == "n1"));
        assert_eq!(admitted.op, "NextCommands");
    }

    #[test]
    fn admit_refuses_malformed_bodies_and_payloads() {
        let peer = peer(Role::Client);
        for mut request in requests().into_iter().take(4) {
            request.body = Bytes::from([&request.body[..], &[0]].concat());
            assert_eq!(
                admit_from(&peer, &request).expect_err("a byte too many"),
                Status::Malformed
            );
            request.payload = Bytes::from_static(b"x");
            assert_eq!(
                admit_from(&peer, &request).expect_err("no payload here"),
                Status::Malformed
            );
        }
        let data = request(Method::Data, Bytes::new());
        assert_eq!(
            admit_from(&peer, &data).expect_err("a volume's"),
            Status::NotSupported
        );
    }
}
