//! `vdfs status --json`. Keys are only ever added.

use serde::Serialize;
use vdfs_proto::MemberState;
use vdfs_proto::meta::{SessionStatus, VolumeState, VolumeStatus};

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
    replicas: u32,
    chunk_bytes: u32,
    chains: ChainsJson,
    sessions: Vec<SessionJson<'a>>,
    lost_files: u64,
    lost_bytes: u64,
    uptime_s: u64,
}

#[derive(Debug, Serialize)]
struct MasterJson<'a> {
    addr: &'a str,
    leader: bool,
}

#[derive(Debug, Serialize)]
struct VolumeJson<'a> {
    name: &'a str,
    addr: String,
    host: &'a str,
    state: &'static str,
    ram_bytes: u64,
    used_bytes: u64,
}

#[derive(Debug, Serialize)]
struct ChainsJson {
    total: u32,
    whole: u32,
    short: u32,
    lost: u32,
}

#[derive(Debug, Serialize)]
struct SessionJson<'a> {
    id: u64,
    host: &'a str,
    mount: &'a str,
    idle_s: u64,
    handles: u32,
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
            replicas: report.replicas,
            chunk_bytes: report.chunk_bytes,
            chains: ChainsJson {
                total: report.chains.total,
                whole: report.chains.whole,
                short: report.chains.short,
                lost: report.chains.lost,
            },
            sessions: report.sessions.iter().map(session).collect(),
            lost_files: report.lost_files,
            lost_bytes: report.lost_bytes,
            uptime_s: report.uptime_ms / 1000,
        }
    }
}

pub(super) fn used_bytes(findings: &Findings) -> u64 {
    let stats = &findings.report.stats;
    stats.capacity_bytes.saturating_sub(stats.free_bytes)
}

pub(super) fn state_text(volume: &VolumeStatus) -> &'static str {
    match (volume.state, volume.membership) {
        (VolumeState::Away, _) => "away",
        (VolumeState::Serving, MemberState::Serving) => "serving",
        (VolumeState::Serving, MemberState::Syncing) => "syncing",
    }
}

fn volume(volume: &VolumeStatus) -> VolumeJson<'_> {
    VolumeJson {
        name: &volume.info.name,
        addr: volume.info.addr.to_string(),
        host: &volume.info.host,
        state: state_text(volume),
        ram_bytes: volume.capacity_bytes,
        used_bytes: volume.used_bytes,
    }
}

fn session(session: &SessionStatus) -> SessionJson<'_> {
    SessionJson {
        id: session.id.0,
        host: &session.host,
        mount: &session.mount,
        idle_s: session.idle_ms / 1000,
        handles: session.handles,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use vdfs_proto::meta::{ChainCounts, FsStats, StatusReport};
    use vdfs_proto::{SessionId, VolumeId, VolumeInfo};

    use super::*;

    pub(in super::super) fn report() -> StatusReport {
        let info = VolumeInfo {
            id: VolumeId(1),
            name: "volume-1".into(),
            host: "here".into(),
            addr: ([127, 0, 0, 1], 7401).into(),
            node: "volume-1".into(),
        };
        StatusReport {
            stats: FsStats {
                capacity_bytes: 4096,
                free_bytes: 1024,
                files: 7,
                files_max: 100,
                is_reaping: false,
            },
            chunk_bytes: 65_536,
            replicas: 1,
            chains: ChainCounts {
                total: 256,
                whole: 256,
                short: 0,
                lost: 0,
            },
            volumes: vec![VolumeStatus {
                info,
                state: VolumeState::Serving,
                silent_ms: 100,
                capacity_bytes: 4096,
                used_bytes: 3072,
                membership: MemberState::Serving,
            }],
            sessions: vec![SessionStatus {
                id: SessionId(5),
                host: "here".into(),
                mount: "/mnt".into(),
                idle_ms: 1500,
                handles: 2,
            }],
            lost_files: 0,
            lost_bytes: 0,
            log_trouble: None,
            uptime_ms: 61_000,
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
        let expected = serde_json::json!({
            "health": "ok",
            "problems": [],
            "masters": [{ "addr": "127.0.0.1:7400", "leader": true }],
            "volumes": [{
                "name": "volume-1", "addr": "127.0.0.1:7401", "host": "here",
                "state": "serving", "ram_bytes": 4096, "used_bytes": 3072,
            }],
            "capacity_bytes": 4096, "used_bytes": 3072, "files": 7, "files_max": 100,
            "replicas": 1, "chunk_bytes": 65_536,
            "chains": { "total": 256, "whole": 256, "short": 0, "lost": 0 },
            "sessions": [
                { "id": 5, "host": "here", "mount": "/mnt", "idle_s": 1, "handles": 2 },
            ],
            "lost_files": 0, "lost_bytes": 0, "uptime_s": 61,
        });
        assert_eq!(json, expected);
    }
}
