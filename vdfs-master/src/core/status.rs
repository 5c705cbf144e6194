//! What operators ask.

use vdfs_proto::meta::{
    AdminReply, AdminRequest, ChainCounts, SessionStatus, StatusReport, VolumeState, VolumeStatus,
};
use vdfs_proto::{Chain, DataId, MemberState, VolumeInfo};

use super::Core;
use super::inode::FileBody;
use super::limits::LOST_COUNT_GOOD_MS;
use super::live::{LiveVolume, LostCount};

/// Chunks of one file that are looked at when lost ones are counted.
const CHUNKS_COUNTED_MAX: u32 = 1 << 16;

impl Core {
    pub(crate) fn answer_admin(&mut self, request: AdminRequest) -> AdminReply {
        match request {
            AdminRequest::GetStatus(_) => AdminReply::GetStatus(self.status()),
        }
    }

    fn status(&mut self) -> StatusReport {
        self.count_lost();
        let trouble = self.live.log_full.clone();
        StatusReport {
            stats: self.stats(),
            chunk_bytes: self.state.config.chunk_size.bytes(),
            replicas: self.state.config.replicas,
            chains: self.chain_counts(),
            volumes: self.volume_statuses(),
            sessions: self.session_statuses(),
            lost_files: self.live.lost.files,
            lost_bytes: self.live.lost.bytes,
            log_trouble: trouble.or_else(|| self.live.history_lost.clone()),
            uptime_ms: self.live.now.boot_ms.saturating_sub(self.live.started_ms),
        }
    }

    fn chain_counts(&self) -> ChainCounts {
        let mut counts = ChainCounts::default();
        for chain in &self.live.table.chains {
            counts.total += 1;
            match () {
                () if chain.lost_below > DataId(0) => counts.lost += 1,
                () if self.is_whole(chain) => counts.whole += 1,
                () => counts.short += 1,
            }
        }
        counts
    }

    fn is_whole(&self, chain: &Chain) -> bool {
        let serves = |volume| {
            let live = self.live.volumes.get(volume);
            live.is_some_and(LiveVolume::is_registered)
        };
        chain.members.len() >= self.state.config.replicas as usize
            && chain.members.iter().all(|member| serves(&member.volume))
    }

    fn volume_statuses(&self) -> Vec<VolumeStatus> {
        let volumes = self.live.table.volumes.iter();
        volumes
            .filter_map(|info| {
                let live = self.live.volumes.get(&info.id)?;
                Some(self.volume_status(info, live))
            })
            .collect()
    }

    fn volume_status(&self, info: &VolumeInfo, live: &LiveVolume) -> VolumeStatus {
        VolumeStatus {
            info: info.clone(),
            state: match live.is_registered() {
                true => VolumeState::Serving,
                false => VolumeState::Away,
            },
            silent_ms: self.live.now.boot_ms.saturating_sub(live.heard_ms),
            capacity_bytes: live.capacity_bytes,
            used_bytes: live.used_bytes,
            membership: MemberState::Serving,
        }
    }

    fn session_statuses(&self) -> Vec<SessionStatus> {
        let sessions = self.live.sessions.iter();
        sessions
            .filter_map(|(session, live)| {
                let stored = self.state.sessions.get(*session)?;
                Some(SessionStatus {
                    id: *session,
                    host: stored.host.clone(),
                    mount: stored.mount.clone(),
                    idle_ms: self.live.now.boot_ms.saturating_sub(live.heard_ms),
                    handles: live.handles.len() as u32,
                })
            })
            .collect()
    }

    /// Counts files with bytes that are gone, unless it was done just now, or nothing is lost.
    fn count_lost(&mut self) {
        let now_ms = self.live.now.boot_ms;
        let chains = &self.state.table.chains;
        if chains.iter().all(|chain| chain.lost_below == DataId(0)) {
            self.live.lost = LostCount::default();
            return;
        }
        let counted = self.live.lost.counted_ms;
        if counted.is_some_and(|counted_ms| now_ms < counted_ms + LOST_COUNT_GOOD_MS) {
            return;
        }
        let files = self
            .state
            .inodes
            .iter()
            .filter_map(|(_, inode)| inode.file());
        let mut count = LostCount {
            counted_ms: Some(now_ms),
            ..LostCount::default()
        };
        for lost_bytes in files
            .map(|file| self.lost_bytes(file))
            .filter(|bytes| *bytes > 0)
        {
            count.files += 1;
            count.bytes += lost_bytes;
        }
        self.live.lost = count;
    }

    fn lost_bytes(&self, file: &FileBody) -> u64 {
        let layout = file.layout();
        let is_lost = |index: &u32| {
            let chain = self.state.table.chain(layout.chain(*index));
            chain.is_some_and(|chain| file.data < chain.lost_below)
        };
        let chunk_size = self.state.config.chunk_size;
        (0..file.chunks.min(CHUNKS_COUNTED_MAX))
            .filter(is_lost)
            .map(|index| u64::from(chunk_size.chunk_len(file.size, index)))
            .sum()
    }
}
