//! What a report means: can everything be read and written, and what should somebody look at.

use std::time::Duration;

use serde::Serialize;
use vdfs_proto::meta::{StatusReport, VolumeState};

use vdfs_program::human;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Health {
    Ok,
    /// All files can be read and written, with less protection than they should have.
    Degraded,
    /// Some bytes cannot be reached, or changes are refused.
    Failing,
}

/// Warn of a certificate that expires so soon.
const EXPIRY_WARNING: Duration = Duration::from_secs(30 * 24 * 3600);

pub(super) fn judge(report: &StatusReport, expires_in: Duration) -> (Health, Vec<String>) {
    let failing = failing_problems(report);
    let degraded = degraded_problems(report);
    let health = match (failing.is_empty(), degraded.is_empty()) {
        (false, _) => Health::Failing,
        (true, false) => Health::Degraded,
        (true, true) => Health::Ok,
    };
    let mut problems = failing;
    problems.extend(degraded);
    if expires_in < EXPIRY_WARNING {
        let days = expires_in.as_secs() / (24 * 3600);
        problems.push(format!("the certificate used here expires in {days} days"));
    }
    (health, problems)
}

fn failing_problems(report: &StatusReport) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(why) = &report.log_trouble {
        problems.push(format!("changes are refused: {why}"));
    }
    if report.lost_files > 0 {
        problems.push(format!(
            "{} files ({}) had their data in RAM that is gone; remove them with: vdfs forget-lost",
            report.lost_files,
            human(report.lost_bytes)
        ));
    }
    // A chain that once lost its data serves again; what it lost is told by the files.
    if report.chains.total == 0 {
        problems.push("no volume has registered yet".to_owned());
    }
    if report.replicas == 1 {
        problems.extend(volumes_away(report));
    }
    problems
}

fn degraded_problems(report: &StatusReport) -> Vec<String> {
    let mut problems = Vec::new();
    if report.replicas > 1 {
        problems.extend(volumes_away(report));
    }
    if report.chains.short > 0 {
        problems.push(format!(
            "{} of {} chains have fewer than {} copies",
            report.chains.short, report.chains.total, report.replicas
        ));
    }
    problems
}

fn volumes_away(report: &StatusReport) -> impl Iterator<Item = String> {
    let away = report
        .volumes
        .iter()
        .filter(|volume| volume.state == VolumeState::Away);
    away.map(|volume| {
        let silent_s = volume.silent_ms / 1000;
        format!(
            "volume {} has not been heard for {silent_s} s",
            volume.info.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::json::tests::report;
    use super::*;

    const FAR: Duration = Duration::from_secs(3650 * 24 * 3600);

    #[test]
    fn judge_calls_a_whole_system_ok() {
        assert_eq!(judge(&report(), FAR), (Health::Ok, vec![]));
    }

    #[test]
    fn judge_calls_an_absent_volume_failing_with_one_replica_and_degraded_with_two() {
        let mut report = report();
        report.volumes[0].state = VolumeState::Away;
        assert_eq!(judge(&report, FAR).0, Health::Failing);
        report.replicas = 2;
        assert_eq!(judge(&report, FAR).0, Health::Degraded);
    }

    #[test]
    fn judge_names_each_problem() {
        let mut report = report();
        report.log_trouble = Some("no space left".into());
        (report.lost_files, report.lost_bytes) = (3, 2048);
        let (health, problems) = judge(&report, Duration::from_secs(3 * 24 * 3600));
        assert_eq!(health, Health::Failing);
        let text = problems.join("\n");
        for part in ["no space left", "3 files (2 KiB)", "expires in 3 days"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
