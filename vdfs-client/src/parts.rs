//! Questions to all volumes that have chunks of a file: one request each, however many chunks.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::timeout;
use vdfs_proto::data::{DataReply, DataRequest, FilePart};
use vdfs_proto::operation::Operation;
use vdfs_proto::{Layout, Status, VolumeId};

use crate::client::Client;
use crate::deadline::Deadline;
use crate::limits::READ_SILENCE;
use crate::plan::{Asked, plan_parts};
use crate::retry::{Attempt, next, retry};

/// Asks each volume that may have chunks of the range `from..to` of a file, which is not empty.
pub(crate) async fn ask_parts<O, M>(
    client: &Client,
    layout: &Layout,
    range: (u64, u64),
    question: M,
    deadline: Deadline,
) -> Result<Vec<O::Reply>, Status>
where
    O: Operation<Request = DataRequest, Envelope = DataReply, Reply: Send> + Send,
    M: Fn(FilePart) -> O + Send + Sync,
{
    let life = client.session.serving(deadline).await?;
    let mut attempt = PartsAttempt {
        client,
        layout,
        range,
        question,
        version_used: 0,
        in_vain: BTreeSet::new(),
    };
    let answers = retry(&mut attempt, &life, deadline).await;
    answers.map_err(|failure| failure.status)
}

struct PartsAttempt<'a, M> {
    client: &'a Client,
    layout: &'a Layout,
    range: (u64, u64),
    question: M,
    /// Of the chain table that the last attempt went by.
    version_used: u64,
    /// These said nothing, or that they may not answer.
    in_vain: BTreeSet<VolumeId>,
}

impl<M> PartsAttempt<'_, M> {
    /// Who says nothing for a while is not waited for if others can be asked.
    async fn ask<O>(&self, asked: &Asked) -> Result<O::Reply, Status>
    where
        O: Operation<Request = DataRequest, Envelope = DataReply, Reply: Send> + Send,
        M: Fn(FilePart) -> O + Send + Sync,
    {
        let volumes = &self.client.volumes;
        let question = (self.question)(asked.part);
        let answer = volumes.ask(&asked.route, question, Bytes::new());
        let answer = match asked.has_others {
            true => timeout(READ_SILENCE, answer)
                .await
                .unwrap_or(Err(Status::DeadlineExceeded)),
            false => {
                let answer = answer.await;
                volumes.note_answer(&asked.route, &answer);
                answer
            }
        };
        answer.map(|(reply, _)| reply)
    }
}

impl<O, M> Attempt for PartsAttempt<'_, M>
where
    O: Operation<Request = DataRequest, Envelope = DataReply, Reply: Send> + Send,
    M: Fn(FilePart) -> O + Send + Sync,
{
    type Reply = Vec<O::Reply>;

    async fn attempt(&mut self) -> Result<Self::Reply, Status> {
        let volumes = &self.client.volumes;
        let table = volumes.snapshot();
        self.version_used = table.version();
        let (chunk_size, ways) = (self.client.chunk_size, (volumes, &table));
        let parts = plan_parts(self.layout, chunk_size, self.range, ways, &self.in_vain)?;
        let answers = join_all(parts.iter().map(|asked| self.ask(asked))).await;
        if parts.iter().any(|asked| !asked.has_others) {
            self.in_vain.clear();
        }
        let mut replies = Vec::new();
        let mut failures = Vec::new();
        for (asked, answer) in parts.iter().zip(answers) {
            match answer {
                Ok(reply) => replies.push(reply),
                Err(status) => {
                    if status.is_silence() || status == Status::NotServing {
                        self.in_vain.insert(asked.route.volume);
                    }
                    failures.push(status);
                }
            }
        }
        // What no other attempt will change goes first.
        match failures.into_iter().min_by_key(|status| next(*status)) {
            Some(status) => Err(status),
            None => Ok(replies),
        }
    }

    async fn refresh(&mut self) {
        self.client.fetch_table(self.version_used).await;
    }

    async fn outdated(&self) {
        self.client.volumes.newer_than(self.version_used).await;
    }
}
