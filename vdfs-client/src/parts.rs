//! Questions to all volumes that have chunks of a file: one request each, however many chunks.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::try_join_all;
use tokio::time::timeout;
use vdfs_proto::data::{DataReply, DataRequest, FilePart};
use vdfs_proto::operation::Operation;
use vdfs_proto::{Layout, Status, VolumeId};

use crate::client::Client;
use crate::deadline::Deadline;
use crate::limits::READ_SILENCE;
use crate::plan::{Asked, plan_parts};
use crate::retry::{Attempt, Next, next, retry};

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
        in_vain: BTreeMap::new(),
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
    /// How often these said nothing, or that they may not answer.
    in_vain: BTreeMap<VolumeId, u32>,
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
        // Changes go the same way all the while: that it is slow with this does not count.
        let answer = match asked.has_others {
            true => timeout(READ_SILENCE, answer).await,
            false => Ok(answer.await),
        };
        let answer = answer.map_err(|_| Status::DeadlineExceeded)?;
        volumes.note_answer(&asked.route, &answer);
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
        let asked = parts.iter().map(async |asked| match self.ask(asked).await {
            // No other attempt will change that.
            Err(status) if next(status) == Next::Answer => Err(status),
            answer => Ok(answer),
        });
        let answers = try_join_all(asked).await?;
        let mut replies = Vec::new();
        let mut failures = Vec::new();
        for (asked, answer) in parts.iter().zip(answers) {
            match answer {
                Ok(reply) => replies.push(reply),
                Err(status) => {
                    if status.is_silence() || status == Status::NotServing {
                        *self.in_vain.entry(asked.route.volume).or_default() += 1;
                    }
                    failures.push(status);
                }
            }
        }
        match failures.into_iter().max_by_key(|status| next(*status)) {
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
