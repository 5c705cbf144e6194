//! What operators ask.

use vdfs_proto::meta::{
    AdminReply, AdminRequest, GetAttr, GetLayout, GetStatus, StatusReport, TakeOver,
};
use vdfs_proto::{Attr, ChainTable, Ino, Layout, Status};

use super::Fs;
use crate::retry::{Attempt, retry};

impl Fs {
    /// Where the bytes of a file lie.
    pub async fn locate(&self, ino: Ino) -> Result<(Attr, Layout, ChainTable), Status> {
        let attr = self.client.query(GetAttr { ino }).await?;
        let layout = self.client.query(GetLayout { ino }).await?;
        let volumes = &self.client.volumes;
        self.client.fetch_table(volumes.version()).await;
        if volumes.table().chain(layout.chain(0)).is_none() {
            // It was another task's answer, asked for before there was this layout. No other is.
            self.client.fetch_table(volumes.version()).await;
        }
        Ok((attr, layout, volumes.table()))
    }

    /// What says, with the chain table, where the bytes of a file lie.
    pub async fn layout(&self, ino: Ino) -> Result<Layout, Status> {
        self.client.query(GetLayout { ino }).await
    }

    /// Gives a file the copy of its bytes that another one holds. What this client has written to
    /// either was flushed before.
    pub async fn take_over(&self, take: TakeOver) -> Result<(), Status> {
        self.client.check_writable()?;
        self.client.mutate(take).await
    }

    /// The newest chain table.
    pub async fn chain_table(&self) -> ChainTable {
        let volumes = &self.client.volumes;
        self.client.fetch_table(volumes.version()).await;
        volumes.table()
    }

    /// Facts of the whole system.
    pub async fn status(&self) -> Result<StatusReport, Status> {
        match self
            .ask_operator(AdminRequest::GetStatus(GetStatus {}))
            .await?
        {
            AdminReply::GetStatus(report) => Ok(*report),
            _ => Err(Status::Malformed),
        }
    }

    pub(super) async fn ask_operator(&self, ask: AdminRequest) -> Result<AdminReply, Status> {
        let life = self.client.session.current();
        let mut attempt = AdminAttempt { fs: self, ask };
        let asked = retry(&mut attempt, &life, self.client.deadline()).await;
        asked.map_err(|failure| failure.status)
    }
}

struct AdminAttempt<'a> {
    fs: &'a Fs,
    ask: AdminRequest,
}

impl Attempt for AdminAttempt<'_> {
    type Reply = AdminReply;

    async fn attempt(&mut self) -> Result<AdminReply, Status> {
        self.fs.client.master.admin(&self.ask).await
    }
}
