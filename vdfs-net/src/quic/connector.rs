//! From a target to its carrier.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;
use vdfs_proto::Status;
use vdfs_proto::handshake::Purpose;
use vdfs_proto::limits::FRAME_BODY_BYTES_MAX;

use super::link::Link;
use super::reactor::Shared;
use crate::carrier::{Carrier, Connector, LateMessage, Outcome, Request, Target};
use crate::limits::CARRIERS_IDLE_MAX;

/// Remembers the carrier of each target, so that all who reach for one peer share its connections.
#[derive(Debug)]
pub(super) struct QuicConnector {
    traffic: Weak<Shared>,
    heartbeats: Weak<Shared>,
    carriers: Mutex<HashMap<Target, Arc<QuicCarrier>>>,
}

impl QuicConnector {
    pub(super) fn new(traffic: Weak<Shared>, heartbeats: Weak<Shared>) -> QuicConnector {
        QuicConnector {
            traffic,
            heartbeats,
            carriers: Mutex::default(),
        }
    }
}

impl Connector for QuicConnector {
    fn carrier(&self, target: &Target) -> Arc<dyn Carrier> {
        let mut carriers = self.carriers.lock();
        if carriers.len() > CARRIERS_IDLE_MAX {
            carriers.retain(|_, carrier| Arc::strong_count(carrier) > 1);
        }
        let new = || Arc::new(QuicCarrier::new(self, target));
        carriers.entry(target.clone()).or_insert_with(new).clone()
    }
}

/// The way to one peer: a connection for each purpose.
#[derive(Debug)]
struct QuicCarrier {
    control: Arc<Link>,
    bulk: Arc<Link>,
    heartbeat: Arc<Link>,
}

impl QuicCarrier {
    fn new(connector: &QuicConnector, target: &Target) -> QuicCarrier {
        let link =
            |shared: &Weak<Shared>, purpose| Link::new(shared.clone(), target.clone(), purpose);
        QuicCarrier {
            control: link(&connector.traffic, Purpose::Control),
            bulk: link(&connector.traffic, Purpose::Bulk),
            heartbeat: link(&connector.heartbeats, Purpose::Heartbeat),
        }
    }

    async fn call_without_deadline(&self, request: Request) -> Outcome {
        request.check_bounds()?;
        let link = match request.purpose {
            Purpose::Control => &self.control,
            Purpose::Bulk => &self.bulk,
            Purpose::Heartbeat => &self.heartbeat,
        };
        link.channel().await?.call(request).await
    }
}

impl Carrier for QuicCarrier {
    fn call(&self, request: Request, deadline: Duration) -> BoxFuture<'_, Outcome> {
        async move {
            let ended = timeout(deadline, self.call_without_deadline(request)).await;
            ended.unwrap_or(Err(Status::DeadlineExceeded))
        }
        .boxed()
    }

    fn call_early(
        &self,
        request: Request,
        message: LateMessage,
        deadline: Duration,
    ) -> BoxFuture<'_, Outcome> {
        async move {
            request.check_bounds()?;
            let (tell, message_came) = oneshot::channel();
            let message = async move {
                let body = message.await;
                // Nobody listens if the call was dropped.
                tell.send(()).ok();
                body.filter(|body| body.len() <= FRAME_BODY_BYTES_MAX)
            };
            let message = message.boxed();
            let channel = self.bulk.channel();
            let mut transfer = pin!(async { channel.await?.call_early(request, message).await });
            tokio::select! {
                refused = &mut transfer => return refused,
                // If it never will, the transfer has ended.
                _ = message_came => {}
            }
            let ended = timeout(deadline, transfer).await;
            ended.unwrap_or(Err(Status::DeadlineExceeded))
        }
        .boxed()
    }
}
