//! Which mutations were done, so that a retry gets the first answer: one stored reply a slot, in
//! the state with the change itself (RFC 8881, 2.10.6).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vdfs_proto::Status;
use vdfs_proto::meta::Mutated;

pub(crate) type Outcome = Result<Mutated, Status>;

/// The slots of one session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slots(BTreeMap<u16, StoredReply>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct StoredReply {
    seq: u64,
    outcome: Outcome,
}

/// What a request is to its slot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Novelty {
    New,
    /// A retry: the first answer.
    Repeated(Outcome),
    /// The slot has moved on.
    Stale,
}

impl Slots {
    /// A jump ahead is new: the answers between could not be stored while the log was full.
    pub(crate) fn novelty(&self, slot: u16, seq: u64) -> Novelty {
        match self.0.get(&slot) {
            Some(stored) if stored.seq == seq => Novelty::Repeated(stored.outcome.clone()),
            Some(stored) if stored.seq > seq => Novelty::Stale,
            Some(_) | None => Novelty::New,
        }
    }

    /// Slots that have a reply.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// True if the slot had none before. Panics if the slot would go back.
    pub(crate) fn store(&mut self, slot: u16, seq: u64, outcome: Outcome) -> bool {
        let before = self.0.insert(slot, StoredReply { seq, outcome });
        assert!(
            before.as_ref().is_none_or(|stored| stored.seq < seq),
            "slot {slot} goes back to {seq}"
        );
        before.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_answer_the_last_request_again_and_refuse_older_ones() {
        let mut slots = Slots::default();
        assert_eq!(slots.novelty(3, 1), Novelty::New);
        slots.store(3, 1, Err(Status::Exists));
        assert_eq!(slots.novelty(3, 1), Novelty::Repeated(Err(Status::Exists)));
        slots.store(3, 2, Ok(Mutated::Unlink(())));
        assert_eq!(slots.novelty(3, 1), Novelty::Stale);
        assert_eq!(slots.novelty(3, 3), Novelty::New);
        assert_eq!(slots.novelty(4, 1), Novelty::New);
    }
}
