//! Access to files in RAM that cannot fail while the store keeps its promises.
//!
//! All room is reserved before it is used, so an error here means that the kernel or this program
//! broke a promise in the middle of a change. Going on could answer wrongly; the process ends, and
//! the restart rolls the change forward.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{FallocateFlags, fallocate};
use vdfs_net::buffers::Buffer;

/// Takes the value out of what cannot fail; panics, and so ends the process, if it did.
pub(super) fn must<T>(what: &str, result: io::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("cannot {what} in RAM: {error}"),
    }
}

/// Reads `len` bytes at `offset`; what lies past the end of the file is zeros.
pub(super) fn read(file: &File, offset: u32, len: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len as usize);
    fill(&mut bytes, file, offset, len);
    bytes
}

/// The same, for a payload.
pub(super) fn read_payload(file: &File, offset: u32, len: u32) -> Bytes {
    let mut bytes = Buffer::with_capacity(len as usize);
    fill(&mut bytes, file, offset, len);
    bytes.freeze()
}

fn fill(bytes: &mut Vec<u8>, file: &File, offset: u32, len: u32) {
    let len = len as usize;
    while bytes.len() < len {
        let at = u64::from(offset) + bytes.len() as u64;
        // A vector may have more room than was asked for; the surplus is cut off below.
        let got = rustix::io::pread(file, spare_capacity(bytes), at);
        match got {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => must("read a chunk", Err(error.into())),
        }
    }
    bytes.resize(len, 0);
}

pub(super) fn write(file: &File, offset: u32, bytes: &[u8]) {
    must("write a chunk", file.write_all_at(bytes, u64::from(offset)));
}

/// Drops what lies at and past `len`, and zeroes the rest of its page; a shorter file grows.
pub(super) fn cut(file: &File, len: u32) {
    must("cut a chunk", file.set_len(u64::from(len)));
}

/// Frees all pages, also under descriptors that others hold.
pub(super) fn free(file: &File) {
    let len = must("measure a chunk", file.metadata()).len();
    if len > 0 {
        punch_bytes(file, 0, len);
    }
}

/// Zeroes `len` bytes at `offset` and frees the pages that lie within them.
pub(super) fn punch(file: &File, offset: u32, len: u32) {
    punch_bytes(file, u64::from(offset), u64::from(len));
}

fn punch_bytes(file: &File, offset: u64, len: u64) {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let punched = fallocate(file, flags, offset, len);
    must("punch a chunk", punched.map_err(io::Error::from));
}

/// Zeroes `len` bytes at `offset`, whose pages are there.
pub(super) fn zero(file: &File, offset: u32, len: u32) {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let end = offset + len;
    for at in (offset..end).step_by(ZEROS.len()) {
        let take = ZEROS.len().min((end - at) as usize);
        write(file, at, &ZEROS[..take]);
    }
}
