//! Volumes on hosts of their own, in chains of several members.

use vdfs_proto::limits::VOLUME_LEASE_MS;
use vdfs_proto::meta::{
    AdminReply, AdminRequest, DrainAnswer, DrainVolume, RemoveAnswer, RemoveVolume, SetReplicas,
};
use vdfs_proto::volume::{
    ChainEvent, ChainNews, Command, Register, Registered, VolumeReply, VolumeRequest,
};
use vdfs_proto::{Chain, ChainId, Ino, MemberState, SessionId, Status, VolumeId};

use super::world::{CHUNK_BYTES, WRITE, World, registration};
use crate::core::chains::places_in;
use crate::core::{CoreReply, CoreRequest};

/// A chain of any cluster.
pub(super) const CHAIN: ChainId = ChainId(0);

pub(super) struct Cluster {
    pub(super) world: World,
    /// Whose process runs.
    pub(super) lives: Vec<Life>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) id: VolumeId,
    number: u64,
    store: u128,
    pub(super) is_up: bool,
}

impl Cluster {
    /// All are there, and every chain has `replicas` members.
    pub(super) fn new(volumes: usize, replicas: u32) -> Self {
        let mut cluster = Cluster {
            world: World::with_replicas(replicas),
            lives: Vec::new(),
        };
        for _ in 0..volumes {
            cluster.join();
        }
        cluster
    }

    /// One more volume comes.
    pub(super) fn join(&mut self) -> usize {
        let index = self.lives.len();
        self.lives.push(Life {
            id: VolumeId(index as u32 + 1),
            number: 1,
            store: index as u128 + 1,
            is_up: true,
        });
        self.register(index);
        index
    }

    pub(super) fn admin(&mut self, request: AdminRequest) -> Result<AdminReply, Status> {
        let ticket = self.world.send(CoreRequest::Admin(request));
        self.world.sync();
        match self.world.reply(ticket).expect("durable") {
            Ok(CoreReply::Admin(reply)) => Ok(reply),
            Err(status) => Err(status),
            other => panic!("{other:?}"),
        }
    }

    /// A file of one chunk; with its chain.
    pub(super) fn write_file(&mut self, session: SessionId, name: &str) -> (Ino, ChainId) {
        let ino = self.world.create_file(session, name);
        let layout = self.world.open(session, ino, 1, WRITE).layout;
        let committed = self.world.commit(session, ino, CHUNK_BYTES);
        committed.expect("commits");
        (ino, layout.chain(0))
    }

    pub(super) fn set_replicas(&mut self, replicas: u32) -> Result<(), Status> {
        self.admin(AdminRequest::SetReplicas(SetReplicas { replicas }))
            .map(drop)
    }

    pub(super) fn drain(&mut self, index: usize, is_on: bool) -> DrainAnswer {
        let volume = self.lives[index].id;
        let request = AdminRequest::DrainVolume(DrainVolume { volume, is_on });
        match self.admin(request) {
            Ok(AdminReply::DrainVolume(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn remove(&mut self, index: usize, may_lose: bool) -> RemoveAnswer {
        let volume = self.lives[index].id;
        let request = AdminRequest::RemoveVolume(RemoveVolume { volume, may_lose });
        match self.admin(request) {
            Ok(AdminReply::RemoveVolume(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// Places in chains of each volume.
    pub(super) fn places(&self) -> Vec<u32> {
        let state = &self.world.core.state;
        let lives = self.lives.iter();
        lives.map(|life| places_in(&state.table, life.id)).collect()
    }

    fn registration(&self, index: usize) -> (String, Register) {
        let life = self.lives[index];
        let node = format!("n{index}");
        let register = Register {
            name: node.clone(),
            host: format!("h{index}"),
            ..registration(life.store, life.number)
        };
        (node, register)
    }

    pub(super) fn try_register(&mut self, index: usize) -> Result<Registered, Status> {
        let (node, register) = self.registration(index);
        let request = VolumeRequest::Register(register);
        let ticket = self.world.send(CoreRequest::Volume { node, request });
        self.world.sync();
        match self.world.reply(ticket).expect("durable") {
            Ok(CoreReply::Volume(VolumeReply::Register(registered))) => {
                self.lives[index].id = registered.volume;
                Ok(registered)
            }
            Err(status) => Err(status),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn register(&mut self, index: usize) -> Registered {
        self.try_register(index).expect("taken in")
    }

    /// The process ends, and another one begins on the same store, which has not registered yet.
    pub(super) fn respawn(&mut self, index: usize) {
        let life = &mut self.lives[index];
        life.number += 1;
        life.is_up = true;
    }

    /// The same on another store.
    pub(super) fn replace(&mut self, index: usize) {
        self.respawn(index);
        self.lives[index].store += 100;
    }

    pub(super) fn kill(&mut self, index: usize) {
        self.lives[index].is_up = false;
    }

    /// Time passes; those that are up and are known are heard.
    pub(super) fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 250 {
            self.world.pass(250);
            self.world.sync();
            for life in self.lives.clone().iter().filter(|life| life.is_up) {
                // A volume that is unknown does not register by itself here.
                self.world.heartbeat(life.id, life.number).ok();
            }
        }
    }

    pub(super) fn pass_lease(&mut self) {
        self.pass(VOLUME_LEASE_MS + 500);
    }

    pub(super) fn chain(&self, id: ChainId) -> &Chain {
        self.world.core.live.table.chain(id).expect("there")
    }

    /// By volume, the head first.
    pub(super) fn members(&self, id: ChainId) -> Vec<(u32, MemberState)> {
        let members = self.chain(id).members.iter();
        members.map(|of| (of.volume.0, of.state)).collect()
    }

    /// A chain with exactly these members.
    pub(super) fn chain_of(&self, members: &[u32]) -> ChainId {
        let chains = (0..256).map(ChainId);
        let has = |id: &ChainId| {
            let of_chain = self.members(*id);
            of_chain
                .iter()
                .map(|(volume, _)| *volume)
                .eq(members.iter().copied())
        };
        let mut found = chains.filter(has);
        found.next().expect("such a chain")
    }

    pub(super) fn is_known(&self, index: usize) -> bool {
        let life = self.lives[index];
        let live = self.world.core.live.volumes.get(&life.id);
        live.is_some_and(|live| live.incarnation == Some(life.number))
    }

    pub(super) fn beat(&mut self, index: usize) -> Result<(), Status> {
        let life = self.lives[index];
        self.world.heartbeat(life.id, life.number)
    }

    /// What the volume has not seen in this life.
    pub(super) fn commands(
        &mut self,
        index: usize,
        results: Vec<(u64, Result<(), Status>)>,
    ) -> Vec<(u64, Command)> {
        let life = self.lives[index];
        self.world.commands(life.id, life.number, 0, results)
    }

    /// Says something, does all commands, gives them.
    pub(super) fn obey(&mut self, index: usize, news: Vec<ChainNews>) -> Vec<Command> {
        let life = self.lives[index];
        self.world.news = news;
        self.world.obey(life.id, life.number)
    }

    /// The same with a sync behind it.
    pub(super) fn tell(&mut self, index: usize, news: Vec<ChainNews>) -> Vec<Command> {
        let commands = self.obey(index, news);
        self.world.sync();
        commands
    }

    pub(super) fn news(&self, chain: ChainId, what: ChainEvent) -> ChainNews {
        ChainNews {
            chain,
            epoch: self.chain(chain).epoch,
            what,
        }
    }

    /// What the volume has to say of all its chains if it does its duty: what it heads is active, and
    /// who is behind it has everything.
    pub(super) fn duties(&self, index: usize) -> Vec<ChainNews> {
        let own = self.lives[index].id;
        let mut news = Vec::new();
        for (at, chain) in self.world.core.live.table.chains.iter().enumerate() {
            let id = ChainId(at as u32);
            let serving: Vec<VolumeId> = crate::core::chains::serving(chain).collect();
            if serving.first() == Some(&own) && !chain.is_active {
                news.push(self.news(id, ChainEvent::Active));
            }
            let syncing = chain
                .members
                .last()
                .filter(|of| of.state == MemberState::Syncing);
            if let (Some(syncing), Some(last)) = (syncing, serving.last())
                && chain.is_active
                && *last == own
            {
                news.push(self.news(id, ChainEvent::InSync(syncing.volume)));
            }
        }
        news
    }

    /// Everybody who is up registers if he has to, and does his duty.
    pub(super) fn all_do_their_duty(&mut self) {
        for index in 0..self.lives.len() {
            if !self.lives[index].is_up {
                continue;
            }
            if !self.is_known(index) && self.try_register(index).is_err() {
                continue;
            }
            let news = self.duties(index);
            self.tell(index, news);
        }
    }

    pub(super) fn settle(&mut self, ms: u64) {
        for _ in 0..ms / 250 {
            self.all_do_their_duty();
            self.pass(250);
        }
    }
}
