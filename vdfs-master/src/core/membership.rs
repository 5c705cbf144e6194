//! Who is a member of which chain, as far as volumes and operators say: new lives, news, the number of
//! copies that there shall be. What time alone brings is in `healing`.
//!
//! A new life of a volume has lost what its last one had under way. So it keeps its place only where it
//! is the last one that serves, in an epoch that is active; where nobody else serves either, but others
//! are in sync, all of them wait until they are back, and their copies are compared. What somebody does not
//! know is no reason to remove him: a volume that has not been heard since the master started may be
//! alive.
//!
//! Invariants: of the members that serve one stays; what changes is logged before the life that it
//! follows from, so that no end of the log knows the life and not its consequence; nobody is told of
//! a change before it is durable.

use vdfs_proto::limits::{CHAIN_MEMBERS_MAX, NEWS_PER_REQUEST_MAX};
use vdfs_proto::meta::AdminReply;
use vdfs_proto::volume::{ChainEvent, ChainNews};
use vdfs_proto::{Chain, ChainId, Member, MemberState, Status, VolumeId};

use std::collections::BTreeMap;

use super::chains::{each_chain, head_of, serving, state_of};
use super::limits::BATCH_MAX;
use super::live::AfterDurable;
use super::record::{ChainChange, Record};
use super::{Core, Ticket};

pub(crate) type Changes = Vec<(ChainId, ChainChange)>;

impl Core {
    /// The volume is served, and will be for its lease.
    pub(crate) fn is_alive(&self, volume: VolumeId) -> bool {
        let live = self.live.volumes.get(&volume);
        live.is_some_and(|live| live.is_registered() && !live.away)
    }

    pub(crate) fn is_away(&self, volume: VolumeId) -> bool {
        let live = self.live.volumes.get(&volume);
        live.is_some_and(|live| live.away)
    }

    /// Somebody else serves the chain, and is alive.
    pub(crate) fn has_other(&self, chain: &Chain, volume: VolumeId) -> bool {
        serving(chain).any(|other| other != volume && self.is_alive(other))
    }

    /// What becomes of the chains of a volume whose process is another one now. `Busy` as long as it
    /// is not known whether other members are alive.
    pub(crate) fn plan_new_life(&self, volume: VolumeId) -> Result<Changes, Status> {
        let mut changes = Vec::new();
        for (id, chain) in each_chain(&self.state.table) {
            let change = match state_of(chain, volume) {
                Some(MemberState::Serving) => self.plan_new_life_in((id, chain), volume)?,
                Some(MemberState::Syncing) => Some(ChainChange::Removed(volume)),
                Some(MemberState::Waiting) | None => None,
            };
            changes.extend(change.map(|change| (id, change)));
        }
        Ok(changes)
    }

    fn plan_new_life_in(
        &self,
        (id, chain): (ChainId, &Chain),
        volume: VolumeId,
    ) -> Result<Option<ChainChange>, Status> {
        let mut others = serving(chain).filter(|other| *other != volume).peekable();
        if others.peek().is_none() {
            if self.state.goes_back(id, volume) {
                return Ok(Some(ChainChange::Suspended));
            }
            // What it is being given may lack what was under way.
            let syncing = chain.members.iter().find(|member| member.volume != volume);
            return Ok(syncing.map(|member| ChainChange::Removed(member.volume)));
        }
        if self.has_other(chain, volume) {
            return Ok(Some(ChainChange::Removed(volume)));
        }
        match others.all(|other| self.is_away(other)) {
            true => Ok(Some(ChainChange::Suspended)),
            false => Err(Status::Busy),
        }
    }

    /// Logs changes that others may see when they are durable.
    pub(crate) fn change_chains(&mut self, changes: &[(ChainId, ChainChange)]) {
        if !changes.is_empty() {
            self.log_chain_changes(changes);
            self.after_sync(AfterDurable::Table(self.state.table.clone()));
        }
    }

    /// The same where something else brings the table to others.
    pub(crate) fn log_chain_changes(&mut self, changes: &[(ChainId, ChainChange)]) {
        for (chain, change) in changes {
            self.note_loss(*chain, *change);
        }
        for changes in changes.chunks(BATCH_MAX) {
            let changes = changes.to_vec();
            self.log(Record::ChainsChanged { changes });
        }
        self.forget_removals();
    }

    fn note_loss(&mut self, chain: ChainId, change: ChainChange) {
        let (ChainChange::Removed(volume) | ChainChange::Left(volume)) = change else {
            return self.note_passed_over(chain, change);
        };
        if self.is_moved(chain, volume) {
            self.live.last_removed.remove(&chain);
            return;
        }
        // Whoever leaves by itself is there to come back at once.
        let was_asked = self.live.removals.contains_key(&chain);
        if was_asked || self.is_away(volume) || change == ChainChange::Left(volume) {
            self.live.lost_member_ms = self.live.now.boot_ms;
        }
        self.live.last_removed.insert(chain, volume);
    }

    /// Whoever has waited, and loses its place as the head takes over, has most of what the chain has.
    fn note_passed_over(&mut self, id: ChainId, change: ChainChange) {
        let chain = self.state.table.chain(id).filter(|of| !of.is_active);
        let mut members = chain.iter().flat_map(|of| &of.members);
        let waiting = members.find(|of| of.state == MemberState::Waiting);
        if let (ChainChange::Activated, Some(waiting)) = (change, waiting) {
            self.live.last_removed.insert(id, waiting.volume);
        }
    }

    /// What a volume says of its chains. It says it again until the table shows it, so what cannot be
    /// taken now is left out.
    pub(crate) fn take_news(&mut self, sender: VolumeId, news: &[ChainNews]) {
        if self.live.log_full.is_some() {
            return;
        }
        let mut changes: BTreeMap<ChainId, ChainChange> = BTreeMap::new();
        for news in news.iter().take(NEWS_PER_REQUEST_MAX) {
            if let Some(change) = self.change_by(sender, *news) {
                changes.entry(news.chain).or_insert(change);
            }
        }
        let changes: Changes = changes.into_iter().collect();
        self.change_chains(&changes);
    }

    fn change_by(&mut self, sender: VolumeId, news: ChainNews) -> Option<ChainChange> {
        let chain = self.state.table.chain(news.chain)?;
        let is_member = state_of(chain, sender).is_some();
        if chain.epoch != news.epoch || !is_member {
            return None;
        }
        let others_serve = serving(chain).any(|other| other != sender);
        match news.what {
            ChainEvent::Active => {
                let is_news = head_of(chain) == Some(sender) && !chain.is_active;
                is_news.then_some(ChainChange::Activated)
            }
            ChainEvent::InSync(volume) => {
                let is_from_last = serving(chain).next_back() == Some(sender);
                let is_syncing = state_of(chain, volume) == Some(MemberState::Syncing);
                let is_news = chain.is_active && is_from_last && is_syncing;
                (is_news && self.is_alive(volume)).then_some(ChainChange::Synced)
            }
            ChainEvent::HasLeft => others_serve.then_some(ChainChange::Removed(sender)),
            ChainEvent::Suspect(volume) if volume == sender => {
                let waits = |of: &Member| of.state == MemberState::Waiting && of.volume != sender;
                let others_wait = chain.members.iter().any(waits);
                (others_serve || others_wait).then_some(ChainChange::Left(volume))
            }
            ChainEvent::Suspect(volume) => {
                self.begin_removal(news.chain, volume);
                None
            }
        }
    }

    pub(crate) fn set_replicas(&mut self, ticket: Ticket, replicas: u32) {
        if !(1..=CHAIN_MEMBERS_MAX).contains(&(replicas as usize)) {
            return self.live.reply(ticket, Err(Status::Invalid));
        }
        let order = Record::ReplicasSet { replicas };
        self.log_order(ticket, order, AdminReply::SetReplicas(()));
    }
}
