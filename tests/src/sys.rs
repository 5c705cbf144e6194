//! System calls that only unsafe code reaches, behind a safe face.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::{io, ptr};

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
use rustix::mount::MountPropagationFlags;

const PAGE_BYTES: u64 = 4096;

/// How a range of a file is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// `MAP_SHARED`, for reading and writing.
    SharedWrite,
    /// `MAP_SHARED`, for reading.
    SharedRead,
    /// `MAP_PRIVATE`, for reading.
    PrivateRead,
}

/// A mapped range of a file; unmapped when dropped. Whoever makes one sees to it that the file stays
/// as long as the range: touching what is behind its end is a SIGBUS.
#[derive(Debug)]
pub struct Mapping {
    /// Start of the first page.
    base: *mut u8,
    mapped_bytes: usize,
    /// Where the range begins in the first page.
    skip: usize,
    len: usize,
    kind: MapKind,
}

impl Mapping {
    /// Maps `len` bytes at `offset`, which need not be aligned. Panics if `len` is 0.
    pub fn new(file: &File, kind: MapKind, offset: u64, len: usize) -> io::Result<Mapping> {
        assert!(len > 0, "an empty range cannot be mapped");
        let skip = (offset % PAGE_BYTES) as usize;
        let mapped_bytes = skip + len;
        let (protection, flags) = match kind {
            MapKind::SharedWrite => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED),
            MapKind::SharedRead => (ProtFlags::READ, MapFlags::SHARED),
            MapKind::PrivateRead => (ProtFlags::READ, MapFlags::PRIVATE),
        };
        let start = offset - offset % PAGE_BYTES;
        // SAFETY: the kernel chooses an address that nothing else uses.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                mapped_bytes,
                protection,
                flags,
                file,
                start,
            )?
        };
        Ok(Mapping {
            base: base.cast(),
            mapped_bytes,
            skip,
            len,
            kind,
        })
    }

    /// A copy of the range.
    pub fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        // SAFETY: `skip + len` bytes are mapped for reading, and the target is as long as the copy.
        // What others write meanwhile may tear the copy; no reference to mapped memory is made.
        unsafe { ptr::copy_nonoverlapping(self.base.add(self.skip), bytes.as_mut_ptr(), self.len) };
        bytes
    }

    /// Fills the range. Panics unless it is mapped for writing and as long as `bytes`.
    pub fn write(&mut self, bytes: &[u8]) {
        assert_eq!((self.kind, self.len), (MapKind::SharedWrite, bytes.len()));
        // SAFETY: as in `read`, and the range is mapped for writing.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(self.skip), self.len) };
    }

    /// Waits until what was written is in the file (`MS_SYNC`).
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: the range is mapped.
        let synced = unsafe { msync(self.base.cast(), self.mapped_bytes, MsyncFlags::SYNC) };
        synced.map_err(io::Error::from)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nothing refers to it any longer.
        let unmapped = unsafe { munmap(self.base.cast(), self.mapped_bytes) };
        unmapped.expect("what was mapped can be unmapped");
    }
}

/// What `fcntl(2)` makes of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeLock {
    Read,
    Write,
    Unlock,
}

/// A lock that is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InTheWay {
    pub is_write: bool,
    pub first: u64,
    /// 0 reaches to the end.
    pub len: u64,
    pub pid: i32,
}

impl RangeLock {
    /// A lock of `len` bytes at `first`, to the end if `len` is 0.
    fn of(self, first: u64, len: u64) -> libc::flock {
        let kind = match self {
            RangeLock::Read => libc::F_RDLCK,
            RangeLock::Write => libc::F_WRLCK,
            RangeLock::Unlock => libc::F_UNLCK,
        };
        libc::flock {
            l_type: kind as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: first as i64,
            l_len: len as i64,
            l_pid: 0,
        }
    }
}

/// `F_SETLK`, or `F_SETLKW` if it `waits`; open file descriptions' locks (`F_OFD_SETLK`) if `is_ofd`.
pub fn lock_range(
    file: &File,
    lock: RangeLock,
    (first, len): (u64, u64),
    (waits, is_ofd): (bool, bool),
) -> io::Result<()> {
    let command = match (waits, is_ofd) {
        (false, false) => libc::F_SETLK,
        (true, false) => libc::F_SETLKW,
        (false, true) => libc::F_OFD_SETLK,
        (true, true) => libc::F_OFD_SETLKW,
    };
    let lock = lock.of(first, len);
    // SAFETY: the descriptor is open and the lock outlives the call.
    check(unsafe { libc::fcntl(file.as_raw_fd(), command, &lock) })
}

/// `F_GETLK`.
pub fn test_range(
    file: &File,
    lock: RangeLock,
    (first, len): (u64, u64),
) -> io::Result<Option<InTheWay>> {
    let mut lock = lock.of(first, len);
    // SAFETY: as in `lock_range`; the call writes to the lock.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &mut lock) })?;
    let is_free = i32::from(lock.l_type) == libc::F_UNLCK;
    Ok((!is_free).then_some(InTheWay {
        is_write: i32::from(lock.l_type) == libc::F_WRLCK,
        first: lock.l_start as u64,
        len: lock.l_len as u64,
        pid: lock.l_pid,
    }))
}

/// Interrupts what this process waits for after `secs` seconds: `alarm(2)`, with a handler that
/// restarts no call.
pub fn interrupt_after(secs: u32) -> io::Result<()> {
    extern "C" fn nothing(_: i32) {}
    let handler: extern "C" fn(i32) = nothing;
    // SAFETY: all zeros is an action without flags and with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // SAFETY: the handler does nothing, so it may run at any time.
    check(unsafe { libc::sigaction(libc::SIGALRM, &action, ptr::null_mut()) })?;
    // SAFETY: takes a number.
    unsafe { libc::alarm(secs) };
    Ok(())
}

/// Gives the calling thread mounts of its own: what it mounts from now on nobody else sees, and it
/// goes with the process. For a process of one thread.
pub fn leave_mounts() -> io::Result<()> {
    // SAFETY: of the namespaces only that of mounts is left, and no descriptor is shared less.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)? };
    let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    Ok(rustix::mount::mount_change("/", flags)?)
}

/// `close(2)`, with its result.
pub fn close(file: File) -> io::Result<()> {
    // SAFETY: the descriptor is this file's own, which has just given it up.
    check(unsafe { libc::close(file.into_raw_fd()) })
}

/// `truncate(2)`, which opens nothing.
pub fn truncate(path: &Path, size: u64) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let size = i64::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
    // SAFETY: the path is a string that ends in a zero byte and outlives the call.
    check(unsafe { libc::truncate(path.as_ptr(), size) })
}

fn check(result: i32) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
