//! Questions about the namespace; opens, closes and append tokens.

use vdfs_proto::limits::READDIR_ENTRIES_MAX;
use vdfs_proto::meta::{
    Answer, AppendToken, FsStats, GetXattr, Listing, ListingEntry, Open, Opened, Query,
    QueryRequest, ReadDir,
};
use vdfs_proto::session::{OpenHandle, Right};
use vdfs_proto::{Attr, HandleId, Ino, SessionId, Status, SymlinkTarget, XattrName};

use super::directory::{Entry, NameKey};
use super::dispatch::WaitFor;
use super::inode::Body;
use super::live::{AfterDurable, Parked, Recall};
use super::state::State;
use super::{Core, CoreReply, Ticket};

/// An answer, or what the question waits for.
type Asked = Result<Answer, Wait>;

enum Wait {
    Refused(Status),
    For(WaitFor),
    /// Answered by what was arranged.
    Arranged,
}

impl From<Status> for Wait {
    fn from(status: Status) -> Self {
        Wait::Refused(status)
    }
}

impl Core {
    pub(crate) fn take_query(&mut self, ticket: Ticket, request: QueryRequest) {
        let session = request.session;
        if let Err(status) = self.hear(session) {
            self.live.reply(ticket, Err(status));
            return;
        }
        match self.answer_query(ticket, session, &request.query) {
            Ok(answer) => self.live.reply(ticket, Ok(CoreReply::Query(answer))),
            Err(Wait::Refused(status)) => self.live.reply(ticket, Err(status)),
            Err(Wait::For(wait)) => self.park(wait, Parked::Query(ticket, request)),
            Err(Wait::Arranged) => {}
        }
    }

    fn answer_query(&mut self, ticket: Ticket, session: SessionId, query: &Query) -> Asked {
        match query {
            Query::Open(open) => self.open_file(session, open),
            Query::Release(release) => {
                self.note_read(session, release);
                self.release_handle(session, release.handle, release.tail_unknown);
                Ok(Answer::Release(()))
            }
            Query::GetLayout(get) => self.get_layout(session, get.ino),
            Query::AcquireAppend(get) => self.acquire_append(session, get.ino, get.handle),
            Query::ReturnAppend(give) => {
                self.return_append(session, give.ino);
                Ok(Answer::ReturnAppend(()))
            }
            Query::SyncLog(_) => self.sync_log(ticket),
            Query::TestLock(test) => Ok(Answer::TestLock(self.state.test_lock(session, test)?)),
            Query::WaitLock(wait) => {
                self.wait_for_lock(ticket, session, wait)?;
                Err(Wait::Arranged)
            }
            Query::ReadDir(read) => {
                self.note_listing(read);
                Ok(Answer::ReadDir(self.state.readdir(read)?))
            }
            Query::GetAttr(get) => Ok(Answer::GetAttr(self.attr_or_last(get.ino)?)),
            Query::StatFs(_) => Ok(Answer::StatFs(self.stats())),
            Query::GetChainTable(_) => Ok(Answer::GetChainTable((*self.live.table).clone())),
            query => Ok(self.state.answer_namespace(query)?),
        }
    }

    /// Of an inode that has ended, what it was then.
    fn attr_or_last(&self, ino: Ino) -> Result<Attr, Status> {
        let known = self.state.attr(ino);
        known.or_else(|status| self.live.departed.attr(ino).ok_or(status))
    }

    fn open_file(&mut self, session: SessionId, open: &Open) -> Asked {
        let Open {
            ino,
            handle,
            access,
        } = *open;
        self.state.file(ino)?;
        self.live.check_handle(session, handle, Some(ino))?;
        if let Some(wait) = self.wait_before_open(ino, access) {
            return Err(Wait::For(wait));
        }
        let is_shared = self.is_shared(session, (handle, access), ino);
        let open = OpenHandle {
            handle,
            ino,
            access,
            is_shared,
        };
        self.check_hold()?;
        if access.write && self.live.log_full.is_some() {
            return Err(Status::NoSpace.into());
        }
        self.open_handle(session, open);
        Ok(Answer::Open(Opened {
            attr: self.state.attr(ino)?,
            layout: self.state.file(ino)?.layout(),
            is_shared,
        }))
    }

    fn get_layout(&mut self, session: SessionId, ino: Ino) -> Asked {
        let layout = self.state.file(ino)?.layout();
        if let Some(ino) = self.work_on(ino)
            && !self.is_being_recalled(ino, session)
        {
            return Err(Wait::For(WaitFor::Work(ino)));
        }
        self.live.opens.grant_layout(ino, session);
        Ok(Answer::GetLayout(layout))
    }

    /// Grants the append token, or recalls it from its holder.
    fn acquire_append(&mut self, session: SessionId, ino: Ino, handle: HandleId) -> Asked {
        let layout = self.state.file(ino)?.layout();
        self.live.check_handle(session, handle, Some(ino))?;
        if !self.live.opens.has_handle(ino, session) {
            return Err(Status::BadHandle.into());
        }
        let holds = self.live.opens.appender(ino) == Some(session);
        if let Some(ino) = self.work_on(ino)
            && !(holds && self.is_being_recalled(ino, session))
        {
            return Err(Wait::For(WaitFor::Work(ino)));
        }
        if !self.live.unresumed.is_empty() {
            return Err(Wait::For(WaitFor::Resumes));
        }
        match self.live.opens.appender(ino) {
            Some(holder) if holder != session => {
                self.recall(holder, ino, Right::Append);
                Err(Wait::For(WaitFor::Append(ino)))
            }
            _ => {
                self.live.opens.grant_append(ino, session);
                Ok(Answer::AcquireAppend(AppendToken { layout }))
            }
        }
    }

    fn return_append(&mut self, session: SessionId, ino: Ino) {
        self.live.opens.give_up_append(ino, session);
        let recalls = &mut self.live.recalls;
        let returned = Recall {
            session,
            ino,
            right: Right::Append,
        };
        recalls.retain(|_, asked| asked.recall != returned);
        self.rights_changed(ino);
    }

    fn sync_log(&mut self, ticket: Ticket) -> Asked {
        if self.live.durable >= self.state.records {
            return Ok(Answer::SyncLog(()));
        }
        let reply = CoreReply::Query(Answer::SyncLog(()));
        self.after_sync(AfterDurable::Reply(ticket, reply));
        Err(Wait::Arranged)
    }

    fn is_reaping(&self) -> bool {
        let logged = !self.state.reaps.is_empty() || !self.state.trims.is_empty();
        logged || !self.live.lingering.is_empty()
    }

    /// Room and use, of the volumes that take new data.
    pub(crate) fn stats(&self) -> FsStats {
        let volumes = self.live.volumes.iter();
        let taking = volumes.filter(|(volume, _)| self.may_get_places(**volume));
        let (mut capacity_bytes, mut free_bytes) = (0, 0);
        for (_, live) in taking {
            capacity_bytes += live.capacity_bytes;
            free_bytes += live.capacity_bytes.saturating_sub(live.used_bytes);
        }
        let copies = u64::from(self.copies_possible());
        FsStats {
            capacity_bytes: capacity_bytes / copies,
            free_bytes: free_bytes / copies,
            files: self.state.inodes.counters.used,
            files_max: self.state.inodes.counters.used + self.files_left(),
            is_reaping: self.is_reaping(),
        }
    }
}

impl State {
    /// Answers what only needs the namespace.
    fn answer_namespace(&self, query: &Query) -> Result<Answer, Status> {
        match query {
            Query::Lookup(lookup) => {
                let ino = self.lookup(lookup.parent, &lookup.name)?;
                Ok(Answer::Lookup(self.attr(ino)?))
            }
            Query::ReadLink(read) => Ok(Answer::ReadLink(self.readlink(read.ino)?)),
            Query::GetXattr(get) => Ok(Answer::GetXattr(self.get_xattr(get)?)),
            Query::ListXattr(list) => Ok(Answer::ListXattr(self.list_xattr(list.ino)?)),
            Query::GetAttr(_)
            | Query::ReadDir(_)
            | Query::StatFs(_)
            | Query::Open(_)
            | Query::Release(_)
            | Query::GetLayout(_)
            | Query::AcquireAppend(_)
            | Query::ReturnAppend(_)
            | Query::GetChainTable(_)
            | Query::SyncLog(_)
            | Query::TestLock(_)
            | Query::WaitLock(_) => unreachable!("answered with what is not logged"),
        }
    }

    fn readlink(&self, ino: Ino) -> Result<SymlinkTarget, Status> {
        match &self.inode(ino)?.body {
            Body::Symlink(target) => Ok((**target).clone()),
            _ => Err(Status::Invalid),
        }
    }

    fn get_xattr(&self, get: &GetXattr) -> Result<Vec<u8>, Status> {
        let xattrs = self.xattrs_of(get.ino)?.ok_or(Status::NoData)?;
        xattrs.get(&get.name).cloned().ok_or(Status::NoData)
    }

    fn list_xattr(&self, ino: Ino) -> Result<Vec<XattrName>, Status> {
        let xattrs = self.xattrs_of(ino)?;
        Ok(xattrs.map_or(Vec::new(), |xattrs| xattrs.keys().cloned().collect()))
    }

    fn readdir(&self, read: &ReadDir) -> Result<Listing, Status> {
        let directory = self.directory(read.ino)?;
        let entries_max = (read.entries_max as usize).clamp(1, READDIR_ENTRIES_MAX);
        let mut rest = directory.entries_behind(read.cookie);
        let entries = rest
            .by_ref()
            .take(entries_max)
            .map(|(key, entry)| self.listed(key, entry, read.with_attrs))
            .collect();
        Ok(Listing {
            parent: directory.parent,
            entries,
            at_end: rest.next().is_none(),
        })
    }

    fn listed(&self, key: NameKey, entry: &Entry, with_attrs: bool) -> ListingEntry {
        let inode = self.inode(entry.ino).expect("a name has an inode");
        ListingEntry {
            name: entry.name.clone(),
            ino: entry.ino,
            kind: inode.kind(),
            cookie: key.0,
            attr: with_attrs.then(|| inode.attr(entry.ino)),
        }
    }
}
