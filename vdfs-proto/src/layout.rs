//! Which volumes hold a chunk: no record per chunk, a formula over the chain table.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{ChainId, DataId, Epoch, StoreId, VolumeId};
use crate::limits::CHAINS_PER_GROUP;

/// What a client needs to reach a file's bytes. Held by a session from open to close; recalled by a
/// truncation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub data: DataId,
    /// How often this data id was truncated; a commit that names an older count is refused.
    pub truncations: u32,
    /// Group of chains (one a replica count in use).
    pub group: u16,
    /// Where in the group the file begins.
    pub seed: u32,
    /// The committed size in bytes, at the time of the reply.
    pub size: u64,
    /// An op has made a hole: a missing or short chunk reads as zeros instead of `DataLost`.
    pub holes: bool,
}

impl Layout {
    /// The chain of chunk `index`.
    pub fn chain(&self, index: u32) -> ChainId {
        self.chain_at(self.position(index))
    }

    /// The chains of the first chunks, `count` of them: a group has 256, what follows repeats them.
    pub fn chains(&self, count: u32) -> impl Iterator<Item = ChainId> {
        (0..count.min(CHAINS_PER_GROUP)).map(|index| self.chain(index))
    }

    /// The place of chunk `index`'s chain in the group.
    pub fn position(&self, index: u32) -> u8 {
        (self.seed.wrapping_add(index) % CHAINS_PER_GROUP) as u8
    }

    /// The chain at a place in the group.
    pub fn chain_at(&self, position: u8) -> ChainId {
        ChainId(u32::from(self.group) * CHAINS_PER_GROUP + u32::from(position))
    }
}

/// Some chains of one group, by their places in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainSet([u64; 4]);

const _: () = assert!(
    CHAINS_PER_GROUP == 4 * 64,
    "a bit for each chain of a group"
);

impl ChainSet {
    pub fn insert(&mut self, position: u8) {
        self.0[usize::from(position / 64)] |= 1 << (position % 64);
    }

    pub fn contains(&self, position: u8) -> bool {
        self.0[usize::from(position / 64)] & 1 << (position % 64) != 0
    }

    /// Ascending.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(|&position| self.contains(position))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberState {
    Serving,
    /// It takes part in changes, and is given what it lacks; it is the last one of its chain.
    Syncing,
    /// All members had gone. It serves nothing until the master knows whose copy is the chain's.
    Waiting,
}

/// One volume's place in a chain. A member is a store, not a machine: an empty store is another
/// member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub volume: VolumeId,
    pub store: StoreId,
    pub state: MemberState,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub epoch: Epoch,
    /// Head first, tail last.
    pub members: Vec<Member>,
    /// Data ids below this had bytes here that are gone for good: no record means `DataLost`.
    pub lost_below: DataId,
    /// The head has taken this epoch over, and the master remembers it: from now on its members, and
    /// no earlier ones, have all that was acknowledged. Nothing is acknowledged before.
    pub is_active: bool,
}

impl Chain {
    /// Those who have all that the chain has, head first. The others of a chain take part in it, or wait, and
    /// answer no client.
    pub fn serving(&self) -> impl DoubleEndedIterator<Item = &Member> {
        let members = self.members.iter();
        members.filter(|member| member.state == MemberState::Serving)
    }

    /// Who takes the chain's changes.
    pub fn head(&self) -> Option<&Member> {
        self.serving().next()
    }
}

/// Where a volume is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    pub id: VolumeId,
    pub name: String,
    pub host: String,
    pub addr: SocketAddr,
    /// Node name in the volume's certificate: whom to expect at `addr`.
    pub node: String,
}

/// All chains with their epochs. `ChainId` is the index into `chains`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainTable {
    /// Goes up with every change of the table.
    pub version: u64,
    pub chains: Vec<Chain>,
    pub volumes: Vec<VolumeInfo>,
}

impl ChainTable {
    pub fn chain(&self, id: ChainId) -> Option<&Chain> {
        self.chains.get(id.0 as usize)
    }

    pub fn volume(&self, id: VolumeId) -> Option<&VolumeInfo> {
        self.volumes.iter().find(|volume| volume.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_chain_stays_within_the_group_and_moves_with_the_index() {
        let layout = Layout {
            data: DataId(1),
            truncations: 0,
            group: 2,
            seed: 255,
            size: 0,
            holes: false,
        };
        assert_eq!(layout.chain(0), ChainId(2 * CHAINS_PER_GROUP + 255));
        assert_eq!(layout.chain(1), ChainId(2 * CHAINS_PER_GROUP));
    }
}
