//! The chain table: which volumes hold the chunks of which chain.
//!
//! Chains come in groups of 256 (`groups`); a layout names its group. Chains that may hold data change
//! only as [`ChainChange`] says, which others decide: see `membership`, `healing` and `moving`; and when
//! a volume goes for good (`retirement`).
//!
//! Nobody is told of a change in an epoch that is not active. So as long as it is not, those who served
//! in the last one that was have all that was acknowledged, though some may have lost their places:
//! they are *in sync*, and if those who have places are gone, the chain goes back to all of them: they
//! *wait*. When they are back one of them serves, and takes better copies from the others before it takes
//! over; then these have no places any more, and get them again like anybody else.
//!
//! Invariants: an epoch only grows; a member is a (volume, store); a chain has at least one member,
//! and no two of one volume; it never loses its last one; chains of which no store is left carry
//! `lost_below`; only of chains that are not active it is known who is in sync.

use std::sync::Arc;

use vdfs_proto::{Chain, ChainId, ChainTable, DataId, Member, MemberState, VolumeId, VolumeInfo};

use super::record::{ChainChange, VolumeRegistered};
use super::spread::{Share, host_of};
use super::state::{State, StoredVolume};

/// Who says in what order changes are made: the first member, unless nobody serves.
pub(crate) fn head_of(chain: &Chain) -> Option<VolumeId> {
    serving(chain).next()
}

/// Whose copies are the chain's.
pub(crate) fn serving(chain: &Chain) -> impl DoubleEndedIterator<Item = VolumeId> {
    chain.serving().map(|member| member.volume)
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

/// Chains of which the volume is a member.
pub(crate) fn places_in(table: &ChainTable, volume: VolumeId) -> u32 {
    let is_member = |chain: &&Chain| state_of(chain, volume).is_some();
    table.chains.iter().filter(is_member).count() as u32
}

impl State {
    pub(crate) fn apply_volume_registered(&mut self, registered: &VolumeRegistered) {
        let volume = registered.volume;
        let known = self.volumes.get(&volume);
        let stored = StoredVolume {
            store: registered.store,
            incarnation: registered.incarnation,
            capacity_bytes: registered.capacity_bytes,
            is_draining: known.is_some_and(|known| known.is_draining),
        };
        // A volume that has seen more ids than were given out shows that the log's end is lost.
        let above = DataId(registered.data_id_max.0 + 1);
        if self.numbers.data < above {
            let (from, below) = self.numbers.lost_data;
            let is_first = from == below;
            let from = if is_first { self.numbers.data } else { from };
            self.numbers.lost_data = (from, above);
            self.numbers.data = above;
        }
        let before = Arc::make_mut(&mut self.volumes).insert(volume, stored);
        self.set_volume_info(registered);
        match before {
            Some(before) if before.store == registered.store => {}
            Some(_) => self.replace_store(volume),
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
    fn replace_store(&mut self, volume: VolumeId) {
        Arc::make_mut(&mut self.table).version += 1;
        for (id, change) in self.changes_at_loss(volume) {
            match change {
                Some(change) => self.change_chain(id, change),
                None => self.lose_data(id, volume),
            }
        }
        self.inherit_reaps(volume);
    }

    /// The volume has gone for good, with all its copies. Where nobody else has one the chain begins anew
    /// with its heir.
    pub(super) fn lose_volume(&mut self, volume: VolumeId, heirs: &[(ChainId, VolumeId)]) {
        for (id, heir) in heirs {
            Arc::make_mut(&mut self.in_sync).remove(id);
            self.begin_anew(*id, *heir).is_active = false;
        }
        for (id, change) in self.changes_at_loss(volume) {
            self.change_chain(id, change.expect("it would have an heir"));
        }
    }

    /// Chains of which nobody but the volume has a copy.
    pub(crate) fn chains_alone(&self, volume: VolumeId) -> Vec<ChainId> {
        let changes = self.changes_at_loss(volume).into_iter();
        let alone = changes.filter(|(_, change)| change.is_none());
        alone.map(|(id, _)| id).collect()
    }

    /// What becomes of all chains that the volume has a place in.
    fn changes_at_loss(&self, volume: VolumeId) -> Vec<(ChainId, Option<ChainChange>)> {
        let chains = each_chain(&self.table);
        let of_volume = chains.filter(|(_, chain)| state_of(chain, volume).is_some());
        of_volume
            .map(|(id, chain)| (id, self.change_at_loss(id, chain, volume)))
            .collect()
    }

    /// The volume's copy is gone: it loses its place if others have one. `None` if nobody has.
    fn change_at_loss(&self, id: ChainId, chain: &Chain, volume: VolumeId) -> Option<ChainChange> {
        let has_copy = |member: &Member| member.state != MemberState::Syncing;
        let mut others = chain.members.iter().filter(|of| of.volume != volume);
        let is_syncing = state_of(chain, volume) == Some(MemberState::Syncing);
        match is_syncing || others.any(has_copy) {
            true => Some(ChainChange::Left(volume)),
            false => self.goes_back(id, volume).then_some(ChainChange::Suspended),
        }
    }

    fn lose_data(&mut self, id: ChainId, volume: VolumeId) {
        let is_alone = self.table.chains[id.0 as usize].members.len() == 1;
        // With nobody to take over from, it goes on as it was.
        self.begin_anew(id, volume).is_active &= is_alone;
    }

    /// With one member, and without all that it has had.
    fn begin_anew(&mut self, id: ChainId, volume: VolumeId) -> &mut Chain {
        let (store, mark) = (self.volumes[&volume].store, self.numbers.data);
        let chain = &mut Arc::make_mut(&mut self.table).chains[id.0 as usize];
        chain.members = vec![Member {
            volume,
            store,
            state: MemberState::Serving,
        }];
        chain.epoch.0 += 1;
        chain.lost_below = mark;
        chain
    }

    /// Whether others than this volume are in sync, one of them without a place, and their copies are
    /// there yet.
    pub(crate) fn goes_back(&self, id: ChainId, volume: VolumeId) -> bool {
        let mut in_sync = self.in_sync_of(id);
        in_sync.any(|member| member.volume != volume)
    }

    /// Of a chain that is not active; those whose stores are there yet.
    pub(crate) fn in_sync_of(&self, id: ChainId) -> impl Iterator<Item = &Member> {
        let members = self.in_sync.get(&id).into_iter().flatten();
        members.filter(|member| {
            let stored = self.volumes.get(&member.volume);
            stored.is_some_and(|stored| stored.store == member.store)
        })
    }

    /// Of all volumes.
    pub(super) fn shares(&self) -> Vec<Share> {
        let volumes = self.volumes.iter();
        let others = volumes.clone().filter(|(_, stored)| !stored.is_draining);
        let has_others = others.clone().count() > 0;
        volumes
            .filter(|(_, stored)| !(has_others && stored.is_draining))
            .map(|(volume, stored)| Share {
                volume: *volume,
                store: stored.store,
                host: self.table.volume(*volume).map_or_else(String::new, host_of),
                capacity_bytes: stored.capacity_bytes,
            })
            .collect()
    }

    pub(crate) fn apply_chains_changed(&mut self, changes: &[(ChainId, ChainChange)]) {
        Arc::make_mut(&mut self.table).version += 1;
        for (id, change) in changes {
            self.change_chain(*id, *change);
        }
    }

    fn change_chain(&mut self, id: ChainId, change: ChainChange) {
        self.note_in_sync(id, change);
        let members = self.members_after(id, change);
        assert!(!members.is_empty(), "the last copy stays");
        let chain = &mut Arc::make_mut(&mut self.table).chains[id.0 as usize];
        chain.members = members;
        chain.is_active = change == ChainChange::Activated;
        if !chain.is_active {
            chain.epoch.0 += 1;
        }
    }

    fn note_in_sync(&mut self, id: ChainId, change: ChainChange) {
        let chain = &self.table.chains[id.0 as usize];
        let all = Arc::make_mut(&mut self.in_sync);
        if chain.is_active {
            let serving = chain.serving();
            all.insert(id, serving.copied().collect());
        }
        match change {
            ChainChange::Activated => drop(all.remove(&id)),
            ChainChange::Left(volume) => {
                let in_sync = all.entry(id).or_default();
                in_sync.retain(|of| of.volume != volume);
            }
            _ => {}
        }
    }

    fn members_after(&self, id: ChainId, change: ChainChange) -> Vec<Member> {
        let mut members = self.table.chains[id.0 as usize].members.clone();
        match change {
            ChainChange::Activated => members.retain(|of| of.state != MemberState::Waiting),
            ChainChange::Removed(volume) | ChainChange::Left(volume) => {
                members.retain(|member| member.volume != volume);
            }
            ChainChange::Synced => {
                let last = members.last_mut().expect("a chain has members");
                last.state = MemberState::Serving;
            }
            ChainChange::Added(volume) => members.push(Member {
                volume,
                store: self.volumes[&volume].store,
                state: MemberState::Syncing,
            }),
            ChainChange::Suspended => {
                let in_sync = self.in_sync_of(id).copied();
                let state = MemberState::Waiting;
                members = in_sync.map(|member| Member { state, ..member }).collect();
            }
            ChainChange::Resumed(volume) => {
                let is_head = |of: &Member| of.volume == volume;
                let at = members.iter().position(is_head).expect("it waits");
                let state = MemberState::Serving;
                let head = members.remove(at);
                members.insert(0, Member { state, ..head });
            }
        }
        members
    }
}
