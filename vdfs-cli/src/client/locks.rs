//! `vdfs locks`: who holds locks of a file, and who waits for one.

use serde::Serialize;
use vdfs_proto::limits::FILE_BYTES_MAX;
use vdfs_proto::meta::{ListedLock, LockReport, LockingSession};
use vdfs_proto::{FileKind, Ino, LockKind};

use crate::args::InodeArgs;
use crate::client::connection::Connection;
use crate::client::on_inode::run_on_inode;
use crate::output::Output;
use vdfs_program::{Blame, Failure};

pub(crate) fn run(args: &InodeArgs) -> Result<(), Failure> {
    run_on_inode(
        &args.path,
        &args.cluster,
        "locks",
        async |connection, ino| show(connection, ino, args).await,
    )
}

async fn show(connection: &Connection, ino: Ino, args: &InodeArgs) -> Result<(), Failure> {
    let what = &args.path.display();
    let fs = &connection.fs;
    let attr = fs.getattr(ino).await.blame(what)?;
    if attr.kind != FileKind::Regular {
        let why = "only locks of regular files hold between mounts";
        return Err(Failure::new(what, why));
    }
    let report = fs.list_locks(ino).await.blame(what)?;
    let locks = Locks::new(&report);
    let mut output = Output::open();
    if args.json {
        output.json(&locks)?;
    } else {
        locks.print(&mut output)?;
    }
    output.finish()
}

/// What `locks --json` prints.
#[derive(Debug, Serialize)]
struct Locks<'a> {
    held: Vec<Row<'a>>,
    /// Who came first, first.
    waiting: Vec<Row<'a>>,
    /// There are more of them.
    cut: bool,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    host: &'a str,
    mount: &'a str,
    session: u64,
    /// Of the last program that locked, in the numbers of its host.
    pid: u32,
    kind: &'static str,
    first_bytes: u64,
    /// The last byte; none if it reaches to the end, wherever that is.
    last_bytes: Option<u64>,
}

impl<'a> Locks<'a> {
    fn new(report: &'a LockReport) -> Self {
        let rows = |listed: &[ListedLock]| {
            let rows = listed.iter().map(|lock| Row::new(lock, &report.sessions));
            rows.collect()
        };
        Locks {
            held: rows(&report.held),
            waiting: rows(&report.waiting),
            cut: report.is_cut,
        }
    }

    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        let held = self.held.iter().map(|row| ("held", row));
        let waiting = self.waiting.iter().map(|row| ("waiting", row));
        for (state, row) in held.chain(waiting) {
            output.line(row.line(state))?;
        }
        if self.held.is_empty() && self.waiting.is_empty() {
            output.line("no locks")?;
        }
        if self.cut {
            output.line("and more")?;
        }
        Ok(())
    }
}

impl<'a> Row<'a> {
    fn new(listed: &ListedLock, sessions: &'a [LockingSession]) -> Self {
        let session = sessions.iter().find(|of| of.id == listed.session);
        let range = listed.lock.range;
        Row {
            host: session.map_or("unknown", |of| &of.host),
            mount: session.map_or("unknown", |of| &of.mount),
            session: listed.session.0,
            pid: listed.lock.pid,
            kind: match listed.lock.kind {
                LockKind::Read => "read",
                LockKind::Write => "write",
            },
            first_bytes: range.first(),
            last_bytes: (range.last() < FILE_BYTES_MAX).then_some(range.last()),
        }
    }

    fn line(&self, state: &str) -> String {
        let last = self
            .last_bytes
            .map_or_else(|| "end".to_owned(), |last| last.to_string());
        format!(
            "{state:<8} {:<6} {:>10} to {last:<10} pid {:<8} {}:{}",
            self.kind, self.first_bytes, self.pid, self.host, self.mount
        )
    }
}

#[cfg(test)]
mod tests {
    use vdfs_proto::meta::LockAsked;
    use vdfs_proto::{LockOwner, LockRange, SessionId};

    use super::*;

    #[test]
    fn locks_json_has_the_keys_that_scripts_rely_on() {
        let listed = |range, kind| ListedLock {
            session: SessionId(5),
            lock: LockAsked {
                owner: LockOwner(77),
                pid: 42,
                kind,
                range,
            },
        };
        let some = LockRange::new(10, 19).expect("ascends");
        let report = LockReport {
            held: vec![listed(some, LockKind::Read)],
            waiting: vec![listed(LockRange::WHOLE, LockKind::Write)],
            is_cut: false,
            sessions: vec![LockingSession {
                id: SessionId(5),
                host: "here".into(),
                mount: "/mnt".into(),
            }],
        };
        assert_eq!(
            serde_json::to_value(Locks::new(&report)).expect("serialises"),
            serde_json::json!({
                "held": [{ "host": "here", "mount": "/mnt", "session": 5, "pid": 42,
                           "kind": "read", "first_bytes": 10, "last_bytes": 19 }],
                "waiting": [{ "host": "here", "mount": "/mnt", "session": 5, "pid": 42,
                              "kind": "write", "first_bytes": 0, "last_bytes": null }],
                "cut": false,
            })
        );
    }
}
