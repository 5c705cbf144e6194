//! What a report means: can everything be read and written, and what should somebody look at.

use std::time::SystemTime;

use serde::Serialize;
use vdfs_proto::meta::StatusReport;

use super::problems::{Problem, problems};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Health {
    Ok,
    /// All files can be read and written, with less protection or room than they should have.
    Degraded,
    /// Some bytes cannot be reached, or changes are refused.
    Failing,
}

/// Judges a report that was made `now`; the worst problems come first.
pub(super) fn judge(report: &StatusReport, now: SystemTime) -> (Health, Vec<String>) {
    let mut found = problems(report, now);
    found.sort_by_key(|problem| std::cmp::Reverse(problem.health));
    let health = found.first().map_or(Health::Ok, |worst| worst.health);
    let texts = found.into_iter().map(|Problem { text, .. }| text);
    (health, texts.collect())
}

#[cfg(test)]
mod tests {
    use vdfs_proto::meta::VolumeState;

    use super::super::json::tests::report;
    use super::*;

    fn judged(report: &StatusReport) -> (Health, Vec<String>) {
        judge(report, SystemTime::now())
    }

    #[test]
    fn judge_calls_a_whole_system_ok() {
        assert_eq!(judged(&report()), (Health::Ok, vec![]));
    }

    #[test]
    fn judge_calls_an_absent_volume_failing_with_one_replica_and_degraded_with_two() {
        let mut report = report();
        report.volumes[0].state = VolumeState::Away;
        assert_eq!(judged(&report).0, Health::Failing);
        report.replicas = 2;
        assert_eq!(judged(&report).0, Health::Degraded);
    }

    #[test]
    fn judge_puts_the_worst_first() {
        let mut report = report();
        report.sessions[0].clock_ahead_ms = Some(-5_000);
        report.volumes[0].state = VolumeState::Away;
        let (health, texts) = judged(&report);
        assert_eq!(health, Health::Failing);
        assert!(texts[0].contains("is away"), "{texts:?}");
        assert!(texts[1].contains("clock"), "{texts:?}");
    }
}
