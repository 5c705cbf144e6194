//! Bytes of a handle that is being read from front to back, fetched before they are asked for.
//!
//! The window doubles while reading stays sequential and is dropped by a seek, by any write to the
//! inode, by a recall, and by age. Pieces are aligned and lie within one chunk, so a read that fits
//! into one is answered without a copy.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::OwnedSemaphorePermit;
use vdfs_proto::Status;
use vdfs_proto::limits::READ_AHEAD_BYTES_MAX;

use crate::client::Client;
use crate::deadline::Deadline;
use crate::fetch::fetch;
use crate::files::{File, Handle};
use crate::limits::{READ_AHEAD_AGE, READ_AHEAD_PIECE_BYTES};

/// A kernel sends the reads of its own read-ahead at once, and they come in any order: a read this
/// far from the expected place still counts as sequential.
const SLACK_BYTES: u64 = 4 << 20;

type Fetched = Shared<BoxFuture<'static, Result<Bytes, Status>>>;

#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    /// End of the furthest sequential read.
    next: u64,
    /// How far ahead of `next` to fetch, in bytes; 0 until reading is sequential.
    window: u64,
    /// `File::content` when the pieces were begun.
    content: u64,
    /// By offset in the file.
    pieces: BTreeMap<u64, Piece>,
}

struct Piece {
    bytes: Fetched,
    begun: Instant,
    /// Its share of the buffer.
    _budget: OwnedSemaphorePermit,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Piece({:?} old)", self.begun.elapsed())
    }
}

impl ReadAhead {
    /// The pieces that hold a range; `None` unless all of it is there and fresh.
    fn find(&self, offset: u64, end: u64, content: u64, step: u64) -> Option<Vec<Fetched>> {
        if self.content != content || self.pieces.is_empty() {
            return None;
        }
        let first = offset - offset % step;
        (first..end)
            .step_by(step as usize)
            .map(|at| {
                let piece = self.pieces.get(&at)?;
                let fresh = piece.begun.elapsed() < READ_AHEAD_AGE;
                fresh.then(|| piece.bytes.clone())
            })
            .collect()
    }

    /// Notes a read; returns the range that should be fetched by now.
    fn advance(&mut self, offset: u64, end: u64, content: u64) -> (u64, u64) {
        if self.content != content {
            self.pieces.clear();
            self.content = content;
        }
        let is_next = offset == self.next;
        let is_near = self.window > 0 && offset.abs_diff(self.next) <= SLACK_BYTES;
        if is_next || is_near {
            self.next = self.next.max(end);
            let least = u64::from(READ_AHEAD_PIECE_BYTES);
            self.window = (self.window * 2).clamp(least, READ_AHEAD_BYTES_MAX as u64);
        } else {
            self.next = end;
            self.window = 0;
            self.pieces.clear();
        }
        self.pieces = self.pieces.split_off(&offset.saturating_sub(SLACK_BYTES));
        (self.next, self.next + self.window)
    }
}

/// Reads within the file, from what was read ahead if it is there.
pub(crate) async fn read(
    client: &Arc<Client>,
    handle: &Handle,
    offset: u64,
    end: u64,
    deadline: Deadline,
) -> Result<Bytes, Status> {
    let file = &handle.file;
    let content = file.content();
    let step = piece_bytes(client);
    let found = {
        let mut ahead = handle.read_ahead.lock();
        let found = ahead.find(offset, end, content, step);
        let (from, to) = ahead.advance(offset, end, content);
        begin(client, file, &mut ahead, from, to.min(file.committed_end()));
        found
    };
    if let Some(pieces) = found {
        client.session.serving(deadline).await?;
        if let Some(bytes) = join(pieces, step, (offset % step, end - offset), deadline).await? {
            return Ok(bytes);
        }
    }
    fetch(client, file, offset, end - offset, deadline).await
}

fn piece_bytes(client: &Client) -> u64 {
    u64::from(READ_AHEAD_PIECE_BYTES.min(client.chunk_size.bytes()))
}

/// Begins to fetch the pieces of a range that are not there, as far as the buffer allows.
fn begin(client: &Arc<Client>, file: &Arc<File>, ahead: &mut ReadAhead, from: u64, to: u64) {
    let step = piece_bytes(client);
    let first = from.next_multiple_of(step);
    for at in (first..to).step_by(step as usize) {
        if ahead.pieces.contains_key(&at) {
            continue;
        }
        let budget = client.read_ahead_budget.clone();
        let Ok(budget) = budget.try_acquire_many_owned(step as u32) else {
            return;
        };
        let len = step.min(to - at);
        let bytes = begin_piece(client, file, at, len);
        let piece = Piece {
            bytes,
            begun: Instant::now(),
            _budget: budget,
        };
        ahead.pieces.insert(at, piece);
    }
}

fn begin_piece(client: &Arc<Client>, file: &Arc<File>, offset: u64, len: u64) -> Fetched {
    let (owner, file) = (client.clone(), file.clone());
    let fetching = async move { fetch(&owner, &file, offset, len, Deadline::NEVER).await };
    let bytes = fetching.boxed().shared();
    drop(client.runtime.spawn(bytes.clone()));
    bytes
}

/// `len` bytes behind the first `skip` of the pieces; `None` if the pieces fall short or one of
/// them failed: an ordinary read then says why.
async fn join(
    pieces: Vec<Fetched>,
    step: u64,
    (skip, len): (u64, u64),
    deadline: Deadline,
) -> Result<Option<Bytes>, Status> {
    let mut parts = Vec::with_capacity(pieces.len());
    for piece in pieces {
        match deadline.limit(piece).await? {
            Ok(bytes) => parts.push(bytes),
            Err(_) => return Ok(None),
        }
    }
    let (step, skip, len) = (step as usize, skip as usize, len as usize);
    if let [part] = &parts[..] {
        return Ok((part.len() >= skip + len).then(|| part.slice(skip..skip + len)));
    }
    let total: usize = parts.iter().map(Bytes::len).sum();
    // A file that has grown since has a short piece in the middle.
    let (_, inner) = parts.split_last().expect("a read has at least one piece");
    let are_whole = inner.iter().all(|part| part.len() == step);
    if total < skip + len || !are_whole {
        return Ok(None);
    }
    let mut whole = BytesMut::with_capacity(total);
    for part in &parts {
        whole.extend_from_slice(part);
    }
    Ok(Some(whole.freeze().slice(skip..skip + len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = READ_AHEAD_PIECE_BYTES as u64;

    #[test]
    fn window_doubles_while_sequential_and_closes_at_a_seek() {
        let mut ahead = ReadAhead::default();
        assert_eq!(ahead.advance(0, 4096, 0), (4096, 4096 + PIECE));
        assert_eq!(ahead.advance(4096, 8192, 0), (8192, 8192 + 2 * PIECE));
        assert_eq!(
            ahead.advance(1 << 40, (1 << 40) + 1, 0),
            ((1 << 40) + 1, (1 << 40) + 1)
        );
    }

    #[test]
    fn window_stays_within_its_bound() {
        let mut ahead = ReadAhead::default();
        for read in 0..20 {
            ahead.advance(read * PIECE, (read + 1) * PIECE, 0);
        }
        assert_eq!(ahead.window, READ_AHEAD_BYTES_MAX as u64);
    }

    #[test]
    fn window_survives_reads_that_overtake_each_other() {
        let mut ahead = ReadAhead::default();
        ahead.advance(0, PIECE, 0);
        ahead.advance(2 * PIECE, 3 * PIECE, 0);
        let (next, _) = ahead.advance(PIECE, 2 * PIECE, 0);
        assert_eq!(next, 3 * PIECE);
        assert!(ahead.window > 0);
    }
}
