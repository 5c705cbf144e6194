//! `vdfs status --json`. Keys are only ever added.

use serde::Serialize;
use vdfs_proto::MemberState;
use vdfs_proto::meta::{CertificateEnd, SessionStatus, VolumeState, VolumeStatus};
use vdfs_proto::{NetTotals, OpTotals};

use super::Findings;
use super::health::Health;

#[derive(Debug, Serialize)]
pub(super) struct StatusJson<'a> {
    health: Health,
    problems: &'a [String],
    masters: Vec<MasterJson<'a>>,
    volumes: Vec<VolumeJson<'a>>,
    capacity_bytes: u64,
    used_bytes: u64,
    files: u64,
    files_max: u64,
    metadata_bytes: u64,
    /// `null`: there is no limit.
    metadata_limit_bytes: Option<u64>,
    replicas: u32,
    chunk_bytes: u32,
    chains: ChainsJson,
    sessions: Vec<SessionJson<'a>>,
    lost_files: u64,
    lost_bytes: u64,
    lost_names: &'a [String],
    counted: bool,
    certificates: Vec<CertificateJson<'a>>,
    net: &'a NetTotals,
    ops: &'a [OpTotals],
    uptime_s: u64,
}

#[derive(Debug, Serialize)]
struct MasterJson<'a> {
    addr: &'a str,
    leader: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct VolumeJson<'a> {
    name: &'a str,
    addr: String,
    host: &'a str,
    state: &'static str,
    ram_bytes: u64,
    used_bytes: u64,
    silent_s: u64,
    chains: u32,
    draining: bool,
    /// About; `null` unless it is drained.
    drain_left_bytes: Option<u64>,
    /// `null` as long as that is not known.
    drain_remaining_s: Option<u64>,
    waiting_files: u64,
    waiting_names: &'a [String],
    clock_ahead_ms: Option<i64>,
    net: &'a NetTotals,
}

/// One that ends within 30 days.
#[derive(Debug, Serialize)]
struct CertificateJson<'a> {
    role: &'static str,
    node: &'a str,
    /// Seconds since 1970.
    ends_s: i64,
}

#[derive(Debug, Serialize)]
struct ChainsJson {
    total: u32,
    whole: u32,
    short: u32,
    lost: u32,
    waiting: u32,
}

#[derive(Debug, Serialize)]
struct SessionJson<'a> {
    id: u64,
    host: &'a str,
    mount: &'a str,
    idle_s: u64,
    handles: u32,
    recalls: u32,
    recalled_ms: u64,
    clock_ahead_ms: Option<i64>,
}

impl<'a> StatusJson<'a> {
    pub(super) fn of(findings: &'a Findings) -> StatusJson<'a> {
        let report = &findings.report;
        let master = |addr: &'a String| MasterJson { addr, leader: true };
        StatusJson {
            health: findings.health,
            problems: &findings.problems,
            masters: findings.masters.iter().map(master).collect(),
            volumes: report.volumes.iter().map(volume).collect(),
            capacity_bytes: report.stats.capacity_bytes,
            used_bytes: used_bytes(findings),
            files: report.stats.files,
            files_max: report.stats.files_max,
            metadata_bytes: report.ram.used_bytes,
            metadata_limit_bytes: report.ram.limit_bytes,
            replicas: report.replicas,
            chunk_bytes: report.chunk_bytes,
            chains: ChainsJson {
                total: report.chains.total,
                whole: report.chains.whole,
                short: report.chains.short,
                lost: report.chains.lost,
                waiting: report.chains.waiting,
            },
            sessions: report.sessions.iter().map(session).collect(),
            lost_files: report.lost_files,
            lost_bytes: report.lost_bytes,
            lost_names: &report.lost_names,
            counted: report.is_counted,
            certificates: report.certificates.iter().map(certificate).collect(),
            net: &report.net,
            ops: &report.ops,
            uptime_s: report.uptime_ms / 1000,
        }
    }
}

pub(super) fn used_bytes(findings: &Findings) -> u64 {
    let stats = &findings.report.stats;
    stats.capacity_bytes.saturating_sub(stats.free_bytes)
}

pub(crate) fn state_text(volume: &VolumeStatus) -> &'static str {
    match (volume.state, volume.membership) {
        (VolumeState::Away, _) => "away",
        (VolumeState::Serving, _) if volume.drain.is_some() => "draining",
        (VolumeState::Serving, MemberState::Serving) => "serving",
        (VolumeState::Serving, MemberState::Syncing) => "syncing",
        (VolumeState::Serving, MemberState::Waiting) => "waiting",
    }
}

pub(crate) fn volume(volume: &VolumeStatus) -> VolumeJson<'_> {
    let drain = volume.drain;
    VolumeJson {
        name: &volume.info.name,
        addr: volume.info.addr.to_string(),
        host: &volume.info.host,
        state: state_text(volume),
        ram_bytes: volume.capacity_bytes,
        used_bytes: volume.used_bytes,
        silent_s: volume.silent_ms / 1000,
        chains: volume.chains,
        draining: drain.is_some(),
        drain_left_bytes: drain.map(|drain| drain.left_bytes),
        drain_remaining_s: drain
            .and_then(|drain| drain.progress.remaining_ms)
            .map(|ms| ms.div_ceil(1000)),
        waiting_files: volume.waiting_files,
        waiting_names: &volume.waiting_names,
        clock_ahead_ms: volume.clock_ahead_ms,
        net: &volume.net,
    }
}

fn certificate(end: &CertificateEnd) -> CertificateJson<'_> {
    CertificateJson {
        role: end.role.as_str(),
        node: &end.node,
        ends_s: end.ends.secs,
    }
}

fn session(session: &SessionStatus) -> SessionJson<'_> {
    SessionJson {
        id: session.id.0,
        host: &session.host,
        mount: &session.mount,
        idle_s: session.idle_ms / 1000,
        handles: session.handles,
        recalls: session.recalls,
        recalled_ms: session.recalled_ms,
        clock_ahead_ms: session.clock_ahead_ms,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use vdfs_proto::meta::{
        BalanceStatus, ChainCounts, FsStats, GroupStatus, MetadataRam, StatusReport,
    };
    use vdfs_proto::{SessionId, VolumeId, VolumeInfo};

    use super::*;

    fn volume_status() -> VolumeStatus {
        VolumeStatus {
            info: VolumeInfo {
                id: VolumeId(1),
                name: "volume-1".into(),
                host: "here".into(),
                addr: ([127, 0, 0, 1], 7401).into(),
                node: "volume-1".into(),
            },
            state: VolumeState::Serving,
            silent_ms: 100,
            capacity_bytes: 4096,
            used_bytes: 3072,
            membership: MemberState::Serving,
            chains: 256,
            drain: None,
            waiting_files: 0,
            waiting_names: vec![],
            clock_ahead_ms: None,
            net: NetTotals {
                stalls: 2,
                ..NetTotals::default()
            },
        }
    }

    pub(crate) fn report() -> StatusReport {
        StatusReport {
            stats: FsStats {
                capacity_bytes: 4096,
                free_bytes: 1024,
                files: 7,
                files_max: 100,
                is_reaping: false,
            },
            ram: MetadataRam {
                used_bytes: 2000,
                limit_bytes: Some(8000),
                copied_bytes: 0,
            },
            chunk_bytes: 65_536,
            replicas: 1,
            chains: ChainCounts {
                total: 256,
                whole: 256,
                short: 0,
                lost: 0,
                waiting: 0,
            },
            groups: vec![GroupStatus {
                copies: None,
                chains: 256,
                short: 0,
            }],
            volumes: vec![volume_status()],
            sessions: vec![SessionStatus {
                id: SessionId(5),
                host: "here".into(),
                mount: "/mnt".into(),
                idle_ms: 1500,
                handles: 2,
                slots: 1,
                locks: 0,
                recalls: 0,
                recalled_ms: 0,
                clock_ahead_ms: Some(3),
            }],
            lost_files: 0,
            lost_bytes: 0,
            lost_names: vec![],
            is_counted: true,
            log_trouble: None,
            history_lost: None,
            certificates: vec![],
            net: NetTotals {
                accepts_refused: 3,
                ..NetTotals::default()
            },
            ops: vec![OpTotals {
                name: "Open".into(),
                count: 9,
                errors: 1,
                time_us: 80,
            }],
            uptime_ms: 61_000,
            balance: BalanceStatus::default(),
        }
    }

    #[test]
    fn status_json_has_the_keys_that_scripts_rely_on() {
        let findings = Findings {
            report: report(),
            masters: vec!["127.0.0.1:7400".into()],
            health: Health::Ok,
            problems: vec![],
        };
        let json = serde_json::to_value(StatusJson::of(&findings)).expect("serialises");
        let net = |refused: u64, stalls: u64| {
            serde_json::json!({
                "accepts": 0, "accepts_refused": refused, "address_proofs": 0, "requests": 0,
                "frames_malformed": 0, "frames_oversized": 0, "stalls": stalls,
                "packets_sent": 0, "packets_lost": 0,
            })
        };
        let expected = serde_json::json!({
            "health": "ok",
            "problems": [],
            "masters": [{ "addr": "127.0.0.1:7400", "leader": true }],
            "volumes": [{
                "name": "volume-1", "addr": "127.0.0.1:7401", "host": "here",
                "state": "serving", "ram_bytes": 4096, "used_bytes": 3072, "silent_s": 0,
                "chains": 256, "draining": false, "drain_left_bytes": null,
                "drain_remaining_s": null, "waiting_files": 0, "waiting_names": [], "clock_ahead_ms": null,
                "net": net(0, 2),
            }],
            "capacity_bytes": 4096, "used_bytes": 3072, "files": 7, "files_max": 100,
            "metadata_bytes": 2000, "metadata_limit_bytes": 8000,
            "replicas": 1, "chunk_bytes": 65_536,
            "chains": { "total": 256, "whole": 256, "short": 0, "lost": 0, "waiting": 0 },
            "sessions": [
                {
                    "id": 5, "host": "here", "mount": "/mnt", "idle_s": 1, "handles": 2,
                    "recalls": 0, "recalled_ms": 0, "clock_ahead_ms": 3,
                },
            ],
            "lost_files": 0, "lost_bytes": 0, "lost_names": [], "counted": true,
            "certificates": [], "uptime_s": 61, "net": net(3, 0),
            "ops": [{ "name": "Open", "count": 9, "errors": 1, "time_us": 80 }],
        });
        assert_eq!(json, expected);
    }
}
