//! What a volume that is syncing is given by the one before it in the chain.

use bytes::Bytes;
use vdfs_net::carrier::Request;
use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::codec::encode;
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::{Purpose, Role};
use vdfs_proto::peer::{ChunkCopy, Forward, PassedChange, PeerRequest, PutChunk};
use vdfs_proto::sums::crc32c;
use vdfs_proto::volume::Command;
use vdfs_proto::{
    ChainId, ChunkId, DataId, Epoch, Member, MemberState, Status, StoreId, Version, VolumeId,
    VolumeInfo,
};

use crate::master::{Master, table};
use crate::requests::{Home, PEER, call, send_read, write_message};

fn request(message: &PeerRequest, payload: &[u8]) -> Request {
    Request {
        method: Method::Peer,
        body: encode(message),
        payload: Bytes::copy_from_slice(payload),
        purpose: Purpose::Bulk,
    }
}

/// The same epoch may name it as one that serves, with all that it was given in this one.
#[test]
fn volume_drops_nothing_of_what_it_was_given_for_an_epoch_that_it_has_not_heard_of() {
    let (home, master) = (Home::new(), Master::new());
    let volume = home.start(&master);
    master.wait_registered(1);
    let register = master.registrations().remove(0);
    let behind_another = |epoch: u64, state| {
        let mut table = table(epoch, Epoch(epoch), &register);
        table.chains[0].members[0].state = state;
        let another = Member {
            volume: VolumeId(2),
            store: StoreId(2),
            state: MemberState::Serving,
        };
        table.chains[0].members.insert(0, another);
        table.volumes.push(VolumeInfo {
            id: VolumeId(2),
            name: String::new(),
            host: String::new(),
            addr: "127.0.0.1:1".parse().expect("an address"),
            node: PEER.to_owned(),
        });
        Command::Table(table)
    };
    let syncing = behind_another(2, MemberState::Syncing);
    assert_eq!(master.order_done(syncing), Ok(()));
    let (mut block, bytes) = (vec![0; BLOCK_BYTES as usize], b"bytes");
    block[..bytes.len()].copy_from_slice(bytes);
    let chunk = ChunkId {
        data: DataId(5),
        index: 0,
    };
    let put = PeerRequest::PutChunk(PutChunk {
        epoch: Epoch(2),
        copy: ChunkCopy {
            chain: ChainId(0),
            chunk,
            version: Version {
                epoch: Epoch(1),
                counter: 1,
            },
            len: bytes.len() as u32,
            // As after a restart within a change.
            op: None,
        },
        stream: 1,
        offset: 0,
        sums: vec![crc32c(&block)],
        is_first: true,
        is_last: true,
    });
    call(&volume, Role::Volume, request(&put, &block)).expect("taken");
    let mut write = write_message(1, 1, bytes);
    write.chunk.data = DataId(6);
    let version = Version {
        epoch: Epoch(3),
        counter: 1,
    };
    let forward = PeerRequest::Forward(Forward {
        epoch: Epoch(3),
        base: Version::default(),
        version,
        change: PassedChange::Write(write),
    });
    let early = call(&volume, Role::Volume, request(&forward, bytes)).map(drop);
    assert_eq!(early, Err(Status::StaleEpoch(Epoch(2))));
    let serving = behind_another(3, MemberState::Serving);
    assert_eq!(master.order_done(serving), Ok(()));
    assert_eq!(send_read(&volume, Epoch(3)).expect("reads"), bytes[..]);
}
