//! One name, the inodes it has stood for, and the handles that are open.

use std::collections::BTreeMap;

use super::object::Object;
use super::step::{Access, Op, Span};
use crate::pattern;

/// Open handles of one file at most.
pub(super) const SLOTS: usize = 6;

/// What the model says nothing about, or what cannot be done at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// There is no such handle, name or range, or the place for it is taken.
    Missing,
    /// This mount has changes that are not out.
    Pending(usize),
    /// There may be changes that this mount has not seen.
    Hidden(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectId(u64);

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) mount: usize,
    pub(super) object: ObjectId,
    pub(super) access: Access,
    /// No other mount can have had the file open for writing when this was opened.
    came_first: bool,
}

impl Slot {
    /// A shared mapping of it must not be refused.
    pub(super) fn must_map(self) -> bool {
        self.came_first && self.access != Access::Append
    }
}

#[derive(Clone, Debug)]
pub(super) struct FileModel {
    mounts: usize,
    named: Option<ObjectId>,
    objects: BTreeMap<ObjectId, Object>,
    objects_made: u64,
    slots: [Option<Slot>; SLOTS],
}

/// The bytes that step `number` writes at `at`.
pub(super) fn bytes_of(number: u64, span: Span) -> Vec<u8> {
    pattern::bytes(number, span.at, span.len as usize)
}

/// Whether an operation on one of the files may be done.
pub(super) fn check(models: &[FileModel], file: usize, op: &Op) -> Result<(), Obstacle> {
    models[file].check(op)?;
    let Op::Copy { slot, at, source } = *op else {
        return Ok(());
    };
    let target = models[file].open_slot(slot)?;
    let from = models.get(source.file).ok_or(Obstacle::Missing)?;
    let taken = from.check_source(source.slot, target.mount)?;
    let is_same = source.file == file && taken.object == target.object;
    let is_apart = source.span.at.abs_diff(at) >= source.span.len;
    let is_within = source.span.end() <= from.object(taken.object).size();
    match is_within && (is_apart || !is_same) {
        true => Ok(()),
        false => Err(Obstacle::Missing),
    }
}

impl FileModel {
    pub(super) fn new(mounts: usize) -> FileModel {
        FileModel {
            mounts,
            named: None,
            objects: BTreeMap::new(),
            objects_made: 0,
            slots: [None; SLOTS],
        }
    }

    pub(super) fn slot(&self, slot: usize) -> Option<Slot> {
        self.slots.get(slot).copied().flatten()
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = (usize, Slot)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(at, slot)| slot.map(|slot| (at, slot)))
    }

    /// Panics if there is no such object.
    pub(super) fn object(&self, id: ObjectId) -> &Object {
        self.objects.get(&id).expect("a slot or the name has it")
    }

    /// What the name stands for.
    pub(super) fn named(&self) -> Option<&Object> {
        self.named.map(|id| self.object(id))
    }

    pub(super) fn is_named(&self, id: ObjectId) -> bool {
        self.named == Some(id)
    }

    pub(super) fn history_bytes(&self) -> usize {
        self.objects.values().map(Object::history_bytes).sum()
    }

    /// A handle whose `fsync` gets out what `mount` has changed.
    pub(super) fn syncing_slot(&self, mount: usize) -> Option<usize> {
        let pending = |object| self.object(object).is_pending(mount);
        let mut slots = self.slots();
        let found = slots.find(|(_, slot)| slot.mount == mount && pending(slot.object));
        found.map(|(at, _)| at)
    }

    // What may be done.

    pub(super) fn check(&self, op: &Op) -> Result<(), Obstacle> {
        match *op {
            Op::Open { slot, .. } => match self.slot(slot) {
                None if slot < SLOTS => Ok(()),
                _ => Err(Obstacle::Missing),
            },
            Op::Stat { .. } | Op::Unlink { .. } | Op::Check { .. } | Op::ResizeByName { .. } => {
                self.named.map(|_| ()).ok_or(Obstacle::Missing)
            }
            Op::Replace { .. } => Ok(()),
            Op::Write { slot, span } => self.check_write(self.writing_slot(slot)?, span),
            Op::Resize { slot, .. } => self.writing_slot(slot).map(|_| ()),
            Op::Allocate { slot, .. } => {
                let slot = self.writing_slot(slot)?;
                self.check_growth(slot.mount, self.object(slot.object))
            }
            Op::Punch { slot, .. } | Op::Zero { slot, .. } => self.check_space(slot),
            Op::Copy { slot, at, source } => {
                let slot = self.writing_slot(slot)?;
                if slot.access == Access::Append {
                    return Err(Obstacle::Missing);
                }
                let len = source.span.len;
                self.check_write(slot, Span { at, len })
            }
            Op::SeekAll { slot } => {
                let slot = self.open_slot(slot)?;
                self.check_whole(slot)
            }
            Op::MapRead { slot, span, .. } => self.check_map(self.open_slot(slot)?, span),
            Op::MapWrite { slot, span, sync } => {
                let slot = self.writing_slot(slot)?;
                if !sync && self.mounts > 1 {
                    return Err(Obstacle::Missing);
                }
                self.check_map(slot, span)
            }
            Op::Close { slot }
            | Op::Read { slot, .. }
            | Op::Sync { slot, .. }
            | Op::Forget { slot }
            | Op::StatOpen { slot } => self.open_slot(slot).map(|_| ()),
        }
    }

    /// Whether all is out that a copy from the slot, on `mount`, takes.
    pub(super) fn check_source(&self, slot: usize, mount: usize) -> Result<Slot, Obstacle> {
        let slot = self.open_slot(slot)?;
        if slot.mount != mount {
            return Err(Obstacle::Missing);
        }
        self.check_whole(slot).map(|()| slot)
    }

    /// A change of space goes by the true end, and touches what it covers.
    fn check_space(&self, slot: usize) -> Result<(), Obstacle> {
        self.check_whole(self.writing_slot(slot)?)
    }

    /// No other mount has changes that are not out.
    fn check_whole(&self, slot: Slot) -> Result<(), Obstacle> {
        match self.object(slot.object).pending_other(slot.mount) {
            Some(author) => Err(Obstacle::Pending(author)),
            None => Ok(()),
        }
    }

    fn open_slot(&self, slot: usize) -> Result<Slot, Obstacle> {
        self.slot(slot).ok_or(Obstacle::Missing)
    }

    fn writing_slot(&self, slot: usize) -> Result<Slot, Obstacle> {
        let slot = self.open_slot(slot)?;
        slot.access
            .writes()
            .then_some(slot)
            .ok_or(Obstacle::Missing)
    }

    fn check_write(&self, slot: Slot, span: Span) -> Result<(), Obstacle> {
        let object = self.object(slot.object);
        if slot.access == Access::Append || span.end() > object.size() {
            self.check_growth(slot.mount, object)?;
        }
        match object.others_write(slot.mount, span) {
            true => Err(pending(object, slot.mount)),
            false => Ok(()),
        }
    }

    fn check_growth(&self, mount: usize, object: &Object) -> Result<(), Obstacle> {
        match object.others_resize(mount) {
            true => Err(pending(object, mount)),
            false => Ok(()),
        }
    }

    /// A page is written back whole, so what is mapped must be up to date.
    fn check_map(&self, slot: Slot, span: Span) -> Result<(), Obstacle> {
        let object = self.object(slot.object);
        if span.end() > object.size() {
            return Err(Obstacle::Missing);
        }
        if let Some(author) = object.pending_other(slot.mount) {
            return Err(Obstacle::Pending(author));
        }
        match object.is_hidden_from(slot.mount) {
            true => Err(Obstacle::Hidden(slot.mount)),
            false => Ok(()),
        }
    }

    // What it does. Each may be done as `check` says.

    pub(super) fn apply(&mut self, number: u64, op: &Op) {
        match *op {
            Op::Open {
                slot,
                mount,
                access,
                truncate,
            } => self.open(slot, mount, access, truncate),
            Op::Close { slot } => self.close(slot),
            Op::Write { slot, span } => self.write(number, slot, span),
            Op::Resize { slot, size } => {
                let mount = self.taken(slot).mount;
                self.object_mut(slot).resize(mount, size);
            }
            Op::ResizeByName { mount, size } => self.named_mut().resize(mount, size),
            Op::Allocate {
                slot,
                span,
                keep_size,
            } => {
                let mount = self.taken(slot).mount;
                if !keep_size {
                    self.object_mut(slot).allocate(mount, span.end());
                }
            }
            Op::Punch { slot, span } => self.punch(slot, span),
            Op::Zero {
                slot,
                span,
                keep_size,
            } => match keep_size {
                true => self.punch(slot, span),
                false => {
                    let zeros = vec![0; span.len as usize];
                    self.write_through(slot, span.at, &zeros);
                }
            },
            Op::Sync { slot, .. } => {
                let mount = self.taken(slot).mount;
                self.object_mut(slot).get_out(mount);
            }
            Op::MapWrite { slot, span, sync } => {
                let mount = self.taken(slot).mount;
                let object = self.object_mut(slot);
                object.write(mount, span.at, &bytes_of(number, span), false);
                if sync {
                    object.get_out(mount);
                }
            }
            Op::Unlink { .. } => {
                self.named = None;
                self.drop_unused();
            }
            Op::Replace { mount, len } => {
                let bytes = bytes_of(number, Span { at: 0, len });
                let mut object = Object::new(self.mounts, bytes);
                object.note_writer(mount);
                self.named = Some(self.add(object));
                self.drop_unused();
            }
            Op::Check { mount } => self.named_mut().open(mount),
            Op::Copy { .. } => unreachable!("its bytes are of another model"),
            Op::Read { .. }
            | Op::SeekAll { .. }
            | Op::Forget { .. }
            | Op::MapRead { .. }
            | Op::StatOpen { .. }
            | Op::Stat { .. } => {}
        }
    }

    fn open(&mut self, slot: usize, mount: usize, access: Access, truncate: bool) {
        let object = match self.named {
            Some(object) => object,
            None => self.add(Object::new(self.mounts, Vec::new())),
        };
        self.named = Some(object);
        if truncate {
            self.named_mut().resize(mount, 0);
        }
        let came_first = self.comes_first(object, mount);
        self.named_mut().open(mount);
        if access.writes() {
            self.named_mut().note_writer(mount);
        }
        self.slots[slot] = Some(Slot {
            mount,
            object,
            access,
            came_first,
        });
    }

    /// The kernel reports a close some time after `close(2)`, so a writer of earlier counts, too.
    fn comes_first(&self, object: ObjectId, mount: usize) -> bool {
        let keeps = |slot: Slot| {
            (slot.mount, slot.object) == (mount, object) && slot.access.writes() && slot.came_first
        };
        !self.object(object).has_had_other_writer(mount)
            || self.slots().any(|(_, slot)| keeps(slot))
    }

    fn close(&mut self, slot: usize) {
        let closed = self.taken(slot);
        if closed.access.writes() {
            self.object_mut(slot).get_out(closed.mount);
        }
        self.slots[slot] = None;
        self.drop_unused();
    }

    fn write(&mut self, number: u64, slot: usize, span: Span) {
        let Slot { mount, access, .. } = self.taken(slot);
        let object = self.object_mut(slot);
        let at = match access {
            Access::Append => object.size(),
            _ => span.at,
        };
        let bytes = bytes_of(number, span);
        object.write(mount, at, &bytes, access.writes_through());
    }

    fn punch(&mut self, slot: usize, span: Span) {
        let mount = self.taken(slot).mount;
        self.object_mut(slot).punch(mount, span);
    }

    /// Bytes that are out when the call has returned.
    pub(super) fn write_through(&mut self, slot: usize, at: u64, bytes: &[u8]) {
        let mount = self.taken(slot).mount;
        self.object_mut(slot).write(mount, at, bytes, true);
    }

    fn add(&mut self, object: Object) -> ObjectId {
        self.objects_made += 1;
        let id = ObjectId(self.objects_made);
        self.objects.insert(id, object);
        id
    }

    fn drop_unused(&mut self) {
        let mut used: Vec<_> = self.slots().map(|(_, slot)| slot.object).collect();
        used.extend(self.named);
        self.objects.retain(|id, _| used.contains(id));
    }

    fn taken(&self, slot: usize) -> Slot {
        self.slot(slot).expect("checked before")
    }

    fn object_mut(&mut self, slot: usize) -> &mut Object {
        let id = self.taken(slot).object;
        self.objects.get_mut(&id).expect("a slot has it")
    }

    fn named_mut(&mut self) -> &mut Object {
        let id = self.named.expect("checked before");
        self.objects.get_mut(&id).expect("the name has it")
    }
}

/// Who has to get changes out before `mount` can go on.
fn pending(object: &Object, mount: usize) -> Obstacle {
    let author = object.pending_other(mount);
    Obstacle::Pending(author.expect("something of another mount is in the way"))
}
