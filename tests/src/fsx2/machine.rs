//! Does steps on real directories and compares.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::{error, fmt};

use rustix::fs::{Advice, FallocateFlags, SeekFrom, copy_file_range, fadvise, fallocate};
use rustix::io::Errno;

use super::Target;
use super::model::{FileModel, SLOTS, Slot, bytes_of, check};
use super::object::{Mismatch, View};
use super::step::{Access, Op, Source, Span, Step};
use crate::sys::{MapKind, Mapping, close, truncate};

/// A step that did not do what the model says.
#[derive(Debug)]
pub struct Failure {
    /// Which step of the run.
    pub number: u64,
    /// `None` after the last one.
    pub step: Option<Box<Step>>,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Io(io::Error),
    Mismatch(Mismatch),
    Links { got: u64, expected: u64 },
}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Self {
        Why::Io(error)
    }
}

impl From<rustix::io::Errno> for Why {
    fn from(error: rustix::io::Errno) -> Self {
        Why::Io(error.into())
    }
}

impl From<Mismatch> for Why {
    fn from(mismatch: Mismatch) -> Self {
        Why::Mismatch(mismatch)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Some(step) => write!(f, "step {} {step:?}: ", self.number)?,
            None => write!(f, "after step {}: ", self.number)?,
        }
        match &self.why {
            Why::Io(error) => write!(f, "{error}"),
            Why::Mismatch(mismatch) => write!(f, "{mismatch}"),
            Why::Links { got, expected } => write!(f, "{got} links, expected {expected}"),
        }
    }
}

impl error::Error for Failure {}

/// Shared mappings that were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mappings {
    pub made: u64,
    /// Because another mount has the file open for writing.
    pub refused: u64,
}

/// Whether an operation could be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Yes,
    /// It was refused, as it may be.
    No,
}

/// Files, handles and their models.
#[derive(Debug)]
pub(super) struct Machine {
    target: Target,
    models: Vec<FileModel>,
    mappings: Mappings,
    handles: Vec<[Option<File>; SLOTS]>,
}

impl Machine {
    /// Removes what an earlier run has left of its files.
    pub(super) fn new(target: &Target, files: usize) -> Machine {
        let machine = Machine {
            target: target.clone(),
            models: vec![FileModel::new(target.dirs.len()); files],
            mappings: Mappings::default(),
            handles: (0..files).map(|_| Default::default()).collect(),
        };
        for file in 0..files {
            // Most often there is none.
            drop(fs::remove_file(machine.path(file, 0)));
        }
        machine
    }

    pub(super) fn mappings(&self) -> Mappings {
        self.mappings
    }

    pub(super) fn models(&self) -> &[FileModel] {
        &self.models
    }

    /// Does a step, unless something is in its way.
    pub(super) fn perform(&mut self, number: u64, step: Step) -> Result<(), Failure> {
        let is_for_others = mount_of(&step.op).is_some_and(|at| at >= self.target.dirs.len());
        if is_for_others || check(&self.models, step.file, &step.op).is_err() {
            return Ok(());
        }
        let done = self.act(step.number, step.file, &step.op);
        done.map_err(|why| Failure {
            number,
            step: Some(Box::new(step)),
            why,
        })
    }

    /// Closes everything, checks it on each mount, and removes it.
    pub(super) fn finish(&mut self, number: u64) -> Result<(), Failure> {
        for file in 0..self.models.len() {
            let checked = self.finish_file(file);
            checked.map_err(|why| Failure {
                number,
                step: None,
                why,
            })?;
        }
        Ok(())
    }

    fn finish_file(&mut self, file: usize) -> Result<(), Why> {
        for slot in 0..SLOTS {
            if self.models[file].slot(slot).is_some() {
                self.act(0, file, &Op::Close { slot })?;
            }
        }
        if self.models[file].named().is_none() {
            return Ok(());
        }
        for mount in 0..self.target.dirs.len() {
            self.act(0, file, &Op::Check { mount })?;
        }
        self.act(0, file, &Op::Unlink { mount: 0 })
    }

    fn act(&mut self, number: u64, file: usize, op: &Op) -> Result<(), Why> {
        match *op {
            Op::Stat { mount } => {
                let metadata = fs::symlink_metadata(self.path(file, mount))?;
                let object = self.models[file].named().expect("checked before");
                object.check_size(mount, metadata.len())?;
                check_links(&metadata, 1)?;
            }
            Op::Unlink { mount } => fs::remove_file(self.path(file, mount))?,
            Op::Replace { mount, len } => self.replace(number, (file, mount), len)?,
            Op::Check { mount } => self.check(file, mount)?,
            Op::ResizeByName { mount, size } => truncate(&self.path(file, mount), size)?,
            Op::Open {
                slot,
                mount,
                access,
                truncate,
            } => {
                let options = open_options(access, truncate);
                let handle = options.open(self.path(file, mount))?;
                self.handles[file][slot] = Some(handle);
            }
            Op::Close { slot } => close(self.handles[file][slot].take().expect("it is open"))?,
            Op::MapRead { .. } | Op::MapWrite { .. } => {
                if self.map(number, file, op)? == Done::No {
                    return Ok(());
                }
            }
            Op::Copy { slot, at, source } => return self.copy((file, slot), at, source),
            ref op => self.act_on_handle(number, file, op)?,
        }
        self.models[file].apply(number, op);
        Ok(())
    }

    fn act_on_handle(&self, number: u64, file: usize, op: &Op) -> Result<(), Why> {
        match *op {
            Op::Read { slot, span } => self.read(file, slot, span),
            Op::Write { slot, span } => {
                let (handle, _) = self.open(file, slot);
                Ok(handle.write_all_at(&bytes_of(number, span), span.at)?)
            }
            Op::Resize { slot, size } => Ok(self.open(file, slot).0.set_len(size)?),
            Op::Allocate {
                slot,
                span,
                keep_size,
            } => {
                let flags = keeping_size(FallocateFlags::empty(), keep_size);
                self.fallocate(file, slot, flags, span)
            }
            Op::Punch { slot, span } => {
                let flags = keeping_size(FallocateFlags::PUNCH_HOLE, true);
                self.fallocate(file, slot, flags, span)
            }
            Op::Zero {
                slot,
                span,
                keep_size,
            } => {
                let flags = keeping_size(FallocateFlags::ZERO_RANGE, keep_size);
                self.fallocate(file, slot, flags, span)
            }
            Op::SeekAll { slot } => self.seek_all(file, slot),
            Op::Sync { slot, data_only } => match data_only {
                true => Ok(self.open(file, slot).0.sync_data()?),
                false => Ok(self.open(file, slot).0.sync_all()?),
            },
            Op::Forget { slot } => Ok(fadvise(self.open(file, slot).0, 0, None, Advice::DontNeed)?),
            Op::StatOpen { slot } => self.stat_open(file, slot),
            Op::Open { .. }
            | Op::Close { .. }
            | Op::MapRead { .. }
            | Op::MapWrite { .. }
            | Op::ResizeByName { .. }
            | Op::Stat { .. }
            | Op::Unlink { .. }
            | Op::Replace { .. }
            | Op::Copy { .. }
            | Op::Check { .. } => unreachable!("done elsewhere"),
        }
    }

    fn fallocate(
        &self,
        file: usize,
        slot: usize,
        flags: FallocateFlags,
        span: Span,
    ) -> Result<(), Why> {
        let (handle, _) = self.open(file, slot);
        Ok(fallocate(handle, flags, span.at, span.len)?)
    }

    fn copy(&mut self, (file, slot): (usize, usize), at: u64, source: Source) -> Result<(), Why> {
        let (from, taken) = self.open(source.file, source.slot);
        let (to, _) = self.open(file, slot);
        // The kernel cuts a copy off at the end that it knows: it is to know the true one.
        from.metadata()?;
        copy_all(from, to, source.span, at)?;
        let bytes = self.models[source.file]
            .object(taken.object)
            .copy_of(source.span);
        self.models[file].write_through(slot, at, &bytes);
        Ok(())
    }

    fn seek_all(&self, file: usize, slot: usize) -> Result<(), Why> {
        let (handle, taken) = self.open(file, slot);
        let object = self.models[file].object(taken.object);
        let size = object.size();
        let mut at = 0;
        while at < size {
            let data = seek(handle, SeekFrom::Data(at))?.unwrap_or(size);
            check_offset(data, (at, size))?;
            object.check_hole(at..data)?;
            if data == size {
                break;
            }
            let hole = seek(handle, SeekFrom::Hole(data))?;
            at = hole.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            check_offset(at, (data + 1, size))?;
        }
        match seek(handle, SeekFrom::Data(size))? {
            None => Ok(()),
            Some(got) => Ok(check_offset(got, (size + 1, u64::MAX))?),
        }
    }

    fn read(&self, file: usize, slot: usize, span: Span) -> Result<(), Why> {
        let (handle, taken) = self.open(file, slot);
        let bytes = read(handle, span)?;
        let view = match taken.access.reads_directly() {
            true => View::Direct,
            false => View::Cached,
        };
        self.compare(file, taken, (span, &bytes), view)
    }

    fn map(&mut self, number: u64, file: usize, op: &Op) -> Result<Done, Why> {
        let (slot, span, kind) = match *op {
            Op::MapRead { slot, span, shared } if !shared => (slot, span, MapKind::PrivateRead),
            Op::MapRead { slot, span, .. } => (slot, span, MapKind::SharedRead),
            Op::MapWrite { slot, span, .. } => (slot, span, MapKind::SharedWrite),
            _ => unreachable!("maps nothing"),
        };
        let (handle, taken) = self.open(file, slot);
        let mut mapping = match Mapping::new(handle, kind, span.at, span.len as usize) {
            Err(error) if may_be_refused(taken, kind, &error) => {
                self.mappings.refused += 1;
                return Ok(Done::No);
            }
            mapping => mapping?,
        };
        self.compare(file, taken, (span, &mapping.read()), View::Cached)?;
        if let Op::MapWrite { sync, .. } = *op {
            mapping.write(&bytes_of(number, span));
            if sync {
                mapping.sync()?;
            }
        }
        self.mappings.made += u64::from(kind != MapKind::PrivateRead);
        Ok(Done::Yes)
    }

    fn stat_open(&self, file: usize, slot: usize) -> Result<(), Why> {
        let (handle, taken) = self.open(file, slot);
        let metadata = handle.metadata()?;
        let model = &self.models[file];
        let object = model.object(taken.object);
        object.check_size(taken.mount, metadata.len())?;
        check_links(&metadata, u64::from(model.is_named(taken.object)))
    }

    fn open(&self, file: usize, slot: usize) -> (&File, Slot) {
        let taken = self.models[file].slot(slot).expect("checked before");
        let handle = self.handles[file][slot]
            .as_ref()
            .expect("a slot has a handle");
        (handle, taken)
    }

    fn compare(
        &self,
        file: usize,
        taken: Slot,
        (span, bytes): (Span, &[u8]),
        view: View,
    ) -> Result<(), Why> {
        let object = self.models[file].object(taken.object);
        Ok(object.check_read(taken.mount, view, span, bytes)?)
    }

    fn replace(&self, number: u64, (file, mount): (usize, usize), len: u64) -> Result<(), Why> {
        let path = self.path(file, mount);
        let beside = path.with_extension("new");
        fs::write(&beside, bytes_of(number, Span { at: 0, len }))?;
        Ok(fs::rename(beside, path)?)
    }

    fn check(&mut self, file: usize, mount: usize) -> Result<(), Why> {
        let handle = File::open(self.path(file, mount))?;
        let model = &mut self.models[file];
        // The open is what makes the mount see everything; the read is to be held to that.
        model.apply(0, &Op::Check { mount });
        let object = model.named().expect("checked before");
        object.check_size(mount, handle.metadata()?.len())?;
        let span = Span {
            at: 0,
            len: object.size() + 1,
        };
        Ok(object.check_read(mount, View::Cached, span, &read(&handle, span)?)?)
    }

    fn path(&self, file: usize, mount: usize) -> PathBuf {
        self.target.dirs[mount].join(format!("{}-{file}", self.target.prefix))
    }
}

/// Page caches of two mounts cannot be one.
fn may_be_refused(taken: Slot, kind: MapKind, error: &io::Error) -> bool {
    let is_refusal = error.raw_os_error() == Some(libc::ENODEV);
    is_refusal && kind != MapKind::PrivateRead && !taken.must_map()
}

/// The mount that an operation is done on, if it says so itself.
fn mount_of(op: &Op) -> Option<usize> {
    match *op {
        Op::Open { mount, .. }
        | Op::ResizeByName { mount, .. }
        | Op::Stat { mount }
        | Op::Unlink { mount }
        | Op::Replace { mount, .. }
        | Op::Check { mount } => Some(mount),
        Op::Close { .. }
        | Op::Read { .. }
        | Op::Write { .. }
        | Op::Resize { .. }
        | Op::Allocate { .. }
        | Op::Punch { .. }
        | Op::Zero { .. }
        | Op::Copy { .. }
        | Op::SeekAll { .. }
        | Op::Sync { .. }
        | Op::Forget { .. }
        | Op::MapRead { .. }
        | Op::MapWrite { .. }
        | Op::StatOpen { .. } => None,
    }
}

fn keeping_size(flags: FallocateFlags, keep_size: bool) -> FallocateFlags {
    match keep_size {
        true => flags | FallocateFlags::KEEP_SIZE,
        false => flags,
    }
}

/// Copies until all of the span is copied.
fn copy_all(from: &File, to: &File, span: Span, at: u64) -> io::Result<()> {
    let (mut from_at, mut to_at) = (span.at, at);
    while from_at < span.end() {
        let left = (span.end() - from_at) as usize;
        match copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), left)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _copied => {}
        }
    }
    Ok(())
}

/// Where `lseek(2)` ends up; `None` if there is nothing of the kind.
fn seek(handle: &File, to: SeekFrom) -> io::Result<Option<u64>> {
    match rustix::fs::seek(handle, to) {
        Ok(offset) => Ok(Some(offset)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn check_offset(got: u64, (least, most): (u64, u64)) -> Result<(), Mismatch> {
    match (least..=most).contains(&got) {
        true => Ok(()),
        false => Err(Mismatch::Length { got, least, most }),
    }
}

fn open_options(access: Access, truncate: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    // A file is also made by an open for reading only, which needs more than the standard library
    // offers.
    let (mode, flags) = match access {
        Access::Read => (libc::O_RDONLY, 0),
        Access::ReadDirect => (libc::O_RDONLY, libc::O_DIRECT),
        Access::ReadWrite => (libc::O_RDWR, 0),
        Access::Append => (libc::O_RDWR, libc::O_APPEND),
        Access::Direct => (libc::O_RDWR, libc::O_DIRECT),
        Access::Sync => (libc::O_RDWR, libc::O_SYNC),
    };
    let truncate = if truncate { libc::O_TRUNC } else { 0 };
    options.read(true).write(mode == libc::O_RDWR);
    options
        .custom_flags(flags | truncate | libc::O_CREAT)
        .mode(0o644);
    options
}

/// As many bytes as there are, at most the span's.
fn read(handle: &File, span: Span) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; span.len as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match handle.read_at(&mut bytes[filled..], span.at + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn check_links(metadata: &Metadata, expected: u64) -> Result<(), Why> {
    let got = metadata.nlink();
    match got == expected {
        true => Ok(()),
        false => Err(Why::Links { got, expected }),
    }
}
