//! The state of one inode that its handles in this client share.

use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use vdfs_proto::meta::{Commit, Committed, Truncated};
use vdfs_proto::session::{RecallOutcome, Right};
use vdfs_proto::{Attr, ChainId, ChunkSize, DataId, Ino, Layout, Status, Timestamp};

use super::dirty::{Dirty, Run, RunId};
use super::errors::StickyError;
use crate::plan::Extents;

/// Lock order: `append_turn`, then `commit_turn`, then the state, which is never held over an await.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) ino: Ino,
    chunk_size: ChunkSize,
    state: Mutex<State>,
    /// A run has landed, or a hold is over.
    pub(crate) progress: Notify,
    /// One commit at a time: each builds on the size that the last one made.
    pub(crate) commit_turn: tokio::sync::Mutex<()>,
    /// Records that are appended here go one after the other.
    pub(crate) append_turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// `None` until it is asked for, and after a recall.
    layout: Option<Layout>,
    /// The newest (data, truncations) this client has seen: nothing older is taken.
    newest: (DataId, u32),
    /// The largest size seen under this layout, also by `stat`.
    size_seen: u64,
    dirty: Dirty,
    /// Acknowledged by volumes, unknown to the master.
    acked: Extents,
    /// Of the last write that is not committed.
    mtime: Option<Timestamp>,
    kill_privileges: bool,
    tail_unknown: bool,
    error: StickyError,
    token: bool,
    /// The data version that the kernel's pages show, if all of them show one.
    known_version: Option<u64>,
    /// Goes up with everything that makes bytes read earlier stale.
    content: u64,
    last_write: Instant,
    last_commit: Instant,
    /// A task watches for the end of the writing.
    is_watched: bool,
}

/// A write to be taken.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    pub(crate) bytes: &'a Bytes,
    pub(crate) budget: OwnedSemaphorePermit,
    pub(crate) now: Timestamp,
    pub(crate) kill_privileges: bool,
}

/// What [`File::take_at_end`] needs first.
#[derive(Debug)]
pub(crate) enum AppendBlocked<'a> {
    /// A hold: wait for progress.
    Held(Taken<'a>),
    /// The token or the layout is missing.
    Rights(Taken<'a>),
    /// The file would be larger than files can be.
    TooLong,
}

impl File {
    pub(crate) fn new(ino: Ino, chunk_size: ChunkSize, known_version: Option<u64>) -> Self {
        let now = Instant::now();
        File {
            ino,
            chunk_size,
            state: Mutex::new(State {
                layout: None,
                newest: (DataId(0), 0),
                size_seen: 0,
                dirty: Dirty::new(chunk_size),
                acked: Extents::default(),
                mtime: None,
                kill_privileges: false,
                tail_unknown: false,
                error: StickyError::default(),
                token: false,
                known_version,
                content: 0,
                last_write: now,
                last_commit: now,
                is_watched: false,
            }),
            progress: Notify::new(),
            commit_turn: tokio::sync::Mutex::new(()),
            append_turn: tokio::sync::Mutex::new(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn layout(&self) -> Option<Layout> {
        self.state().layout
    }

    /// Takes a layout from the master unless a newer one is known.
    pub(crate) fn install_layout(&self, layout: Layout) {
        self.state().install(layout);
    }

    /// Size of the file as far as anybody here knows, with what is not committed.
    pub(crate) fn end(&self) -> u64 {
        self.state().end()
    }

    /// A reader must see these bytes, which no volume, or no commit, has yet.
    pub(crate) fn must_flush_before_read(&self, offset: u64, end: u64) -> bool {
        let state = self.state();
        let committed = state.layout.map_or(0, |layout| layout.size);
        state.dirty.overlaps(offset, end) || (end > committed && state.pending_end() > committed)
    }

    pub(crate) fn overlay(&self, attr: Attr) -> Attr {
        let state = self.state();
        let mtime = state.mtime.unwrap_or(attr.mtime);
        Attr {
            size: attr.size.max(state.pending_end()),
            mtime,
            ctime: attr.ctime.max(state.mtime.unwrap_or(attr.ctime)),
            ..attr
        }
    }

    /// A counter to give back with [`File::see_size`].
    pub(crate) fn content(&self) -> u64 {
        self.state().content
    }

    /// The master has said this size, asked when `content` was the counter.
    pub(crate) fn see_size(&self, size: u64, content: u64) {
        let mut state = self.state();
        if state.content == content && state.layout.is_some() {
            state.size_seen = state.size_seen.max(size);
        }
    }

    // Versions: which of the kernel's pages are good.

    pub(crate) fn known_version(&self) -> Option<u64> {
        self.state().known_version
    }

    /// A fresh open saw `version`: true if the kernel's pages show it.
    pub(crate) fn open_at_version(&self, version: u64) -> bool {
        let mut state = self.state();
        let keep = state.known_version == Some(version);
        state.known_version = Some(version);
        keep
    }

    // Writing.

    pub(crate) fn take(&self, offset: u64, taken: Taken<'_>) {
        self.state().take(offset, taken);
    }

    /// Takes a record at the end of the file, sealed, so that any later hold waits for it.
    pub(crate) fn take_at_end<'a>(&self, taken: Taken<'a>) -> Result<(), AppendBlocked<'a>> {
        let mut state = self.state();
        if state.dirty.is_held() {
            return Err(AppendBlocked::Held(taken));
        }
        if !state.token || state.layout.is_none() {
            return Err(AppendBlocked::Rights(taken));
        }
        let offset = state.end();
        let room = self.chunk_size.file_bytes_max().saturating_sub(offset);
        if taken.bytes.len() as u64 > room {
            return Err(AppendBlocked::TooLong);
        }
        state.take(offset, taken);
        state.dirty.seal_all();
        Ok(())
    }

    pub(crate) fn is_held(&self) -> bool {
        self.state().dirty.is_held()
    }

    pub(crate) fn seal_all(&self) -> RunId {
        self.state().dirty.seal_all()
    }

    pub(crate) fn hold(&self) -> RunId {
        self.state().dirty.hold()
    }

    pub(crate) fn unhold(&self) {
        self.state().dirty.unhold();
        self.progress.notify_waiters();
    }

    pub(crate) fn next_flight(&self) -> Option<Run> {
        self.state().dirty.next_flight()
    }

    pub(crate) fn has_landed_before(&self, id: RunId) -> bool {
        self.state().dirty.has_landed_before(id)
    }

    /// Nothing is on its way and nothing is left to commit.
    pub(crate) fn is_clean(&self) -> bool {
        let state = self.state();
        state.dirty.is_empty() && state.mtime.is_none()
    }

    /// A run has landed; false if the bytes are of a session that has ended.
    pub(crate) fn land(&self, run: &Run, outcome: Result<(), Status>) -> bool {
        let mut state = self.state();
        let counts = state.dirty.land(run.id, run.offset);
        if counts {
            match outcome {
                Ok(()) => state
                    .acked
                    .insert(run.offset, run.offset + run.bytes.len() as u64),
                Err(status) => state.fail(status),
            }
        }
        drop(state);
        self.progress.notify_waiters();
        counts
    }

    /// The chain that a flush waits for.
    pub(crate) fn waits_for(&self) -> Option<ChainId> {
        let state = self.state();
        let index = self.chunk_size.index_of(state.dirty.flying_at()?);
        Some(state.layout?.chain(index))
    }

    /// True if the caller is to watch for the end of the writing.
    pub(crate) fn begin_watch(&self) -> bool {
        !std::mem::replace(&mut self.state().is_watched, true)
    }

    /// True, and the watch is over, if there is nothing to write out.
    pub(crate) fn end_watch_if_clean(&self) -> bool {
        let mut state = self.state();
        let clean = state.dirty.is_empty() && state.mtime.is_none();
        state.is_watched = !clean;
        clean
    }

    pub(crate) fn last_write(&self) -> Instant {
        self.state().last_write
    }

    pub(crate) fn last_commit(&self) -> Instant {
        self.state().last_commit
    }

    // Committing.

    /// What there is to commit now.
    pub(crate) fn plan_commit(&self) -> Option<Commit> {
        let state = self.state();
        let layout = state.layout?;
        let plan = state.acked.plan(layout.size, state.dirty.ranges());
        let mtime = state.mtime?;
        Some(Commit {
            ino: self.ino,
            data: layout.data,
            truncations: layout.truncations,
            end: plan.end,
            holes: plan.holes,
            mtime,
            kill_privileges: state.kill_privileges,
        })
    }

    pub(crate) fn committed(&self, commit: &Commit, committed: &Committed) {
        let mut state = self.state();
        state.last_commit = Instant::now();
        state.follow_version(committed.data_version_before, committed.attr.data_version);
        if state.newest != (commit.data, commit.truncations) {
            return;
        }
        state.acked.remove_below(commit.end);
        let all = state.dirty.is_empty() && state.acked.end() <= commit.end;
        if all && state.mtime == Some(commit.mtime) {
            state.mtime = None;
            state.kill_privileges = false;
        }
        let size = committed.attr.size;
        state.size_seen = state.size_seen.max(size);
        if let Some(layout) = &mut state.layout {
            layout.size = layout.size.max(size);
            layout.holes |= commit.holes;
        }
    }

    /// The master has refused a commit for good.
    pub(crate) fn refused(&self, status: Status) {
        let mut state = self.state();
        state.fail(status);
        state.forget_uncommitted();
    }

    pub(crate) fn truncated(&self, truncated: &Truncated) {
        let mut state = self.state();
        let version = truncated.attr.data_version;
        state.follow_version(version.saturating_sub(1), version);
        state.acked.clear();
        state.install(truncated.layout);
    }

    // Rights.

    pub(crate) fn has_token(&self) -> bool {
        self.state().token
    }

    pub(crate) fn take_token(&self, layout: Layout) {
        let mut state = self.state();
        state.install(layout);
        state.token = true;
    }

    pub(crate) fn holds(&self, right: Right) -> bool {
        let state = self.state();
        match right {
            Right::Layout => state.layout.is_some(),
            Right::Append => state.token,
        }
    }

    /// Gives a right up after the flush.
    pub(crate) fn let_go(&self, right: Right) -> RecallOutcome {
        let mut state = self.state();
        state.content += 1;
        match right {
            Right::Append => state.token = false,
            Right::Layout => {
                state.layout = None;
                // The token lives under the layout and went with it at the master.
                state.token = false;
                state.size_seen = 0;
                state.known_version = None;
                state.tail_unknown |= state.acked.end() > 0;
                state.acked.clear();
            }
        }
        if std::mem::take(&mut state.tail_unknown) {
            return RecallOutcome::TailUnknown;
        }
        RecallOutcome::Done
    }

    /// Drops what only the ended session could write; returns (offset, length) of lost ranges.
    pub(crate) fn end_of_session(&self) -> Vec<(u64, u64)> {
        let mut state = self.state();
        let lost = state.dirty.drop_all();
        if !lost.is_empty() || state.mtime.is_some() {
            state.error.record(Status::SessionExpired);
        }
        state.forget_uncommitted();
        state.layout = None;
        state.size_seen = 0;
        state.token = false;
        // The master has marked the inode when it ended the session.
        state.tail_unknown = false;
        state.known_version = None;
        state.content += 1;
        drop(state);
        self.progress.notify_waiters();
        lost.into_iter()
            .map(|(start, end)| (start, end - start))
            .collect()
    }

    // Errors.

    pub(crate) fn error_mark(&self) -> u64 {
        self.state().error.mark()
    }

    pub(crate) fn check_error(&self, seen: &mut u64) -> Result<(), Status> {
        self.state().error.check(seen)
    }

    pub(crate) fn is_tail_unknown(&self) -> bool {
        self.state().tail_unknown
    }
}

impl State {
    fn pending_end(&self) -> u64 {
        let dirty = self.dirty.ranges().map(|(_, end)| end).max().unwrap_or(0);
        dirty.max(self.acked.end())
    }

    fn end(&self) -> u64 {
        let committed = self.layout.map_or(0, |layout| layout.size);
        committed.max(self.size_seen).max(self.pending_end())
    }

    fn install(&mut self, layout: Layout) {
        let version = (layout.data, layout.truncations);
        if version < self.newest {
            return;
        }
        let same = self.layout.filter(|_| version == self.newest);
        if version > self.newest {
            self.content += 1;
            self.size_seen = 0;
        }
        self.newest = version;
        self.layout = Some(Layout {
            size: layout.size.max(same.map_or(0, |same| same.size)),
            holes: layout.holes || same.is_some_and(|same| same.holes),
            ..layout
        });
    }

    fn take(&mut self, offset: u64, taken: Taken<'_>) {
        self.dirty.take(offset, taken.bytes, taken.budget);
        self.mtime = Some(taken.now);
        self.kill_privileges |= taken.kill_privileges;
        self.content += 1;
        self.last_write = Instant::now();
    }

    fn fail(&mut self, status: Status) {
        self.error.record(status);
        self.tail_unknown = true;
        self.content += 1;
    }

    fn forget_uncommitted(&mut self) {
        self.acked.clear();
        self.mtime = None;
        self.kill_privileges = false;
    }

    /// Our own change took the data version from `before` to `after`.
    fn follow_version(&mut self, before: u64, after: u64) {
        self.known_version = self
            .known_version
            .filter(|&known| known == before)
            .map(|_| after);
    }
}
