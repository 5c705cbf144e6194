//! Bytes of changes that wait for their turns at a chunk, on their way to the successor already.
//!
//! A chunk is closed for one change at a time until the successor has made it. The bytes of those behind it
//! travel meanwhile, the next ones first, so that only the order is left to be passed on when a change's turn
//! has come. The successor knows nothing of a change before its order.
//!
//! Nothing depends on it: what finds no room, or no order in time, is given up, and passed on whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use vdfs_net::carrier::Carrier;
use vdfs_net::rpc;
use vdfs_proto::peer::{Forward, Forwarded};
use vdfs_proto::{OpId, Status, VolumeId};

use crate::limits::EARLY_BYTES_MAX;
use crate::peers::FORWARD_DEADLINE;

/// How long the successor keeps bytes for which no order comes: it may need the room for others.
const ORDER_WAIT: Duration = Duration::from_millis(300);
/// How long an order waits for its bytes to be sent, as the successor may not read them.
const BYTES_WAIT: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub(crate) struct Early {
    /// Those that somebody waits for; `None` if their bytes were not sent.
    changes: Mutex<HashMap<OpId, Option<Begun>>>,
    /// Room for bytes on their way to each successor.
    rooms: Mutex<HashMap<VolumeId, Arc<Semaphore>>>,
}

/// Bytes on their way.
#[derive(Debug)]
struct Begun {
    to: VolumeId,
    /// The bytes were sent.
    sent: oneshot::Receiver<()>,
    order: oneshot::Sender<Forward>,
    answer: oneshot::Receiver<Result<Forwarded, Status>>,
}

/// Who waits for the change; without him nothing is sent early.
#[derive(Debug)]
pub(crate) struct Interest<'a> {
    early: &'a Early,
    op: OpId,
}

impl Drop for Interest<'_> {
    fn drop(&mut self) {
        self.early.changes.lock().remove(&self.op);
    }
}

impl Early {
    /// Somebody waits for this change from now on.
    pub(crate) fn expect(&self, op: OpId) -> Interest<'_> {
        self.changes.lock().entry(op).or_default();
        Interest { early: self, op }
    }

    /// Somebody waits for the change, and its bytes were not sent.
    pub(crate) fn is_expected(&self, op: OpId) -> bool {
        self.changes.lock().get(&op).is_some_and(Option::is_none)
    }

    /// Sends the bytes of a change that is expected to the volume that it is to be passed on to, unless too
    /// many are on their way there.
    pub(crate) fn send(
        &self,
        (op, to): (OpId, VolumeId),
        bytes: &Bytes,
        carrier: &Arc<dyn Carrier>,
        tasks: &tokio::runtime::Handle,
    ) {
        let mut changes = self.changes.lock();
        let Some(place @ None) = changes.get_mut(&op) else {
            return;
        };
        let Some(room) = self.take_room(to, bytes.len()) else {
            return;
        };
        let (tell_sent, sent) = oneshot::channel();
        let (order, ordered) = oneshot::channel();
        let (tell, answer) = oneshot::channel();
        let ordered = async move {
            tell_sent.send(()).ok()?;
            timeout(ORDER_WAIT, ordered).await.ok()?.ok()
        };
        let carried = carry(carrier.clone(), bytes.clone(), ordered, tell);
        tasks.spawn(async move {
            let _room = room;
            carried.await;
        });
        *place = Some(Begun {
            to,
            sent,
            order,
            answer,
        });
    }

    fn take_room(&self, to: VolumeId, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let mut rooms = self.rooms.lock();
        let new = || Arc::new(Semaphore::new(EARLY_BYTES_MAX));
        let room = rooms.entry(to).or_insert_with(new).clone();
        room.try_acquire_many_owned(bytes as u32).ok()
    }

    /// Passes the change on whose bytes were sent. None if they were not, or found no room: it is to be
    /// passed on whole.
    pub(crate) async fn order(
        &self,
        (op, to): (OpId, VolumeId),
        forward: &Forward,
    ) -> Option<Result<Forwarded, Status>> {
        let begun = self.changes.lock().remove(&op)??;
        if begun.to != to || begun.order.send(forward.clone()).is_err() {
            return None;
        }
        timeout(BYTES_WAIT, begun.sent).await.ok()?.ok()?;
        match begun.answer.await {
            Ok(Err(Status::Busy)) | Err(_) => None,
            Ok(answer) => Some(answer),
        }
    }
}

async fn carry(
    carrier: Arc<dyn Carrier>,
    bytes: Bytes,
    ordered: impl Future<Output = Option<Forward>> + Send + 'static,
    mut tell: oneshot::Sender<Result<Forwarded, Status>>,
) {
    let answer = tokio::select! {
        answer = rpc::call_peer_early(&*carrier, ordered, bytes, FORWARD_DEADLINE) => answer,
        () = tell.closed() => return,
    };
    // Nobody may wait any more.
    tell.send(answer).ok();
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use vdfs_net::carrier::{LateMessage, Outcome, Request, Response};
    use vdfs_proto::codec::{decode, encode};
    use vdfs_proto::peer::{CutChunk, PassedChange, PeerReply, PeerRequest};
    use vdfs_proto::{ChainId, ChunkId, DataId, Epoch, SessionId, Version};

    use super::*;

    const TO: VolumeId = VolumeId(2);

    /// Bytes of a change in these tests.
    const BYTES: usize = 64 << 10;

    /// A successor that makes every change.
    #[derive(Debug)]
    struct Willing;

    impl Carrier for Willing {
        fn call(&self, request: Request, _: Duration) -> BoxFuture<'_, Outcome> {
            let message: PeerRequest = decode(&request.body).expect("a message");
            let PeerRequest::Forward(forward) = message else {
                panic!("{message:?}")
            };
            assert_eq!(request.payload.len(), BYTES);
            let version = forward.version;
            let body = encode(&PeerReply::Forward(Forwarded { version }));
            let payload = Bytes::new();
            std::future::ready(Ok(Response { body, payload })).boxed()
        }
    }

    /// A successor that refuses early bytes, or has no room to read them.
    #[derive(Clone, Copy, Debug)]
    enum Full {
        Refuses,
        ReadsNothing,
    }

    impl Carrier for Full {
        fn call(&self, request: Request, _: Duration) -> BoxFuture<'_, Outcome> {
            panic!("{request:?} is not early")
        }

        fn call_early(&self, _: Request, _: LateMessage, _: Duration) -> BoxFuture<'_, Outcome> {
            match self {
                Full::Refuses => std::future::ready(Err(Status::Busy)).boxed(),
                Full::ReadsNothing => std::future::pending().boxed(),
            }
        }
    }

    fn op(seq: u64) -> OpId {
        OpId {
            session: SessionId(1),
            slot: seq as u16,
            seq,
        }
    }

    fn forward(op: OpId) -> Forward {
        let (epoch, version) = (Epoch(1), Version::default());
        let (chain, index) = (ChainId(0), 0);
        let data = DataId(1);
        let chunk = ChunkId { data, index };
        Forward {
            epoch,
            base: version,
            version,
            change: PassedChange::Cut(CutChunk {
                chain,
                epoch,
                chunk,
                op,
                len: 0,
            }),
        }
    }

    /// Whether they are on their way.
    fn send(early: &Early, op: OpId, successor: impl Carrier) -> bool {
        let carrier: Arc<dyn Carrier> = Arc::new(successor);
        let tasks = tokio::runtime::Handle::current();
        let bytes = Bytes::from(vec![0; BYTES]);
        early.send((op, TO), &bytes, &carrier, &tasks);
        early.changes.lock().get(&op).is_some_and(Option::is_some)
    }

    #[tokio::test]
    async fn early_change_needs_only_its_order() {
        let early = Early::default();
        let _interest = early.expect(op(1));
        assert!(send(&early, op(1), Willing));
        assert!(!early.is_expected(op(1)), "once");
        let ordered = early.order((op(1), TO), &forward(op(1))).await;
        assert_eq!(ordered.expect("it was sent").map(|_| ()), Ok(()));
        let again = early.order((op(1), TO), &forward(op(1))).await;
        assert!(again.is_none(), "once");
    }

    #[tokio::test]
    async fn change_goes_whole_if_its_early_bytes_went_elsewhere_or_nowhere() {
        let early = Early::default();
        for (seq, successor) in [(1, Full::Refuses), (2, Full::ReadsNothing)] {
            let _interest = early.expect(op(seq));
            assert!(send(&early, op(seq), successor));
            let ordered = early.order((op(seq), TO), &forward(op(seq))).await;
            assert!(ordered.is_none(), "{successor:?}");
        }
        let _interest = early.expect(op(3));
        assert!(send(&early, op(3), Willing));
        let elsewhere = early.order((op(3), VolumeId(7)), &forward(op(3))).await;
        assert!(elsewhere.is_none());
        let _interest = early.expect(op(4));
        let not_sent = early.order((op(4), TO), &forward(op(4))).await;
        assert!(not_sent.is_none());
    }

    #[tokio::test]
    async fn early_bytes_are_bounded_and_go_with_those_who_wait() {
        let early = Early::default();
        assert!(!send(&early, op(1), Willing), "nobody waits");
        let waiting: Vec<_> = (0..1000).map(|seq| early.expect(op(seq))).collect();
        let sent = (0..1000).take_while(|seq| send(&early, op(*seq), Willing));
        assert_eq!(sent.count(), EARLY_BYTES_MAX / BYTES);
        drop(waiting);
        assert!(early.changes.lock().is_empty());
        let _interest = early.expect(op(1));
        let wait = async {
            while !send(&early, op(1), Willing) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let room = timeout(Duration::from_secs(5), wait).await;
        room.expect("what was given up leaves its room");
    }
}
