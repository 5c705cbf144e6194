//! What all operations of one mount share, and how they ask the master.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use tokio::runtime::Handle as Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use vdfs_proto::limits::WRITE_BEHIND_BYTES_MAX;
use vdfs_proto::meta::{
    Answer, GetChainTable, GetLayout, MutateRequest, Mutated, Mutation, Query, QueryRequest,
    Release,
};
use vdfs_proto::operation::Operation;
use vdfs_proto::{Attr, ChainId, ChunkSize, HandleId, Ino, Layout, Status, VolumeId};

use crate::acl_memory::AclMemory;
use crate::config::ClientConfig;
use crate::deadline::Deadline;
use crate::files::{File, Files};
use crate::limits::{LOCK_WAITS_MAX, READ_AHEAD_TOTAL_BYTES, VOLUME_BUFFER_BYTES_MAX};
use crate::locks::Locks;
use crate::master::MasterLink;
use crate::retry::{Attempt, Backoff, Failure, retry};
use crate::session::{Life, Session, open_session, run_events};
use crate::shares::WriteBudget;
use crate::volumes::Volumes;
use crate::write_behind::Watched;

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) config: ClientConfig,
    /// Where background work runs; callers may poll from threads of their own.
    pub(crate) runtime: Runtime,
    pub(crate) chunk_size: ChunkSize,
    pub(crate) master: MasterLink,
    pub(crate) session: Session,
    pub(crate) volumes: Volumes,
    pub(crate) files: Files,
    pub(crate) locks: Locks,
    /// Waits for locks that may still be parked at the master.
    pub(crate) lock_waits: Semaphore,
    pub(crate) acls: AclMemory,
    /// Files that are flushed when they are left alone.
    pub(crate) watched: Watched,
    /// Bytes that write-behind may still take.
    pub(crate) write_budget: WriteBudget,
    /// Bytes that read-ahead may still take.
    pub(crate) read_ahead_budget: Arc<Semaphore>,
    /// A volume has said that little room is left: write through.
    pub(crate) is_space_low: AtomicBool,
    is_stopping: AtomicBool,
    /// Nobody uses it any more.
    is_abandoned: AtomicBool,
}

impl Client {
    /// Opens a session and starts the event loop on the current runtime.
    pub(crate) async fn connect(config: ClientConfig) -> Result<Arc<Client>, Status> {
        let master = MasterLink::new(&*config.connector, &config.master);
        let master_ip = config.master[0].addr.ip();
        let deadline = Deadline::after(config.timeout);
        let (life, opened) = deadline
            .limit(open_session(&master, &config, None))
            .await??;
        tracing::info!(session = %life.id, "session opened");
        let client = Arc::new(Client {
            runtime: Runtime::current(),
            chunk_size: opened.chunk_size,
            master,
            session: Session::new(Arc::new(life)),
            volumes: Volumes::new(config.connector.clone(), master_ip, opened.table),
            files: Files::new(opened.chunk_size),
            locks: Locks::default(),
            lock_waits: Semaphore::new(LOCK_WAITS_MAX),
            acls: AclMemory::new(),
            watched: Watched::default(),
            write_budget: WriteBudget::new(WRITE_BEHIND_BYTES_MAX, VOLUME_BUFFER_BYTES_MAX),
            read_ahead_budget: Arc::new(Semaphore::new(READ_AHEAD_TOTAL_BYTES)),
            is_space_low: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
            config,
        });
        client.runtime.spawn(run_events(Arc::downgrade(&client)));
        Ok(client)
    }

    /// The deadline of an operation that begins now.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.config.timeout)
    }

    /// The session ends when everything is flushed.
    pub(crate) fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::SeqCst)
    }

    /// No operation begins any more.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
    }

    pub(crate) fn check_running(&self) -> Result<(), Status> {
        if self.is_stopping.load(Ordering::SeqCst) {
            return Err(Status::ShuttingDown);
        }
        Ok(())
    }

    pub(crate) fn check_writable(&self) -> Result<(), Status> {
        if self.config.read_only {
            return Err(Status::ReadOnly);
        }
        self.check_running()
    }

    /// Asks the master, within the time of one operation.
    pub(crate) async fn query<O>(&self, operation: O) -> Result<O::Reply, Status>
    where
        O: Operation<Request = Query, Envelope = Answer>,
    {
        self.query_until(operation, self.deadline()).await
    }

    /// Asks the master; under the next session if the one it began in has ended.
    pub(crate) async fn query_until<O>(
        &self,
        operation: O,
        deadline: Deadline,
    ) -> Result<O::Reply, Status>
    where
        O: Operation<Request = Query, Envelope = Answer>,
    {
        let mut life = self.session.current();
        let mut attempt = QueryAttempt {
            client: self,
            request: QueryRequest {
                session: life.id,
                query: operation.wrap(),
            },
        };
        loop {
            match retry(&mut attempt, &life, deadline).await {
                Ok(answer) => return O::unwrap(answer).ok_or(Status::Malformed),
                Err(failure) if failure.status != Status::SessionExpired => {
                    return Err(failure.status);
                }
                Err(_) => life = self.session.after(&life, deadline).await?,
            }
            attempt.request.session = life.id;
        }
    }

    /// Changes the namespace. The change goes on to a definite answer even if the caller stops
    /// waiting.
    pub(crate) async fn mutate<O>(self: &Arc<Self>, operation: O) -> Result<O::Reply, Status>
    where
        O: Operation<Request = Mutation, Envelope = Mutated>,
    {
        self.check_writable()?;
        let deadline = self.deadline();
        let client = self.clone();
        let mutation = operation.wrap();
        let task = self.spawn(async move { client.run_mutation(mutation).await });
        let mutated = deadline.limit(task).await??;
        O::unwrap(mutated).ok_or(Status::Malformed)
    }

    /// For callers that run to their end: as [`Client::mutate`], without a limit.
    pub(crate) async fn mutate_here<O>(&self, operation: O) -> Result<O::Reply, Status>
    where
        O: Operation<Request = Mutation, Envelope = Mutated>,
    {
        let mutated = self.run_mutation(operation.wrap()).await?;
        O::unwrap(mutated).ok_or(Status::Malformed)
    }

    async fn run_mutation(&self, mutation: Mutation) -> Result<Mutated, Status> {
        let mut life = self.session.current();
        loop {
            match self.mutate_in(&life, &mutation).await {
                Ok(mutated) => return Ok(mutated),
                // It was refused unexecuted: nothing of it belongs to the old session.
                Err(Failure {
                    status: Status::SessionExpired,
                    in_doubt: false,
                }) => life = self.session.after(&life, Deadline::NEVER).await?,
                Err(failure) => return Err(failure.status),
            }
        }
    }

    /// Changes the namespace in one session; to be run to its end.
    pub(crate) async fn mutate_in(
        &self,
        life: &Life,
        mutation: &Mutation,
    ) -> Result<Mutated, Failure> {
        let not_sent = |status| Failure {
            status,
            in_doubt: false,
        };
        let claim = life.unless_ended(life.meta_slots.claim()).await;
        let claim = claim.map_err(not_sent)?;
        let mut attempt = MutateAttempt {
            client: self,
            request: MutateRequest {
                op: claim.op(),
                mutation: mutation.clone(),
            },
        };
        let outcome = retry(&mut attempt, life, Deadline::NEVER).await;
        claim.settle();
        outcome
    }

    /// Runs `future` to its end whatever becomes of the caller: as far as it gets at once right here,
    /// which spares most operations a hop between threads, and the rest in a task of its own.
    pub(crate) async fn spawn<F, T>(&self, future: F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>> + Send + 'static,
        T: Send + 'static,
    {
        let mut future = Box::pin(future);
        if let Some(outcome) = future.as_mut().now_or_never() {
            return outcome;
        }
        let task: JoinHandle<Result<T, Status>> = self.runtime.spawn(future);
        // It ended in a panic, or the runtime is going away.
        task.await.unwrap_or(Err(Status::Internal))
    }

    /// The volume that a byte of an open inode goes to, if that is known.
    pub(crate) fn volume_at(&self, file: &File, offset: u64) -> Option<VolumeId> {
        self.volumes.head_volume(self.chain_at(file, offset)?)
    }

    /// The chain of a byte of an open inode, if that is known.
    pub(crate) fn chain_at(&self, file: &File, offset: u64) -> Option<ChainId> {
        let layout = file.layout()?;
        Some(layout.chain(self.chunk_size.index_of(offset)))
    }

    /// The layout of an open inode, asked for if it was recalled.
    pub(crate) async fn layout(&self, file: &File, deadline: Deadline) -> Result<Layout, Status> {
        if let Some(layout) = file.layout() {
            return Ok(layout);
        }
        self.fresh_layout(file, deadline).await
    }

    /// The layout as the master has it now.
    pub(crate) async fn fresh_layout(
        &self,
        file: &File,
        deadline: Deadline,
    ) -> Result<Layout, Status> {
        loop {
            let recalls = file.recalls();
            let ask = GetLayout { ino: file.ino };
            let layout = self.query_until(ask, deadline).await?;
            if file.install_layout(layout, recalls) {
                return Ok(file.layout().unwrap_or(layout));
            }
            deadline.limit(recalled(file)).await?;
        }
    }

    /// Fetches chain tables until there is one of `version` or a newer one.
    pub(crate) async fn reach_table(&self, version: u64) {
        let mut backoff = Backoff::default();
        while self.volumes.version() < version && !self.session.is_closed() {
            self.fetch_table(version.saturating_sub(1)).await;
            if self.volumes.version() < version {
                backoff.pause().await;
            }
        }
    }

    /// Fetches the chain table unless one newer than `seen` is there, or comes another way.
    pub(crate) async fn fetch_table(&self, seen: u64) {
        tokio::select! {
            biased;
            () = self.volumes.newer_than(seen) => {}
            () = self.volumes.fetch_together(self.ask_table()) => {}
        }
    }

    async fn ask_table(&self) {
        let request = QueryRequest {
            session: self.session.current().id,
            query: Query::GetChainTable(GetChainTable {}),
        };
        match self.master.query(&request).await {
            Ok(Answer::GetChainTable(table)) => self.volumes.install(table),
            Ok(_) => tracing::warn!("the master answers GetChainTable with something else"),
            Err(status) => tracing::debug!(%status, "no chain table"),
        }
    }

    /// Closes a handle that a resume has told the master about after it was closed.
    pub(crate) fn release_again(self: &Arc<Self>, handle: HandleId) {
        let client = self.clone();
        self.runtime.spawn(async move {
            let release = Release {
                handle,
                tail_unknown: false,
                read_at: None,
            };
            if let Err(status) = client.query_until(release, Deadline::NEVER).await {
                tracing::debug!(%status, %handle, "a handle stays open");
            }
        });
    }

    /// Attributes as they are handed out: with what this client has written and not committed yet.
    pub(crate) fn shown(&self, attr: Attr) -> Attr {
        self.acls.note(&attr);
        self.files.overlay(attr)
    }

    /// Files with bytes that are not safe.
    pub(crate) fn dirty_inodes(&self) -> Vec<Ino> {
        let files = self.files.all();
        let dirty = files.iter().filter(|file| !file.is_clean());
        dirty.map(|file| file.ino).collect()
    }
}

/// Waits until no recall is unanswered under which a grant would not be taken.
pub(crate) async fn recalled(file: &File) {
    loop {
        let progress = file.progress.notified();
        if !file.is_recalling() {
            return;
        }
        progress.await;
    }
}

struct QueryAttempt<'a> {
    client: &'a Client,
    request: QueryRequest,
}

impl Attempt for QueryAttempt<'_> {
    type Reply = Answer;

    async fn attempt(&mut self) -> Result<Answer, Status> {
        self.client.master.query(&self.request).await
    }
}

struct MutateAttempt<'a> {
    client: &'a Client,
    request: MutateRequest,
}

impl Attempt for MutateAttempt<'_> {
    type Reply = Mutated;

    async fn attempt(&mut self) -> Result<Mutated, Status> {
        self.client.master.mutate(&self.request).await
    }
}
