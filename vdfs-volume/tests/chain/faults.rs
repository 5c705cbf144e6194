//! What goes wrong in a simulation, and when.
//!
//! In some runs a chain is never left without a member that has been there all the time, so that what is
//! promised with one such member is seen to hold; in others all may go.

use std::collections::BTreeSet;

use vdfs_proto::limits::{SESSION_LEASE_MS, VOLUME_LEASE_MS};
use vdfs_proto::{Chain, ChainId, ChunkId, DataId, Epoch};

use crate::master::Master;
use crate::message::{CoreInput, Event, FILES, Place};
use crate::node::Node;
use crate::report::trace;
use crate::rng::Rng;
use crate::shelf::CELLS;
use crate::world::{MASTER, VOLUMES, World};

/// Of a volume, in microseconds.
const LEASE_US: u64 = VOLUME_LEASE_MS * 1000;

#[derive(Debug)]
pub(crate) struct Faults {
    pub(crate) is_over: bool,
    /// Between two faults, in microseconds.
    pause_us: u64,
    /// In a thousand inputs of a volume.
    kills: u64,
    /// Whether one sound member of a chain is spared.
    spares: bool,
    /// Whether machines lose RAM of which there is no other copy.
    loses: bool,
    /// Whether operators change something.
    has_orders: bool,
    /// These are killed within the next change that they make.
    doomed: BTreeSet<usize>,
}

impl Faults {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Faults {
            is_over: false,
            pause_us: *rng.pick(&[400_000, 1_000_000, 3_000_000]),
            kills: *rng.pick(&[0, 0, 1, 3, 10]),
            spares: rng.permille(500),
            loses: rng.permille(150),
            has_orders: rng.permille(500),
            doomed: BTreeSet::new(),
        }
    }
}

impl World {
    pub(crate) fn fault(&mut self) {
        if self.faults.is_over {
            return;
        }
        let pause_us = self
            .rng
            .between(self.faults.pause_us / 2, self.faults.pause_us);
        self.schedule(pause_us, Event::Fault);
        let volume = self.rng.below(VOLUMES as u64) as usize;
        match self.rng.below(20) {
            0 if self.may_harm(volume) => self.kill(volume),
            1 | 2 if self.may_harm(volume) => self.stand_still(volume),
            3 if self.may_harm(volume) => self.cut_from_master(volume),
            4 | 5 => self.cut_from_another(volume),
            6 => self.cut_from_client(volume),
            7 => self.trouble_master(),
            8 | 18 | 19 => self.fill(volume),
            9 => self.kill_client(),
            10 | 16 | 17 if !self.faults.spares => self.kill_a_chain(),
            11 if self.may_harm(volume) => self.leave_a_chain(volume),
            12 if self.may_harm(volume) => self.lose_ram(volume),
            13 | 14 => self.cut_a_chunk(volume),
            15 if self.faults.has_orders => self.with_office(Master::order_something),
            _ => {}
        }
    }

    /// In each chain of several members there is another one that nothing has happened to, and where
    /// this one is alone it has taken over.
    fn may_harm(&self, volume: usize) -> bool {
        if !self.faults.spares {
            return true;
        }
        let chains = self.master.table().chains.iter();
        let mut rows = chains.map(|row| (row.is_active, members(row)));
        rows.all(|(is_active, members)| {
            let others = members.iter().filter(|of| **of != volume);
            match members.contains(&volume) {
                false => true,
                true if members.len() == 1 => is_active,
                true => others.clone().any(|of| self.is_sound(*of, &members)),
            }
        })
    }

    fn is_sound(&self, volume: usize, members: &[usize]) -> bool {
        let is_apart = |of: &usize| self.is_cut(volume, Place::Volume(*of));
        self.is_present(volume) && !members.iter().any(is_apart)
    }

    fn is_cut(&self, volume: usize, other: Place) -> bool {
        let me = Place::Volume(volume);
        let cut = |from, to| self.network.is_cut(from, to, self.now_us);
        cut(me, other) || cut(other, me)
    }

    fn is_present(&self, volume: usize) -> bool {
        self.nodes[volume].is_up()
            && self.stands_until[volume] <= self.now_us
            && !self.is_cut(volume, Place::Master)
            && self.is_served(volume)
    }

    /// After how many effects the process is killed in this step, if it is.
    pub(crate) fn kill_in(&mut self, volume: usize) -> Option<u64> {
        if self.faults.is_over {
            return None;
        }
        let is_merging = self.nodes[volume].merging.is_busy() && !self.faults.spares;
        if is_merging && self.rng.permille(300) {
            return Some(self.rng.below(3));
        }
        let is_due = self.rng.permille(self.faults.kills);
        (is_due && self.may_harm(volume)).then(|| self.rng.below(3))
    }

    pub(crate) fn is_doomed(&self, volume: usize) -> bool {
        !self.faults.is_over && self.faults.doomed.contains(&volume)
    }

    pub(crate) fn kill(&mut self, volume: usize) {
        self.faults.doomed.remove(&volume);
        if !self.nodes[volume].is_up() {
            return;
        }
        self.counts.hit("volumes killed");
        trace(self.now_us, &Place::Volume(volume), &"killed");
        self.with_dying(volume);
        let delay_us = self.rng.between(20_000, 4_000_000);
        self.schedule(delay_us, Event::VolumeStart { volume });
    }

    fn cut_a_chunk(&mut self, volume: usize) {
        let chunk = ChunkId {
            data: DataId(1 + self.rng.below(FILES)),
            index: 0,
        };
        let len = self.rng.below(CELLS as u64) as u32;
        if self.nodes[volume].is_up() {
            self.with_node(volume, None, |node, scene| node.cut(scene, (chunk, len)));
        }
    }

    /// The machine restarts; where nothing is to be lost, unless another one has just done so.
    fn lose_ram(&mut self, volume: usize) {
        let mut nodes = self.nodes.iter();
        let is_known = nodes.all(|node| node.store() == self.master.store_of(node.index));
        let has_copies = is_known && self.master.may_lose_ram(volume);
        if self.nodes[volume].is_up() && (has_copies || self.faults.loses) {
            self.counts.hit("machines that have lost their RAM");
            self.kill(volume);
            self.nodes[volume].lose_ram();
        }
    }

    /// All at about the same time.
    fn kill_a_chain(&mut self) {
        let chains = &self.master.table().chains;
        let row = &chains[self.rng.below(chains.len() as u64) as usize];
        for volume in members(row) {
            match self.rng.below(5) {
                0 => {}
                1..=3 => drop(self.faults.doomed.insert(volume)),
                _ => self.kill(volume),
            }
        }
    }

    /// As one does that has found a damaged chunk, where another one serves.
    fn leave_a_chain(&mut self, volume: usize) {
        if !self.nodes[volume].is_up() {
            return;
        }
        let core = self.nodes[volume].core();
        let chains = core.membership().table().chains.iter().enumerate();
        let places = chains.filter_map(|(index, row)| {
            let chain = ChainId(index as u32);
            let place = core.place(chain)?;
            let may_leave = place.serves && place.is_active && members(row).len() > 1;
            may_leave.then_some((chain, place.epoch))
        });
        let places: Vec<(ChainId, Epoch)> = places.collect();
        if places.is_empty() {
            return;
        }
        let (chain, epoch) = *self.rng.pick(&places);
        self.counts.hit("chains left for damage");
        self.with_node(volume, None, |node, scene| {
            node.take(scene, CoreInput::Leave { chain, epoch })
        });
    }

    fn with_dying(&mut self, volume: usize) {
        if self.nodes[volume].kill() {
            self.counts.hit("killed with changes under way");
        }
    }

    fn stand_still(&mut self, volume: usize) {
        self.counts.hit("volumes that stood still");
        let for_us = match self.rng.below(2) {
            0 => self.rng.below(400_000),
            _ => self.rng.between(LEASE_US, 5_000_000),
        };
        if for_us > LEASE_US {
            self.counts
                .hit("volumes that stood still beyond their lease");
        }
        let until_us = self.stands_until[volume].max(self.now_us + for_us);
        self.stands_until[volume] = until_us;
        trace(
            self.now_us,
            &Place::Volume(volume),
            &("stands still", for_us),
        );
    }

    fn cut_from_master(&mut self, volume: usize) {
        self.cut(Place::Volume(volume), Place::Master);
    }

    fn cut_from_another(&mut self, volume: usize) {
        let other = self.rng.below(VOLUMES as u64) as usize;
        let both = [volume, other];
        if volume != other && both.iter().all(|of| self.may_harm(*of)) {
            self.cut(Place::Volume(volume), Place::Volume(other));
        }
    }

    fn cut_from_client(&mut self, volume: usize) {
        let client = self.rng.below(self.clients.len() as u64) as usize;
        let other = match self.rng.permille(300) {
            true => Place::Master,
            false => Place::Volume(volume),
        };
        self.cut(other, Place::Client(client));
    }

    fn cut(&mut self, one: Place, other: Place) {
        let until_us = self.now_us + self.rng.between(50_000, 5_000_000);
        let way = self.rng.below(3);
        trace(self.now_us, &(one, other), &("cut", way, until_us));
        match way {
            0 => self.counts.hit("links cut both ways"),
            _ => self.counts.hit("links cut one way"),
        }
        if way != 1 {
            self.network.cut(one, other, until_us);
        }
        if way != 2 {
            self.network.cut(other, one, until_us);
        }
    }

    fn trouble_master(&mut self) {
        match self.rng.below(4) {
            0 => {
                self.counts.hit("masters that stood still");
                let for_us = self.rng.between(100_000, 5_000_000);
                self.stands_until[MASTER] = self.now_us + for_us;
                trace(self.now_us, &Place::Master, &("stands still", for_us));
            }
            1 => self.master.disk_us = *self.rng.pick(&[5_000, 100_000, 3_000_000]),
            _ => self.kill_master(),
        }
    }

    fn kill_master(&mut self) {
        if self.master.is_up() {
            self.with_office(|master, office| master.kill(office));
            let delay_us = self.rng.between(10_000, 4_000_000);
            self.schedule(delay_us, Event::MasterStart);
        }
    }

    fn fill(&mut self, volume: usize) {
        self.counts.hit("volumes full");
        self.nodes[volume].shelf.is_full = true;
        let delay_us = self.rng.below(1_500_000);
        self.schedule(delay_us, Event::SpaceReturns { volume });
    }

    /// Another one comes in its place at once, or when its session has ended by itself.
    fn kill_client(&mut self) {
        self.counts.hit("clients killed");
        let client = self.rng.below(self.clients.len() as u64) as usize;
        let delay_us = match self.rng.permille(300) {
            true => SESSION_LEASE_MS * 1000 + self.rng.below(5_000_000),
            false => 0,
        };
        self.clients[client].begin_anew();
        let life = self.clients[client].life;
        self.schedule(delay_us, Event::ClientStart { client, life });
    }
}

fn members(row: &Chain) -> Vec<usize> {
    row.serving().map(|of| Node::index_of(of.volume)).collect()
}
