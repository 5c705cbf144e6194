//! What operators ask.

use vdfs_proto::meta::{AdminReply, AdminRequest, GetAttr, GetLayout, GetStatus, StatusReport};
use vdfs_proto::{Attr, ChainTable, Ino, Layout, Status};

use super::Fs;
use crate::retry::{Attempt, retry};

impl Fs {
    /// Where the bytes of a file lie.
    pub async fn locate(&self, ino: Ino) -> Result<(Attr, Layout, ChainTable), Status> {
        let attr = self.client.query(GetAttr { ino }).await?;
        let layout = self.client.query(GetLayout { ino }).await?;
        self.client.fetch_table(self.client.volumes.version()).await;
        Ok((attr, layout, self.client.volumes.table()))
    }

    /// Facts of the whole system.
    pub async fn status(&self) -> Result<StatusReport, Status> {
        let life = self.client.session.current();
        let mut attempt = StatusAttempt { fs: self };
        let asked = retry(&mut attempt, &life, self.client.deadline()).await;
        asked.map_err(|failure| failure.status)
    }
}

struct StatusAttempt<'a> {
    fs: &'a Fs,
}

impl Attempt for StatusAttempt<'_> {
    type Reply = StatusReport;

    async fn attempt(&mut self) -> Result<StatusReport, Status> {
        let ask = AdminRequest::GetStatus(GetStatus {});
        let AdminReply::GetStatus(report) = self.fs.client.master.admin(&ask).await?;
        Ok(report)
    }
}
