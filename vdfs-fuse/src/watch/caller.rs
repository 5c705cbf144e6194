//! Whether a thread that waits for us is to die, or has a signal to handle, from `/proc/TID/status` and `/proc/TID/stat`
//! (proc(5)).

use std::fs;

/// Signals that end or pause nothing by default, or only stop (signal(7)).
const HARMLESS: SignalSet = SignalSet::of(&[
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGURG,
    libc::SIGWINCH,
    libc::SIGSTOP,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
]);
/// Signals that do nothing by default.
const NOTHING_BY_DEFAULT: SignalSet =
    SignalSet::of(&[libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH]);
/// A person or a supervisor asks the program to end. Caught, they are still answered: the program's
/// handler runs only when its call returns.
const ASKED_TO_END: SignalSet = SignalSet::of(&[libc::SIGINT, libc::SIGQUIT, libc::SIGTERM]);
const KILL: SignalSet = SignalSet::of(&[libc::SIGKILL]);

/// `PF_EXITING` of the kernel's `sched.h`.
const FLAG_EXITING: u64 = 0x4;

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The process that the thread belongs to.
    pub(crate) process: u32,
    /// The thread has a signal pending that ends it, or is on its way out because of one (it closes
    /// its files then, and each close waits for a flush).
    pub(crate) is_dying: bool,
    /// It, or its process, has a signal pending that it does not block and that does something.
    pub(crate) is_signalled: bool,
}

impl Caller {
    /// `None` if there is no such thread to be seen.
    pub(crate) fn look(tid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
        let process = field(&status, "Tgid")?.parse().ok()?;
        let signals = Signals::parse(&status);
        let is_ended_by_signal = signals.is_some_and(Signals::end);
        let is_dying =
            is_ended_by_signal || (has_left_memory(&status) && exits_by_signal(&stat_of(tid)));
        Some(Caller {
            process,
            is_dying,
            is_signalled: signals.is_some_and(Signals::are_heard),
        })
    }
}

/// Supplementary groups of a thread; none if there is no such thread to be seen.
pub(crate) fn groups_of(tid: u32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let groups = field(&status, "Groups").unwrap_or_default();
    groups
        .split_whitespace()
        .filter_map(|group| group.parse().ok())
        .collect()
}

/// A thread that exits has given up its memory before it closes files. One that does not must not be
/// asked for its `stat`: while it closes files in execve(2), that read waits until they are closed,
/// which is what it waits for.
fn has_left_memory(status: &str) -> bool {
    field(status, "VmSize").is_none()
}

/// Empty if the thread is gone.
fn stat_of(tid: u32) -> String {
    fs::read_to_string(format!("/proc/{tid}/stat")).unwrap_or_default()
}

/// The value of a line of `/proc/TID/status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim())
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SignalSet(u64);

impl SignalSet {
    const fn of(signals: &[i32]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < signals.len() {
            bits |= 1 << (signals[at] - 1);
            at += 1;
        }
        SignalSet(bits)
    }

    const fn without(self, other: SignalSet) -> Self {
        SignalSet(self.0 & !other.0)
    }

    const fn and(self, other: SignalSet) -> Self {
        SignalSet(self.0 & other.0)
    }

    const fn or(self, other: SignalSet) -> Self {
        SignalSet(self.0 | other.0)
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The signal lines of `/proc/TID/status`.
#[derive(Clone, Copy, Debug, Default)]
struct Signals {
    pending: SignalSet,
    pending_shared: SignalSet,
    blocked: SignalSet,
    ignored: SignalSet,
    caught: SignalSet,
}

impl Signals {
    fn parse(status: &str) -> Option<Self> {
        let set = |name: &str| {
            let bits = u64::from_str_radix(field(status, name)?, 16);
            bits.ok().map(SignalSet)
        };
        Some(Signals {
            pending: set("SigPnd")?,
            pending_shared: set("ShdPnd")?,
            blocked: set("SigBlk")?,
            ignored: set("SigIgn")?,
            caught: set("SigCgt")?,
        })
    }

    /// Some signal runs a handler, or ends or stops the process.
    fn are_heard(self) -> bool {
        let idle = NOTHING_BY_DEFAULT.without(self.caught);
        !self.unblocked().without(idle).is_empty()
    }

    fn unblocked(self) -> SignalSet {
        let pending = self.pending.or(self.pending_shared);
        pending.without(self.blocked).without(self.ignored)
    }

    fn end(self) -> bool {
        let pending = self.pending.or(self.pending_shared);
        let heard = self.unblocked().without(HARMLESS);
        let by_default = heard.without(self.caught);
        let asked = heard.and(ASKED_TO_END);
        !by_default.or(asked).or(pending.and(KILL)).is_empty()
    }
}

/// Fields 9 (flags) and 52 (exit code, as `wait(2)` gives it) of `/proc/TID/stat`.
fn exits_by_signal(stat: &str) -> bool {
    // The second field is a name in parentheses, which may hold anything.
    let Some((_, behind_name)) = stat.rsplit_once(')') else {
        return false;
    };
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let number = |field: usize| {
        fields
            .get(field - 3)
            .and_then(|text| text.parse::<u64>().ok())
    };
    let is_exiting = number(9).is_some_and(|flags| flags & FLAG_EXITING != 0);
    is_exiting && number(52).is_some_and(|code| code & 0x7f != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(pending: &str, shared: &str, blocked: &str, ignored: &str, caught: &str) -> bool {
        signals([pending, shared, blocked, ignored, caught]).end()
    }

    fn signals([pending, shared, blocked, ignored, caught]: [&str; 5]) -> Signals {
        let status = format!(
            "Name:\tcp\nState:\tD (disk sleep)\nSigQ:\t1/7\nSigPnd:\t{pending:0>16}\n\
             ShdPnd:\t{shared:0>16}\nSigBlk:\t{blocked:0>16}\nSigIgn:\t{ignored:0>16}\n\
             SigCgt:\t{caught:0>16}\nCapInh:\t0\n"
        );
        Signals::parse(&status).expect("well formed")
    }

    const INT: &str = "2";
    const KILL: &str = "100";
    const CHLD: &str = "10000";
    const URG: &str = "400000";
    const USR1: &str = "200";

    #[test]
    fn caller_with_a_fatal_signal_pending_ends() {
        assert!(ends(INT, "0", "0", "0", "0"), "to the thread");
        assert!(ends("0", INT, "0", "0", "0"), "to the process");
        assert!(ends("0", USR1, "0", "0", "0"), "fatal by default");
        assert!(
            ends(KILL, "0", "ffffffffffffffff", "0", "0"),
            "nothing stops SIGKILL"
        );
        assert!(
            ends("0", INT, "0", "0", INT),
            "a handler that asks the program to end"
        );
    }

    #[test]
    fn caller_whose_signal_ends_nothing_waits_on() {
        assert!(!ends("0", "0", "0", "0", "0"), "none");
        assert!(!ends("0", INT, INT, "0", "0"), "blocked");
        assert!(!ends("0", INT, "0", INT, "0"), "ignored");
        assert!(!ends("0", CHLD, "0", "0", "0"), "harmless by default");
        assert!(!ends(URG, "0", "0", "0", URG), "preemption of a Go program");
        assert!(!ends("0", USR1, "0", "0", USR1), "caught");
    }

    #[test]
    fn signals_are_heard_that_are_caught_or_stop_and_not_those_that_do_nothing() {
        const STOP: &str = "40000";
        assert!(signals(["0", USR1, "0", "0", USR1]).are_heard(), "caught");
        assert!(signals([CHLD, "0", "0", "0", CHLD]).are_heard(), "caught");
        assert!(signals(["0", STOP, "0", "0", "0"]).are_heard(), "stops");
        assert!(!signals(["0", CHLD, "0", "0", "0"]).are_heard(), "idle");
        assert!(
            !signals([USR1, "0", USR1, "0", USR1]).are_heard(),
            "blocked"
        );
        assert!(!signals([USR1, "0", "0", USR1, "0"]).are_heard(), "ignored");
    }

    #[test]
    fn signals_parse_of_something_else_is_none() {
        assert!(Signals::parse("Name:\tcp\n").is_none());
    }

    fn stat(flags: u64, exit_code: u64) -> String {
        let zeros = |count: usize| vec!["0"; count].join(" ");
        format!(
            "42 (a ) b) D {} {flags} {} {exit_code}\n",
            zeros(5),
            zeros(42)
        )
    }

    #[test]
    fn exits_by_signal_reads_flags_and_exit_code() {
        assert!(exits_by_signal(&stat(0x40_0004, 2)));
        assert!(!exits_by_signal(&stat(0x40_0000, 2)), "still running");
        assert!(
            !exits_by_signal(&stat(0x40_0004, 0x100)),
            "exit(1) by itself"
        );
        assert!(!exits_by_signal("garbage"));
    }

    #[test]
    fn has_left_memory_is_true_without_a_size() {
        assert!(has_left_memory("Name:\tcp\nState:\tX (dead)\n"));
        assert!(!has_left_memory("Name:\tcp\nVmSize:\t       4 kB\n"));
    }

    #[test]
    fn look_at_this_thread_sees_a_living_process() {
        let process = std::process::id();
        let here = Caller {
            process,
            is_dying: false,
            is_signalled: false,
        };
        assert_eq!(Caller::look(process), Some(here));
        assert_eq!(Caller::look(u32::MAX), None);
    }
}
