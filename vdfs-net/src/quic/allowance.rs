//! Memory for payloads that a server reads or answers: taken before the first byte of it.
//!
//! Of each pool the connections of one certificate hold at most half. A transfer waits its turn, in the order in
//! which they came, but not for ever: then it is refused with `Busy`, was not executed, and its caller comes
//! again. What comes early does not wait.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use vdfs_proto::Status;
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::Role;
use vdfs_proto::limits::PAYLOAD_BYTES_MAX;

use crate::carrier::PeerIdentity;

type Holder = (Role, String);

/// A pool for each distance from the client: what waits for the next volume never takes the room of
/// what the next volume waits for. What comes early waits for whatever comes before it, and has its own.
#[derive(Debug)]
pub(super) struct Allowances([Allowance; 4]);

/// What one connection may take of each pool.
#[derive(Clone, Debug)]
pub(super) struct Parts([Part; 4]);

impl Allowances {
    /// `bytes` for those who ask for themselves, half as much for each distance behind them, and for what
    /// comes early.
    pub(super) fn new(bytes: usize, wait: Duration) -> Allowances {
        let behind = (bytes / 2).max(2 * PAYLOAD_BYTES_MAX);
        Allowances([bytes, behind, behind, behind].map(|bytes| Allowance::new(bytes, wait)))
    }

    pub(super) fn parts_of(&self, peer: &PeerIdentity) -> Parts {
        Parts(self.0.each_ref().map(|allowance| allowance.part_of(peer)))
    }
}

impl Parts {
    pub(super) fn of(&self, method: Method) -> &Part {
        match method {
            Method::Peer => &self.0[1],
            Method::PeerBehind => &self.0[2],
            // Nobody waits for what comes early, so what is relayed may wait in its room.
            Method::PeerEarly | Method::Relay => &self.0[3],
            _ => &self.0[0],
        }
    }
}

/// One pool of an endpoint.
#[derive(Debug)]
struct Allowance {
    pool: Arc<Semaphore>,
    /// Of one certificate.
    part_bytes: usize,
    wait: Duration,
    parts: Mutex<HashMap<Holder, Weak<Semaphore>>>,
}

/// What one connection may take of.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pool: Arc<Semaphore>,
    own: Arc<Semaphore>,
    wait: Duration,
}

/// Memory that may be used while this lives.
#[derive(Debug, Default)]
pub(super) struct Taken {
    _of: Option<[OwnedSemaphorePermit; 2]>,
}

impl Allowance {
    /// At least two of the longest payloads, or one certificate could not send one. `wait` is for a turn.
    fn new(bytes: usize, wait: Duration) -> Allowance {
        assert!(bytes >= 2 * PAYLOAD_BYTES_MAX, "a pool of {bytes} bytes");
        Allowance {
            pool: Arc::new(Semaphore::new(bytes)),
            part_bytes: bytes / 2,
            wait,
            parts: Mutex::default(),
        }
    }

    /// The same for all connections of a certificate.
    fn part_of(&self, peer: &PeerIdentity) -> Part {
        let holder = (peer.role, peer.node.clone());
        let mut parts = self.parts.lock();
        let known = parts.get(&holder).and_then(Weak::upgrade);
        let own = known.unwrap_or_else(|| {
            parts.retain(|_, part| part.strong_count() > 0);
            let own = Arc::new(Semaphore::new(self.part_bytes));
            parts.insert(holder, Arc::downgrade(&own));
            own
        });
        Part {
            pool: self.pool.clone(),
            own,
            wait: self.wait,
        }
    }
}

impl Part {
    /// `Busy` if there is no room for `bytes` soon. At most [`PAYLOAD_BYTES_MAX`].
    pub(super) async fn take(&self, bytes: usize) -> Result<Taken, Status> {
        assert!(bytes <= PAYLOAD_BYTES_MAX, "a payload of {bytes} bytes");
        if bytes == 0 {
            return Ok(Taken::default());
        }
        let permits = bytes as u32;
        let both = async {
            let own = self.own.clone().acquire_many_owned(permits).await.ok()?;
            let of_all = self.pool.clone().acquire_many_owned(permits).await.ok()?;
            Some([own, of_all])
        };
        let of = timeout(self.wait, both).await.map_err(|_| Status::Busy)?;
        assert!(of.is_some(), "no pool is ever closed");
        Ok(Taken { _of: of })
    }

    /// The same for those that had better come in another way than wait: `Busy` if there is no room now.
    pub(super) fn take_now(&self, bytes: usize) -> Result<Taken, Status> {
        let permits = bytes as u32;
        let own = self.own.clone().try_acquire_many_owned(permits);
        let of_all = self.pool.clone().try_acquire_many_owned(permits);
        let both = own.ok().zip(of_all.ok()).ok_or(Status::Busy)?;
        Ok(Taken {
            _of: Some(both.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vdfs_proto::ClusterId;

    fn peer(node: &str) -> PeerIdentity {
        PeerIdentity {
            cluster: ClusterId(1),
            role: Role::Client,
            node: node.to_owned(),
            addr: None,
            same_host: true,
            certificate_ends: None,
        }
    }

    #[tokio::test]
    async fn take_of_one_certificate_leaves_half_to_others() {
        let allowance = Allowance::new(4 * PAYLOAD_BYTES_MAX, Duration::from_millis(50));
        let [one, same, other, third] =
            ["a", "a", "b", "c"].map(|node| allowance.part_of(&peer(node)));
        let mut taken = Vec::new();
        for part in [&one, &same] {
            taken.push(part.take(PAYLOAD_BYTES_MAX).await.expect("room"));
        }
        assert_eq!(one.take(1).await.expect_err("its half"), Status::Busy);
        for _ in 0..2 {
            taken.push(other.take(PAYLOAD_BYTES_MAX).await.expect("room"));
        }
        assert_eq!(third.take(1).await.expect_err("all"), Status::Busy);
        taken.clear();
        third.take(PAYLOAD_BYTES_MAX).await.expect("given back");
    }

    #[test]
    fn take_now_never_waits_and_leaves_what_it_does_not_get() {
        let allowance = Allowance::new(2 * PAYLOAD_BYTES_MAX, Duration::from_secs(60));
        let [one, other, third] = ["a", "b", "c"].map(|node| allowance.part_of(&peer(node)));
        let _first = one.take_now(1).expect("room");
        assert_eq!(one.take_now(PAYLOAD_BYTES_MAX).err(), Some(Status::Busy));
        let _second = other.take_now(PAYLOAD_BYTES_MAX).expect("its half");
        assert_eq!(third.take_now(PAYLOAD_BYTES_MAX).err(), Some(Status::Busy));
        let _rest = third.take_now(PAYLOAD_BYTES_MAX - 1).expect("what is left");
    }
}
