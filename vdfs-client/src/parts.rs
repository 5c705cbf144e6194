//! Questions to all volumes that have chunks of a file: one request each, however many chunks.

use bytes::Bytes;
use futures::future::try_join_all;
use vdfs_proto::data::{DataReply, DataRequest, FilePart};
use vdfs_proto::operation::Operation;
use vdfs_proto::{Layout, Status};

use crate::client::Client;
use crate::deadline::Deadline;
use crate::plan::plan_parts;
use crate::retry::{Attempt, retry};

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
        let parts = plan_parts(
            self.layout,
            self.client.chunk_size,
            self.range,
            (volumes, &table),
        )?;
        let asked = parts.into_iter().map(|(route, part)| {
            let question = (self.question)(part);
            async move {
                let answer = volumes.ask(&route, question, Bytes::new()).await;
                volumes.note_answer(&route, &answer);
                answer.map(|(answer, _)| answer)
            }
        });
        try_join_all(asked).await
    }

    async fn refresh(&mut self) {
        self.client.fetch_table(self.version_used).await;
    }

    async fn outdated(&self) {
        self.client.volumes.newer_than(self.version_used).await;
    }
}
