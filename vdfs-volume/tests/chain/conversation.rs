//! A simulated volume and the master: what `src/shell/control.rs` and `src/shell/heartbeat.rs` do, as a
//! machine of steps between messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use vdfs_proto::limits::EVENTS_PARK_MS;
use vdfs_proto::volume::{
    ChainEvent, ChainNews, Command, Commands, NextCommands, Registered, VolumeReply, VolumeRequest,
};
use vdfs_proto::{ChainId, Epoch, NetTotals, Status, Timestamp, VolumeId};

use crate::master::{CAPACITY, beat_of, of_volume, register};
use crate::message::{CoreInput, Message, Place, Said};
use crate::node::{Killed, Node, Scene};

/// After which a registration that was not answered is tried again.
const REGISTER_DEADLINE_US: u64 = 1_500_000;
/// The same of what is parked at the master.
const COMMANDS_DEADLINE_US: u64 = (EVENTS_PARK_MS + 1_000) * 1000;
/// What the chunks of a volume that is not full take.
const USED: u64 = CAPACITY / 10;

/// Of one life.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    next: u64,
    calls: BTreeMap<u64, Asked>,
    /// The registration, or what is parked at the master: answers to others count no more.
    waits: Option<Waits>,
    known: Option<Known>,
    /// The last command taken.
    seen: u64,
    results: VecDeque<(u64, Result<(), Status>)>,
    news: BTreeSet<ChainNews>,
    has_tidings: bool,
}

#[derive(Clone, Copy, Debug)]
struct Waits {
    call: u64,
    until_us: u64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    volume: VolumeId,
    registration: u64,
}

/// What a call is.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Register,
    Beat {
        sent_us: u64,
        registration: u64,
    },
    Commands {
        /// Results among it.
        reported: usize,
    },
}

impl Conversation {
    fn leave(&mut self) {
        (self.known, self.waits) = (None, None);
    }

    /// The one that it was told of last.
    pub(crate) fn registration(&self) -> Option<u64> {
        self.known.map(|known| known.registration)
    }

    fn is_waiting(&self, now_us: u64) -> bool {
        self.waits.is_some_and(|waits| waits.until_us > now_us)
    }
}

impl Node {
    /// Says what is due.
    pub(crate) fn converse(&mut self, scene: &mut Scene<'_>, is_beat: bool) {
        if is_beat && let Some(known) = self.conversation.known {
            self.beat(scene, known);
        }
        if self.conversation.is_waiting(scene.now_us) {
            return;
        }
        match self.conversation.known {
            Some(known) => self.next_commands(scene, known),
            None if is_beat => self.register(scene),
            None => {}
        }
    }

    /// Says at once what the master does not know yet.
    pub(crate) fn tell_tidings(&mut self, scene: &mut Scene<'_>) {
        if let Some(known) = self.conversation.known
            && std::mem::take(&mut self.conversation.has_tidings)
        {
            self.next_commands(scene, known);
        }
    }

    fn used(&self) -> u64 {
        if self.shelf.is_full { CAPACITY } else { USED }
    }

    fn ask_master(&mut self, scene: &mut Scene<'_>, asked: Asked, request: VolumeRequest) -> u64 {
        let conversation = &mut self.conversation;
        conversation.next += 1;
        let call = conversation.next;
        conversation.calls.insert(call, asked);
        let message = Message::call((self.life, call), of_volume(self.index, request));
        scene.send(self.index, Place::Master, message);
        call
    }

    fn register(&mut self, scene: &mut Scene<'_>) {
        let said = register(self.index, self.store(), self.life, self.used());
        let call = self.ask_master(scene, Asked::Register, VolumeRequest::Register(said));
        let until_us = scene.now_us + REGISTER_DEADLINE_US;
        self.conversation.waits = Some(Waits { call, until_us });
    }

    fn beat(&mut self, scene: &mut Scene<'_>, known: Known) {
        let sent_us = scene.now_us;
        let beat = beat_of(self.index, known.registration, self.used());
        let asked = Asked::Beat {
            sent_us,
            registration: known.registration,
        };
        self.ask_master(scene, asked, VolumeRequest::Heartbeat(beat));
    }

    fn next_commands(&mut self, scene: &mut Scene<'_>, known: Known) {
        let core = self.core.as_ref().expect("it is up");
        let conversation = &mut self.conversation;
        let membership = core.membership();
        conversation.news.retain(|news| membership.is_news(news));
        let reported = conversation.results.len();
        let next = NextCommands {
            volume: known.volume,
            incarnation: self.life,
            registration: known.registration,
            seen: conversation.seen,
            wall: Timestamp::default(),
            net: NetTotals::default(),
            news: conversation.news.iter().copied().collect(),
            results: conversation.results.iter().copied().collect(),
        };
        let asked = Asked::Commands { reported };
        let call = self.ask_master(scene, asked, VolumeRequest::NextCommands(next));
        let until_us = scene.now_us + COMMANDS_DEADLINE_US;
        self.conversation.waits = Some(Waits { call, until_us });
    }

    pub(crate) fn note_news(&mut self, chain: ChainId, epoch: Epoch, what: ChainEvent) {
        let news = ChainNews { chain, epoch, what };
        self.conversation.has_tidings |= self.conversation.news.insert(news);
    }

    pub(crate) fn note_result(&mut self, number: u64) {
        self.conversation.results.push_back((number, Ok(())));
        self.conversation.has_tidings = true;
    }

    /// The master has answered.
    pub(crate) fn told(
        &mut self,
        scene: &mut Scene<'_>,
        call: u64,
        said: Said,
    ) -> Result<(), Killed> {
        let Some(asked) = self.conversation.calls.remove(&call) else {
            return Ok(());
        };
        let is_awaited = self.conversation.waits.is_some_and(|of| of.call == call);
        match (asked, said) {
            (Asked::Beat { sent_us, .. }, Said::Volume(VolumeReply::Heartbeat(ack))) => {
                let input = CoreInput::Lease {
                    sent_ms: sent_us / 1000,
                    lease_ms: ack.lease_ms,
                };
                self.take(scene, input)
            }
            (Asked::Beat { registration, .. }, Said::Refused(Status::NotFound)) => {
                if self.conversation.registration() == Some(registration) {
                    self.conversation.leave();
                }
                Ok(())
            }
            (Asked::Beat { .. }, Said::Refused(_)) => Ok(()),
            _ if !is_awaited => Ok(()),
            (Asked::Register, Said::Volume(VolumeReply::Register(registered))) => {
                self.take_in(scene, registered)
            }
            (Asked::Register, Said::Refused(_)) => {
                self.conversation.waits = None;
                Ok(())
            }
            (Asked::Commands { reported }, Said::Volume(VolumeReply::NextCommands(commands))) => {
                self.conversation.waits = None;
                self.conversation.results.drain(..reported);
                self.execute(scene, commands)
            }
            (Asked::Commands { .. }, Said::Refused(status)) => {
                assert_eq!(status, Status::NotFound);
                self.conversation.leave();
                Ok(())
            }
            (asked, said) => unreachable!("{asked:?} is answered {said:?}"),
        }
    }

    fn take_in(&mut self, scene: &mut Scene<'_>, registered: Registered) -> Result<(), Killed> {
        let Registered {
            volume,
            registration,
            ..
        } = registered;
        assert_eq!(volume, Self::volume(self.index));
        let known = Known {
            volume,
            registration,
        };
        self.conversation.known = Some(known);
        self.take(scene, CoreInput::Registered(Box::new(registered)))?;
        self.beat(scene, known);
        self.conversation.has_tidings = true;
        Ok(())
    }

    fn execute(&mut self, scene: &mut Scene<'_>, commands: Commands) -> Result<(), Killed> {
        if !self.core().accepts_term(commands.term) {
            return Ok(());
        }
        for (number, command) in commands.commands {
            if number > self.conversation.seen {
                self.conversation.seen = number;
                self.obey(scene, number, command)?;
            }
        }
        Ok(())
    }

    fn obey(&mut self, scene: &mut Scene<'_>, number: u64, command: Command) -> Result<(), Killed> {
        match command {
            Command::Table(table) => {
                self.take(scene, CoreInput::Table(table))?;
                self.keep_supplied();
            }
            Command::Leave { chain, epoch } => {
                self.take(scene, CoreInput::Leave { chain, epoch })?;
            }
            Command::Fence(fence) => {
                if !self.is_idle() {
                    scene.counts.hit("fenced with changes under way");
                }
                // Answered by the effect.
                self.rules.fences.insert(number, fence.session);
                return self.take(scene, CoreInput::Fence { fence, ack: number });
            }
            Command::ForgetSession(session) => {
                self.take(scene, CoreInput::ForgetSession(session))?;
            }
            Command::Trim { .. } | Command::Reap { .. } => unreachable!("there are no files"),
        }
        self.note_result(number);
        Ok(())
    }
}
