//! `vdfs volume list`.

use serde::Serialize;
use vdfs_program::{Failure, human};
use vdfs_proto::meta::{DrainStatus, StatusReport, VolumeStatus};

use crate::args::VolumeListArgs;
use crate::output::Output;
use crate::status;
use crate::status::json::{VolumeJson, state_text, volume};

#[derive(Debug, Serialize)]
struct VolumesJson<'a> {
    volumes: Vec<VolumeJson<'a>>,
}

pub(super) fn run(args: &VolumeListArgs) -> Result<(), Failure> {
    let report = status::ask(&args.cluster)?;
    let mut output = Output::open();
    if args.json {
        let volumes = report.volumes.iter().map(volume).collect();
        output.json(&VolumesJson { volumes })?;
    } else {
        output.bytes(text(&report).as_bytes())?;
    }
    output.finish()
}

fn text(report: &StatusReport) -> String {
    let heading = row(["NAME", "ADDRESS", "HOST", "STATE", "CHAINS", "USED", "RAM"]);
    let rows = report.volumes.iter().map(row_of);
    std::iter::once(heading).chain(rows).collect()
}

fn row_of(volume: &VolumeStatus) -> String {
    let row = row([
        &volume.info.name,
        &volume.info.addr.to_string(),
        &volume.info.host,
        state_text(volume),
        &volume.chains.to_string(),
        &human(volume.used_bytes),
        &human(volume.capacity_bytes),
    ]);
    match &volume.drain {
        Some(drain) => format!("{row}  {}\n", left_text(drain)),
        None => row,
    }
}

fn row([name, addr, host, state, chains, used, ram]: [&str; 7]) -> String {
    format!("{name:<12} {addr:<21} {host:<16} {state:<8} {chains:>6} {used:>10} {ram:>10}\n")
}

/// What is left of a drain, in words.
pub(super) fn left_text(drain: &DrainStatus) -> String {
    let left = drain.progress.left;
    if left == 0 {
        return "drained: nothing is left".to_owned();
    }
    let bytes = human(drain.left_bytes);
    let rest = match (drain.progress.remaining_ms, drain.can_move) {
        (_, false) => "no other volume has room for them".to_owned(),
        (Some(ms), true) => format!("about {} s", ms.div_ceil(1000)),
        (None, true) => "it has just begun".to_owned(),
    };
    format!("draining: {left} chains (about {bytes}) are left, {rest}")
}

#[cfg(test)]
mod tests {
    use vdfs_proto::meta::MoveProgress;

    use super::*;
    use crate::status::tests::report;

    #[test]
    fn list_shows_what_is_left_of_a_drain() {
        let mut report = report();
        assert!(text(&report).contains("serving"));
        let mut drain = DrainStatus {
            progress: MoveProgress {
                left: 12,
                done: 3,
                remaining_ms: Some(4_100),
            },
            left_bytes: 2 << 20,
            can_move: true,
        };
        report.volumes[0].drain = Some(drain);
        let shown = text(&report);
        let line = "draining: 12 chains (about 2 MiB) are left, about 5 s";
        assert!(shown.contains(line), "{shown}");
        drain.progress.left = 0;
        assert_eq!(left_text(&drain), "drained: nothing is left");
    }
}
