//! What is wrong, in plain words: what, since when, what it means, and the way out. One line each.

use std::time::{Duration, SystemTime};

use vdfs_program::human;
use vdfs_proto::MemberState;
use vdfs_proto::handshake::Role;
use vdfs_proto::limits::SESSION_LEASE_MS;
use vdfs_proto::meta::{CertificateEnd, SessionStatus, StatusReport, VolumeState, VolumeStatus};

use super::copies::kinds_of_copies;
use super::health::Health;
use crate::calendar::local;

/// A mount speaks every two seconds.
const LATE_MS: u64 = 3_000;
const CLOCK_DIFFERENCE_MS: u64 = 1_000;
const FULL_PERCENT: u64 = 95;
const NEARLY_FULL_PERCENT: u64 = 90;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// What the whole is at best because of it.
    pub(super) health: Health,
    pub(super) text: String,
}

/// Everything that is wrong in a report that was made `now`.
pub(super) fn problems(report: &StatusReport, now: SystemTime) -> Vec<Problem> {
    let mut found = of_the_log(report, now);
    found.extend(of_lost_files(report));
    found.extend(of_chains(report));
    for volume in &report.volumes {
        found.extend(of_absence(report, volume, now));
        found.extend(of_draining(volume));
        found.extend(of_idleness(report, volume));
        found.extend(of_room(
            &volume.info.name,
            volume.used_bytes,
            volume.capacity_bytes,
        ));
        let whose = format!("volume {}", volume.info.name);
        found.extend(of_clock(&whose, volume.clock_ahead_ms));
    }
    found.extend(of_all_room(report));
    found.extend(of_names(report));
    for session in &report.sessions {
        found.extend(of_silence(session, now));
        found.extend(of_recalls(session, now));
        let whose = format!("mount {} on {}", session.mount, session.host);
        found.extend(of_clock(&whose, session.clock_ahead_ms));
    }
    found.extend(
        report
            .certificates
            .iter()
            .map(|end| of_certificate(end, now)),
    );
    found
}

fn of_the_log(report: &StatusReport, now: SystemTime) -> Vec<Problem> {
    let mut found = Vec::new();
    if let Some(trouble) = &report.log_trouble {
        let since = since(trouble.since_ms, now);
        let why = &trouble.why;
        found.push(failing(match trouble.serves_reads {
            true => format!(
                "changes are refused {since}: {why}; files can be read; \
                 make room on the master's disk"
            ),
            false => format!(
                "the master cannot write its log {since}: {why}; everything waits; \
                 see to the master's disk"
            ),
        }));
    }
    if let Some(why) = &report.history_lost {
        found.push(degraded(why.clone()));
    }
    found
}

fn of_lost_files(report: &StatusReport) -> Option<Problem> {
    (report.lost_files > 0).then(|| {
        failing(format!(
            "{}{} files ({}) had their data in RAM that is gone{}: reading them gives EIO; remove \
             them with: vdfs forget-lost",
            at_least(report),
            report.lost_files,
            human(report.lost_bytes),
            such_as(&report.lost_names)
        ))
    })
}

fn of_chains(report: &StatusReport) -> Vec<Problem> {
    let mut found = Vec::new();
    if report.chains.total == 0 {
        found.push(failing(
            "no volume has registered yet: nothing can be stored; start vdfs-volume".to_owned(),
        ));
    }
    for kind in kinds_of_copies(report) {
        if kind.replicas > 1 && kind.short > 0 {
            found.push(degraded(format!(
                "{} of {} chains have fewer than {} copies",
                kind.short, kind.chains, kind.replicas
            )));
        }
    }
    found.extend(of_waiting_chains(report));
    found
}

/// Everything that held copies of these chains was gone at once.
fn of_waiting_chains(report: &StatusReport) -> Option<Problem> {
    let is_missed = |volume: &&VolumeStatus| {
        volume.membership == MemberState::Waiting && volume.state == VolumeState::Away
    };
    let missed = report.volumes.iter().filter(is_missed);
    let names: Vec<&str> = missed.map(|volume| volume.info.name.as_str()).collect();
    let way_out = match names.is_empty() {
        true => "they are back, and are being compared".to_owned(),
        false => format!("start volume {}", names.join(" and volume ")),
    };
    (report.chains.waiting > 0).then(|| {
        failing(format!(
            "{} of {} chains wait for their volumes, which had all gone: {way_out}",
            report.chains.waiting, report.chains.total
        ))
    })
}

fn of_absence(report: &StatusReport, volume: &VolumeStatus, now: SystemTime) -> Option<Problem> {
    if volume.state != VolumeState::Away {
        return None;
    }
    let mut what = format!(
        "volume {} on {} ({}) is away {}",
        volume.info.name,
        volume.info.host,
        volume.info.addr,
        since(volume.silent_ms, now)
    );
    if volume.silent_ms + START_MS >= report.uptime_ms {
        what.push_str(" or longer (the master was started then)");
    }
    let has_others = report.replicas > 1 && volume.waiting_files == 0;
    if has_others {
        return Some(degraded(format!("{what}; start it again")));
    }
    let means = match (volume.waiting_files, report.is_counted) {
        (0, true) => "no file waits for it".to_owned(),
        (0, false) => "files that wait for it are being counted".to_owned(),
        (files, _) => format!(
            "{}{files} files wait for it{}",
            at_least(report),
            such_as(&volume.waiting_names)
        ),
    };
    Some(failing(format!(
        "{what}: {means}; they go on when it is started again"
    )))
}

fn of_names(report: &StatusReport) -> Option<Problem> {
    let (used, limit) = (report.ram.used_bytes, report.ram.limit_bytes?);
    let percent = percent(used, limit)?;
    let left = human(limit.saturating_sub(used));
    let text = format!(
        "RAM of the master is {percent} % full with names, {left} are left: at the limit nothing new \
         can be made; remove files, or give vdfs-master more --ram"
    );
    Some(Problem {
        health: fullness(percent)?,
        text,
    })
}

fn of_room(volume: &str, used_bytes: u64, capacity_bytes: u64) -> Option<Problem> {
    let percent = percent(used_bytes, capacity_bytes)?;
    let left = human(capacity_bytes - used_bytes.min(capacity_bytes));
    let text = format!(
        "RAM of volume {volume} is {percent} % full, {left} are left: new files go to others where \
         there are any; remove files, give it more --ram, or add a volume"
    );
    Some(Problem {
        health: fullness(percent)?,
        text,
    })
}

/// Only where there are several volumes: of one it says nothing new.
fn of_all_room(report: &StatusReport) -> Option<Problem> {
    let (capacity, free) = (report.stats.capacity_bytes, report.stats.free_bytes);
    let percent = percent(capacity.saturating_sub(free), capacity)?;
    let text = format!(
        "all RAM together is {percent} % full, {} are left: writes will fail with ENOSPC; remove \
         files or add a volume",
        human(free)
    );
    let is_news = report.volumes.len() > 1;
    fullness(percent)
        .filter(|_| is_news)
        .map(|health| Problem { health, text })
}

fn percent(used_bytes: u64, capacity_bytes: u64) -> Option<u64> {
    let percent = u128::from(used_bytes) * 100 / u128::from(capacity_bytes.max(1));
    (capacity_bytes > 0).then_some(percent as u64)
}

fn fullness(percent: u64) -> Option<Health> {
    match percent {
        FULL_PERCENT.. => Some(Health::Degraded),
        NEARLY_FULL_PERCENT.. => Some(Health::Ok),
        _ => None,
    }
}

/// A drain that is over, and one that cannot go on.
fn of_draining(volume: &VolumeStatus) -> Option<Problem> {
    let drain = volume.drain?;
    let name = &volume.info.name;
    if drain.progress.left == 0 {
        let text = format!(
            "volume {name} is drained, nothing is left there: remove it with: vdfs volume remove {name}, \
             or keep it with: vdfs volume drain {name} --cancel"
        );
        let health = Health::Ok;
        return Some(Problem { health, text });
    }
    let is_stuck = volume.state == VolumeState::Serving && !drain.can_move;
    is_stuck.then(|| {
        degraded(format!(
            "volume {name} cannot be drained on: no other volume on a host of its own has room for the \
             {} chains that are left; add a volume, or end it with: vdfs volume drain {name} --cancel",
            drain.progress.left
        ))
    })
}

/// Nothing moves to it while that is paused.
fn of_idleness(report: &StatusReport, volume: &VolumeStatus) -> Option<Problem> {
    let is_idle = volume.chains == 0
        && volume.state == VolumeState::Serving
        && volume.drain.is_none()
        && report.balance.is_paused;
    is_idle.then(|| Problem {
        health: Health::Ok,
        text: format!(
            "volume {} gets no files, since moving data to it is paused: vdfs rebalance --resume",
            volume.info.name
        ),
    })
}

/// A mount that lives, and that others have been waiting for.
fn of_recalls(session: &SessionStatus, now: SystemTime) -> Option<Problem> {
    if session.idle_ms > LATE_MS || session.recalled_ms <= LATE_MS {
        return None;
    }
    Some(degraded(format!(
        "others wait for mount {} on {} to let go of {} files {}: it is writing out what it has; see \
         whether the volumes of these files are well",
        session.mount,
        session.host,
        session.recalls,
        since(session.recalled_ms, now)
    )))
}

fn of_silence(session: &SessionStatus, now: SystemTime) -> Option<Problem> {
    if session.idle_ms <= LATE_MS {
        return None;
    }
    let holds = match session.recalls {
        0 => "nobody waits for it".to_owned(),
        recalls => format!("others wait for it to let go of {recalls} files"),
    };
    let rest_s = SESSION_LEASE_MS.saturating_sub(session.idle_ms) / 1000;
    Some(degraded(format!(
        "mount {} on {} is silent {}: {holds}; if it does not speak within {rest_s} s it is ended, \
         and what it has not flushed is lost; see whether its machine and network are well",
        session.mount,
        session.host,
        since(session.idle_ms, now)
    )))
}

fn of_clock(whose: &str, ahead_ms: Option<i64>) -> Option<Problem> {
    let ahead_ms = ahead_ms?;
    if ahead_ms.unsigned_abs() <= CLOCK_DIFFERENCE_MS {
        return None;
    }
    let by = Duration::from_millis(ahead_ms.unsigned_abs()).as_secs_f64();
    let direction = if ahead_ms > 0 { "ahead of" } else { "behind" };
    Some(Problem {
        health: Health::Ok,
        text: format!(
            "the clock of {whose} is {by:.1} s {direction} the master's: times of files differ by \
             that; let both keep the same time (NTP)"
        ),
    })
}

fn of_certificate(end: &CertificateEnd, now: SystemTime) -> Problem {
    let (role, node) = (end.role.as_str(), &end.node);
    let ends = end.ends.to_system();
    let when = match ends.duration_since(now) {
        Ok(left) => format!("ends {} (in {})", local(ends), span(left)),
        Err(over) => format!("has ended {} ({} ago)", local(ends), span(over.duration())),
    };
    let way_out = match end.role {
        Role::Master => "start the master again: it renews it".to_owned(),
        Role::Volume | Role::Client | Role::Admin => format!(
            "make another with: vdfs cert issue --renew --ca MASTER_STATE --role {role} --name {node} \
             --out {node}-new, put its files where the old ones are, with the same owner, and start {node} again"
        ),
    };
    Problem {
        health: Health::Ok,
        text: format!(
            "the certificate of {role} {node} {when}: nobody lets it in after that; {way_out}"
        ),
    }
}

fn failing(text: String) -> Problem {
    let health = Health::Failing;
    Problem { health, text }
}

fn degraded(text: String) -> Problem {
    let health = Health::Degraded;
    Problem { health, text }
}

fn at_least(report: &StatusReport) -> &'static str {
    if report.is_counted { "" } else { "at least " }
}

/// `, such as /a and /b`
fn such_as(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!(", such as {}", names.join(" and ")),
    }
}

/// A master has been running for so long at most when it begins to wait for its volumes, in milliseconds.
const START_MS: u64 = 2_000;

/// `since 2026-11-20 09:15:04 (12 s)`
fn since(ms: u64, now: SystemTime) -> String {
    let ago = Duration::from_millis(ms);
    let begun = now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
    format!("since {} ({})", local(begun), span(ago))
}

/// To the two largest units that say something.
fn span(time: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let secs = time.as_secs();
    match secs {
        0..MINUTE => format!("{secs} s"),
        MINUTE..HOUR => format!("{} min {} s", secs / MINUTE, secs % MINUTE),
        HOUR..DAY => format!("{} h {} min", secs / HOUR, secs % HOUR / MINUTE),
        _ => format!("{} days", secs / DAY),
    }
}

#[cfg(test)]
mod tests {
    use vdfs_proto::Timestamp;
    use vdfs_proto::meta::LogTrouble;

    use super::super::json::tests::report;
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// The only problem of a report.
    fn only(report: &StatusReport) -> Problem {
        let mut found = problems(report, SystemTime::now());
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    fn assert_says(problem: &Problem, health: Health, parts: &[&str]) {
        assert_eq!(problem.health, health, "{problem:?}");
        for part in parts {
            assert!(
                problem.text.contains(part),
                "no `{part}` in {}",
                problem.text
            );
        }
    }

    #[test]
    fn problems_name_a_volume_that_is_away_since_when_and_what_waits() {
        let mut report = report();
        let volume = &mut report.volumes[0];
        (volume.state, volume.silent_ms) = (VolumeState::Away, 75_000);
        (volume.waiting_files, volume.waiting_names) = (17, vec!["/a".into(), "/b/c".into()]);
        let parts = [
            "volume-1",
            "since ",
            "(1 min 15 s)",
            "17 files wait",
            "/a and /b/c",
        ];
        assert_says(&only(&report), Health::Failing, &parts);
        report.is_counted = false;
        assert_says(&only(&report), Health::Failing, &["at least 17 files"]);
        report.uptime_ms = 100_000;
        assert!(!only(&report).text.contains("or longer"));
        report.uptime_ms = 76_000;
        assert_says(&only(&report), Health::Failing, &["(1 min 15 s) or longer"]);
    }

    #[test]
    fn problems_name_chains_that_wait_and_for_whom() {
        let mut report = report();
        (report.replicas, report.chains.waiting) = (2, 9);
        let volume = &mut report.volumes[0];
        (volume.state, volume.membership) = (VolumeState::Away, MemberState::Waiting);
        let found = problems(&report, SystemTime::now());
        let parts = ["9 of 256 chains wait", "start volume volume-1"];
        assert_says(&found[0], Health::Failing, &parts);
        report.volumes[0].state = VolumeState::Serving;
        assert_says(&only(&report), Health::Failing, &["are being compared"]);
    }

    #[test]
    fn problems_name_lost_files_and_a_full_log() {
        let mut report = report();
        (report.lost_files, report.lost_bytes) = (3, 2048);
        report.lost_names = vec!["/x".into()];
        let parts = ["3 files (2 KiB)", "such as /x", "EIO", "vdfs forget-lost"];
        assert_says(&only(&report), Health::Failing, &parts);
        report.lost_files = 0;
        report.log_trouble = Some(LogTrouble {
            why: "no space left".into(),
            since_ms: 2_000,
            serves_reads: true,
        });
        let parts = [
            "changes are refused since",
            "(2 s)",
            "no space left",
            "make room",
        ];
        assert_says(&only(&report), Health::Failing, &parts);
        let trouble = report.log_trouble.as_mut().expect("set above");
        trouble.serves_reads = false;
        let parts = ["cannot write its log since", "everything waits"];
        assert_says(&only(&report), Health::Failing, &parts);
    }

    #[test]
    fn problems_name_a_silent_mount_and_who_waits_for_it() {
        let mut report = report();
        report.sessions[0].idle_ms = 3_000;
        assert!(problems(&report, SystemTime::now()).is_empty());
        (report.sessions[0].idle_ms, report.sessions[0].recalls) = (4_500, 2);
        let parts = [
            "mount /mnt on here",
            "silent since",
            "(4 s)",
            "2 files",
            "within 5 s",
        ];
        assert_says(&only(&report), Health::Degraded, &parts);
    }

    #[test]
    fn problems_name_a_mount_that_lives_and_holds_what_others_wait_for() {
        let mut report = report();
        (report.sessions[0].recalls, report.sessions[0].recalled_ms) = (1, 2_000);
        assert!(problems(&report, SystemTime::now()).is_empty());
        report.sessions[0].recalled_ms = 7_000;
        let parts = ["mount /mnt on here", "1 files since", "(7 s)"];
        assert_says(&only(&report), Health::Degraded, &parts);
    }

    #[test]
    fn problems_name_a_volume_that_gets_no_files() {
        let mut report = report();
        report.volumes[0].chains = 0;
        let found = problems(&report, SystemTime::now());
        assert!(found.is_empty(), "chains come to it: {found:?}");
        report.balance.is_paused = true;
        let parts = ["volume-1 gets no files", "vdfs rebalance --resume"];
        assert_says(&only(&report), Health::Ok, &parts);
    }

    #[test]
    fn problems_name_full_ram_and_different_clocks() {
        let mut report = report();
        report.volumes[0].used_bytes = 3_700;
        assert_says(
            &only(&report),
            Health::Ok,
            &["volume-1 is 90 % full", "--ram"],
        );
        report.volumes[0].used_bytes = 4_000;
        assert_says(&only(&report), Health::Degraded, &["97 % full"]);
        report.volumes[0].used_bytes = 0;
        report.volumes[0].clock_ahead_ms = Some(3_200);
        assert_says(
            &only(&report),
            Health::Ok,
            &["volume volume-1 is 3.2 s ahead", "NTP"],
        );
        report.volumes[0].clock_ahead_ms = Some(-900);
        assert!(problems(&report, SystemTime::now()).is_empty());
    }

    #[test]
    fn problems_name_all_ram_where_there_are_several_volumes() {
        let mut report = report();
        report.volumes.push(report.volumes[0].clone());
        report.stats.free_bytes = 100;
        assert_says(
            &only(&report),
            Health::Degraded,
            &["together is 97 % full", "ENOSPC"],
        );
    }

    #[test]
    fn problems_name_certificates_with_the_command_that_makes_another() {
        let mut report = report();
        let mut end = CertificateEnd {
            role: Role::Volume,
            node: "v7".into(),
            ends: Timestamp::from_system(SystemTime::now() + 3 * DAY + DAY / 2),
        };
        report.certificates = vec![end.clone()];
        let parts = [
            "volume v7",
            "in 3 days",
            "--renew",
            "--role volume --name v7",
        ];
        assert_says(&only(&report), Health::Ok, &parts);
        end.role = Role::Master;
        end.ends = Timestamp::from_system(SystemTime::now() - 2 * DAY);
        report.certificates = vec![end];
        assert_says(
            &only(&report),
            Health::Ok,
            &["has ended", "2 days ago", "start the master again"],
        );
    }
}
