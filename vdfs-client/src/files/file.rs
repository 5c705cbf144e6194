//! The state of one inode that its handles in this client share.

use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};
use vdfs_proto::attr::without_privileges;
use vdfs_proto::chunk::BLOCK_BYTES;
use vdfs_proto::data::SpaceKind;
use vdfs_proto::meta::{Commit, Committed, Truncated};
use vdfs_proto::session::{RecallOutcome, Right};
use vdfs_proto::{Attr, ChainId, ChunkSize, DataId, Ino, Layout, Status, Timestamp};

use super::access::Access;
use super::dirty::{Dirty, Order, Run, RunId, Work};
use super::errors::StickyError;
use crate::clock::wall;
use crate::limits::OPEN_DROPS_WITHIN;
use crate::plan::Extents;
use crate::shares::Budget;

/// Lock order: `append_turn` or `space_turn`, then `commit_turn`, then the state, which is never held
/// over an await.
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
    /// One call that gives orders at a time: what is provided is of one.
    pub(crate) space_turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// `None` until it is asked for, and after a recall.
    layout: Option<Layout>,
    /// Goes up when a right is asked back, let go, and known to be gone: a grant asked for before is
    /// not taken.
    recalls: u64,
    /// Recalls that the master has not been answered.
    recalling: u32,
    /// Those of them that are of the layout.
    giving_layout: u32,
    /// The newest (data, truncations) this client has seen: nothing older is taken.
    newest: (DataId, u32),
    /// The largest size seen under this layout, also by `stat`.
    size_seen: u64,
    /// The largest size that a caller was told under this layout, perhaps of the one before.
    size_told: u64,
    /// How often callers were told a size, and the last one.
    tellings: u64,
    told_last: u64,
    dirty: Dirty,
    /// The record that is being appended. It is no part of the size before it is committed: other mounts
    /// could not see it yet.
    appending: Option<Range<u64>>,
    /// Acknowledged by volumes, unknown to the master.
    acked: Extents,
    /// What volumes have provided by orders that are not all done yet.
    provided: Extents,
    /// Runs that have landed, and how many of them the last commit covers.
    landed: u64,
    landed_committed: u64,
    /// What the newest of our own commits and truncations left.
    changed: Option<Attr>,
    /// Of the last write that is not committed.
    mtime: Option<Timestamp>,
    kill_privileges: bool,
    tail_unknown: bool,
    access: Access,
    error: StickyError,
    token: bool,
    /// The data version that the kernel's pages show, if all of them show one.
    known_version: Option<u64>,
    /// The last open at whose answer the kernel drops its pages.
    opened_afresh: Option<Instant>,
    /// Goes up with everything that makes bytes read earlier stale.
    content: u64,
    last_write: Instant,
    last_commit: Instant,
    /// A task watches for the end of the writing.
    is_watched: bool,
    /// Handles whose mappings the kernel may have written to.
    mappers: u32,
}

/// A write to be taken.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    pub(crate) bytes: &'a Bytes,
    pub(crate) budget: Budget,
    pub(crate) now: Timestamp,
    pub(crate) kill_privileges: bool,
}

/// A commit to be sent.
#[derive(Clone, Debug)]
pub(crate) struct CommitPlanned {
    pub(crate) commit: Commit,
    /// Runs that had landed.
    landed: u64,
}

/// What is to be there before a range is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacks {
    /// A layout, once none is being given up.
    Layout,
    /// The gap: the file ends before the range begins.
    Gap,
}

/// What [`File::take_at_end`] needs first.
#[derive(Debug)]
pub(crate) enum AppendBlocked<'a> {
    /// A hold: wait for progress.
    Held(Taken<'a>),
    /// The token is missing.
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
                recalls: 0,
                recalling: 0,
                giving_layout: 0,
                newest: (DataId(0), 0),
                size_seen: 0,
                size_told: 0,
                tellings: 0,
                told_last: 0,
                dirty: Dirty::new(chunk_size),
                appending: None,
                acked: Extents::default(),
                provided: Extents::default(),
                landed: 0,
                landed_committed: 0,
                changed: None,
                mtime: None,
                kill_privileges: false,
                tail_unknown: false,
                access: Access::default(),
                error: StickyError::default(),
                token: false,
                known_version,
                opened_afresh: None,
                content: 0,
                last_write: now,
                last_commit: now,
                is_watched: false,
                mappers: 0,
            }),
            progress: Notify::new(),
            commit_turn: tokio::sync::Mutex::new(()),
            append_turn: tokio::sync::Mutex::new(()),
            space_turn: tokio::sync::Mutex::new(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn layout(&self) -> Option<Layout> {
        self.state().layout
    }

    /// To be noted before a right is asked for, and given back with the grant.
    pub(crate) fn recalls(&self) -> u64 {
        self.state().recalls
    }

    /// Takes a layout unless it was asked back meanwhile (then false) or a newer one is known.
    pub(crate) fn install_layout(&self, layout: Layout, recalls: u64) -> bool {
        let mut state = self.state();
        // What is granted behind a recall that is not answered yet goes with that recall.
        let is_ours = state.layout.is_some() || state.recalling == 0;
        let taken = is_ours && state.recalls == recalls;
        if taken {
            state.install(layout);
        }
        taken
    }

    /// Size of the file as far as anybody here knows, with what is not committed.
    pub(crate) fn end(&self) -> u64 {
        self.state().end()
    }

    /// Size of the file as the master has it, as far as anybody here knows.
    pub(crate) fn committed_end(&self) -> u64 {
        self.state().committed_end()
    }

    /// A reader must see these bytes, which no volume, or no commit, has yet.
    pub(crate) fn must_flush_before_read(&self, offset: u64, end: u64) -> bool {
        let state = self.state();
        let committed = state.layout.map_or(0, |layout| layout.size);
        state.dirty.overlaps(offset, end) || (end > committed && state.pending_end() > committed)
    }

    /// What is known of the end does not do for a read of this range: the file may go on behind it,
    /// or does, as somebody here was told.
    pub(crate) fn must_ask_end(&self, offset: u64, end: u64) -> bool {
        let state = self.state();
        let known = state.committed_end();
        offset >= known || (end > known && state.size_told > known)
    }

    pub(crate) fn overlay(&self, attr: Attr) -> Attr {
        let mut state = self.state();
        let attr = state.access.shown(state.not_older(attr));
        let mtime = state.mtime.unwrap_or(attr.mtime);
        let mode = match state.kill_privileges {
            true => without_privileges(attr.mode),
            false => attr.mode,
        };
        let size = attr.size.max(state.shown_end());
        state.size_told = state.size_told.max(size);
        state.tellings += 1;
        state.told_last = size;
        Attr {
            mode,
            size,
            mtime,
            ctime: attr.ctime.max(state.mtime.unwrap_or(attr.ctime)),
            ..attr
        }
    }

    /// To be noted before a read, for [`File::was_told_longer`].
    pub(crate) fn tellings(&self) -> u64 {
        self.state().tellings
    }

    /// Since `tellings` somebody was told that the file goes on behind `end`.
    pub(crate) fn was_told_longer(&self, tellings: u64, end: u64) -> bool {
        let state = self.state();
        state.tellings != tellings && state.told_last > end
    }

    /// Bytes that are written and that no volume has yet, an upper bound.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        let block = u64::from(BLOCK_BYTES);
        let state = self.state();
        let ranges = state.dirty.ranges();
        ranges
            .map(|(start, end)| end.next_multiple_of(block) - (start - start % block))
            .sum()
    }

    /// Goes up with everything that makes bytes read earlier stale.
    pub(crate) fn content(&self) -> u64 {
        self.state().content
    }

    /// The master has said this size, asked when [`File::recalls`] was `recalls`.
    pub(crate) fn see_size(&self, size: u64, recalls: u64) {
        let mut state = self.state();
        if state.recalls == recalls && state.layout.is_some() {
            state.size_seen = state.size_seen.max(size);
        }
    }

    // Versions: which of the kernel's pages are good.

    pub(crate) fn known_version(&self) -> Option<u64> {
        self.state().known_version
    }

    /// A fresh open saw `attr`: true if the kernel's pages show its version. If they do not, what
    /// older handles have read ahead is as old, and must not fill them again.
    pub(crate) fn open_at(&self, attr: &Attr) -> bool {
        let version = attr.data_version;
        let mut state = self.state();
        state.access.see(attr, wall());
        let keep = state.known_version == Some(version);
        state.known_version = Some(version);
        state.content += u64::from(!keep);
        if !keep {
            state.opened_afresh = Some(Instant::now());
        }
        keep
    }

    /// The kernel may not have dropped yet what such an open has it drop, and still show older bytes
    /// than those of the known version.
    pub(crate) fn is_being_opened_afresh(&self) -> bool {
        let opened = self.state().opened_afresh;
        opened.is_some_and(|opened| opened.elapsed() < OPEN_DROPS_WITHIN)
    }

    /// What was read ahead is stale.
    pub(crate) fn forget_content(&self) {
        self.state().content += 1;
    }

    /// The kernel's pages were dropped since `begun`, and show `version`, or later bytes.
    pub(crate) fn show_version(&self, version: u64, begun: Instant) {
        let mut state = self.state();
        state.known_version = Some(version);
        state.opened_afresh = state.opened_afresh.filter(|opened| *opened > begun);
    }

    // Mappings.

    pub(crate) fn add_mapper(&self) {
        self.state().mappers += 1;
    }

    pub(crate) fn remove_mapper(&self) {
        self.state().mappers -= 1;
    }

    pub(crate) fn has_mappers(&self) -> bool {
        self.state().mappers > 0
    }

    // Access times.

    pub(crate) fn note_read(&self) {
        self.state().access.read(wall);
    }

    /// When it was read, if that moves its access time.
    pub(crate) fn read_at(&self) -> Option<Timestamp> {
        self.state().access.read_at()
    }

    /// Attributes were set, perhaps the access time.
    pub(crate) fn attributes_set(&self, with_atime: bool) {
        let mut state = self.state();
        match with_atime {
            true => state.access.set(),
            false => state.access.change(),
        }
    }

    // Writing.

    /// The next commit clears suid and sgid.
    pub(crate) fn is_killing_privileges(&self) -> bool {
        self.state().kill_privileges
    }

    /// Takes a write under a layout that stays, so that a truncation elsewhere waits until it is
    /// out; `may_gap` if the file may end before it, as far as anybody here knows.
    pub(crate) fn take<'a>(
        &self,
        offset: u64,
        taken: Taken<'a>,
        may_gap: bool,
    ) -> Result<(), (Lacks, Taken<'a>)> {
        let mut state = self.state();
        match state.lacks(offset) {
            Some(Lacks::Gap) if may_gap => {}
            Some(lacks) => return Err((lacks, taken)),
            None => {}
        }
        state.take(offset, taken);
        Ok(())
    }

    /// Orders a volume's work on `len` bytes at `offset`, within one chunk, under a layout that stays,
    /// as [`File::take`] does for bytes. Gives where to hear of its end.
    pub(crate) fn order(
        &self,
        (offset, len): (u64, u64),
        work: Work,
    ) -> Result<oneshot::Receiver<Result<(), Status>>, Lacks> {
        let mut state = self.state();
        if let Some(lacks) = state.lacks(offset) {
            return Err(lacks);
        }
        let (order, outcome) = Order::new(work);
        state.dirty.order(offset, len, order);
        state.content += 1;
        Ok(outcome)
    }

    /// Orders are done: the file counts as modified, and these ranges, each of (start, end), as
    /// written, so that the next commit lets the file reach there. False if rights were given up
    /// meanwhile, and so perhaps some of what was provided.
    pub(crate) fn keep_provided(
        &self,
        ranges: &[(u64, u64)],
        (now, kill_privileges): (Timestamp, bool),
    ) -> bool {
        let mut state = self.state();
        let mut kept = ranges.iter();
        if !kept.all(|&(start, end)| state.provided.covers(start, end)) {
            return false;
        }
        for &(start, end) in ranges {
            state.acked.insert(start, end);
        }
        state.drop_provided();
        state.landed += 1;
        state.modified(now, kill_privileges);
        true
    }

    /// Orders have failed: the file does not reach any further for what was provided.
    pub(crate) fn drop_provided(&self) {
        self.state().drop_provided();
    }

    /// Takes a record at the end of the file, sealed, so that any later hold waits for it.
    pub(crate) fn take_at_end<'a>(&self, taken: Taken<'a>) -> Result<(), AppendBlocked<'a>> {
        let mut state = self.state();
        if state.dirty.is_held() {
            return Err(AppendBlocked::Held(taken));
        }
        if !state.token {
            return Err(AppendBlocked::Rights(taken));
        }
        assert!(state.layout.is_some(), "a token lives under a layout");
        let offset = state.end();
        let room = self.chunk_size.file_bytes_max().saturating_sub(offset);
        if taken.bytes.len() as u64 > room {
            return Err(AppendBlocked::TooLong);
        }
        state.appending = Some(offset..offset + taken.bytes.len() as u64);
        state.take(offset, taken);
        state.dirty.seal_all();
        Ok(())
    }

    /// The record is committed, or lost.
    pub(crate) fn end_append(&self) {
        self.state().appending = None;
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

    pub(crate) fn try_hold(&self) -> Option<RunId> {
        self.state().dirty.try_hold()
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
            state.landed += 1;
            // What was read ahead while it was on its way is from before it.
            state.content += 1;
            match outcome {
                Ok(()) => state.note_landed(run),
                Err(status) => state.note_failed(run, status),
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

    /// What there is to commit now: nothing until a run has landed, so that the time of bytes that
    /// are held back is not committed under the layout before.
    pub(crate) fn plan_commit(&self) -> Option<CommitPlanned> {
        let state = self.state();
        if state.landed == state.landed_committed {
            return None;
        }
        let layout = state.layout?;
        let unfinished = state.dirty.ranges_to_commit().into_iter();
        let plan = state.acked.plan(state.committed_end(), unfinished);
        let commit = Commit {
            ino: self.ino,
            data: layout.data,
            truncations: layout.truncations,
            end: plan.end,
            holes: plan.holes,
            mtime: state.mtime?,
            kill_privileges: state.kill_privileges,
        };
        Some(CommitPlanned {
            commit,
            landed: state.landed,
        })
    }

    /// Takes note of a commit of all runs that [`File::plan_commit`] knew of.
    pub(crate) fn committed(&self, planned: &CommitPlanned, committed: &Committed) {
        self.note_commit(&planned.commit, committed);
        let mut state = self.state();
        state.last_commit = Instant::now();
        // What a run acknowledged beyond an unfinished one is committed together with that.
        if state.acked.end() <= planned.commit.end {
            state.landed_committed = planned.landed;
        }
        let is_all = state.dirty.is_empty() && state.landed == state.landed_committed;
        if is_all && state.mtime == Some(planned.commit.mtime) {
            state.mtime = None;
            state.kill_privileges = false;
        }
    }

    /// Takes note of a size that the master has taken.
    pub(crate) fn note_commit(&self, commit: &Commit, committed: &Committed) {
        let mut state = self.state();
        state.follow_version(committed.data_version_before, committed.attr.data_version);
        state.changed = Some(committed.attr);
        if state.newest != (commit.data, commit.truncations) {
            return;
        }
        state.acked.remove_below(commit.end);
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
        state.changed = Some(truncated.attr);
        state.access.change();
        state.acked.clear();
        state.provided.clear();
        // What was asked for before may be of the longer file.
        state.recalls += 1;
        // The reply of a mutation grants nothing: it brings the layout that is held up to date.
        if state.layout.is_some() {
            state.install(truncated.layout);
        }
    }

    // Rights.

    pub(crate) fn has_token(&self) -> bool {
        self.state().token
    }

    /// Takes the append token unless it was asked back meanwhile.
    pub(crate) fn take_token(&self, layout: Layout, recalls: u64) {
        let mut state = self.state();
        if state.recalls == recalls && state.recalling == 0 {
            state.install(layout);
            state.token = true;
        }
    }

    /// A right is asked back; false if it is not here. It is not taken either when it comes before
    /// [`File::end_recall`].
    pub(crate) fn begin_recall(&self, right: Right) -> bool {
        let mut state = self.state();
        state.recalls += 1;
        state.recalling += 1;
        match right {
            Right::Layout => {
                state.giving_layout += 1;
                state.layout.is_some()
            }
            Right::Append => state.token,
        }
    }

    /// The master knows that the right is gone.
    pub(crate) fn end_recall(&self, right: Right) {
        let mut state = self.state();
        state.recalls += 1;
        state.recalling -= 1;
        state.giving_layout -= u32::from(right == Right::Layout);
        drop(state);
        self.progress.notify_waiters();
    }

    /// The layout is being given up: what is written now comes after whatever it is asked back for.
    pub(crate) fn is_giving_layout(&self) -> bool {
        self.state().giving_layout > 0
    }

    /// A grant that comes now is not taken.
    pub(crate) fn is_recalling(&self) -> bool {
        let state = self.state();
        state.recalling > 0 && state.layout.is_none()
    }

    /// Gives a right up after the flush.
    pub(crate) fn let_go(&self, right: Right) -> RecallOutcome {
        let mut state = self.state();
        state.content += 1;
        state.recalls += 1;
        match right {
            Right::Append => state.token = false,
            Right::Layout => {
                state.layout = None;
                // The token lives under the layout and went with it at the master.
                state.token = false;
                state.size_seen = 0;
                state.known_version = None;
                state.tail_unknown |= state.acked.end() > 0 || state.provided.end() > 0;
                state.acked.clear();
                state.provided.clear();
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
        state.recalls += 1;
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
    /// What a write at `offset` has to wait for.
    fn lacks(&self, offset: u64) -> Option<Lacks> {
        if self.layout.is_none() || self.giving_layout > 0 {
            return Some(Lacks::Layout);
        }
        (offset > self.end()).then_some(Lacks::Gap)
    }

    fn note_landed(&mut self, run: &Run) {
        let (start, end) = (run.offset, run.offset + run.len);
        match run.work() {
            None => self.acked.insert(start, end),
            Some(Work::Space(SpaceKind::Punch)) => {}
            Some(Work::Space(SpaceKind::Zero | SpaceKind::Allocate) | Work::Copy(_)) => {
                self.provided.insert(start, end);
            }
        }
    }

    fn drop_provided(&mut self) {
        let known = self.committed_end().max(self.acked.end());
        self.tail_unknown |= self.provided.end() > known;
        self.provided.clear();
    }

    /// Of an order whoever gave it hears.
    fn note_failed(&mut self, run: &Run, status: Status) {
        match run.work() {
            None => self.fail(status),
            Some(_) => self.tail_unknown = true,
        }
    }

    /// Attributes that were asked for before a commit may arrive behind its answer: they must not
    /// take back the size and the times that this client has shown.
    fn not_older(&self, attr: Attr) -> Attr {
        match self.changed {
            Some(changed) if changed.data_version > attr.data_version => Attr {
                size: changed.size,
                mtime: changed.mtime,
                ctime: changed.ctime.max(attr.ctime),
                data_version: changed.data_version,
                has_holes: changed.has_holes,
                ..attr
            },
            _ => attr,
        }
    }

    fn pending_end(&self) -> u64 {
        let dirty = self.dirty.ranges().map(|(_, end)| end).max().unwrap_or(0);
        dirty.max(self.acked.end()).max(self.provided.end())
    }

    /// Without the record that is being appended, unless others were written behind it.
    fn shown_end(&self) -> u64 {
        let end = self.pending_end();
        match &self.appending {
            Some(record) if record.end == end => record.start,
            _ => end,
        }
    }

    fn committed_end(&self) -> u64 {
        let committed = self.layout.map_or(0, |layout| layout.size);
        committed.max(self.size_seen)
    }

    fn end(&self) -> u64 {
        self.committed_end().max(self.pending_end())
    }

    fn install(&mut self, layout: Layout) {
        let version = (layout.data, layout.truncations);
        if version < self.newest {
            return;
        }
        let same = self.layout.filter(|_| version == self.newest);
        if version > self.newest {
            self.content += 1;
            // Sizes that were asked for before may be of the layout before.
            self.recalls += 1;
            self.size_seen = 0;
            self.size_told = 0;
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
        self.content += 1;
        self.modified(taken.now, taken.kill_privileges);
    }

    fn modified(&mut self, now: Timestamp, kill_privileges: bool) {
        self.mtime = Some(now);
        self.kill_privileges |= kill_privileges;
        self.access.change();
        self.last_write = Instant::now();
    }

    fn fail(&mut self, status: Status) {
        self.error.record(status);
        self.tail_unknown = true;
        self.content += 1;
    }

    fn forget_uncommitted(&mut self) {
        self.acked.clear();
        self.provided.clear();
        self.landed_committed = self.landed;
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
