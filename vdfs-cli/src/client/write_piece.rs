//! A piece of a file that is being copied, written whole.

use bytes::Bytes;
use vdfs_client::{Fs, WriteFlags};
use vdfs_proto::{HandleId, Status};

use super::progress::Progress;

/// Writes all of `piece`; gives its length.
pub(crate) async fn write_piece(
    fs: &Fs,
    progress: &Progress,
    (handle, offset): (HandleId, u64),
    piece: Bytes,
) -> Result<u64, Status> {
    let mut done = 0;
    while done < piece.len() {
        let rest = piece.slice(done..);
        let at = offset + done as u64;
        let written = fs.write(handle, at, rest, WriteFlags::default()).await?;
        progress.advance(u64::from(written));
        done += written as usize;
    }
    Ok(done as u64)
}
