//! The way to the master: one attempt of each kind of request.

use std::time::Duration;

use vdfs_net::{Connector, Rotation, Target, rpc};
use vdfs_proto::Status;
use vdfs_proto::frame::Method;
use vdfs_proto::limits::EVENTS_PARK_MS;
use vdfs_proto::meta::{
    AdminReply, AdminRequest, Answer, MutateRequest, Mutated, Mutation, Query, QueryRequest,
};
use vdfs_proto::operation::Operation;
use vdfs_proto::session::{SessionReply, SessionRequest};

use crate::limits::{ATTEMPT, ATTEMPT_PARKED};

#[derive(Debug)]
pub(crate) struct MasterLink(Rotation);

impl MasterLink {
    pub(crate) fn new(connector: &dyn Connector, masters: &[Target]) -> Self {
        MasterLink(Rotation::new(connector, masters))
    }

    pub(crate) async fn mutate(&self, request: &MutateRequest) -> Result<Mutated, Status> {
        let deadline = match request.mutation {
            Mutation::Truncate(_) | Mutation::Commit(_) | Mutation::TakeOver(_) => ATTEMPT_PARKED,
            _ => ATTEMPT,
        };
        self.call(Method::Mutate, request, deadline).await
    }

    pub(crate) async fn query(&self, request: &QueryRequest) -> Result<Answer, Status> {
        let deadline = match request.query {
            Query::Open(_)
            | Query::GetLayout(_)
            | Query::AcquireAppend(_)
            | Query::SyncLog(_)
            | Query::WaitLock(_) => ATTEMPT_PARKED,
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
        rpc::call(&self.0, method, message, deadline).await
    }
}
