//! `vdfs sessions`: who uses the filesystem, and what each holds.

use serde::Serialize;
use vdfs_program::Failure;
use vdfs_proto::meta::SessionStatus;

use crate::args::SessionsArgs;
use crate::output::Output;
use crate::status;

#[derive(Debug, Serialize)]
struct SessionsJson<'a> {
    sessions: Vec<SessionJson<'a>>,
}

#[derive(Debug, Serialize)]
struct SessionJson<'a> {
    id: u64,
    host: &'a str,
    mount: &'a str,
    idle_ms: u64,
    handles: u32,
    slots: u32,
    locks: u32,
    recalls: u32,
    clock_ahead_ms: Option<i64>,
}

pub(crate) fn run(args: &SessionsArgs) -> Result<(), Failure> {
    let report = status::ask(&args.cluster)?;
    let mut output = Output::open();
    if args.json {
        let sessions = report.sessions.iter().map(json).collect();
        output.json(&SessionsJson { sessions })?;
    } else {
        output.bytes(text(&report.sessions).as_bytes())?;
    }
    output.finish()
}

fn json(session: &SessionStatus) -> SessionJson<'_> {
    SessionJson {
        id: session.id.0,
        host: &session.host,
        mount: &session.mount,
        idle_ms: session.idle_ms,
        handles: session.handles,
        slots: session.slots,
        locks: session.locks,
        recalls: session.recalls,
        clock_ahead_ms: session.clock_ahead_ms,
    }
}

fn text(sessions: &[SessionStatus]) -> String {
    let heading = row(
        ["ID", "HOST", "IDLE", "OPEN", "LOCKS", "SLOTS", "RECALLS"],
        "MOUNT",
    );
    let rows = sessions.iter().map(|session| {
        let cells = [
            session.id.0.to_string(),
            session.host.clone(),
            format!("{:.1} s", session.idle_ms as f64 / 1000.0),
            session.handles.to_string(),
            session.locks.to_string(),
            session.slots.to_string(),
            session.recalls.to_string(),
        ];
        row(cells.each_ref().map(String::as_str), &session.mount)
    });
    std::iter::once(heading).chain(rows).collect()
}

fn row([id, host, idle, open, locks, slots, recalls]: [&str; 7], mount: &str) -> String {
    format!("{id:<8} {host:<20} {idle:>8} {open:>7} {locks:>6} {slots:>6} {recalls:>8}  {mount}\n")
}

#[cfg(test)]
mod tests {
    use vdfs_proto::SessionId;

    use super::*;

    #[test]
    fn text_has_a_line_for_each_session() {
        let session = SessionStatus {
            id: SessionId(17),
            host: "web-3".into(),
            mount: "/mnt/vdfs".into(),
            idle_ms: 1500,
            handles: 12,
            slots: 3,
            locks: 4,
            recalls: 0,
            recalled_ms: 0,
            clock_ahead_ms: None,
        };
        let text = text(&[session]);
        let words: Vec<&str> = text
            .lines()
            .nth(1)
            .expect("a line")
            .split_whitespace()
            .collect();
        assert_eq!(
            words,
            ["17", "web-3", "1.5", "s", "12", "4", "3", "0", "/mnt/vdfs"]
        );
    }
}
