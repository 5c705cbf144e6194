//! What a volume that is syncing is given by the one before it in the chain.

use std::sync::Arc;

use bytes::Bytes;
use vdfs_net::carrier::Request;
use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::codec::encode;
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::{Purpose, Role};
use vdfs_proto::peer::{ChunkCopy, Forward, PassedChange, PeerRequest, PutChunk};
use vdfs_proto::sums::crc32c;
use vdfs_proto::volume::Command;
use vdfs_proto::{ChainId, ChunkId, DataId, Epoch, MemberState, Status, Version};
use vdfs_volume::Volume;

use crate::master::{Master, another, another_at, table};
use crate::requests::{Home, PEER, call, send_read, write_message};

const BYTES: &[u8] = b"bytes";
const EPOCH: Epoch = Epoch(2);
const VERSION: Version = Version {
    epoch: Epoch(1),
    counter: 1,
};

fn request(message: &PeerRequest, payload: &[u8]) -> Request {
    Request {
        method: Method::Peer,
        body: encode(message),
        payload: Bytes::copy_from_slice(payload),
        purpose: Purpose::Bulk,
    }
}

/// A volume that is syncing behind another one, in epoch 2.
fn start(home: &Home, master: &Arc<Master>) -> Volume {
    let volume = home.start(master);
    master.wait_registered(1);
    install(master, EPOCH, MemberState::Syncing);
    volume
}

fn install(master: &Master, epoch: Epoch, state: MemberState) {
    let mut table = table(epoch.0, epoch, &master.registrations()[0]);
    table.chains[0].members[0].state = state;
    let before = another(MemberState::Serving);
    table.chains[0].members.insert(0, before);
    table.volumes.push(another_at(PEER));
    assert_eq!(master.order_done(Command::Table(table)), Ok(()));
}

/// Gives a whole chunk of one block with this sum; what made it is not known, as after a restart within a
/// change.
fn give(volume: &Volume, block: &[u8], sum: u32) {
    let put = PeerRequest::PutChunk(PutChunk {
        epoch: EPOCH,
        copy: ChunkCopy {
            chain: ChainId(0),
            chunk: ChunkId {
                data: DataId(5),
                index: 0,
            },
            version: VERSION,
            len: BYTES.len() as u32,
            op: None,
        },
        stream: 1,
        offset: 0,
        sums: vec![sum],
        is_first: true,
        is_last: true,
    });
    call(volume, Role::Volume, request(&put, block)).expect("taken");
}

fn block() -> Vec<u8> {
    let mut block = BYTES.to_vec();
    block.resize(BLOCK_BYTES as usize, 0);
    block
}

/// The same epoch may name it as one that serves, with all that it was given in this one.
#[test]
fn volume_drops_nothing_of_what_it_was_given_for_an_epoch_that_it_has_not_heard_of() {
    let (home, master) = (Home::new(), Master::new());
    let volume = start(&home, &master);
    give(&volume, &block(), crc32c(&block()));
    let mut write = write_message(1, 1, BYTES);
    write.chunk.data = DataId(6);
    let next = Epoch(3);
    let forward = PeerRequest::Forward(Forward {
        epoch: next,
        base: Version::default(),
        version: Version {
            epoch: next,
            counter: 1,
        },
        change: PassedChange::Write(write),
    });
    let early = call(&volume, Role::Volume, request(&forward, BYTES)).map(drop);
    assert_eq!(early, Err(Status::StaleEpoch(EPOCH)));
    install(&master, next, MemberState::Serving);
    assert_eq!(send_read(&volume, next).expect("reads"), BYTES);
}

/// The sums come with the bytes: a copy makes nothing sound.
#[test]
fn volume_that_was_given_a_flipped_bit_shows_it() {
    let (home, master) = (Home::new(), Master::new());
    let volume = start(&home, &master);
    let mut flipped = block();
    flipped[1] ^= 1;
    give(&volume, &flipped, crc32c(&block()));
    install(&master, Epoch(3), MemberState::Serving);
    let read = send_read(&volume, Epoch(3));
    assert!(matches!(read, Err(Status::Corrupt | Status::Busy)));
}
