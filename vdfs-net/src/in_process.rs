//! The carrier between parts of one process: the service's future runs in the caller's task, so a
//! read of a local volume costs no hop between threads.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use tokio::time::timeout;
use vdfs_proto::Status;
use vdfs_proto::handshake::Role;

use crate::carrier::{Carrier, Connector, Outcome, PeerIdentity, Request, Service, Target};

type Services = HashMap<(Role, String), Arc<dyn Service>>;

/// The services of this process by role and node. One that is away answers `Disconnected`, as over
/// a network.
#[derive(Clone, Default)]
pub struct Switchboard {
    services: Arc<RwLock<Services>>,
}

impl Switchboard {
    /// Replaces what served there before.
    pub fn attach(&self, role: Role, node: &str, service: Arc<dyn Service>) {
        self.services
            .write()
            .insert((role, node.to_owned()), service);
    }

    pub fn detach(&self, role: Role, node: &str) {
        self.services.write().remove(&(role, node.to_owned()));
    }

    /// Calls made through the connector carry `identity`.
    pub fn connector(&self, identity: PeerIdentity) -> SwitchboardConnector {
        SwitchboardConnector {
            switchboard: self.clone(),
            identity: Arc::new(identity),
        }
    }

    fn service(&self, target: &Target) -> Option<Arc<dyn Service>> {
        let services = self.services.read();
        match &target.node {
            Some(node) => services.get(&(target.role, node.clone())).cloned(),
            None => services
                .iter()
                .find(|((role, _), _)| *role == target.role)
                .map(|(_, service)| service.clone()),
        }
    }
}

impl fmt::Debug for Switchboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.services.read().keys()).finish()
    }
}

#[derive(Clone, Debug)]
pub struct SwitchboardConnector {
    switchboard: Switchboard,
    identity: Arc<PeerIdentity>,
}

impl Connector for SwitchboardConnector {
    fn carrier(&self, target: &Target) -> Arc<dyn Carrier> {
        Arc::new(InProcessCarrier {
            connector: self.clone(),
            target: target.clone(),
        })
    }
}

#[derive(Debug)]
struct InProcessCarrier {
    connector: SwitchboardConnector,
    target: Target,
}

impl InProcessCarrier {
    async fn call_without_deadline(&self, request: Request) -> Outcome {
        request.check_bounds()?;
        let SwitchboardConnector {
            switchboard,
            identity,
        } = &self.connector;
        let service = switchboard
            .service(&self.target)
            .ok_or(Status::Disconnected)?;
        service.handle(identity.clone(), request).await
    }
}

impl Carrier for InProcessCarrier {
    fn call(&self, request: Request, deadline: Duration) -> BoxFuture<'_, Outcome> {
        async move {
            let ended = timeout(deadline, self.call_without_deadline(request)).await;
            ended.unwrap_or(Err(Status::DeadlineExceeded))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vdfs_proto::ClusterId;
    use vdfs_proto::frame::Method;
    use vdfs_proto::handshake::Purpose;

    use super::*;
    use crate::carrier::Response;

    /// Answers with its name.
    struct Named(&'static str);

    impl Service for Named {
        fn handle(&self, _: Arc<PeerIdentity>, _: Request) -> BoxFuture<'static, Outcome> {
            let body = Bytes::from_static(self.0.as_bytes());
            std::future::ready(Ok(Response {
                body,
                payload: Bytes::new(),
            }))
            .boxed()
        }
    }

    async fn ask(switchboard: &Switchboard, node: Option<&str>) -> Result<Bytes, Status> {
        let identity = PeerIdentity {
            cluster: ClusterId(1),
            role: Role::Client,
            node: "mount".to_owned(),
            addr: None,
            same_host: true,
            certificate_ends: None,
        };
        let target = Target {
            addr: ([127, 0, 0, 1], 0).into(),
            role: Role::Volume,
            node: node.map(str::to_owned),
        };
        let request = Request {
            method: Method::Data,
            body: Bytes::new(),
            payload: Bytes::new(),
            purpose: Purpose::Bulk,
        };
        let carrier = switchboard.connector(identity).carrier(&target);
        Ok(carrier.call(request, Duration::from_secs(10)).await?.body)
    }

    #[tokio::test]
    async fn switchboard_reaches_the_node_that_was_named() {
        let switchboard = Switchboard::default();
        switchboard.attach(Role::Volume, "one", Arc::new(Named("one")));
        switchboard.attach(Role::Volume, "two", Arc::new(Named("two")));
        assert_eq!(ask(&switchboard, Some("two")).await, Ok("two".into()));
        ask(&switchboard, None).await.expect("any of them");
        assert_eq!(
            ask(&switchboard, Some("three")).await,
            Err(Status::Disconnected)
        );
    }

    #[tokio::test]
    async fn service_detached_is_disconnected_until_it_is_back() {
        let switchboard = Switchboard::default();
        switchboard.attach(Role::Volume, "one", Arc::new(Named("one")));
        switchboard.detach(Role::Volume, "one");
        assert_eq!(
            ask(&switchboard, Some("one")).await,
            Err(Status::Disconnected)
        );
        switchboard.attach(Role::Volume, "one", Arc::new(Named("again")));
        assert_eq!(ask(&switchboard, Some("one")).await, Ok("again".into()));
    }
}
