//! `vdfs status` for people.

use super::Findings;
use super::health::Health;
use super::json::{state_text, used_bytes};
use vdfs_program::human;
use vdfs_proto::meta::MetadataRam;

pub(super) fn render(findings: &Findings) -> String {
    let report = &findings.report;
    let stats = &report.stats;
    let mut text = format!("health    {}\n", health_text(findings.health));
    for problem in &findings.problems {
        text += &format!("          {problem}\n");
    }
    text += &format!(
        "space     {} of {} used, {} free\n",
        human(used_bytes(findings)),
        human(stats.capacity_bytes),
        human(stats.free_bytes)
    );
    text += &format!("files     {} of at most {}\n", stats.files, stats.files_max);
    text += &format!("names     {}\n", names_text(&report.ram));
    text += &format!(
        "chunks    of {}, {} each\n",
        human(u64::from(report.chunk_bytes)),
        copies_text(report.replicas)
    );
    text += &format!("master    {}\n", findings.masters.join(", "));
    text += &volumes(findings);
    text += &sessions(findings);
    text
}

fn health_text(health: Health) -> &'static str {
    match health {
        Health::Ok => "ok",
        Health::Degraded => "degraded",
        Health::Failing => "failing",
    }
}

fn names_text(ram: &MetadataRam) -> String {
    let used = human(ram.used_bytes);
    match ram.limit_bytes {
        Some(limit) => format!("{used} of {} of the master's RAM", human(limit)),
        None => format!("{used} of the master's RAM"),
    }
}

fn copies_text(replicas: u32) -> String {
    match replicas {
        1 => "1 copy".to_owned(),
        copies => format!("{copies} copies"),
    }
}

fn volumes(findings: &Findings) -> String {
    let heading = row("volumes", "NAME", "ADDRESS", "STATE", "USED", "RAM");
    let rows = findings.report.volumes.iter().map(|volume| {
        row(
            "",
            &volume.info.name,
            &volume.info.addr.to_string(),
            state_text(volume),
            &human(volume.used_bytes),
            &human(volume.capacity_bytes),
        )
    });
    std::iter::once(heading).chain(rows).collect()
}

fn row(margin: &str, name: &str, addr: &str, state: &str, used: &str, ram: &str) -> String {
    format!("{margin:<9} {name:<12} {addr:<21} {state:<8} {used:>10} {ram:>10}\n")
}

fn sessions(findings: &Findings) -> String {
    let mut text = format!(
        "{:<9} {:<20} {:>6}  {}\n",
        "mounts", "HOST", "IDLE", "MOUNT"
    );
    for session in &findings.report.sessions {
        let idle = format!("{} s", session.idle_ms / 1000);
        text += &format!(
            "{:<9} {:<20} {idle:>6}  {}\n",
            "", session.host, session.mount
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::json::tests::report;
    use super::*;

    #[test]
    fn render_shows_health_space_volumes_and_mounts() {
        let findings = Findings {
            report: report(),
            masters: vec!["127.0.0.1:7400".into()],
            health: Health::Degraded,
            problems: vec!["something".into()],
        };
        let text = render(&findings);
        for part in [
            "degraded\n          something",
            "3 KiB of 4 KiB used",
            "volume-1",
            "/mnt",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
