//! Listing directories.

use vdfs_proto::limits::READDIR_ENTRIES_MAX;
use vdfs_proto::meta::{Listing, ReadDir};
use vdfs_proto::{Ino, Status};

use super::Fs;

impl Fs {
    /// Entries behind `cookie` (0 begins), at most `entries_max` and `READDIR_ENTRIES_MAX`.
    pub async fn readdir(
        &self,
        ino: Ino,
        cookie: u64,
        entries_max: u32,
        with_attrs: bool,
    ) -> Result<Listing, Status> {
        let ask = ReadDir {
            ino,
            cookie,
            entries_max: entries_max.min(READDIR_ENTRIES_MAX as u32),
            with_attrs,
        };
        let mut listing = self.client.query(ask).await?;
        for entry in &mut listing.entries {
            entry.attr = entry.attr.map(|attr| self.client.files.overlay(attr));
        }
        Ok(listing)
    }
}
