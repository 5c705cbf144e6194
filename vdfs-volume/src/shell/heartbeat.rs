//! Tells the master four times a second that this volume lives, and how full it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use vdfs_net::carrier::Request;
use vdfs_proto::Status;
use vdfs_proto::codec::{decode, encode};
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::Purpose;
use vdfs_proto::limits::HEARTBEAT_MS;
use vdfs_proto::operation::Operation;
use vdfs_proto::volume::{Heartbeat, HeartbeatAck, VolumeReply};

use super::control::{Known, Link};
use vdfs_net::clock::boot_ms;

/// A heartbeat that takes longer is followed by a fresh one.
const DEADLINE: Duration = Duration::from_millis(4 * HEARTBEAT_MS);

/// The heartbeat thread.
pub(super) async fn run(link: Arc<Link>, mut stopped: watch::Receiver<bool>) {
    tokio::select! {
        () = beat(&link) => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

async fn beat(link: &Link) {
    let mut registered = link.subscribe();
    let mut ticks = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // A volume that was just taken in needs its lease at once.
            _ = registered.changed() => {}
        }
        let known = *link.known.read();
        let Some(known) = known else {
            continue;
        };
        match send(link, known).await {
            Ok(()) => {}
            Err(status) if Link::is_unknown(status) => {
                link.refused.send_replace(Some(known.registration));
            }
            Err(status) => tracing::debug!(%status, "a heartbeat was not acknowledged"),
        }
    }
}

async fn send(link: &Link, known: Known) -> Result<(), Status> {
    let usage = link.node.store().usage();
    let message = Heartbeat {
        volume: known.volume,
        registration: known.registration,
        capacity_bytes: usage.capacity_bytes,
        used_bytes: usage.used_bytes,
    };
    let request = Request {
        method: Method::Volume,
        body: encode(&message.wrap()),
        payload: Bytes::new(),
        purpose: Purpose::Heartbeat,
    };
    let sent_ms = boot_ms();
    let response = link.master.call(request, DEADLINE).await?;
    let reply: VolumeReply = decode(&response.body)?;
    let ack: HeartbeatAck = Heartbeat::unwrap(reply).ok_or(Status::Malformed)?;
    link.node.engine.extend_lease(sent_ms, ack.lease_ms);
    Ok(())
}
