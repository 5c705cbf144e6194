//! What a volume gives the one behind it in the chain, which is syncing.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use vdfs_net::carrier::{Carrier, Connector, Outcome, Request, Response, Target};
use vdfs_proto::codec::{decode, encode};
use vdfs_proto::peer::{ChunkCopy, ChunkList, PeerReply, PeerRequest, PutReply};
use vdfs_proto::volume::{ChainEvent, Command};
use vdfs_proto::{ChainId, ChunkId, DataId, Epoch, MemberState, Status, Version, VolumeId};

use crate::master::{Master, another, another_at, table, wait};
use crate::requests::{Home, send_read, send_write, write_message};

const BYTES: &[u8] = b"bytes";

/// The one that is syncing: has these copies, and takes whatever it is given.
#[derive(Debug, Default)]
struct Successor {
    has: Vec<ChunkCopy>,
    /// Chunks that it was told to drop, and given.
    dropped: Mutex<Vec<DataId>>,
    given: Mutex<Vec<DataId>>,
}

impl Successor {
    fn answer(&self, asked: PeerRequest) -> Result<PeerReply, Status> {
        Ok(match asked {
            PeerRequest::ListChunks(list) => PeerReply::ListChunks(ChunkList {
                chunks: match list.after {
                    None => self.has.clone(),
                    Some(_) => Vec::new(),
                },
            }),
            PeerRequest::PutChunk(put) => {
                self.given.lock().push(put.copy.chunk.data);
                PeerReply::PutChunk(PutReply { is_done: false })
            }
            PeerRequest::DropChunk(drop) => {
                self.dropped.lock().push(drop.chunk.data);
                PeerReply::DropChunk(())
            }
            PeerRequest::LearnReplies(_) => PeerReply::LearnReplies(()),
            _ => return Err(Status::NotSupported),
        })
    }
}

#[derive(Debug)]
struct ToSuccessor(Arc<Successor>);

impl Connector for ToSuccessor {
    fn carrier(&self, _target: &Target) -> Arc<dyn Carrier> {
        Arc::new(ToSuccessor(self.0.clone()))
    }
}

impl Carrier for ToSuccessor {
    fn call(&self, request: Request, _deadline: Duration) -> BoxFuture<'_, Outcome> {
        let answer = decode(&request.body).and_then(|asked| self.0.answer(asked));
        let response = answer.map(|reply| Response {
            body: encode(&reply),
            payload: bytes::Bytes::new(),
        });
        std::future::ready(response).boxed()
    }
}

fn copy_of(data: u64) -> ChunkCopy {
    ChunkCopy {
        chain: ChainId(0),
        chunk: ChunkId {
            data: DataId(data),
            index: 0,
        },
        version: Version {
            epoch: Epoch(1),
            counter: 7,
        },
        len: BYTES.len() as u32,
        op: None,
    }
}

fn with_a_successor(master: &Master) -> Command {
    let registrations = master.registrations();
    let mut table = table(2, Epoch(2), registrations.last().expect("registered"));
    let successor = another(MemberState::Syncing);
    table.chains[0].members.push(successor);
    table.volumes.push(another_at("successor"));
    Command::Table(table)
}

fn write_files(home: &Home, master: &Arc<Master>) {
    let volume = home.start(master);
    master.wait_registered(1);
    for data in [5, 6] {
        let mut write = write_message(1, data, BYTES);
        write.chunk.data = DataId(data);
        send_write(&volume, write, BYTES).expect("written");
    }
    volume.stop();
}

#[test]
fn volume_gives_what_the_one_behind_it_lacks_and_has_it_drop_what_the_chain_does_not_have() {
    let (home, master) = (Home::new(), Master::new());
    write_files(&home, &master);
    let successor = Arc::new(Successor {
        has: vec![copy_of(5), copy_of(7)],
        ..Successor::default()
    });
    let _volume = home.start_before(&master, Arc::new(ToSuccessor(successor.clone())));
    master.wait_registered(2);
    assert_eq!(master.order_done(with_a_successor(&master)), Ok(()));
    let in_sync = ChainEvent::InSync(VolumeId(2));
    wait(|| master.has_heard(Epoch(2), in_sync));
    assert_eq!(*successor.dropped.lock(), [DataId(7)]);
    let mut given = successor.given.lock().clone();
    given.sort_unstable();
    assert_eq!(given, [DataId(5), DataId(6)]);
}

/// The other one may have the only good copy.
#[test]
fn volume_that_has_lost_a_chunk_has_nobody_drop_it_and_calls_nobody_in_sync() {
    let (home, master) = (Home::new(), Master::new());
    write_files(&home, &master);
    home.remove_chunk_file(DataId(5));
    let successor = Arc::new(Successor {
        has: vec![copy_of(5), copy_of(7)],
        ..Successor::default()
    });
    let volume = home.start_before(&master, Arc::new(ToSuccessor(successor.clone())));
    master.wait_registered(2);
    assert_eq!(send_read(&volume, Epoch(1)), Err(Status::DataLost));
    assert_eq!(master.order_done(with_a_successor(&master)), Ok(()));
    // It goes through everything, again and again.
    wait(|| successor.dropped.lock().len() > 1);
    let dropped = successor.dropped.lock().clone();
    assert!(dropped.iter().all(|data| *data == DataId(7)), "{dropped:?}");
    assert!(!successor.given.lock().contains(&DataId(5)));
    let in_sync = ChainEvent::InSync(VolumeId(2));
    assert!(!master.has_heard(Epoch(2), in_sync));
}
