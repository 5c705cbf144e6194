//! Groups of chains: where files lie of which there shall be a certain number of copies.
//!
//! A directory may ask for a number of copies of what is made in it (`user.vdfs.replicas`). There is one
//! group for each such number, which the first file of it makes, and one for all that asks for none: that
//! one's chains change when the filesystem's number is set. While a group is unused, and nobody can know
//! its members, it is formed anew for a volume that comes later; else chains move there (`moving`).
//!
//! Invariants: a file's number has a group, and one only; group 0 is the filesystem's own, and has no
//! chains before the first volume; all others have 256.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vdfs_proto::limits::CHAINS_PER_GROUP;
use vdfs_proto::meta::{Create, Mutation, NewKind};
use vdfs_proto::{
    Chain, ChainId, ChainTable, Copies, DataId, Epoch, Ino, Member, Status, VolumeId,
};

use super::Core;
use super::inode::NewData;
use super::live::AfterDurable;
use super::record::Record;
use super::spread::{Share, host_of, spread};
use super::state::State;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// Of each chunk; `None`: as many as the filesystem keeps.
    pub(crate) copies: Option<Copies>,
    /// Some data id lies in it.
    pub(crate) is_used: bool,
}

impl State {
    /// What a directory asks for.
    pub(crate) fn copies_asked(&self, directory: Ino) -> Option<Copies> {
        let value = self.xattrs.get(directory)?.get(&Copies::name())?;
        Copies::parse(value).ok()
    }

    /// Of a group's files. `None`: as many as the filesystem keeps.
    pub(crate) fn copies_of(&self, group: u16) -> Option<Copies> {
        self.groups.get(usize::from(group))?.copies
    }

    /// The chain has more members than it shall have.
    pub(crate) fn is_longer(&self, id: ChainId, chain: &Chain) -> bool {
        chain.members.len() > self.replicas_of(id)
    }

    /// Copies of each chunk that no directory asks another number for.
    pub(crate) fn replicas(&self) -> u32 {
        let by_hosts = || 1 + u32::from(self.has_several_hosts());
        self.config.replicas.unwrap_or_else(by_hosts)
    }

    /// Without volumes that are to be empty.
    fn has_several_hosts(&self) -> bool {
        let staying = self.table.volumes.iter();
        let staying = staying.filter(|info| !self.is_draining(info.id));
        let mut hosts = staying.map(host_of);
        let first = hosts.next();
        hosts.any(|host| Some(&host) != first.as_ref())
    }

    /// Members that the chain is to have.
    pub(crate) fn replicas_of(&self, chain: ChainId) -> usize {
        let copies = self.copies_of(group_of(chain)).map(Copies::count);
        copies.unwrap_or_else(|| self.replicas()) as usize
    }

    /// The group in which files lie of which there shall be so many copies.
    pub(crate) fn group_for(&self, copies: Option<Copies>) -> Option<u16> {
        let index = self.groups.iter().position(|group| group.copies == copies);
        index.map(|group| group as u16)
    }

    pub(crate) fn use_group(&mut self, group: u16) {
        let index = usize::from(group);
        if self.groups.get(index).is_some_and(|group| !group.is_used) {
            Arc::make_mut(&mut self.groups)[index].is_used = true;
        }
    }

    /// The volume that has just come gets its part of each group of which nobody knows the members.
    pub(crate) fn give_chains(&mut self) {
        let shares = self.shares();
        for group in 0..self.groups.len() as u16 {
            if self.may_form(group) {
                self.form_group(group, &shares);
            }
        }
    }

    /// Nobody can know its members: a session could write to them in a file made a moment later.
    fn may_form(&self, group: u16) -> bool {
        let is_new = self.table.chain(first_chain(group)).is_none();
        is_new || (!self.groups[usize::from(group)].is_used && self.sessions.is_empty())
    }

    fn form_group(&mut self, group: u16, shares: &[Share]) {
        let first = first_chain(group);
        let members = spread(shares, self.replicas_of(first));
        let end = ChainId(first.0 + CHAINS_PER_GROUP);
        // Nobody had anything to be in sync with.
        Arc::make_mut(&mut self.in_sync).retain(|id, _| !(first..end).contains(id));
        form_chains(Arc::make_mut(&mut self.table), first, members);
    }

    pub(crate) fn apply_group_made(&mut self, copies: Copies, volumes: &[VolumeId]) {
        let groups = Arc::make_mut(&mut self.groups);
        groups.push(Group {
            copies: Some(copies),
            is_used: false,
        });
        let group = groups.len() as u16 - 1;
        let mut shares = self.shares();
        shares.retain(|share| volumes.contains(&share.volume));
        Arc::make_mut(&mut self.table).version += 1;
        self.form_group(group, &shares);
    }
}

impl Core {
    /// Makes the group for a number of copies, if this mutation makes the first file of it.
    pub(crate) fn prepare_group(&mut self, mutation: &Mutation) {
        let Mutation::Create(Create {
            parent,
            name,
            kind: NewKind::Regular,
            ..
        }) = mutation
        else {
            return;
        };
        // Next to no directory asks for a number: the name is looked up only then.
        if let Some(copies) = self.state.copies_asked(*parent)
            && self.state.find(*parent, name) == Ok(None)
        {
            self.make_group(copies);
        }
    }

    /// Of the volumes that serve, if there are any: one that is away would only be taken out again.
    pub(crate) fn make_group(&mut self, copies: Copies) {
        let has_one = self.state.group_for(Some(copies)).is_some();
        let known: Vec<VolumeId> = self.state.volumes.keys().copied().collect();
        if has_one || known.is_empty() {
            return;
        }
        let serving = known.iter().filter(|volume| self.is_alive(**volume));
        let serving: Vec<VolumeId> = serving.copied().collect();
        let volumes = match serving.is_empty() {
            true => known,
            false => serving,
        };
        self.log(Record::GroupMade { copies, volumes });
        self.after_sync(AfterDurable::Table(self.state.table.clone()));
    }

    /// Where a new data id lies: its first chunk on a volume that takes it, if there is one. `NoSpace`
    /// if there is no group for so many copies.
    pub(crate) fn place(&self, copies: Option<Copies>, data: DataId) -> Result<NewData, Status> {
        let group = self.state.group_for(copies).ok_or(Status::NoSpace)?;
        let first = data.0 as u32;
        let place = |seed| NewData { data, group, seed };
        let seeds = (0..CHAINS_PER_GROUP).map(|step| first.wrapping_add(step));
        let taking = seeds.map(place).find(|place| self.takes_new_data(*place));
        Ok(taking.unwrap_or(place(first)))
    }
}

pub(super) fn group_of(chain: ChainId) -> u16 {
    (chain.0 / CHAINS_PER_GROUP) as u16
}

fn first_chain(group: u16) -> ChainId {
    ChainId(u32::from(group) * CHAINS_PER_GROUP)
}

pub(super) fn form_chains(table: &mut ChainTable, first: ChainId, members: Vec<Vec<Member>>) {
    for (index, members) in members.into_iter().enumerate() {
        match table.chains.get_mut(first.0 as usize + index) {
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
