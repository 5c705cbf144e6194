//! The chain table: which volumes hold the chunks of which chain.
//!
//! Chains come in groups of 256; a layout names its group. With one replica a chain that may hold
//! data never moves, so a volume that comes later gets chains of a new group, over all volumes by
//! their capacity, in which new files lie; while the last group is unused, and nobody can know its
//! members, it is formed anew.
//!
//! Invariants: an epoch only grows; a member is a (volume, store); chains of a store that is gone
//! carry `lost_below`.

use std::sync::Arc;

use vdfs_proto::limits::CHAINS_PER_GROUP;
use vdfs_proto::{
    Chain, ChainTable, DataId, Epoch, Member, MemberState, StoreId, VolumeId, VolumeInfo,
};

use super::limits::GROUPS_MAX;
use super::record::VolumeRegistered;
use super::state::{State, StoredVolume};

impl State {
    pub(crate) fn apply_volume_registered(&mut self, registered: &VolumeRegistered) {
        let volume = registered.volume;
        let stored = StoredVolume {
            store: registered.store,
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
        let table = Arc::make_mut(&mut self.table);
        table.version += 1;
        match table.volumes.iter_mut().find(|other| other.id == info.id) {
            Some(present) => *present = info,
            None => table.volumes.push(info),
        }
    }

    /// The store under a volume is another one: what its chains held is gone.
    fn replace_store(&mut self, volume: VolumeId, store: StoreId) {
        let mark = self.numbers.data;
        for chain in &mut Arc::make_mut(&mut self.table).chains {
            let Some(member) = chain.members.iter_mut().find(|m| m.volume == volume) else {
                continue;
            };
            member.store = store;
            chain.epoch.0 += 1;
            chain.lost_below = mark;
        }
        self.forget_reaps_of(volume);
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
        let members = spread(&self.volumes.iter().collect::<Vec<_>>());
        form_group(Arc::make_mut(&mut self.table), group, &members);
        if group > 0 {
            self.numbers.last_group_used = false;
        }
    }

    /// The group in which new files lie.
    pub(crate) fn present_group(&self) -> u16 {
        self.groups().saturating_sub(1) as u16
    }
}

fn form_group(table: &mut ChainTable, group: usize, members: &[Member]) {
    let first = group * CHAINS_PER_GROUP as usize;
    for (index, member) in members.iter().enumerate() {
        match table.chains.get_mut(first + index) {
            Some(chain) if chain.members == [*member] => {}
            Some(chain) => {
                chain.members = vec![*member];
                chain.epoch.0 += 1;
            }
            None => table.chains.push(Chain {
                epoch: Epoch(1),
                members: vec![*member],
                lost_below: DataId(0),
                is_active: true,
            }),
        }
    }
}

/// One member for each chain of a group: each volume as often as its share of the capacity, evenly
/// interleaved (smooth weighted round robin).
fn spread(volumes: &[(&VolumeId, &StoredVolume)]) -> Vec<Member> {
    assert!(!volumes.is_empty(), "chains need members");
    let weights: Vec<i128> = volumes
        .iter()
        .map(|(_, volume)| i128::from(volume.capacity_bytes.max(1)))
        .collect();
    let total: i128 = weights.iter().sum();
    let mut credit = vec![0; weights.len()];
    let mut members = Vec::with_capacity(CHAINS_PER_GROUP as usize);
    for _ in 0..CHAINS_PER_GROUP {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += weight;
        }
        let picked = richest(&credit);
        credit[picked] -= total;
        let (volume, stored) = volumes[picked];
        members.push(Member {
            volume: *volume,
            store: stored.store,
            state: MemberState::Serving,
        });
    }
    members
}

/// The first of those with the most credit.
fn richest(credit: &[i128]) -> usize {
    let mut best = 0;
    for (index, amount) in credit.iter().enumerate() {
        if *amount > credit[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_gives_each_volume_its_share_of_chains() {
        let volume = |capacity_bytes| StoredVolume {
            store: StoreId(1),
            capacity_bytes,
        };
        let (small, large) = (volume(1 << 30), volume(3 << 30));
        let members = spread(&[(&VolumeId(1), &small), (&VolumeId(2), &large)]);
        let of_small = members.iter().filter(|m| m.volume == VolumeId(1)).count();
        assert_eq!((members.len(), of_small), (256, 64));
    }
}
