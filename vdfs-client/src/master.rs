//! The way to the master: one attempt of each kind of request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use vdfs_net::{Carrier, Connector, Target, rpc};
use vdfs_proto::Status;
use vdfs_proto::frame::Method;
use vdfs_proto::limits::EVENTS_PARK_MS;
use vdfs_proto::meta::{
    AdminReply, AdminRequest, Answer, MutateRequest, Mutated, Mutation, Query, QueryRequest,
};
use vdfs_proto::operation::Operation;
use vdfs_proto::session::{SessionReply, SessionRequest};

use crate::limits::{ATTEMPT, ATTEMPT_PARKED};

/// Tries the masters in turn: the next one after each that does not serve.
#[derive(Debug)]
pub(crate) struct MasterLink {
    carriers: Vec<Arc<dyn Carrier>>,
    at: AtomicUsize,
}

impl MasterLink {
    pub(crate) fn new(connector: &dyn Connector, masters: &[Target]) -> Self {
        assert!(
            !masters.is_empty(),
            "a client needs the address of a master"
        );
        MasterLink {
            carriers: masters.iter().map(|at| connector.carrier(at)).collect(),
            at: AtomicUsize::new(0),
        }
    }

    pub(crate) async fn mutate(&self, request: &MutateRequest) -> Result<Mutated, Status> {
        let deadline = match request.mutation {
            Mutation::Truncate(_) | Mutation::Commit(_) => ATTEMPT_PARKED,
            _ => ATTEMPT,
        };
        self.call(Method::Mutate, request, deadline).await
    }

    pub(crate) async fn query(&self, request: &QueryRequest) -> Result<Answer, Status> {
        let deadline = match request.query {
            Query::Open(_) | Query::GetLayout(_) | Query::AcquireAppend(_) | Query::SyncLog(_) => {
                ATTEMPT_PARKED
            }
            _ => ATTEMPT,
        };
        self.call(Method::Query, request, deadline).await
    }

    pub(crate) async fn session<O>(&self, operation: O) -> Result<O::Reply, Status>
    where
        O: Operation<Request = SessionRequest, Envelope = SessionReply>,
    {
        let request = operation.wrap();
        let deadline = match &request {
            SessionRequest::NextEvents(_) => Duration::from_millis(EVENTS_PARK_MS) + ATTEMPT,
            SessionRequest::OpenSession(_) => ATTEMPT_PARKED,
            _ => ATTEMPT,
        };
        let reply = self.call(Method::Session, &request, deadline).await?;
        O::unwrap(reply).ok_or(Status::Malformed)
    }

    pub(crate) async fn admin(&self, request: &AdminRequest) -> Result<AdminReply, Status> {
        self.call(Method::Admin, request, ATTEMPT).await
    }

    async fn call<Q, R>(&self, method: Method, message: &Q, deadline: Duration) -> Result<R, Status>
    where
        Q: serde::Serialize,
        R: serde::de::DeserializeOwned,
    {
        let at = self.at.load(Ordering::Relaxed);
        let carrier = &self.carriers[at % self.carriers.len()];
        let outcome = rpc::call(carrier.as_ref(), method, message, deadline).await;
        if let Err(Status::Disconnected | Status::NotServing | Status::ShuttingDown) = outcome {
            // Callers that failed together move on by one together.
            self.at.store(at.wrapping_add(1), Ordering::Relaxed);
        }
        outcome
    }
}
