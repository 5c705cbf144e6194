//! Data ids that were reaped lately: they answer `Gone`, never a hole.
//!
//! A ring of bounded size, in RAM beside the chunks. It serves requests that were under way when
//! the id was reaped; the master reaps an id only when no live session can ask for it.
//!
//! | bytes of a record | field |
//! |---|---|
//! | 0..8 | data id |
//! | 8..12 | CRC32C of bytes 0..8 |
//! | 12..16 | 0 |

use std::collections::HashSet;

use parking_lot::RwLock;
use vdfs_proto::DataId;
use vdfs_proto::sums::crc32c;

use super::table::Table;

pub(super) const REAPED_BYTES: usize = 16;

#[derive(Debug)]
pub(super) struct Reaped {
    table: Table,
    ring: RwLock<Ring>,
}

#[derive(Debug)]
struct Ring {
    ids: HashSet<DataId>,
    places: Vec<Option<DataId>>,
    next: usize,
}

impl Reaped {
    /// Reads a table whose size is fixed.
    pub(super) fn load(table: Table) -> Self {
        let mut places = vec![None; table.capacity() as usize];
        assert!(!places.is_empty(), "made with room");
        table.scan(|place, wire| places[place as usize] = decode(wire));
        let ids = places.iter().flatten().copied().collect();
        // Once the ring is full its order is lost with the process; any place will do.
        let next = places.iter().position(Option::is_none).unwrap_or(0);
        let ring = Ring { ids, places, next };
        Reaped {
            table,
            ring: RwLock::new(ring),
        }
    }

    pub(super) fn contains(&self, id: DataId) -> bool {
        self.ring.read().ids.contains(&id)
    }

    /// Remembers `id`, in the place of one of the oldest.
    pub(super) fn insert(&self, id: DataId) {
        let mut ring = self.ring.write();
        if !ring.ids.insert(id) {
            return;
        }
        let place = ring.next;
        ring.next = (place + 1) % ring.places.len();
        if let Some(oldest) = ring.places[place].replace(id) {
            ring.ids.remove(&oldest);
        }
        self.table.write(place as u32, &encode(id));
    }
}

fn encode(id: DataId) -> [u8; REAPED_BYTES] {
    let mut wire = [0; REAPED_BYTES];
    wire[0..8].copy_from_slice(&id.0.to_le_bytes());
    let crc = crc32c(&wire[..8]);
    wire[8..12].copy_from_slice(&crc.to_le_bytes());
    wire
}

fn decode(wire: &[u8]) -> Option<DataId> {
    let id = u64::from_le_bytes(wire[0..8].try_into().expect("8 bytes"));
    (crc32c(&wire[..8]).to_le_bytes() == wire[8..12]).then_some(DataId(id))
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;

    fn reaped(file: &std::fs::File) -> Reaped {
        let budget = Budget::new(64 << 20);
        let file = file.try_clone().expect("cloned");
        let table = Table::open(file, REAPED_BYTES as u64, &budget).expect("opened");
        table.preallocate(256, &budget).expect("room");
        Reaped::load(table)
    }

    #[test]
    fn reaped_ids_are_known_after_a_restart_and_the_oldest_are_forgotten() {
        let file = tempfile::tempfile_in("/dev/shm").expect("tmpfs");
        let before = reaped(&file);
        for id in 1..=300 {
            before.insert(DataId(id));
        }
        drop(before);
        let after = reaped(&file);
        assert!(!after.contains(DataId(44)) && after.contains(DataId(45)));
        assert!(after.contains(DataId(300)) && !after.contains(DataId(0)));
    }
}
