//! Listing directories.

use vdfs_proto::limits::READDIR_ENTRIES_MAX;
use vdfs_proto::meta::{Listing, ReadDir};
use vdfs_proto::{Ino, Status};

use super::Fs;

impl Fs {
    /// Entries behind `cookie` (0 begins), at most `entries_max` and `READDIR_ENTRIES_MAX`. The access
    /// time of the directory moves if it `marks_access`.
    pub async fn readdir(
        &self,
        ino: Ino,
        cookie: u64,
        entries_max: u32,
        with_attrs: bool,
        marks_access: bool,
    ) -> Result<Listing, Status> {
        let ask = ReadDir {
            ino,
            cookie,
            entries_max: entries_max.min(READDIR_ENTRIES_MAX as u32),
            with_attrs,
            marks_access: marks_access && !self.client.config.read_only,
        };
        let mut listing = self.client.query(ask).await?;
        for entry in &mut listing.entries {
            entry.attr = entry.attr.map(|attr| self.client.shown(attr));
        }
        Ok(listing)
    }
}
