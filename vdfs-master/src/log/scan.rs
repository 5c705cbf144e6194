//! Reading a log from its files: what is whole, where it ends, and whether a crash can have ended it
//! there.

use std::io;
use std::sync::Arc;

use super::batch::{Batch, LogId, highest_mark};
use super::{Fault, LogError, LogOpenError, ReplayError};
use crate::disk::{Disk, DiskFile, read_whole, write_all_at};

const PREFIX: &str = "wal-";
const NUMBER_DIGITS: usize = 20;

/// Takes one record: its number and its bytes.
pub(super) type Visit<'a> = dyn FnMut(u64, &[u8]) -> Result<(), ReplayError> + 'a;

/// Work of the last moments before a crash that had not reached the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub file: String,
    /// Where the file ends now.
    pub offset: u64,
    pub fault: Fault,
    /// Bytes removed, over all segments.
    pub bytes: u64,
}

pub(super) fn segment_name(first: u64) -> String {
    format!("{PREFIX}{first:0NUMBER_DIGITS$}")
}

/// The segments there are, by first record.
pub(super) fn segments(disk: &dyn Disk) -> io::Result<Vec<u64>> {
    let names = disk.names()?;
    let mut firsts: Vec<u64> = names
        .iter()
        .filter_map(|name| parse_segment_name(name))
        .collect();
    firsts.sort_unstable();
    Ok(firsts)
}

fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    let is_number = digits.len() == NUMBER_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    if is_number { digits.parse().ok() } else { None }
}

/// What is known of a log before its segments are read.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) id: LogId,
    /// Records up to here come from a checkpoint.
    pub(super) after: u64,
    /// The log was synced at least up to here.
    pub(super) synced: u64,
    /// The log is opened to be gone on with, and not only looked at.
    pub(super) goes_on: bool,
}

/// A log from its first needed segment to its end.
#[derive(Debug)]
pub(super) struct Scanned {
    /// Number of the last record.
    pub(super) records: u64,
    /// Where the log goes on: first record, file, length.
    pub(super) last: Option<(u64, Arc<dyn DiskFile>, u64)>,
    /// Of batches behind the checkpoint.
    pub(super) bytes: u64,
    pub(super) cut: Option<Cut>,
}

/// Where whole batches end.
struct End {
    /// Index of the segment.
    segment: usize,
    offset: u64,
    fault: Fault,
}

/// Segments that were read.
struct Read {
    firsts: Vec<u64>,
    end: End,
    /// Number of the last record.
    records: u64,
    bytes: u64,
    last: Option<(u64, Arc<dyn DiskFile>)>,
}

impl Scanner<'_> {
    /// Visits every record behind `after`, and cuts off a torn end.
    pub(super) fn scan(&self, visit: &mut Visit<'_>) -> Result<Scanned, LogOpenError> {
        let Some(read) = self.read_log(visit)? else {
            return Ok(Scanned {
                records: 0,
                last: None,
                bytes: 0,
                cut: None,
            });
        };
        let cut = self.cut(&read.firsts, &read.end)?;
        let end = read.end.offset;
        Ok(Scanned {
            records: read.records,
            last: read.last.map(|(first, file)| (first, file, end)),
            bytes: read.bytes,
            cut,
        })
    }

    /// Visits every record behind `after`, and changes nothing. Gives the number of the last one, and
    /// what a scan would cut off.
    pub(super) fn look(&self, visit: &mut Visit<'_>) -> Result<(u64, Option<Cut>), LogOpenError> {
        let Some(read) = self.read_log(visit)? else {
            return Ok((0, None));
        };
        let cut = self.would_cut(&read.firsts, &read.end)?;
        Ok((read.records, cut))
    }

    /// `None` for a log without records.
    fn read_log(&self, visit: &mut Visit<'_>) -> Result<Option<Read>, LogOpenError> {
        let all = segments(self.disk).map_err(|error| self.unreadable("", error))?;
        let needed = all.iter().rposition(|&first| first <= self.after + 1);
        let Some(needed) = needed else {
            self.check_nothing(all.is_empty())?;
            return Ok(None);
        };
        let firsts = all[needed..].to_vec();
        let mut reading = Reading {
            next: firsts[0],
            bytes: 0,
            last: None,
            scanner: self,
        };
        let end = self.read_segments(&firsts, &mut reading, visit)?;
        let Reading {
            next, bytes, last, ..
        } = reading;
        let synced = self.evidence(&firsts, &end)?;
        if synced >= next {
            return Err(self.damaged(&firsts, &end, next, synced));
        }
        Ok(Some(Read {
            firsts,
            end,
            records: next - 1,
            bytes,
            last,
        }))
    }

    /// There is no segment for the record behind `after`: right only in a log without records.
    fn check_nothing(&self, is_empty: bool) -> Result<(), LogOpenError> {
        if is_empty && self.after.max(self.synced) == 0 {
            return Ok(());
        }
        let record = self.after + 1;
        Err(LogOpenError::Missing {
            file: self.disk.path(&segment_name(record)),
            record,
        })
    }

    fn read_segments(
        &self,
        firsts: &[u64],
        reading: &mut Reading<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<End, LogOpenError> {
        let mut end = End {
            segment: 0,
            offset: 0,
            fault: Fault::Ends,
        };
        for (segment, &first) in firsts.iter().enumerate() {
            if first != reading.next {
                return Ok(End {
                    fault: Fault::Gap,
                    ..end
                });
            }
            let (offset, fault) = reading.read_segment(first, visit)?;
            end = End {
                segment,
                offset,
                fault,
            };
            if fault != Fault::Ends {
                break;
            }
        }
        Ok(end)
    }

    /// Up to which record the log says, anywhere behind `end`, that it was synced.
    fn evidence(&self, firsts: &[u64], end: &End) -> Result<u64, LogOpenError> {
        let mut synced = self.after.max(self.synced);
        let is_last = end.segment + 1 == firsts.len();
        if is_last && end.fault == Fault::Ends {
            return Ok(synced);
        }
        for (segment, &first) in firsts.iter().enumerate().skip(end.segment) {
            let (_, bytes) = self.read(first)?;
            let from = if segment == end.segment {
                end.offset as usize
            } else {
                0
            };
            synced = synced.max(highest_mark(self.id, &bytes[from..]).unwrap_or(0));
        }
        Ok(synced)
    }

    fn damaged(&self, firsts: &[u64], end: &End, record: u64, synced: u64) -> LogOpenError {
        if end.fault == Fault::Gap {
            return LogOpenError::Missing {
                file: self.disk.path(&segment_name(record)),
                record,
            };
        }
        LogOpenError::Damaged {
            file: self.disk.path(&segment_name(firsts[end.segment])),
            offset: end.offset,
            record,
            synced,
            fault: end.fault,
        }
    }

    /// Removes what lies behind `end`, the later segments first, so that a crash in between leaves
    /// what another cut removes.
    fn cut(&self, firsts: &[u64], end: &End) -> Result<Option<Cut>, LogOpenError> {
        let file = segment_name(firsts[end.segment]);
        let mut bytes = 0;
        for &first in firsts[end.segment + 1..].iter().rev() {
            let name = segment_name(first);
            let removed = self
                .remove(&name)
                .map_err(|error| self.unreadable(&name, error))?;
            bytes += removed;
        }
        let tail = self
            .truncate(&file, end.offset)
            .map_err(|error| self.unreadable(&file, error))?;
        bytes += tail;
        let cut = Cut {
            file,
            offset: end.offset,
            fault: end.fault,
            bytes,
        };
        Ok((bytes > 0).then_some(cut))
    }

    fn would_cut(&self, firsts: &[u64], end: &End) -> Result<Option<Cut>, LogOpenError> {
        let mut bytes = 0;
        for &first in &firsts[end.segment..] {
            let name = segment_name(first);
            let length = self.disk.open(&name).and_then(|file| file.length());
            bytes += length.map_err(|error| self.unreadable(&name, error))?;
        }
        bytes -= end.offset;
        Ok((bytes > 0).then(|| Cut {
            file: segment_name(firsts[end.segment]),
            offset: end.offset,
            fault: end.fault,
            bytes,
        }))
    }

    fn remove(&self, name: &str) -> io::Result<u64> {
        let bytes = self.disk.open(name)?.length()?;
        self.disk.remove(name)?;
        self.disk.sync_names()?;
        Ok(bytes)
    }

    fn truncate(&self, name: &str, offset: u64) -> io::Result<u64> {
        let file = self.disk.open(name)?;
        let tail = file.length()? - offset;
        if tail > 0 {
            file.truncate(offset)?;
            file.sync()?;
        }
        Ok(tail)
    }

    /// What the process wrote before it died may still be on its way to the disk. It is written
    /// again, because after a sync that failed the kernel takes it for being there.
    fn make_durable(
        &self,
        file: &dyn DiskFile,
        bytes: &[u8],
        offset: u64,
        first: u64,
    ) -> Result<(), LogOpenError> {
        write_all_at(file, bytes, offset).map_err(|why| LogError::Write {
            file: self.disk.path(&segment_name(first)),
            why,
        })?;
        file.sync().map_err(LogError::Sync)?;
        Ok(())
    }

    fn read(&self, first: u64) -> Result<(Arc<dyn DiskFile>, Vec<u8>), LogOpenError> {
        let name = segment_name(first);
        let file = self
            .disk
            .open(&name)
            .map_err(|error| self.unreadable(&name, error))?;
        let bytes = read_whole(&*file).map_err(|error| self.unreadable(&name, error))?;
        Ok((file, bytes))
    }

    fn unreadable(&self, name: &str, why: io::Error) -> LogOpenError {
        LogOpenError::Read {
            file: self.disk.path(name),
            why,
        }
    }
}

/// How far a scan has come.
struct Reading<'a> {
    scanner: &'a Scanner<'a>,
    /// Number of the next record.
    next: u64,
    bytes: u64,
    last: Option<(u64, Arc<dyn DiskFile>)>,
}

impl Reading<'_> {
    /// Reads whole batches; returns where they end and what is there instead of another.
    fn read_segment(
        &mut self,
        first: u64,
        visit: &mut Visit<'_>,
    ) -> Result<(u64, Fault), LogOpenError> {
        let (file, bytes) = self.scanner.read(first)?;
        self.last = Some((first, file.clone()));
        let (mut offset, mut synced) = (0, 0);
        let fault = loop {
            let rest = &bytes[offset..];
            if rest.is_empty() {
                break Fault::Ends;
            }
            let batch = match Batch::decode(self.scanner.id, rest, self.next) {
                Ok(batch) => batch,
                Err(fault) => break fault,
            };
            self.visit_batch(&batch, visit)?;
            offset += batch.bytes() as usize;
            if self.next <= self.scanner.synced + 1 {
                synced = offset;
            }
        };
        if self.scanner.goes_on {
            let unsynced = &bytes[synced..offset];
            self.scanner
                .make_durable(&*file, unsynced, synced as u64, first)?;
        }
        Ok((offset as u64, fault))
    }

    fn visit_batch(
        &mut self,
        batch: &Batch<'_>,
        visit: &mut Visit<'_>,
    ) -> Result<(), LogOpenError> {
        for bytes in batch.records() {
            let record = self.next;
            self.next += 1;
            if record > self.scanner.after {
                visit(record, bytes).map_err(|why| LogOpenError::Replay { record, why })?;
            }
        }
        if self.next > self.scanner.after + 1 {
            self.bytes += batch.bytes();
        }
        Ok(())
    }
}
