//! A file of equal records, allocated one by one.
//!
//! The file grows by `fallocate` before a new record is touched, so a write to an allocated record
//! never meets a full tmpfs. Growth is charged to the budget and never given back: a table is as
//! large as it was at the busiest moment.
//!
//! Records are read and written by calls, not through a mapping: a load from a hole of a mapped
//! file on a full tmpfs would be a SIGBUS. Sizes divide a page, so that one record is one copy in
//! the kernel and a killed process leaves it old or new.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use parking_lot::Mutex;

use super::budget::{Budget, NoSpace};
use super::memory;

const PAGE_BYTES: u64 = 4096;
/// Growth at a time, in bytes: a multiple of the page.
const GROWTH_BYTES: u64 = 8 * PAGE_BYTES;

#[derive(Debug)]
pub(super) struct Table {
    file: File,
    record_bytes: u64,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    /// Returned places; the last is given out first.
    free: Vec<u32>,
    /// Places from here on were never given out.
    next: u32,
    /// Places that the file has room for.
    capacity: u32,
}

impl Table {
    /// Takes over a file; what it has is charged. Nothing is allocated until [`Table::occupy`].
    pub(super) fn open(file: File, record_bytes: u64, budget: &Budget) -> io::Result<Self> {
        assert_eq!(
            PAGE_BYTES % record_bytes,
            0,
            "a record never crosses a page"
        );
        let bytes = file.metadata()?.len().next_multiple_of(PAGE_BYTES);
        allocate(&file, 0, bytes)?;
        budget.charge(bytes);
        let places = Places {
            capacity: (bytes / record_bytes) as u32,
            ..Places::default()
        };
        Ok(Table {
            file,
            record_bytes,
            places: Mutex::new(places),
        })
    }

    /// Places that the file has room for.
    pub(super) fn capacity(&self) -> u32 {
        self.places.lock().capacity
    }

    /// Makes room for `capacity` places, whatever the budget: for tables of fixed size.
    pub(super) fn preallocate(&self, capacity: u32, budget: &Budget) -> io::Result<()> {
        let mut places = self.places.lock();
        let present = u64::from(places.capacity) * self.record_bytes;
        let wanted = (u64::from(capacity) * self.record_bytes).next_multiple_of(PAGE_BYTES);
        if wanted > present {
            allocate(&self.file, present, wanted - present)?;
            budget.charge(wanted - present);
            places.capacity = (wanted / self.record_bytes) as u32;
        }
        Ok(())
    }

    /// Says which places hold records; all others may be given out. Called once, after the file was
    /// scanned. `used` ascends.
    pub(super) fn occupy(&self, used: impl Iterator<Item = u32>) {
        let mut places = self.places.lock();
        assert_eq!(places.next, 0, "called once");
        let mut next = 0;
        for place in used {
            assert!(place >= next && place < places.capacity, "ascending");
            places.free.extend(next..place);
            next = place + 1;
        }
        places.next = next;
        places.free.reverse();
    }

    /// Gives `count` places, ascending and mostly adjacent.
    pub(super) fn allocate(&self, count: u32, budget: &Budget) -> Result<Vec<u32>, NoSpace> {
        let mut places = self.places.lock();
        let recycled = (places.free.len() as u32).min(count);
        let fresh = count - recycled;
        self.grow_for(&mut places, fresh, budget)?;
        let keep = places.free.len() - recycled as usize;
        let mut given = places.free.split_off(keep);
        given.extend(places.next..places.next + fresh);
        places.next += fresh;
        given.sort_unstable();
        Ok(given)
    }

    /// Gives one place if there is one without growing.
    pub(super) fn take_one(&self) -> Option<u32> {
        let mut places = self.places.lock();
        if let Some(place) = places.free.pop() {
            return Some(place);
        }
        let place = places.next;
        if place == places.capacity {
            return None;
        }
        places.next += 1;
        Some(place)
    }

    fn grow_for(&self, places: &mut Places, fresh: u32, budget: &Budget) -> Result<(), NoSpace> {
        let wanted = u64::from(places.next + fresh) * self.record_bytes;
        let present = u64::from(places.capacity) * self.record_bytes;
        if wanted <= present {
            return Ok(());
        }
        let bytes = (wanted - present).next_multiple_of(GROWTH_BYTES);
        let room = budget.reserve(bytes)?;
        allocate(&self.file, present, bytes).map_err(|_| NoSpace)?;
        room.keep();
        places.capacity = ((present + bytes) / self.record_bytes) as u32;
        Ok(())
    }

    /// Takes places back; their records must have been cleared.
    pub(super) fn free(&self, places: impl Iterator<Item = u32>) {
        let mut state = self.places.lock();
        let from = state.free.len();
        state.free.extend(places);
        state.free[from..].reverse();
    }

    /// Fills `buffer` from `place` on; it may span adjacent records.
    pub(super) fn read(&self, place: u32, buffer: &mut [u8]) {
        let read = self.file.read_exact_at(buffer, self.offset(place));
        memory::must("read a table", read);
    }

    /// Writes `records` from `place` on.
    pub(super) fn write(&self, place: u32, records: &[u8]) {
        let written = self.file.write_all_at(records, self.offset(place));
        memory::must("write a table", written);
    }

    /// Writes part of one record.
    pub(super) fn write_part(&self, place: u32, at: u64, bytes: &[u8]) {
        assert!(at + bytes.len() as u64 <= self.record_bytes);
        let written = self.file.write_all_at(bytes, self.offset(place) + at);
        memory::must("write a table", written);
    }

    /// Calls `visit` with every record there is room for.
    pub(super) fn scan(&self, mut visit: impl FnMut(u32, &[u8])) {
        const PER_READ_BYTES: u64 = 256 * PAGE_BYTES;
        let capacity = self.capacity();
        let per_read = (PER_READ_BYTES / self.record_bytes) as u32;
        let mut buffer = vec![0; PER_READ_BYTES as usize];
        for first in (0..capacity).step_by(per_read as usize) {
            let count = per_read.min(capacity - first);
            let bytes = &mut buffer[..count as usize * self.record_bytes as usize];
            self.read(first, bytes);
            for (place, record) in bytes.chunks_exact(self.record_bytes as usize).enumerate() {
                visit(first + place as u32, record);
            }
        }
    }

    fn offset(&self, place: u32) -> u64 {
        u64::from(place) * self.record_bytes
    }
}

fn allocate(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), offset, bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(budget: &Budget) -> Table {
        let file = tempfile::tempfile_in("/dev/shm").expect("tmpfs");
        Table::open(file, 64, budget).expect("opened")
    }

    #[test]
    fn table_allocate_grows_before_it_gives_and_charges_the_budget() {
        let budget = Budget::new(64 << 20);
        let table = table(&budget);
        assert_eq!(table.allocate(3, &budget), Ok(vec![0, 1, 2]));
        assert_eq!(budget.used(), GROWTH_BYTES);
        assert_eq!(u64::from(table.capacity()), GROWTH_BYTES / 64);
        table.write(2, &[7; 64]);
        let mut record = [0; 64];
        table.read(2, &mut record);
        assert_eq!(record, [7; 64]);
    }

    #[test]
    fn table_allocate_without_room_gives_nothing() {
        let budget = Budget::new(1 << 20);
        budget.charge(budget.limit());
        let table = table(&budget);
        assert_eq!(table.allocate(1, &budget), Err(NoSpace));
        budget.release(GROWTH_BYTES);
        assert!(table.allocate(1, &budget).is_ok());
    }

    #[test]
    fn table_free_places_are_given_again_in_order() {
        let budget = Budget::new(64 << 20);
        let table = table(&budget);
        table.allocate(6, &budget).expect("room");
        table.free([1, 2, 3].into_iter());
        assert_eq!(table.allocate(4, &budget), Ok(vec![1, 2, 3, 6]));
    }

    #[test]
    fn table_occupy_leaves_the_gaps_free() {
        let budget = Budget::new(64 << 20);
        let table = table(&budget);
        table.allocate(6, &budget).expect("room");
        let file = table.file;
        let again = Table::open(file, 64, &budget).expect("opened");
        again.occupy([1, 4].into_iter());
        assert_eq!(again.allocate(4, &budget), Ok(vec![0, 2, 3, 5]));
    }
}
