//! One volume as a member of chains: every decision about a change of a chunk, from its arrival to
//! its answer.
//!
//! Pure: no IO, no clock, no tasks. [`Member::step`] takes one [`Input`] at a given time and emits
//! [`Effect`]s; whoever performs them reports what became of them as further inputs. The same code
//! runs in the volume and in the simulation (`tests/chain`), for chains of one member and of
//! several.
//!
//! A change walks through a chain so:
//!
//! | at | what |
//! |---|---|
//! | head | is it a retry, may the session write, has this volume its lease; *closes* the chunk |
//! | all but the tail | the store reserves room and checks what is overwritten in part; the change gets its version (at the head) and is passed on |
//! | tail | the store checks the version and applies |
//! | all, from the tail up | the op is recorded, the chunk is opened, the one above is answered, and applies |
//!
//! Invariants:
//! - A chunk is closed from before the store begins until the op's reply is on record, for one
//!   change at a time. Closed is a state: nobody who goes away ends it.
//! - A change that was passed on ends by the successor's answer, or with this volume's place in the
//!   chain; never by a deadline, a broken connection, a new epoch, or the order to leave one: whoever
//!   has left may have a place in the next epoch, if another member loses its place first. In a new epoch
//!   it is passed to the new successor with the same op and version.
//! - Whoever shows new bytes has only members above that are closed for them. Reads of a chunk that
//!   is closed for a change which was passed on wait. So do those of one that is closed for a change which
//!   was let in under a lease that has run out since: its session may be over, and others found what it had.
//! - Between a step and what the store does about it any time may pass. What the store was asked for before
//!   this volume was given other copies ends without an answer that counts, and the volume is given nothing
//!   before that has ended.
//! - A refusal of the store or of the successor means that nobody from there on has applied or ever
//!   will: it is on record here before it is answered.
//! - Nothing is answered to a client in an epoch, and nothing shown, before the master knows that its
//!   head has taken over (the chain is *active*): it may go back to those who served before.
//! - A member that is *syncing* takes part in changes as the last one, and decides nothing: it refuses
//!   no change, and one whose chunk it has in another version makes it ask for the chunk
//!   (`NotInSync`). It serves once it has been given all that was there before its epoch, and the
//!   replies with it.
//! - A head of a chain whose members had all gone takes it over once it has the better copy of each chunk
//!   ([`is_better`]) from those that are back.
//!
//! Left out: bytes, sums and records (`store`), and how messages travel (`service`, `peers`,
//! `supply`).

mod chunk_state;
mod departed;
mod lease;
mod member;
mod membership;
mod merge;
mod replies;
mod writes;

#[cfg(feature = "planted-bugs")]
pub mod planted;

pub use chunk_state::{Admission, Change, ChunkState, Pending, Rule, Space};
pub use departed::{Departed, Unwanted};
pub use member::{Effect, Failure, Input, Member, Order, PassedOn, Prepared, Reading, Terms};
pub use membership::{Membership, Place};
pub use merge::is_better;
pub use replies::{Outcome, Refusal, Reply};

/// Whether the named bug is switched on, so that the simulation can show that it finds it.
macro_rules! is_planted {
    ($bug:ident) => {{
        #[cfg(feature = "planted-bugs")]
        {
            crate::chain::planted::is_on(crate::chain::planted::Bug::$bug)
        }
        #[cfg(not(feature = "planted-bugs"))]
        {
            false
        }
    }};
}
use is_planted;
