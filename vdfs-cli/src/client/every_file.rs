//! A walk over all that is no directory, from a directory down.
//!
//! Directories are read page by page and looked at side by side, so that millions of names take no
//! memory here and no round trip each in turn.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vdfs_client::Fs;
use vdfs_proto::limits::READDIR_ENTRIES_MAX;
use vdfs_proto::meta::ListingEntry;
use vdfs_proto::{Attr, ChainTable, FileKind, Ino, Layout, Status};

/// Names looked at at once.
const AT_ONCE: usize = 64;

/// A name that was found.
#[derive(Debug)]
pub(crate) struct Named<'a> {
    pub(crate) parent: &'a Attr,
    /// Of the parent.
    pub(crate) path: &'a Path,
    pub(crate) entry: ListingEntry,
}

impl Named<'_> {
    pub(crate) fn path(&self) -> PathBuf {
        child(self.path, &self.entry)
    }
}

fn child(path: &Path, entry: &ListingEntry) -> PathBuf {
    path.join(OsStr::from_bytes(entry.name.as_bytes()))
}

/// Calls `look` with each name below a directory.
pub(crate) async fn look_at_every_file(
    fs: &Fs,
    (top, path): (Ino, &Path),
    look: impl AsyncFn(Named<'_>) -> Result<(), Status>,
) -> Result<(), Status> {
    let mut pending = vec![(top, path.to_owned())];
    while let Some((directory, path)) = pending.pop() {
        let parent = fs.getattr(directory).await?;
        let mut cookie = 0;
        loop {
            let page = fs.readdir(directory, cookie, READDIR_ENTRIES_MAX as u32, true, false);
            let page = page.await?;
            let Some(last) = page.entries.last() else {
                break;
            };
            cookie = last.cookie;
            let (directories, files): (Vec<_>, Vec<_>) = page
                .entries
                .into_iter()
                .partition(|entry| entry.kind == FileKind::Directory);
            let below = directories.iter();
            pending.extend(below.map(|entry| (entry.ino, child(&path, entry))));
            let looks = files.into_iter().map(|entry| {
                look(Named {
                    parent: &parent,
                    path: &path,
                    entry,
                })
            });
            let looks = stream::iter(looks).buffer_unordered(AT_ONCE);
            looks.try_for_each(|()| std::future::ready(Ok(()))).await?;
            if page.at_end {
                break;
            }
        }
    }
    Ok(())
}

/// What says where a file lies; none if somebody has removed it meanwhile.
pub(crate) async fn locate(
    fs: &Fs,
    ino: Ino,
) -> Result<Option<(Attr, Layout, ChainTable)>, Status> {
    match fs.locate(ino).await {
        Err(Status::StaleInode | Status::NotFound) => Ok(None),
        located => located.map(Some),
    }
}

/// Counts names, where a person can see it.
pub(crate) fn bar() -> ProgressBar {
    let is_seen = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let target = match is_seen {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{human_pos} names looked at, {msg}") {
        bar.set_style(style);
    }
    bar
}
