//! Locks, unit by unit.

use std::collections::BTreeMap;

use vdfs_proto::meta::{Lock, Mutated, Unlock};
use vdfs_proto::{Ino, LockKind, LockOwner, LockRange, SessionId, Status};

use super::Model;

/// Bytes of a file that are ever locked, but for whole files: what lies behind stands for the rest.
pub(in super::super) const LOCKABLE: u64 = 7;

/// What an owner holds of each byte, and of the rest.
pub(in super::super) type Units = [Option<LockKind>; LOCKABLE as usize + 1];

pub(super) type Locks = BTreeMap<(SessionId, LockOwner), Units>;

fn units(range: LockRange) -> std::ops::RangeInclusive<usize> {
    let unit = |byte: u64| byte.min(LOCKABLE) as usize;
    unit(range.first())..=unit(range.last())
}

impl Model {
    pub(super) fn lock(&mut self, by: SessionId, lock: &Lock) -> Result<Mutated, Status> {
        self.file(lock.ino)?;
        let (range, kind) = (units(lock.lock.range), lock.lock.kind);
        let holder = (by, lock.lock.owner);
        let locks = &mut self.node_mut(lock.ino).locks;
        let others = locks.iter().filter(|(other, _)| **other != holder);
        let mut held = others.flat_map(|(_, units)| units[range.clone()].iter().flatten());
        if held.any(|held| *held == LockKind::Write || kind == LockKind::Write) {
            return Err(Status::WouldBlock);
        }
        locks.entry(holder).or_default()[range].fill(Some(kind));
        Ok(Mutated::Lock(self.attr(lock.ino)?))
    }

    pub(super) fn unlock(&mut self, by: SessionId, unlock: &Unlock) -> Result<Mutated, Status> {
        self.file(unlock.ino)?;
        let locks = &mut self.node_mut(unlock.ino).locks;
        if let Some(held) = locks.get_mut(&(by, unlock.owner)) {
            held[units(unlock.range)].fill(None);
        }
        locks.retain(|_, units| units.iter().any(Option::is_some));
        Ok(Mutated::Unlock(()))
    }

    pub(super) fn end_locks(&mut self, of: SessionId) {
        for node in self.nodes.values_mut() {
            node.locks.retain(|(session, _), _| *session != of);
        }
    }

    /// By client.
    pub(super) fn locks_of(&self, ino: Ino) -> BTreeMap<(usize, LockOwner), Units> {
        let client = |session: SessionId| {
            let mut clients = self.clients.iter();
            clients.position(|client| *client == Some(session))
        };
        let locks = self.nodes[&ino].locks.iter();
        let named = locks.map(|((session, owner), units)| {
            let by = client(*session).expect("a live session's");
            ((by, *owner), *units)
        });
        named.collect()
    }
}
