//! Groups of chains: where files lie of which there shall be a certain number of copies.
//!
//! A directory may ask for a number of copies of what is made in it (`user.vdfs.replicas`). Groups are
//! for one such number each, or for the filesystem's own, which changes what its groups keep when it
//! is set. New files lie in the last group of their kind, the present one. The first file of a kind
//! makes its first group. While that is unused, and nobody can know its members, it is formed anew for a
//! volume that comes later; else chains move there (`moving`).
//!
//! Invariants: a kind whose files exist has a group; group 0 is the filesystem's own, and has no chains
//! before the first volume; all others have 256. There are at most [`GROUPS_MAX`]; each number of
//! copies finds a place among them for its first group, whatever the others have taken.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vdfs_proto::limits::{CHAIN_MEMBERS_MAX, CHAINS_PER_GROUP};
use vdfs_proto::meta::{Create, Mutation, NewKind};
use vdfs_proto::{
    Chain, ChainId, ChainTable, Copies, DataId, Epoch, Ino, Member, Status, VolumeId,
};

use super::Core;
use super::inode::NewData;
use super::limits::GROUPS_MAX;
use super::live::AfterDurable;
use super::record::Record;
use super::spread::{Share, spread};
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

    /// Members that the chain is to have.
    pub(crate) fn replicas_of(&self, chain: ChainId) -> usize {
        let group = (chain.0 / CHAINS_PER_GROUP) as u16;
        let copies = self.copies_of(group).map(Copies::count);
        copies.unwrap_or(self.config.replicas) as usize
    }

    /// The group in which new files lie.
    pub(crate) fn present_group(&self, copies: Option<Copies>) -> Option<u16> {
        let last = self.groups.iter().rposition(|group| group.copies == copies);
        last.map(|group| group as u16)
    }

    pub(crate) fn use_group(&mut self, group: u16) {
        let index = usize::from(group);
        if self.groups.get(index).is_some_and(|group| !group.is_used) {
            Arc::make_mut(&mut self.groups)[index].is_used = true;
        }
    }

    /// The volume that has just come gets its part of each kind of which nobody knows the members.
    pub(crate) fn give_chains(&mut self) {
        let shares = self.shares();
        for copies in self.kinds() {
            let present = self.present_group(copies);
            if let Some(group) = present.filter(|group| self.may_form(*group)) {
                self.form_group(group, &shares);
            }
        }
    }

    /// Nobody can know its members: a session could write to them in a file made a moment later.
    fn may_form(&self, group: u16) -> bool {
        let is_new = self.table.chain(first_chain(group)).is_none();
        is_new || (!self.groups[usize::from(group)].is_used && self.sessions.is_empty())
    }

    /// Numbers of copies that groups are for.
    fn kinds(&self) -> BTreeSet<Option<Copies>> {
        self.groups.iter().map(|group| group.copies).collect()
    }

    fn may_begin(&self, copies: Option<Copies>) -> bool {
        let kinds = self.kinds();
        let is_first = !kinds.contains(&copies);
        // The filesystem's own kind has one from the beginning.
        let kept = match is_first {
            true => 0,
            false => 1 + CHAIN_MEMBERS_MAX - kinds.len(),
        };
        self.groups.len() + kept < GROUPS_MAX
    }

    fn begin_group(&mut self, copies: Option<Copies>) -> Option<u16> {
        if !self.may_begin(copies) {
            return None;
        }
        let groups = Arc::make_mut(&mut self.groups);
        groups.push(Group {
            copies,
            is_used: false,
        });
        Some(groups.len() as u16 - 1)
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
        let group = self.begin_group(Some(copies)).expect("there is a place");
        let mut shares = self.shares();
        shares.retain(|share| volumes.contains(&share.volume));
        Arc::make_mut(&mut self.table).version += 1;
        self.form_group(group, &shares);
    }
}

impl Core {
    /// Makes the first group of a kind, if this mutation makes the first file of it.
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
        let has_one = self.state.present_group(Some(copies)).is_some();
        let known: Vec<VolumeId> = self.state.volumes.keys().copied().collect();
        if has_one || known.is_empty() || !self.state.may_begin(Some(copies)) {
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
        let group = self.state.present_group(copies).ok_or(Status::NoSpace)?;
        let first = data.0 as u32;
        let place = |seed| NewData { data, group, seed };
        let seeds = (0..CHAINS_PER_GROUP).map(|step| first.wrapping_add(step));
        let taking = seeds.map(place).find(|place| self.takes_new_data(*place));
        Ok(taking.unwrap_or(place(first)))
    }
}

fn first_chain(group: u16) -> ChainId {
    ChainId(u32::from(group) * CHAINS_PER_GROUP)
}

fn form_chains(table: &mut ChainTable, first: ChainId, members: Vec<Vec<Member>>) {
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
