//! The directory that the log and the checkpoints live in, behind a trait, so that a test can put a
//! disk under them that loses what was not synced.
//!
//! Names are bare file names of one flat directory. Nothing is durable before [`DiskFile::sync`]
//! (bytes and length of a file) and [`Disk::sync_names`] (which names there are).

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;

#[cfg(test)]
pub(crate) mod fake;

/// One flat directory.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Where `name` lies, for messages.
    fn path(&self, name: &str) -> PathBuf;
    fn names(&self) -> io::Result<Vec<String>>;
    /// Makes an empty file; one of that name is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Replaces `to` if it is there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_names(&self) -> io::Result<()>;
}

/// One open file; offsets and lengths in bytes.
pub trait DiskFile: Debug + Send + Sync {
    fn length(&self) -> io::Result<u64>;
    /// Returns how many bytes were read: 0 at the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Returns how many bytes were written, which may be fewer than given.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Takes disk room for a range without changing the file's length; `Unsupported` where the
    /// filesystem cannot.
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Makes the bytes and the length durable.
    fn sync(&self) -> io::Result<()>;
}

/// Writes all of `bytes`, or fails having written a part.
pub(crate) fn write_all_at(
    file: &dyn DiskFile,
    mut bytes: &[u8],
    mut offset: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills `into` from `offset`, or as much of it as the file has; returns how much that is.
pub(crate) fn read_full_at(file: &dyn DiskFile, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The whole content of a file.
pub(crate) fn read_whole(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.length()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; len];
    let read = read_full_at(file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// The text of a small file; `None` if there is no such file.
pub(crate) fn read_text(disk: &dyn Disk, name: &str) -> io::Result<Option<String>> {
    match disk.open(name) {
        Ok(file) => Ok(Some(
            String::from_utf8_lossy(&read_whole(&*file)?).into_owned(),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts `bytes` under `name`, durably: after a crash the file is the old one or the new one.
pub(crate) fn replace(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    let file = disk.create(&temporary)?;
    write_all_at(&*file, bytes, 0)?;
    file.sync()?;
    disk.rename(&temporary, name)?;
    disk.sync_names()
}

/// No room on the disk, or in the user's quota of it.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::WriteZero
    )
}

/// A directory of a mounted filesystem.
#[derive(Debug)]
pub struct DirectoryDisk {
    dir: PathBuf,
}

impl DirectoryDisk {
    /// Makes the directory, for its owner alone, if it is missing.
    pub fn open(dir: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        Ok(DirectoryDisk {
            dir: dir.to_owned(),
        })
    }
}

impl Disk for DirectoryDisk {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        names_in(&self.dir)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path(name))?;
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(self.path(name))?,
        ))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

/// The same, for whoever must not change anything.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    dir: PathBuf,
}

impl ReadOnlyDisk {
    pub fn of(dir: &Path) -> Self {
        ReadOnlyDisk {
            dir: dir.to_owned(),
        }
    }
}

/// A file that can only be read.
#[derive(Debug)]
struct ReadOnlyFile(File);

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnlyDisk {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        names_in(&self.dir)
    }

    fn create(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        read_only()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(ReadOnlyFile(File::open(self.path(name))?)))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        read_only()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        read_only()
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for ReadOnlyFile {
    fn length(&self) -> io::Result<u64> {
        DiskFile::length(&self.0)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        DiskFile::read_at(&self.0, into, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        read_only()
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        read_only()
    }

    fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
        read_only()
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    std::fs::read_dir(dir)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

impl DiskFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(
            self,
            FallocateFlags::KEEP_SIZE,
            offset,
            len,
        )?)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path)
            .expect("is there")
            .permissions()
            .mode()
            & 0o777
    }

    #[test]
    fn directory_disk_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a/b");
        let disk = DirectoryDisk::open(&path).expect("made");
        replace(&disk, "x", b"text").expect("written");
        assert_eq!((mode(&path), mode(&path.join("x"))), (0o700, 0o600));
        assert_eq!(
            read_text(&disk, "x").expect("reads").as_deref(),
            Some("text")
        );
        assert_eq!(disk.names().expect("lists"), ["x"]);
    }

    #[test]
    fn directory_disk_reserves_room_without_changing_the_length() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = DirectoryDisk::open(dir.path()).expect("opened");
        let file = disk.create("x").expect("made");
        write_all_at(&*file, b"abc", 0).expect("written");
        match file.reserve(3, 1 << 20) {
            Ok(()) => assert!(std::fs::metadata(disk.path("x")).expect("is there").len() == 3),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported),
        }
        assert_eq!(read_whole(&*file).expect("reads"), b"abc");
    }
}
