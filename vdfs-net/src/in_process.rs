//! The carrier between parts of one process: the service's future runs in the caller's task, so a
//! read of a local volume costs no hop between threads.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::RwLock;
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

impl Carrier for InProcessCarrier {
    fn call(&self, request: Request, deadline: Duration) -> BoxFuture<'_, Outcome> {
        let Some(service) = self.connector.switchboard.service(&self.target) else {
            return std::future::ready(Err(Status::Disconnected)).boxed();
        };
        let answer = service.handle(self.connector.identity.clone(), request);
        async move {
            match tokio::time::timeout(deadline, answer).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Status::DeadlineExceeded),
            }
        }
        .boxed()
    }
}
