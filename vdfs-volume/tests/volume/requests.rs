//! A volume under test, and a client's requests to it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tempfile::TempDir;
use vdfs_net::carrier::{Carrier, Connector, Outcome, PeerIdentity, Request, Response, Target};
use vdfs_proto::codec::{decode, encode};
use vdfs_proto::data::{DataReply, DataRequest, Read, Write, Written};
use vdfs_proto::frame::Method;
use vdfs_proto::handshake::{Purpose, Role};
use vdfs_proto::sums::piece_sums;
use vdfs_proto::{ChainId, ChunkId, ClusterId, DataId, Epoch, OpId, SessionId, Status};
use vdfs_volume::{PanicHook, PeerWays, Ram, Volume, VolumeConfig};

use crate::master::{Master, MasterCarrier};

/// Whoever asks.
pub(crate) const PEER: &str = "test";

/// A directory for the volume's RAM, freed at the end.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Home(tempfile::tempdir().expect("a directory"))
    }

    fn ram_dir(&self) -> std::path::PathBuf {
        Path::new(self.0.path()).join("ram")
    }

    pub(crate) fn config(&self) -> VolumeConfig {
        VolumeConfig {
            copy_rate: None,
            name: "one".to_owned(),
            host: "here".to_owned(),
            ram_dir: self.ram_dir(),
            budget_bytes: 32 << 20,
            addr: "127.0.0.1:1".parse().expect("an address"),
            panic_hook: PanicHook::default(),
        }
    }

    pub(crate) fn start(&self, master: &Arc<Master>) -> Volume {
        self.start_before(master, Arc::new(Nobody))
    }

    /// It reaches others by these ways.
    pub(crate) fn start_before(
        &self,
        master: &Arc<Master>,
        connector: Arc<dyn Connector>,
    ) -> Volume {
        let carrier = Arc::new(MasterCarrier(master.clone()));
        let ways = PeerWays {
            connector,
            ..no_peers()
        };
        Volume::start(self.config(), carrier, ways).expect("it starts")
    }

    /// Of the file's first chunk.
    pub(crate) fn remove_chunk_file(&self, data: DataId) {
        let directory = format!("chunks/{:02x}", data.0 % 64);
        let name = format!("{:016x}.{:08x}", data.0, 0);
        let file = self.ram_dir().join(directory).join(name);
        std::fs::remove_file(file).expect("it was there");
    }
}

/// A volume that reaches no other one.
pub(crate) fn no_peers() -> PeerWays {
    PeerWays {
        connector: Arc::new(Nobody),
        tasks: None,
        master: [127, 0, 0, 1].into(),
    }
}

#[derive(Debug)]
struct Nobody;

impl Connector for Nobody {
    fn carrier(&self, _target: &Target) -> Arc<dyn Carrier> {
        Arc::new(Nobody)
    }
}

impl Carrier for Nobody {
    fn call(&self, _request: Request, _deadline: Duration) -> BoxFuture<'_, Outcome> {
        std::future::ready(Err(Status::Disconnected)).boxed()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        Ram::destroy(&self.ram_dir()).expect("freed");
    }
}

pub(crate) fn call(volume: &Volume, role: Role, request: Request) -> Result<Response, Status> {
    let answer = begin(volume, role, request);
    answer.now_or_never().expect("answered within one poll")
}

/// Answered later, perhaps.
pub(crate) fn begin(volume: &Volume, role: Role, request: Request) -> BoxFuture<'static, Outcome> {
    let peer = PeerIdentity {
        cluster: ClusterId(1),
        role,
        node: PEER.to_owned(),
        addr: None,
        same_host: true,
        certificate_ends: None,
    };
    volume.service().handle(Arc::new(peer), request)
}

pub(crate) fn data_request(message: &DataRequest, payload: &[u8]) -> Request {
    Request {
        method: Method::Data,
        body: encode(message),
        payload: Bytes::copy_from_slice(payload),
        purpose: Purpose::Bulk,
    }
}

pub(crate) fn write_message(session: u64, seq: u64, payload: &[u8]) -> Write {
    Write {
        chain: ChainId(0),
        epoch: Epoch(1),
        chunk: ChunkId {
            data: DataId(5),
            index: 0,
        },
        op: OpId {
            session: SessionId(session),
            slot: 0,
            seq,
        },
        offset: 0,
        len_expected: 0,
        sums: piece_sums(0, payload),
    }
}

pub(crate) fn send_write(volume: &Volume, write: Write, payload: &[u8]) -> Result<Written, Status> {
    let request = data_request(&DataRequest::Write(write), payload);
    let response = call(volume, Role::Client, request)?;
    match decode(&response.body)? {
        DataReply::Write(written) => Ok(written),
        other => panic!("another reply: {other:?}"),
    }
}

/// A client's write that is not answered within one poll.
pub(crate) fn begin_write(
    volume: &Volume,
    write: Write,
    payload: &[u8],
) -> BoxFuture<'static, Outcome> {
    let request = data_request(&DataRequest::Write(write), payload);
    begin(volume, Role::Client, request)
}

pub(crate) fn send_read(volume: &Volume, epoch: Epoch) -> Result<Bytes, Status> {
    let answer = begin_read(volume, epoch).now_or_never();
    Ok(answer.expect("answered within one poll")?.payload)
}

pub(crate) fn begin_read(volume: &Volume, epoch: Epoch) -> BoxFuture<'static, Outcome> {
    let read = Read {
        chain: ChainId(0),
        epoch,
        chunk: ChunkId {
            data: DataId(5),
            index: 0,
        },
        offset: 0,
        len: 4096,
        len_expected: 0,
    };
    begin(
        volume,
        Role::Client,
        data_request(&DataRequest::Read(read), &[]),
    )
}
