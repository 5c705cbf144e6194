//! The slab of inodes: small shared pages on shared shelves, so that an image is a clone of some
//! hundred pointers, however many inodes there are.
//!
//! Invariants: every page but the last and every shelf but the last is full; slot 0 is never used
//! and slot 1 is the root; a free slot is in the free list, which is first in, first out, or retired;
//! `used` counts live inodes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vdfs_proto::{Ino, Status};

use super::cow::unshare;
use super::inode::Inode;
use super::limits::FREE_SLOTS_RESTING;
use super::weight::{ARC_BYTES, heap_bytes};

const PAGE_INODES: usize = 64;
const SHELF_PAGES: usize = 512;
const SHELF_INODES: usize = SHELF_PAGES * PAGE_INODES;

type Page = Arc<Vec<Inode>>;
type Shelf = Arc<Vec<Page>>;

#[derive(Clone, Debug)]
pub(crate) struct Inodes {
    shelves: Vec<Shelf>,
    pub(crate) counters: Counters,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Slots that were ever used, with slot 0.
    pub(crate) slots: u32,
    pub(crate) used: u64,
    pub(crate) free_head: Option<u32>,
    pub(crate) free_tail: Option<u32>,
    pub(crate) free_count: u64,
    /// New inodes get at least this generation.
    pub(crate) generation_floor: u32,
}

impl Inodes {
    pub(crate) fn new() -> Self {
        let counters = Counters {
            slots: 0,
            used: 0,
            free_head: None,
            free_tail: None,
            free_count: 0,
            generation_floor: 0,
        };
        let mut inodes = Inodes {
            shelves: Vec::new(),
            counters,
        };
        inodes.push_slot(Inode::retired(0));
        inodes
    }

    /// The start of a restore: slots follow in order.
    pub(crate) fn restoring(counters: Counters) -> Self {
        Inodes {
            shelves: Vec::new(),
            counters,
        }
    }

    /// Adds the next slot of a checkpoint.
    pub(crate) fn restore_slot(&mut self, inode: Inode) {
        push_into(&mut self.shelves, inode);
    }

    /// All slots of the counters are there.
    pub(crate) fn is_complete(&self) -> bool {
        self.restored() == self.counters.slots as usize
    }

    pub(crate) fn get(&self, ino: Ino) -> Result<&Inode, Status> {
        let slot = usize::try_from(ino.slot()).map_err(|_| Status::StaleInode)?;
        let inode = self.slot(slot).ok_or(Status::StaleInode)?;
        match inode.is_live() && inode.generation == ino.generation() {
            true => Ok(inode),
            false => Err(Status::StaleInode),
        }
    }

    /// Panics if there is no such inode.
    pub(crate) fn get_mut(&mut self, ino: Ino) -> &mut Inode {
        let inode = self.slot_mut(ino.slot() as u32);
        assert!(
            inode.is_live() && inode.generation == ino.generation(),
            "{ino} is not live"
        );
        inode
    }

    /// The inode that [`Inodes::occupy`] takes next; `None` if slots are used up.
    pub(crate) fn next_ino(&self) -> Option<Ino> {
        let counters = &self.counters;
        let reuse = counters.free_count > FREE_SLOTS_RESTING || counters.slots == u32::MAX;
        if !reuse {
            return Some(Ino::new(
                u64::from(counters.slots),
                counters.generation_floor,
            ));
        }
        let slot = counters.free_head?;
        let last = self.slot(slot as usize)?.generation;
        let generation = (last + 1).max(counters.generation_floor);
        Some(Ino::new(u64::from(slot), generation))
    }

    /// Panics unless `ino` is what `next_ino` gives.
    pub(crate) fn occupy(&mut self, ino: Ino, mut inode: Inode) {
        assert_eq!(self.next_ino(), Some(ino), "inodes are taken in order");
        assert!(inode.is_live(), "an inode has a body");
        inode.generation = ino.generation();
        let slot = ino.slot() as u32;
        if slot == self.counters.slots {
            self.push_slot(inode);
        } else {
            self.pop_free(slot);
            *self.slot_mut(slot) = inode;
        }
        self.counters.used += 1;
    }

    /// Gives the inode back that was there.
    pub(crate) fn vacate(&mut self, ino: Ino) -> Inode {
        assert_ne!(ino, Ino::ROOT, "the root stays");
        let generation = ino.generation();
        let retires = generation == Ino::GENERATION_MAX;
        let idle = match retires {
            true => Inode::retired(generation),
            false => Inode::free(generation, None),
        };
        let inode = std::mem::replace(self.get_mut(ino), idle);
        self.counters.used -= 1;
        if !retires {
            self.push_free(ino.slot() as u32);
        }
        inode
    }

    pub(crate) fn raise_generation_floor(&mut self, by: u32) {
        let floor = &mut self.counters.generation_floor;
        // Half of all generations stay for reuse, however often the machine reboots.
        *floor = (*floor + by).min(Ino::GENERATION_MAX / 2);
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = &Inode> {
        self.slots_from(0).map(|(_, inode)| inode)
    }

    /// Slot `from` and those behind it, each with its number.
    pub(crate) fn slots_from(&self, from: usize) -> impl Iterator<Item = (usize, &Inode)> {
        let shelves = self.shelves.iter().skip(from / SHELF_INODES);
        let pages = shelves.flat_map(|shelf| shelf.iter());
        let pages = pages.skip(from % SHELF_INODES / PAGE_INODES);
        let inodes = pages.flat_map(|page| page.iter()).skip(from % PAGE_INODES);
        (from..).zip(inodes)
    }

    /// Live inodes in slot order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ino, &Inode)> {
        self.slots().enumerate().filter_map(|(slot, inode)| {
            let ino = Ino::new(slot as u64, inode.generation);
            inode.is_live().then_some((ino, inode))
        })
    }

    /// Slots of the free list in order.
    pub(crate) fn free_slots(&self) -> impl Iterator<Item = u32> {
        std::iter::successors(self.counters.free_head, |slot| self.next_free(*slot))
    }

    /// What the slab takes of the heap, but for what inodes point to.
    pub(crate) fn bytes(&self) -> u64 {
        let page_bytes =
            ARC_BYTES + heap_bytes(PAGE_INODES * size_of::<Inode>()) + size_of::<Page>() as u64;
        u64::from(self.counters.slots).div_ceil(PAGE_INODES as u64) * page_bytes
    }

    /// Slots that there are, during a restore.
    pub(crate) fn restored(&self) -> usize {
        let full = self.shelves.len().saturating_sub(1) * SHELF_INODES;
        let last = self.shelves.last().map_or(0, |shelf| {
            let pages = shelf.len().saturating_sub(1) * PAGE_INODES;
            pages + shelf.last().map_or(0, |page| page.len())
        });
        full + last
    }

    fn slot(&self, slot: usize) -> Option<&Inode> {
        let shelf = self.shelves.get(slot / SHELF_INODES)?;
        let page = shelf.get(slot % SHELF_INODES / PAGE_INODES)?;
        page.get(slot % PAGE_INODES)
    }

    fn slot_mut(&mut self, slot: u32) -> &mut Inode {
        let slot = slot as usize;
        let shelf = unshare(&mut self.shelves[slot / SHELF_INODES]);
        let page = unshare(&mut shelf[slot % SHELF_INODES / PAGE_INODES]);
        &mut page[slot % PAGE_INODES]
    }

    fn push_slot(&mut self, inode: Inode) {
        push_into(&mut self.shelves, inode);
        self.counters.slots += 1;
    }

    fn next_free(&self, slot: u32) -> Option<u32> {
        match self.slot(slot as usize)?.body {
            super::inode::Body::Free { next } => next,
            _ => None,
        }
    }

    fn pop_free(&mut self, slot: u32) {
        assert_eq!(self.counters.free_head, Some(slot), "first in, first out");
        self.counters.free_head = self.next_free(slot);
        self.counters.free_count -= 1;
        if self.counters.free_head.is_none() {
            self.counters.free_tail = None;
        }
    }

    fn push_free(&mut self, slot: u32) {
        match self.counters.free_tail.replace(slot) {
            Some(tail) => {
                self.slot_mut(tail).body = super::inode::Body::Free { next: Some(slot) };
            }
            None => self.counters.free_head = Some(slot),
        }
        self.counters.free_count += 1;
    }
}

fn push_into(shelves: &mut Vec<Shelf>, inode: Inode) {
    let full =
        |shelf: &Shelf| shelf.len() == SHELF_PAGES && shelf[SHELF_PAGES - 1].len() == PAGE_INODES;
    if shelves.last().is_none_or(full) {
        shelves.push(Arc::default());
    }
    let shelf = unshare(shelves.last_mut().expect("pushed if there was none"));
    match shelf.last_mut() {
        Some(page) if page.len() < PAGE_INODES => unshare(page).push(inode),
        _ => {
            let mut page = Vec::with_capacity(PAGE_INODES);
            page.push(inode);
            shelf.push(Arc::new(page));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::inode::Body;
    use vdfs_proto::FileKind;

    fn some_inode() -> Inode {
        let mut inode = Inode::free(0, None);
        inode.body = Body::Special {
            kind: FileKind::Fifo,
            rdev: 0,
        };
        inode
    }

    fn occupy(inodes: &mut Inodes) -> Ino {
        let ino = inodes.next_ino().expect("has room");
        inodes.occupy(ino, some_inode());
        ino
    }

    #[test]
    fn inodes_reuse_slots_first_in_first_out_with_a_new_generation() {
        let mut inodes = Inodes::new();
        assert_eq!(occupy(&mut inodes), Ino::ROOT);
        let taken: Vec<Ino> = (0..FREE_SLOTS_RESTING + 1)
            .map(|_| occupy(&mut inodes))
            .collect();
        for ino in &taken {
            inodes.vacate(*ino);
        }
        let again = occupy(&mut inodes);
        assert_eq!((again.slot(), again.generation()), (taken[0].slot(), 1));
        assert!(inodes.get(taken[0]).is_err());
    }

    #[test]
    fn slots_from_gives_the_rest_of_the_slots() {
        let mut inodes = Inodes::new();
        for _ in 0..3 * PAGE_INODES {
            occupy(&mut inodes);
        }
        for from in [0, 1, PAGE_INODES - 1, PAGE_INODES, 2 * PAGE_INODES + 7] {
            let numbers = inodes.slots_from(from).map(|(slot, _)| slot);
            assert!(numbers.eq(from..=3 * PAGE_INODES), "from {from}");
        }
    }

    #[test]
    fn inodes_retire_a_slot_whose_generations_are_used_up() {
        let mut inodes = Inodes::new();
        occupy(&mut inodes);
        let ino = occupy(&mut inodes);
        inodes.get_mut(ino).generation = Ino::GENERATION_MAX;
        inodes.vacate(Ino::new(ino.slot(), Ino::GENERATION_MAX));
        assert_eq!(inodes.counters.free_count, 0);
    }
}
