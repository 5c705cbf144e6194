//! What a simulation of chains needs of the core beside its inputs and effects: a filesystem of few chains,
//! and a look at them. A whole group of 256 would cost each step more than what it is looked at for.

use std::collections::BTreeSet;
use std::sync::Arc;

use vdfs_proto::volume::Register;
use vdfs_proto::{ChainId, ChainTable, Member, MemberState, SessionId, StoreId, VolumeId};

use super::groups::form_chains;
use super::record::{Record, VolumeRegistered};
use super::state::State;
use super::{Core, FsConfig, Now};

impl Core {
    /// A filesystem that knows these volumes, numbered from 1, and of which each chain has those of them as
    /// members that `chains` names by their places in the list, head first.
    pub fn with_chains(
        config: FsConfig,
        now: Now,
        volumes: &[Register],
        chains: &[Vec<usize>],
    ) -> Core {
        let (mut core, _) = Core::format(config, now);
        for (index, register) in volumes.iter().enumerate() {
            let registered = VolumeRegistered::new(volume_at(index), &register.name, register);
            core.state.apply(&Record::VolumeRegistered(registered));
        }
        core.state.take_chains(volumes, chains);
        core
    }

    /// As the log has it, whether or not that is on the disk.
    pub fn table(&self) -> &ChainTable {
        &self.state.table
    }

    /// Of a chain that is not active: who served when it was last, and has what it had.
    pub fn in_sync(&self, chain: ChainId) -> Vec<Member> {
        self.state.in_sync_of(chain).copied().collect()
    }

    /// Those that are not over.
    pub fn sessions(&self) -> BTreeSet<SessionId> {
        let sessions = self.state.sessions.iter();
        sessions.map(|(session, _)| session).collect()
    }

    /// The store of the volume that was taken in last, and its incarnation.
    pub fn life_of(&self, volume: VolumeId) -> (StoreId, u64) {
        let stored = &self.state.volumes[&volume];
        (stored.store, stored.incarnation)
    }
}

fn volume_at(index: usize) -> VolumeId {
    VolumeId(index as u32 + 1)
}

impl State {
    fn take_chains(&mut self, volumes: &[Register], chains: &[Vec<usize>]) {
        let member = |index: &usize| Member {
            volume: volume_at(*index),
            store: volumes[*index].store,
            state: MemberState::Serving,
        };
        let members = |chain: &Vec<usize>| chain.iter().map(member).collect();
        let table = Arc::make_mut(&mut self.table);
        table.chains.clear();
        form_chains(table, ChainId(0), chains.iter().map(members).collect());
        self.use_group(0);
    }
}
