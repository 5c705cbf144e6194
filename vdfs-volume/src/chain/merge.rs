//! Which of two members' copies of a chunk is the chain's, once all of its members had gone.
//!
//! Each of them was in sync: it has all that was acknowledged. Their copies differ by the change that was
//! under way at most: some have made it, and may have shown it; some have not begun; and in some it was cut
//! off.

use vdfs_proto::peer::ChunkCopy;

use super::is_planted;

/// Whether the other's copy is taken for the own one: it was not cut off within a change and the own one
/// was, or it is newer, or there is none here.
pub fn is_better(theirs: &ChunkCopy, own: Option<&ChunkCopy>) -> bool {
    let Some(own) = own else {
        return true;
    };
    match (theirs.op.is_some(), own.op.is_some()) {
        (true, false) if !is_planted!(MergeTornCopy) => true,
        (false, true) if !is_planted!(MergeTornCopy) => false,
        _ => theirs.version > own.version,
    }
}

#[cfg(test)]
mod tests {
    use vdfs_proto::{ChainId, ChunkId, DataId, Epoch, OpId, SessionId, Version};

    use super::*;

    fn copy(counter: u64, has_op: bool) -> ChunkCopy {
        let op = OpId {
            session: SessionId(1),
            slot: 0,
            seq: counter,
        };
        ChunkCopy {
            chain: ChainId(0),
            chunk: ChunkId {
                data: DataId(1),
                index: 0,
            },
            version: Version {
                epoch: Epoch(1),
                counter,
            },
            len: 1,
            op: has_op.then_some(op),
        }
    }

    #[test]
    fn is_better_prefers_whole_copies_and_then_newer_ones() {
        let cases = [
            ((2, true), None, true),
            ((2, false), None, true),
            ((2, true), Some((1, true)), true),
            ((1, true), Some((2, true)), false),
            ((1, true), Some((1, true)), false),
            ((1, true), Some((3, false)), true),
            ((3, false), Some((1, true)), false),
            ((4, false), Some((3, false)), true),
            ((3, false), Some((3, false)), false),
        ];
        for (theirs, own, expected) in cases {
            let made = own.map(|(counter, has_op)| copy(counter, has_op));
            let better = is_better(&copy(theirs.0, theirs.1), made.as_ref());
            assert_eq!(better, expected, "{theirs:?} {own:?}");
        }
    }
}
