//! What operators ask.

use std::collections::BTreeSet;

use vdfs_proto::limits::CHAINS_PER_GROUP;
use vdfs_proto::meta::{
    AdminReply, AdminRequest, ChainCounts, GroupStatus, LogTrouble, SessionStatus, StatusReport,
    VolumeState, VolumeStatus,
};
use vdfs_proto::{
    Chain, ChainId, DataId, Member, MemberState, NetTotals, SessionId, Status, Timestamp, VolumeId,
    VolumeInfo,
};

use super::Core;
use super::chains::{each_chain, places_in, serving, state_of};
use super::groups::Group;
use super::live::LiveVolume;
use super::survey::{Found, Subject, Survey, Tally};

impl Core {
    pub(crate) fn answer_admin(&mut self, request: &AdminRequest) -> Result<AdminReply, Status> {
        match request {
            AdminRequest::GetStatus(_) => Ok(AdminReply::GetStatus(Box::new(self.status()))),
            AdminRequest::ListLocks(list) => Ok(AdminReply::ListLocks(self.list_locks(list.ino))),
            // The shell's, which has the image and the files.
            AdminRequest::BeginInspection(_) | AdminRequest::NextInspection(_) => {
                Err(Status::NotSupported)
            }
            _order => unreachable!("answered when it is durable"),
        }
    }

    fn status(&mut self) -> StatusReport {
        let (found, is_counted) = self.survey_now();
        let now_ms = self.live.now.boot_ms;
        let log_trouble = self.live.log_full.clone().map(|why| LogTrouble {
            why,
            since_ms: now_ms.saturating_sub(self.live.log_full_since_ms),
            serves_reads: true,
        });
        StatusReport {
            stats: self.stats(),
            ram: self.ram(),
            chunk_bytes: self.state.config.chunk_size.bytes(),
            replicas: self.state.replicas(),
            chains: self.chain_counts(&found, is_counted),
            groups: self.group_statuses(),
            volumes: self.volume_statuses(&found),
            sessions: self.session_statuses(),
            lost_files: found.lost.files,
            lost_bytes: found.lost.bytes,
            lost_names: found.lost.names,
            is_counted,
            log_trouble,
            history_lost: self.live.history_lost.clone(),
            certificates: Vec::new(),
            net: NetTotals::default(),
            ops: Vec::new(),
            uptime_ms: now_ms.saturating_sub(self.live.started_ms),
            balance: self.balance_status(),
        }
    }

    /// The status while what was done last cannot be written: no step may be taken then. It may
    /// already tell of that, since it acknowledges nothing.
    pub(crate) fn status_while_blocked(&mut self, trouble: LogTrouble) -> AdminReply {
        let log_trouble = Some(trouble);
        AdminReply::GetStatus(Box::new(StatusReport {
            log_trouble,
            ..self.status()
        }))
    }

    pub(crate) fn log_is_full(&mut self, why: String) {
        if self.live.log_full.is_none() {
            self.live.log_full_since_ms = self.live.now.boot_ms;
        }
        self.live.log_full = Some(why);
    }

    /// How far a clock that shows `wall` now is ahead of the master's.
    pub(crate) fn clock_ahead_ms(&self, wall: Timestamp) -> i64 {
        let ms =
            |time: Timestamp| i128::from(time.secs) * 1000 + i128::from(time.nanos / 1_000_000);
        let ahead_ms = ms(wall) - ms(self.live.now.wall);
        ahead_ms.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    pub(crate) fn go_on_surveying(&mut self) {
        let now_ms = self.live.now.boot_ms;
        match self.survey_subject() {
            Some(subject) => self.live.survey.go_on(&self.state, subject, now_ms),
            None => self.live.survey = Survey::default(),
        }
    }

    /// What is known of files that wait or are lost, and whether all were looked at.
    fn survey_now(&mut self) -> (Found, bool) {
        let now_ms = self.live.now.boot_ms;
        let Some(subject) = self.survey_subject() else {
            return (Found::default(), true);
        };
        let survey = &mut self.live.survey;
        survey.go_on_now(&self.state, subject.clone(), now_ms);
        survey.found(&subject)
    }

    /// `None` while all is well.
    fn survey_subject(&self) -> Option<Subject> {
        let volumes = self.live.volumes.iter();
        let away: BTreeSet<VolumeId> = volumes
            .filter(|(_, live)| !live.is_registered())
            .map(|(volume, _)| *volume)
            .collect();
        let mut chains = self.state.table.chains.iter();
        let has_lost = chains.any(|chain| chain.lost_below > DataId(0));
        (has_lost || !away.is_empty()).then(|| Subject {
            table_version: self.state.table.version,
            away,
        })
    }

    /// A chain that has lost its data counts as lost as long as a file misses some of it.
    fn chain_counts(&self, found: &Found, is_counted: bool) -> ChainCounts {
        let mut counts = ChainCounts::default();
        for (index, chain) in self.live.table.chains.iter().enumerate() {
            let is_missed = found.lost_chains.contains(&ChainId(index as u32));
            let is_lost = chain.lost_below > DataId(0) && (is_missed || !is_counted);
            counts.total += 1;
            match () {
                () if is_lost => counts.lost += 1,
                () if self.is_whole(ChainId(index as u32), chain) => counts.whole += 1,
                () => counts.short += 1,
            }
            counts.waiting += u32::from(waits(chain));
        }
        counts
    }

    /// By number.
    fn group_statuses(&self) -> Vec<GroupStatus> {
        let mut groups: Vec<GroupStatus> = self.state.groups.iter().map(group_status).collect();
        for (id, chain) in each_chain(&self.live.table) {
            let group = &mut groups[(id.0 / CHAINS_PER_GROUP) as usize];
            group.chains += 1;
            group.short += u32::from(!self.is_whole(id, chain));
        }
        groups
    }

    fn is_whole(&self, id: ChainId, chain: &Chain) -> bool {
        let serves = |volume| {
            let live: Option<&LiveVolume> = self.live.volumes.get(&volume);
            live.is_some_and(LiveVolume::is_registered)
        };
        chain.is_active
            && serving(chain).count() >= self.state.replicas_of(id)
            && serving(chain).all(serves)
    }

    fn volume_statuses(&self, found: &Found) -> Vec<VolumeStatus> {
        let volumes = self.live.table.volumes.iter();
        volumes
            .filter_map(|info| {
                let live = self.live.volumes.get(&info.id)?;
                Some(self.volume_status(info, live, found.waiting.get(&info.id)))
            })
            .collect()
    }

    fn volume_status(
        &self,
        info: &VolumeInfo,
        live: &LiveVolume,
        waiting: Option<&Tally>,
    ) -> VolumeStatus {
        VolumeStatus {
            info: info.clone(),
            state: match live.is_registered() {
                true => VolumeState::Serving,
                false => VolumeState::Away,
            },
            silent_ms: self.live.now.boot_ms.saturating_sub(live.heard_ms),
            capacity_bytes: live.capacity_bytes,
            used_bytes: live.used_bytes,
            membership: self.membership_of(info.id),
            chains: places_in(&self.live.table, info.id),
            drain: self.drain_status(info.id, live),
            waiting_files: waiting.map_or(0, |tally| tally.files),
            waiting_names: waiting.map_or(Vec::new(), |tally| tally.names.clone()),
            clock_ahead_ms: live.clock_ahead_ms,
            net: live.net,
        }
    }

    /// The least that it is in any chain.
    fn membership_of(&self, volume: VolumeId) -> MemberState {
        let chains = self.live.table.chains.iter();
        let states: Vec<MemberState> = chains.filter_map(|of| state_of(of, volume)).collect();
        let worst = [MemberState::Waiting, MemberState::Syncing];
        let found = worst.into_iter().find(|state| states.contains(state));
        found.unwrap_or(MemberState::Serving)
    }

    fn session_statuses(&self) -> Vec<SessionStatus> {
        let sessions = self.live.sessions.iter();
        sessions
            .filter_map(|(session, live)| {
                let stored = self.state.sessions.get(*session)?;
                let (recalls, recalled_ms) = self.recalls_of(*session);
                Some(SessionStatus {
                    id: *session,
                    host: stored.host.clone(),
                    mount: stored.mount.clone(),
                    idle_ms: self.live.now.boot_ms.saturating_sub(live.heard_ms),
                    handles: live.handles.len() as u32,
                    slots: stored.slots.len() as u32,
                    locks: self.state.locks.pieces_of(*session) as u32,
                    recalls,
                    recalled_ms,
                    clock_ahead_ms: live.clock_ahead_ms,
                })
            })
            .collect()
    }

    /// Their number, and for how long the first is under way.
    fn recalls_of(&self, session: SessionId) -> (u32, u64) {
        let now_ms = self.live.now.boot_ms;
        let recalls = self.live.recalls.values();
        let of_session = recalls.filter(|asked| asked.recall.session == session);
        of_session.fold((0, 0), |(count, longest_ms), asked| {
            let ms = now_ms.saturating_sub(asked.asked_ms);
            (count + 1, longest_ms.max(ms))
        })
    }
}

fn group_status(group: &Group) -> GroupStatus {
    GroupStatus {
        copies: group.copies,
        chains: 0,
        short: 0,
    }
}

/// Its members had all gone, and it is not known yet who has what.
fn waits(chain: &Chain) -> bool {
    let is_waiting = |of: &Member| of.state == MemberState::Waiting;
    chain.members.iter().any(is_waiting)
}
