//! The chain table: which volumes hold the chunks of which chain.
//!
//! Chains come in groups of 256; a layout names its group. A volume that comes later gets chains of a
//! new group, over all volumes by their capacity, in which new files lie; while the last group is
//! unused, and nobody can know its members, it is formed anew. Chains that may hold data change only
//! as [`ChainChange`] says, which others decide: see `membership` and `healing`.
//!
//! Invariants: an epoch only grows; a member is a (volume, store); a chain has at least one member,
//! and no two of one volume; it never loses its last one; chains of which no store is left carry
//! `lost_below`.

use std::sync::Arc;

use vdfs_proto::limits::CHAINS_PER_GROUP;
use vdfs_proto::{
    Chain, ChainId, ChainTable, DataId, Epoch, Member, MemberState, StoreId, VolumeId, VolumeInfo,
};

use super::limits::GROUPS_MAX;
use super::record::{ChainChange, VolumeRegistered};
use super::spread::{Share, host_of, spread};
use super::state::{State, StoredVolume};

/// Who says in what order changes are made: the first member, unless nobody serves.
pub(crate) fn head_of(chain: &Chain) -> Option<VolumeId> {
    serving(chain).next()
}

/// Whose copies are the chain's.
pub(crate) fn serving(chain: &Chain) -> impl DoubleEndedIterator<Item = VolumeId> {
    let members = chain.members.iter();
    members
        .filter(|member| member.state == MemberState::Serving)
        .map(|member| member.volume)
}

pub(crate) fn state_of(chain: &Chain, volume: VolumeId) -> Option<MemberState> {
    let member = chain.members.iter().find(|member| member.volume == volume);
    member.map(|member| member.state)
}

/// With their ids.
pub(crate) fn each_chain(table: &ChainTable) -> impl Iterator<Item = (ChainId, &Chain)> {
    let chains = table.chains.iter().enumerate();
    chains.map(|(index, chain)| (ChainId(index as u32), chain))
}

impl State {
    pub(crate) fn apply_volume_registered(&mut self, registered: &VolumeRegistered) {
        let volume = registered.volume;
        let stored = StoredVolume {
            store: registered.store,
            incarnation: registered.incarnation,
            capacity_bytes: registered.capacity_bytes,
        };
        // A volume that has seen more ids than were given out shows that the log's end is lost.
        let above = DataId(registered.data_id_max.0 + 1);
        self.numbers.data = self.numbers.data.max(above);
        let before = Arc::make_mut(&mut self.volumes).insert(volume, stored);
        self.set_volume_info(registered);
        match before {
            Some(before) if before.store == registered.store => {}
            Some(_) => self.replace_store(volume, registered.store),
            None => {
                self.numbers.volume.0 += 1;
                self.give_chains();
                self.inherit_reaps(volume);
            }
        }
    }

    fn set_volume_info(&mut self, registered: &VolumeRegistered) {
        let info = VolumeInfo {
            id: registered.volume,
            name: registered.name.clone(),
            host: registered.host.clone(),
            addr: registered.addr,
            node: registered.node.clone(),
        };
        if self.table.volume(info.id) == Some(&info) {
            return;
        }
        let table = Arc::make_mut(&mut self.table);
        table.version += 1;
        match table.volumes.iter_mut().find(|other| other.id == info.id) {
            Some(present) => *present = info,
            None => table.volumes.push(info),
        }
    }

    /// The store under a volume is another one: its copies are gone.
    fn replace_store(&mut self, volume: VolumeId, store: StoreId) {
        let mark = self.numbers.data;
        let table = Arc::make_mut(&mut self.table);
        table.version += 1;
        for chain in &mut table.chains {
            if state_of(chain, volume).is_some() {
                replace_member(chain, volume, (store, mark));
            }
        }
        self.inherit_reaps(volume);
    }

    fn give_chains(&mut self) {
        let groups = self.groups();
        // A session that knows the old members could write to them in a file made a moment later.
        let may_move = !self.numbers.last_group_used && self.sessions.is_empty();
        let group = match groups > 0 && may_move {
            true => groups - 1,
            false => groups,
        };
        if group == GROUPS_MAX {
            return;
        }
        let members = spread(&self.shares(), self.config.replicas as usize);
        form_group(Arc::make_mut(&mut self.table), group, members);
        if group > 0 {
            self.numbers.last_group_used = false;
        }
    }

    fn shares(&self) -> Vec<Share> {
        let volumes = self.volumes.iter();
        volumes
            .map(|(volume, stored)| Share {
                volume: *volume,
                store: stored.store,
                host: self.table.volume(*volume).map_or_else(String::new, host_of),
                capacity_bytes: stored.capacity_bytes,
            })
            .collect()
    }

    /// The group in which new files lie.
    pub(crate) fn present_group(&self) -> u16 {
        self.groups().saturating_sub(1) as u16
    }

    pub(crate) fn apply_chains_changed(&mut self, changes: &[(ChainId, ChainChange)]) {
        let table = Arc::make_mut(&mut self.table);
        table.version += 1;
        for (id, change) in changes {
            let chain = &mut table.chains[id.0 as usize];
            match change {
                ChainChange::Added(volume) => {
                    chain.members.push(Member {
                        volume: *volume,
                        store: self.volumes[volume].store,
                        state: MemberState::Syncing,
                    });
                    begin_epoch(chain);
                }
                change => change_chain(chain, *change),
            }
        }
    }
}

/// Its copy is gone: it loses its place if others have one, else the chain's data is lost.
fn replace_member(chain: &mut Chain, volume: VolumeId, (store, mark): (StoreId, DataId)) {
    let has_copy = |member: &Member| member.state != MemberState::Syncing;
    let is_other_copy = |member: &&Member| member.volume != volume && has_copy(member);
    let others = chain.members.iter().filter(is_other_copy).count();
    if others > 0 || state_of(chain, volume) == Some(MemberState::Syncing) {
        return change_chain(chain, ChainChange::Removed(volume));
    }
    let is_alone = chain.members.len() == 1;
    chain.members = vec![Member {
        volume,
        store,
        state: MemberState::Serving,
    }];
    chain.epoch.0 += 1;
    chain.lost_below = mark;
    // With nobody to take over from, it goes on as it was.
    chain.is_active &= is_alone;
}

fn change_chain(chain: &mut Chain, change: ChainChange) {
    let members = &mut chain.members;
    match change {
        ChainChange::Activated => {
            chain.is_active = true;
            return;
        }
        ChainChange::Removed(volume) => members.retain(|member| member.volume != volume),
        ChainChange::Synced => {
            let last = members.last_mut().expect("a chain has members");
            last.state = MemberState::Serving;
        }
        ChainChange::Suspended => {
            members.retain(|member| member.state == MemberState::Serving);
            for member in members {
                member.state = MemberState::Waiting;
            }
        }
        ChainChange::Resumed(volume) => {
            members.retain(|member| member.volume == volume);
            members[0].state = MemberState::Serving;
        }
        ChainChange::Added(_) => unreachable!("needs the volume's store"),
    }
    begin_epoch(chain);
}

fn begin_epoch(chain: &mut Chain) {
    assert!(!chain.members.is_empty(), "the last copy stays");
    chain.epoch.0 += 1;
    chain.is_active = false;
}

fn form_group(table: &mut ChainTable, group: usize, members: Vec<Vec<Member>>) {
    let first = group * CHAINS_PER_GROUP as usize;
    for (index, members) in members.into_iter().enumerate() {
        match table.chains.get_mut(first + index) {
            Some(chain) if chain.members == members => {}
            Some(chain) => {
                chain.members = members;
                chain.epoch.0 += 1;
                chain.is_active = true;
            }
            None => table.chains.push(Chain {
                epoch: Epoch(1),
                members,
                lost_below: DataId(0),
                is_active: true,
            }),
        }
    }
}
