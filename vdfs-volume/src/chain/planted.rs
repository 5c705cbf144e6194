//! Bugs of one line each that a test can switch on for its thread: what the simulation must find.
//! Compiled only with the feature `planted-bugs`.

use std::cell::Cell;

/// A mistake somebody could make in this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A member applies, and answers, before its successor has.
    AckBeforeSuccessor,
    /// Reads of a chain of several members are served without a lease.
    ServeWithoutLease,
    /// Replies are not recorded.
    ForgetReply,
    /// Refusals of members below the head are not recorded.
    ForgetRefusalBelow,
    /// A new epoch drops what waits for the successor.
    DropPendingAtEpoch,
    /// An answer to a change is taken from whoever was asked last or before.
    TakeAnyAnswer,
    /// Reads do not wait for a closed chunk.
    ReadClosed,
    /// A fence is acknowledged while changes of its session are under way.
    AckFenceEarly,
    /// A change that is passed on again gets another version.
    RenumberOnResend,
    /// `StaleEpoch` from below is passed up as an answer.
    PassStaleEpochUp,
    /// Replies are remembered until the process ends, and not recorded.
    KeepReplyInHeap,
    /// An older epoch is taken for the present one.
    TakeAnyEpoch,
    /// Writes of fenced sessions are refused at the head alone.
    FenceOnlyAtHead,
    /// A head takes an epoch over before what was under way is made.
    ActivateBeforeInherited,
    /// Bytes are shown before the epoch is active.
    ShowBeforeActive,
    /// After all members had gone a copy that was cut off within a change wins over a whole one.
    MergeTornCopy,
    /// After all members had gone the head takes over with what it has.
    ActivateBeforeMerge,
    /// Copies are freed of a chain that may go back to this volume.
    FreeBeforeActive,
    /// A member that is told to leave says that it has, and goes on serving.
    ServeAfterLeave,
    /// A member that has been given all copies knows nothing of the ops that made them.
    IgnoreLesson,
    /// What a chain has lost is taken for what was never there.
    IgnoreLostBelow,
}

impl Bug {
    pub const ALL: [Bug; 21] = [
        Bug::AckBeforeSuccessor,
        Bug::ServeWithoutLease,
        Bug::ForgetReply,
        Bug::ForgetRefusalBelow,
        Bug::DropPendingAtEpoch,
        Bug::TakeAnyAnswer,
        Bug::ReadClosed,
        Bug::AckFenceEarly,
        Bug::RenumberOnResend,
        Bug::PassStaleEpochUp,
        Bug::KeepReplyInHeap,
        Bug::TakeAnyEpoch,
        Bug::FenceOnlyAtHead,
        Bug::ActivateBeforeInherited,
        Bug::ShowBeforeActive,
        Bug::MergeTornCopy,
        Bug::ActivateBeforeMerge,
        Bug::FreeBeforeActive,
        Bug::ServeAfterLeave,
        Bug::IgnoreLesson,
        Bug::IgnoreLostBelow,
    ];
}

thread_local! {
    static ON: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Switches one bug on for this thread, or all off.
pub fn switch(bug: Option<Bug>) {
    ON.set(bug);
}

pub(crate) fn is_on(bug: Bug) -> bool {
    ON.get() == Some(bug)
}
