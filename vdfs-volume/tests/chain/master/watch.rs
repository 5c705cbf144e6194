//! What the master's log says of chains, as it reaches the disk: which of them go on with what one volume
//! has, and whether all are there that may have shown more.

use std::collections::{BTreeMap, BTreeSet};

use vdfs_master::core::Core;
use vdfs_proto::{Chain, ChainId, ChainTable, MemberState, StoreId};

use super::{Office, chains, serving, state_of};
use crate::message::Action;
use crate::node::Node;
use crate::report::trace;
use crate::world::VOLUMES;

/// At the disk, between two records.
#[derive(Debug)]
pub(super) struct Look {
    table: ChainTable,
    /// Of each chain that is not active: who has what it had.
    in_sync: Vec<Vec<usize>>,
    /// Of each volume.
    lives: Vec<(StoreId, u64)>,
    replicas: usize,
}

#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Go on with what one volume has, and whether all that were in sync are there.
    resumed: BTreeMap<ChainId, bool>,
    /// A member's RAM was lost since they were active: nobody has promised what it alone has shown.
    bereft: BTreeSet<ChainId>,
}

impl Look {
    pub(super) fn of(disk: &Core) -> Self {
        let in_sync = |chain| {
            let members = disk.in_sync(chain);
            let members = members.iter().map(|of| Node::index_of(of.volume));
            members.collect()
        };
        Look {
            table: disk.table().clone(),
            in_sync: chains().map(in_sync).collect(),
            lives: (0..VOLUMES)
                .map(|of| disk.life_of(Node::volume(of)))
                .collect(),
            replicas: disk.config().replicas.expect("it is said") as usize,
        }
    }

    fn row(&self, chain: ChainId) -> &Chain {
        &self.table.chains[chain.0 as usize]
    }

    /// The one that shows what the others have, and may show more.
    fn last_in_sync(&self, chain: ChainId) -> Option<usize> {
        let row = self.row(chain);
        match row.is_active {
            true => serving(row).next_back(),
            false => self.in_sync[chain.0 as usize].last().copied(),
        }
    }
}

impl Watch {
    /// A record has reached the disk.
    pub(super) fn see(&mut self, office: &mut Office<'_>, before: &Look, after: &Look) {
        for volume in 0..VOLUMES {
            let (of_before, of_after) = (before.lives[volume], after.lives[volume]);
            if of_before.0 != of_after.0 {
                let was_last = |of: &ChainId| before.last_in_sync(*of) == Some(volume);
                self.bereft.extend(chains().filter(was_last));
            } else if of_before.1 != of_after.1 {
                self.note_new_life(before, volume);
            }
        }
        for chain in chains().filter(|of| before.row(*of) != after.row(*of)) {
            let (was, now) = (before.row(chain), after.row(chain));
            trace(office.now_us, &chain, now);
            match was.lost_below < now.lost_below {
                true => self.note_lost(office, chain),
                false => self.see_chain(office, before, (chain, now)),
            }
        }
        self.tell_resumed(office, after);
        self.bereft.retain(|chain| !after.row(*chain).is_active);
    }

    /// The only one that serves goes on with what a restart has found.
    fn note_new_life(&mut self, before: &Look, volume: usize) {
        for chain in chains() {
            let mut members = serving(before.row(chain));
            if members.next() == Some(volume) && members.next().is_none() {
                self.resumed.entry(chain).or_insert(true);
            }
        }
    }

    fn note_lost(&mut self, office: &mut Office<'_>, chain: ChainId) {
        office.counts.hit("chains that have lost all");
        office.actions.push(Action::Lost(chain));
        self.resumed.remove(&chain);
        self.bereft.remove(&chain);
    }

    fn see_chain(&mut self, office: &mut Office<'_>, before: &Look, (id, now): (ChainId, &Chain)) {
        let was = before.row(id);
        let serve = |row: &Chain| serving(row).count();
        let has = |row: &Chain, state| row.members.iter().any(|of| of.state == state);
        if now.is_active && !was.is_active {
            let mut in_sync = before.in_sync[id.0 as usize].iter();
            let are_there = in_sync.all(|of| state_of(was, *of).is_some());
            self.note_active(office, (id, was), are_there);
            return;
        }
        if serve(was) == 0 && serve(now) > 0 {
            self.resumed.insert(id, true);
            office.counts.hit("waiting chains decided");
        }
        if serve(was) > 0 && serve(now) == 0 {
            office.counts.hit("chains that wait");
        }
        if has(now, MemberState::Syncing) && !has(was, MemberState::Syncing) {
            office.counts.hit("members added");
        }
        if serve(now) > serve(was) && serve(was) > 0 {
            office.counts.hit("members in sync");
        }
        if now.members.len() > before.replicas {
            office.counts.hit("chains longer than they shall be");
        }
        if now.epoch != was.epoch {
            office.counts.hit("epochs");
        }
    }

    /// Once it is active it does not go back.
    fn note_active(
        &mut self,
        office: &mut Office<'_>,
        (id, was): (ChainId, &Chain),
        are_there: bool,
    ) {
        let are_there = are_there && !self.bereft.contains(&id);
        let Some(is_complete) = self.resumed.get_mut(&id) else {
            return;
        };
        *is_complete = are_there;
        match (are_there, was.members.len() > 1) {
            (true, true) => office.counts.hit("chains that go on with all back"),
            (true, false) => {}
            (false, _) => office.counts.hit("chains that go on without some"),
        }
    }

    /// From here on.
    fn tell_resumed(&mut self, office: &mut Office<'_>, after: &Look) {
        self.resumed.retain(|chain, is_complete| {
            let row = after.row(*chain);
            if row.is_active {
                office.actions.push(Action::Resumed {
                    chain: *chain,
                    head: *row.head().expect("it is active"),
                    epoch: row.epoch,
                    is_complete: *is_complete,
                });
            }
            !row.is_active
        });
    }
}
