//! What the master has told this volume: who it is, of which chains it is a member, and whose
//! writes it refuses.
//!
//! Pure: the shell brings news, the service asks. Invariant: an older table never replaces a newer
//! one of the same life of the master, so no epoch goes back. A volume is a member of nothing until
//! it is told so in this incarnation.
//!
//! Session ids are never used again, and a registration names all live sessions, and the id of the next one.
//! So a session below that, but not named, has ended; or was never heard of by a master whose machine went
//! before its disk had it.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use vdfs_proto::volume::{ChainEvent, ChainNews, Fence, Registered};
use vdfs_proto::{
    Chain, ChainId, ChainTable, DataId, Epoch, Member, MemberState, SessionId, Status, StoreId,
    VolumeId,
};

use super::is_planted;
use crate::limits::{DATA_IDS_AHEAD, ENDED_SESSIONS_MAX};

/// After every epoch.
const FOR_GOOD: Epoch = Epoch(u64::MAX);

/// A chain as one of its members sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub epoch: Epoch,
    pub lost_below: DataId,
    /// Members that take part in changes.
    pub members: usize,
    /// This one has all that the chain has: it is not syncing.
    pub serves: bool,
    pub is_head: bool,
    /// The master knows that the head has taken this epoch over.
    pub is_active: bool,
    /// The next one; none at the tail.
    pub successor: Option<Member>,
    /// The one before; none at the head.
    pub predecessor: Option<VolumeId>,
}

#[derive(Debug)]
pub struct Membership {
    store: StoreId,
    registration: Option<Registration>,
    table: ChainTable,
    /// Chains that this volume heads, and of which it has the better copies of all that waited with it.
    merged: BTreeMap<ChainId, Epoch>,
    /// Chains that this volume has left: it serves them in no epoch up to this one.
    left: BTreeMap<ChainId, Epoch>,
    fenced: BTreeSet<SessionId>,
    ended: Ended,
    /// No file has a data id from here on before the next registration.
    data_end: DataId,
}

#[derive(Clone, Copy, Debug)]
struct Registration {
    volume: VolumeId,
    term: u64,
}

/// Sessions that have ended.
#[derive(Debug, Default)]
struct Ended {
    /// Sessions below this one have ended unless they are in `live`.
    next: SessionId,
    live: BTreeSet<SessionId>,
    /// Those that ended since, oldest first.
    lately: VecDeque<SessionId>,
    lately_set: HashSet<SessionId>,
}

impl Ended {
    fn contains(&self, session: SessionId) -> bool {
        let was_opened = session < self.next;
        (was_opened && !self.live.contains(&session)) || self.lately_set.contains(&session)
    }

    fn insert(&mut self, session: SessionId) {
        if self.live.remove(&session) || !self.lately_set.insert(session) {
            return;
        }
        self.lately.push_back(session);
        if self.lately.len() > ENDED_SESSIONS_MAX {
            let oldest = self.lately.pop_front().expect("just pushed");
            self.lately_set.remove(&oldest);
        }
    }
}

impl Membership {
    pub fn new(store: StoreId) -> Self {
        Membership {
            store,
            registration: None,
            table: ChainTable::default(),
            merged: BTreeMap::new(),
            left: BTreeMap::new(),
            fenced: BTreeSet::new(),
            ended: Ended::default(),
            data_end: DataId(0),
        }
    }

    /// Takes what a registration says. All of it replaces what was known.
    pub fn register(&mut self, registered: &Registered) {
        self.registration = Some(Registration {
            volume: registered.volume,
            term: registered.term,
        });
        self.table = registered.table.clone();
        self.return_to_chains();
        self.fenced = registered
            .fences
            .iter()
            .map(|fence| fence.session)
            .collect();
        self.ended = Ended {
            next: registered.session_next,
            live: registered.live_sessions.iter().copied().collect(),
            ..Ended::default()
        };
        self.data_end = DataId(registered.data_next.0.saturating_add(DATA_IDS_AHEAD));
    }

    /// `NotServing` for a data id that the master cannot have given out since this volume has registered:
    /// a chunk of it would have the master skip all ids below.
    pub fn check_data(&self, data: DataId) -> Result<(), Status> {
        match data < self.data_end {
            true => Ok(()),
            false => Err(Status::NotServing),
        }
    }

    /// Commands of a lower term come from a master that has been replaced.
    pub fn accepts_term(&self, term: u64) -> bool {
        self.registration.is_some_and(|mine| term >= mine.term)
    }

    /// Takes a newer table; an older one is ignored.
    pub fn install_table(&mut self, table: ChainTable) {
        if table.version > self.table.version {
            self.table = table;
            self.return_to_chains();
        }
    }

    /// A copy that was not the chain's is made so where this volume is syncing.
    fn return_to_chains(&mut self) {
        let mut left = std::mem::take(&mut self.left);
        left.retain(|id, _| self.own_state(*id) != Some(MemberState::Syncing));
        self.left = left;
    }

    /// What the table has this volume as, whether or not it has left the chain.
    pub fn own_state(&self, id: ChainId) -> Option<MemberState> {
        let me = self.registration?;
        let mut members = self.table.chain(id)?.members.iter();
        let own = members.find(|member| self.is_me(me, member));
        own.map(|own| own.state)
    }

    /// No member that waits has a better copy of anything than this volume, the head.
    pub fn note_merged(&mut self, chain: ChainId, epoch: Epoch) {
        let merged = self.merged.entry(chain).or_default();
        *merged = epoch.max(*merged);
    }

    /// It is to lose its place: it serves the chain no more in this epoch. If somebody else loses a
    /// place first, it has one in the next.
    pub fn leave(&mut self, chain: ChainId, epoch: Epoch) {
        if is_planted!(ServeAfterLeave) {
            return;
        }
        let left = self.left.entry(chain).or_default();
        *left = epoch.max(*left);
    }

    /// This volume's copy is not the chain's: it serves the chain no more.
    pub fn leave_for_good(&mut self, chain: ChainId) {
        self.left.insert(chain, FOR_GOOD);
    }

    pub fn fence(&mut self, fence: Fence) {
        self.fenced.insert(fence.session);
    }

    /// The session has ended: its fence is no longer needed, its late writes are still refused.
    pub fn forget_session(&mut self, session: SessionId) {
        self.fenced.remove(&session);
        self.ended.insert(session);
    }

    /// Whether the session's writes are executed: `Fenced` if it is about to end, `SessionExpired`
    /// if it has ended.
    pub fn admit(&self, session: SessionId) -> Result<(), Status> {
        if self.fenced.contains(&session) {
            return Err(Status::Fenced);
        }
        if self.ended.contains(session) {
            return Err(Status::SessionExpired);
        }
        Ok(())
    }

    /// Whether the session may still come back with a retry.
    pub fn may_retry(&self, session: SessionId) -> bool {
        !self.ended.contains(session)
    }

    /// This volume's place in a chain, if the asker knows the chain's epoch.
    ///
    /// `NotServing` if it has none, or if the asker has newer news: the table is on its way.
    pub fn place(&self, id: ChainId, epoch: Epoch) -> Result<Place, Status> {
        if self.registration.is_none() {
            return Err(Status::NotServing);
        }
        let current = self.epoch(id).ok_or(Status::NotServing)?;
        if epoch < current && !is_planted!(TakeAnyEpoch) {
            return Err(Status::StaleEpoch(current));
        }
        if epoch > current {
            return Err(Status::NotServing);
        }
        self.current(id).ok_or(Status::NotServing)
    }

    /// The place of one who has all that the chain has, and may show it: until the epoch is active,
    /// the chain may go back to members that lack some of it.
    pub fn serving_place(&self, id: ChainId, epoch: Epoch) -> Result<Place, Status> {
        let place = self.place(id, epoch)?;
        match place.serves && (place.is_active || is_planted!(ShowBeforeActive)) {
            true => Ok(place),
            false => Err(Status::NotServing),
        }
    }

    /// The epoch of a chain, as far as this volume knows.
    pub fn epoch(&self, id: ChainId) -> Option<Epoch> {
        self.table.chain(id).map(|chain| chain.epoch)
    }

    /// This volume's place in a chain; none if it does not serve it.
    pub fn current(&self, id: ChainId) -> Option<Place> {
        let me = self.registration?;
        let chain = self.table.chain(id)?;
        if self.left.get(&id).is_some_and(|left| chain.epoch <= *left) {
            return None;
        }
        let takes_part = |member: &&Member| member.state != MemberState::Waiting;
        let all = || chain.members.iter().filter(takes_part);
        let at = all().position(|member| self.is_me(me, member))?;
        let serves = all().nth(at)?.state == MemberState::Serving;
        Some(Place {
            epoch: chain.epoch,
            lost_below: match is_planted!(IgnoreLostBelow) {
                true => DataId::default(),
                false => chain.lost_below,
            },
            members: all().count(),
            serves,
            is_head: at == 0 && serves,
            is_active: chain.is_active,
            successor: all().nth(at + 1).copied(),
            predecessor: at
                .checked_sub(1)
                .and_then(|before| Some(all().nth(before)?.volume)),
        })
    }

    /// Chains in which the one behind this volume lacks what the chain has, with that one.
    pub fn to_supply(&self) -> Vec<(ChainId, Epoch, VolumeId)> {
        let supplied = |id: ChainId| {
            let place = self.current(id).filter(|place| place.serves)?;
            let successor = place.successor?;
            let lacks = successor.state == MemberState::Syncing;
            lacks.then_some((id, place.epoch, successor.volume))
        };
        self.chains().filter_map(supplied).collect()
    }

    /// What the volume has to say of a chain still matters: the table does not show that it was heard.
    pub fn is_news(&self, news: &ChainNews) -> bool {
        self.table.chain(news.chain).is_some_and(|chain| {
            let is_heard = news.what == ChainEvent::Active && chain.is_active;
            chain.epoch == news.epoch && !is_heard
        })
    }

    /// Chains that this volume heads, and before it takes them over those who wait with it are to be asked
    /// for better copies: with these.
    pub fn to_merge(&self) -> Vec<(ChainId, Epoch, BTreeSet<VolumeId>)> {
        let chains = self.chains().filter(|id| self.must_merge(*id));
        chains
            .map(|id| {
                let chain = self.table.chain(id).expect("it was looked at");
                (id, chain.epoch, waiting(chain).collect())
            })
            .collect()
    }

    /// This volume heads the chain, which is not active, and has not compared its copies with all who wait.
    pub fn must_merge(&self, id: ChainId) -> bool {
        let chain = self.table.chain(id);
        let place = self.current(id).filter(|of| of.is_head && !of.is_active);
        chain.zip(place).is_some_and(|(chain, place)| {
            let is_merged = self.merged.get(&id) == Some(&place.epoch);
            !is_merged && waiting(chain).next().is_some()
        })
    }

    /// Who asks this volume, which waits, for better copies.
    pub fn merged_by(&self, id: ChainId, epoch: Epoch) -> Result<VolumeId, Status> {
        let chain = self.table.chain(id).ok_or(Status::NotServing)?;
        if epoch < chain.epoch {
            return Err(Status::StaleEpoch(chain.epoch));
        }
        let waits = self.own_state(id) == Some(MemberState::Waiting) && !self.has_left_behind(id);
        match chain.head() {
            Some(head) if waits && epoch == chain.epoch => Ok(head.volume),
            _ => Err(Status::NotServing),
        }
    }

    fn chains(&self) -> impl Iterator<Item = ChainId> + use<> {
        (0..self.table.chains.len() as u32).map(ChainId)
    }

    pub fn table(&self) -> &ChainTable {
        &self.table
    }

    /// Who this volume is.
    pub fn volume(&self) -> Option<VolumeId> {
        Some(self.registration?.volume)
    }

    /// Whether this volume has left an epoch of the chain in which it still stands, and may have a
    /// place in the next one.
    pub fn may_return(&self, id: ChainId) -> bool {
        self.left.get(&id).is_some_and(|left| *left != FOR_GOOD) && self.has_left_behind(id)
    }

    /// Chains that this volume has left and in which it still stands, with itself.
    pub fn left_behind(&self) -> Vec<(ChainId, Epoch, VolumeId)> {
        let still_in = |id: &ChainId| {
            let me = self.registration?.volume;
            let epoch = self.epoch(*id)?;
            self.has_left_behind(*id).then_some((*id, epoch, me))
        };
        self.left.keys().filter_map(still_in).collect()
    }

    fn has_left_behind(&self, id: ChainId) -> bool {
        let (Some(me), Some(chain)) = (self.registration, self.table.chain(id)) else {
            return false;
        };
        let is_named = chain.members.iter().any(|member| self.is_me(me, member));
        is_named && self.left.get(&id).is_some_and(|left| chain.epoch <= *left)
    }

    /// Chains that this volume heads and has not taken over yet.
    pub fn to_activate(&self) -> Vec<(ChainId, Epoch)> {
        let places = self.chains().filter_map(|id| Some((id, self.current(id)?)));
        places
            .filter(|(_, place)| place.is_head && !place.is_active)
            .map(|(id, place)| (id, place.epoch))
            .collect()
    }

    fn is_me(&self, me: Registration, member: &Member) -> bool {
        member.volume == me.volume && member.store == self.store
    }
}

/// Members whose copies may be better than the head's.
fn waiting(chain: &Chain) -> impl Iterator<Item = VolumeId> {
    let waiting = |of: &&Member| of.state == MemberState::Waiting;
    chain.members.iter().filter(waiting).map(|of| of.volume)
}

#[cfg(test)]
mod tests {
    use vdfs_proto::{ChunkSize, Member};

    use super::*;

    const STORE: StoreId = StoreId(7);

    fn chain(epoch: u64, volume: u32, store: StoreId) -> Chain {
        let member = Member {
            volume: VolumeId(volume),
            store,
            state: MemberState::Serving,
        };
        Chain {
            epoch: Epoch(epoch),
            members: vec![member],
            lost_below: DataId(5),
            is_active: true,
        }
    }

    fn table(version: u64, chains: Vec<Chain>) -> ChainTable {
        ChainTable {
            version,
            chains,
            volumes: Vec::new(),
        }
    }

    fn fence(session: u64) -> Fence {
        Fence {
            number: 1,
            session: SessionId(session),
        }
    }

    fn registered(table: ChainTable) -> Registered {
        Registered {
            volume: VolumeId(1),
            registration: 1,
            term: 3,
            chunk_size: ChunkSize::DEFAULT,
            table,
            data_next: DataId(1),
            fences: vec![fence(4)],
            live_sessions: vec![SessionId(4), SessionId(6), SessionId(9)],
            session_next: SessionId(10),
        }
    }

    fn membership() -> Membership {
        let mut membership = Membership::new(STORE);
        let chains = vec![
            chain(2, 1, STORE),
            chain(2, 2, STORE),
            chain(2, 1, StoreId(8)),
        ];
        membership.register(&registered(table(1, chains)));
        membership
    }

    #[test]
    fn membership_place_is_refused_by_what_the_asker_does_not_know() {
        let membership = membership();
        let place = membership.place(ChainId(0), Epoch(2)).expect("a member");
        assert!(place.is_head && place.members == 1 && place.lost_below == DataId(5));
        let cases = [
            (0, 1, Status::StaleEpoch(Epoch(2))),
            (0, 3, Status::NotServing),
            (1, 2, Status::NotServing),
            (2, 2, Status::NotServing),
            (3, 2, Status::NotServing),
        ];
        for (chain, epoch, status) in cases {
            let answer = membership.place(ChainId(chain), Epoch(epoch));
            assert_eq!(answer, Err(status), "chain {chain} epoch {epoch}");
        }
    }

    #[test]
    fn membership_without_registration_is_member_of_nothing() {
        let membership = Membership::new(STORE);
        assert_eq!(
            membership.place(ChainId(0), Epoch(0)),
            Err(Status::NotServing)
        );
        assert!(!membership.accepts_term(u64::MAX));
    }

    #[test]
    fn membership_install_of_an_older_table_is_ignored() {
        let mut membership = membership();
        membership.install_table(table(3, vec![chain(4, 1, STORE)]));
        membership.install_table(table(2, vec![chain(3, 1, STORE)]));
        assert!(membership.place(ChainId(0), Epoch(4)).is_ok());
        assert!(!membership.accepts_term(2) && membership.accepts_term(3));
    }

    #[test]
    fn membership_refuses_fenced_and_ended_sessions_and_no_new_one() {
        let mut membership = membership();
        let expired = Err(Status::SessionExpired);
        let fenced = Err(Status::Fenced);
        let cases = [
            (4, fenced),
            (5, expired),
            (6, Ok(())),
            (9, Ok(())),
            (10, Ok(())),
        ];
        for (session, answer) in cases {
            assert_eq!(membership.admit(SessionId(session)), answer, "{session}");
        }
        assert!(membership.may_retry(SessionId(4)) && !membership.may_retry(SessionId(5)));
        membership.fence(fence(10));
        assert_eq!(membership.admit(SessionId(10)), fenced);
        for ended in [4, 6, 10] {
            membership.forget_session(SessionId(ended));
            membership.forget_session(SessionId(ended));
            assert_eq!(membership.admit(SessionId(ended)), expired, "{ended}");
            assert!(!membership.may_retry(SessionId(ended)), "{ended}");
        }
        assert_eq!(membership.admit(SessionId(11)), Ok(()));
    }

    #[test]
    fn membership_refuses_sessions_that_have_ended_also_if_none_was_opened_since() {
        let mut membership = membership();
        membership.fence(fence(10));
        membership.forget_session(SessionId(11));
        let again = Registered {
            session_next: SessionId(12),
            ..registered(ChainTable::default())
        };
        membership.register(&again);
        for ended in [10, 11] {
            let answer = membership.admit(SessionId(ended));
            assert_eq!(answer, Err(Status::SessionExpired), "{ended}");
        }
        assert_eq!(membership.admit(SessionId(12)), Ok(()));
    }

    #[test]
    fn membership_remembers_a_bounded_number_of_ended_sessions() {
        let mut membership = membership();
        let last = 10 + ENDED_SESSIONS_MAX as u64;
        for session in 10..=last {
            membership.forget_session(SessionId(session));
        }
        assert!(membership.admit(SessionId(10)).is_ok());
        assert!(membership.admit(SessionId(11)).is_err());
        assert!(membership.admit(SessionId(last)).is_err());
    }
}
