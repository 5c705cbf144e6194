//! The one `Filesystem` of fuser: what is negotiated with the kernel, and which operation a request
//! is.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, InitFlags,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tracing::info;
use vdfs_client::{Contended, Fs};
use vdfs_proto::Status;

use crate::dispatch::{Dispatcher, Patience};
use crate::found_directories::FoundDirectories;
use crate::kernel_notifier::KernelNotifier;
use crate::limits::{BACKGROUND_MAX, CONGESTION_THRESHOLD, REQUEST_BYTES_MAX};
use crate::ops::read::Asker;
use crate::ops::{self, NewMode};
use crate::reply::Answer;

/// Asked for one by one: a kernel that lacks one of several refuses them all. Left out, with what
/// they would promise:
/// - `WRITEBACK_CACHE`: the kernel would own sizes and times, and never learn of another mount's.
/// - `AUTO_INVAL_DATA`: pages would go whenever the modification time moves, so with each write of
///   this mount itself. `EXPLICIT_INVAL_DATA`: pages would stay when the size moves, and the last
///   one would show zeros where another mount has appended. Without both, pages go exactly when
///   the size changes behind the kernel's back.
/// - `DIRECT_IO_ALLOW_MMAP`: opens that bypass the page cache because another mount writes the file
///   could be mapped shared, and page caches of two mounts cannot be one.
const CAPABILITIES: [InitFlags; 11] = [
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    // A symlink's target never changes: another target is another inode.
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    // Without these the kernel keeps locks itself, for one mount.
    InitFlags::FUSE_POSIX_LOCKS,
    InitFlags::FUSE_FLOCK_LOCKS,
    // The kernel enforces ACLs, and leaves the umask to whoever knows the directory's default ACL.
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DONT_MASK,
];

/// One mount's door. What belongs to an open file travels in its handle.
#[derive(Debug)]
pub(crate) struct Door {
    fs: Fs,
    dispatcher: Dispatcher,
    kernel_cache: Arc<KernelNotifier>,
    directories: Arc<FoundDirectories>,
    /// Mounted `noatime`, or read-only.
    no_atime: bool,
}

impl Door {
    pub(crate) fn new(
        fs: Fs,
        dispatcher: Dispatcher,
        kernel_cache: Arc<KernelNotifier>,
        no_atime: bool,
    ) -> Self {
        Door {
            fs,
            dispatcher,
            kernel_cache,
            directories: Arc::default(),
            no_atime,
        }
    }

    /// An open with these flags leaves access times as they are.
    pub(crate) fn is_without_atime(&self, flags: OpenFlags) -> bool {
        self.no_atime || flags.0 & libc::O_NOATIME != 0
    }

    pub(crate) fn fs(&self) -> Fs {
        self.fs.clone()
    }

    pub(crate) fn directories(&self) -> Arc<FoundDirectories> {
        self.directories.clone()
    }

    pub(crate) fn kernel_cache(&self) -> Arc<KernelNotifier> {
        self.kernel_cache.clone()
    }

    /// Answers with the outcome of `work`, whose wait ends if the caller is being killed.
    pub(crate) fn answer<T, R, W>(&self, request: &Request, reply: R, work: W)
    where
        T: Send + 'static,
        R: Answer<T>,
        W: Future<Output = Result<T, Status>> + Send + 'static,
    {
        self.dispatcher
            .answer(request.pid(), Patience::Interruptible, reply, work);
    }

    /// Answers with the outcome of `work`; `patience` says what ends the wait.
    pub(crate) fn answer_with<T, R, W>(
        &self,
        patience: Patience,
        request: &Request,
        reply: R,
        work: W,
    ) where
        T: Send + 'static,
        R: Answer<T>,
        W: Future<Output = Result<T, Status>> + Send + 'static,
    {
        self.dispatcher.answer(request.pid(), patience, reply, work);
    }

    /// Answers with the outcome of `work`, however long it takes.
    pub(crate) fn answer_patiently<T, R, W>(&self, request: &Request, reply: R, work: W)
    where
        T: Send + 'static,
        R: Answer<T>,
        W: Future<Output = Result<T, Status>> + Send + 'static,
    {
        self.dispatcher
            .answer(request.pid(), Patience::Endless, reply, work);
    }
}

fn negotiate(config: &mut KernelConfig) {
    for capability in CAPABILITIES {
        if config.add_capabilities(capability).is_err() {
            info!(?capability, "not offered by this kernel");
        }
    }
    let refused = [
        config.set_max_write(REQUEST_BYTES_MAX).err(),
        config
            .set_max_background(BACKGROUND_MAX)
            .err()
            .map(u32::from),
        config
            .set_congestion_threshold(CONGESTION_THRESHOLD)
            .err()
            .map(u32::from),
    ];
    assert_eq!(
        refused, [None; 3],
        "the door's constants are within fuser's bounds"
    );
}

impl Filesystem for Door {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate(config);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        ops::lookup::lookup(self, request, parent, name, reply);
    }

    /// The door holds nothing for an inode that the kernel knows.
    fn forget(&self, _request: &Request, _ino: INodeNo, _nlookup: u64) {}

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        ops::getattr::getattr(self, request, ino, reply);
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let wanted = ops::setattr::Wanted {
            mode,
            uid,
            gid,
            size,
            atime,
            mtime,
        };
        ops::setattr::setattr(self, request, ino, wanted, reply);
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        ops::readlink::readlink(self, request, ino, reply);
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        ops::mknod::mknod(
            self,
            request,
            (parent, name),
            ops::mknod::Node { mode, umask, rdev },
            reply,
        );
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let mode = NewMode { mode, umask };
        ops::mkdir::mkdir(self, request, (parent, name), mode, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        ops::unlink::unlink(self, request, parent, name, reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        ops::rmdir::rmdir(self, request, parent, name, reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        ops::symlink::symlink(self, request, (parent, name), target, reply);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        ops::rename::rename(
            self,
            request,
            (parent, name),
            (new_parent, new_name),
            flags,
            reply,
        );
    }

    fn link(
        &self,
        request: &Request,
        ino: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        ops::link::link(self, request, ino, (parent, name), reply);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        ops::open::open(self, request, ino, flags, reply);
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let asker = match owner {
            Some(_) => Asker::Program,
            None => Asker::PageCache,
        };
        ops::read::read(
            self,
            request,
            (ino, handle),
            (offset, size),
            (asker, flags),
            reply,
        );
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let target = ops::write::Target {
            ino,
            handle,
            offset,
        };
        ops::write::write(self, request, target, data, (write_flags, flags), reply);
    }

    fn flush(
        &self,
        request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        ops::flush::flush(self, request, handle, owner, reply);
    }

    fn release(
        &self,
        request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        ops::release::release(self, request, handle, reply);
    }

    fn fsync(
        &self,
        request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        ops::fsync::fsync(self, request, handle, reply);
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        ops::readdir::opendir(self, flags, reply);
    }

    fn readdir(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        ops::readdir::readdir(self, request, (ino, handle), offset, reply);
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        ops::readdir::readdirplus(self, request, (ino, handle), offset, reply);
    }

    fn fsyncdir(
        &self,
        request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        ops::fsync::fsyncdir(self, request, ino, reply);
    }

    fn statfs(&self, request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        ops::statfs::statfs(self, request, reply);
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        ops::xattr::setxattr(self, request, (ino, name), value, flags, reply);
    }

    fn getxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        ops::xattr::getxattr(self, request, (ino, name), size, reply);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        ops::xattr::listxattr(self, request, ino, size, reply);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        ops::xattr::removexattr(self, request, (ino, name), reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let mode = NewMode { mode, umask };
        ops::create::create(self, request, (parent, name), mode, OpenFlags(flags), reply);
    }

    fn getlk(
        &self,
        request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let range = (start, end);
        let lock = ops::lock::KernelLock {
            owner,
            range,
            kind,
            pid,
        };
        ops::lock::getlk(self, request, handle, lock, reply);
    }

    fn setlk(
        &self,
        request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let range = (start, end);
        let lock = ops::lock::KernelLock {
            owner,
            range,
            kind,
            pid,
        };
        let contended = match sleep {
            true => Contended::Wait,
            false => Contended::Refuse,
        };
        ops::lock::setlk(self, request, handle, (lock, contended), reply);
    }

    fn fallocate(
        &self,
        request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        ops::fallocate::fallocate(self, request, handle, (offset, len), mode, reply);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// `ENOSYS` once, and the kernel answers by itself from then on: always ready.
    fn poll(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        ops::lseek::lseek(self, request, (ino, handle), offset, whence, reply);
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _ino_in: INodeNo,
        handle_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        handle_out: FileHandle,
        offset_out: u64,
        len: u64,
        flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let places = ((handle_in, offset_in), (handle_out, offset_out));
        ops::copy_file_range::copy_file_range(self, request, places, len, flags, reply);
    }
}
