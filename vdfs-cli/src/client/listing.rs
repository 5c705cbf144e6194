//! Whole directories.

use vdfs_client::Fs;
use vdfs_proto::limits::READDIR_ENTRIES_MAX;
use vdfs_proto::meta::ListingEntry;
use vdfs_proto::{Attr, Ino, Status};

/// All entries of a directory, sorted by name, each with its attributes. What others remove
/// meanwhile may be left out.
pub(crate) async fn list(fs: &Fs, ino: Ino) -> Result<Vec<(ListingEntry, Attr)>, Status> {
    let mut found = Vec::new();
    let mut cookie = 0;
    loop {
        let page = fs
            .readdir(ino, cookie, READDIR_ENTRIES_MAX as u32, true, true)
            .await?;
        cookie = page.entries.last().map_or(cookie, |last| last.cookie);
        let at_end = page.at_end || page.entries.is_empty();
        for entry in page.entries {
            let attr = match entry.attr {
                Some(attr) => attr,
                None => fs.getattr(entry.ino).await?,
            };
            found.push((entry, attr));
        }
        if at_end {
            break;
        }
    }
    found.sort_unstable_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    Ok(found)
}
