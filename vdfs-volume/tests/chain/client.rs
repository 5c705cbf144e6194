//! A simulated mount: reads and writes by its own table, tries again with the same op until there is
//! a definite answer, and takes a slot again only then.

use std::collections::BTreeMap;

use vdfs_proto::session::{OpenSession, ResumeSession, SessionReply, SessionRequest};
use vdfs_proto::{ChainTable, ChunkId, DataId, OpId, SessionId, Status, Version};
use vdfs_volume::chain::Order;

use crate::master::of_client;
use crate::message::{Action, Event, FILES, LATE_FILES, Message, Place, Read, Said, chain_of};
use crate::node::Node;
use crate::rng::Rng;
use crate::shelf::{CELLS, Patch};

const SLOTS: usize = 2;
/// Of all changes.
const CUTS_PERMILLE: u64 = 100;
/// After which a session that was asked for is asked for again.
const OPEN_DEADLINE_US: u64 = 6_000_000;
/// Of all ops: on a file that was made a moment ago.
const NEW_FILES_PERMILLE: u64 = 150;

#[derive(Clone, Debug)]
enum Kind {
    Write { op: OpId, patch: Patch },
    Read { floor: Version, number: u64 },
}

#[derive(Clone, Debug)]
struct Op {
    kind: Kind,
    chunk: ChunkId,
    begun_us: u64,
    attempt: u64,
}

/// An op has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ended {
    Acknowledged {
        op: OpId,
        chunk: ChunkId,
        version: Version,
        begun_us: u64,
    },
    Refused {
        op: OpId,
    },
    /// All that the chunk had is gone.
    Lost {
        chunk: ChunkId,
    },
    Read {
        chunk: ChunkId,
        floor: Version,
        begun_us: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Client {
    index: usize,
    pub(crate) life: u64,
    /// None until the master has opened one.
    session: Option<SessionId>,
    /// The call that is to open one, and until when its answer is awaited.
    opening: Option<(u64, u64)>,
    /// Calls about a session, with it.
    resuming: BTreeMap<u64, SessionId>,
    slots: [Option<Op>; SLOTS],
    seqs: [u64; SLOTS],
    table: ChainTable,
    next_number: u64,
    next_value: u64,
    /// Ops that it still begins.
    pub(crate) left: u64,
}

pub(crate) struct Desk<'a> {
    pub(crate) now_us: u64,
    pub(crate) rng: &'a mut Rng,
    pub(crate) actions: &'a mut Vec<Action>,
    /// Of each chunk, for a read that begins now.
    pub(crate) floor: &'a dyn Fn(ChunkId) -> Version,
}

impl Desk<'_> {
    fn pick_file(&mut self) -> DataId {
        let late = LATE_FILES.min(self.now_us / 1_000_000);
        let is_new = late > 0 && self.rng.permille(NEW_FILES_PERMILLE);
        DataId(match is_new {
            true => FILES + late - self.rng.below(late.min(3)),
            false => 1 + self.rng.below(FILES),
        })
    }

    fn send(&mut self, from: usize, to: Place, message: Message) {
        let from = Place::Client(from);
        self.actions.push(Action::Send { from, to, message });
    }
}

impl Client {
    pub(crate) fn new(index: usize, table: ChainTable, left: u64) -> Self {
        Client {
            index,
            life: 1,
            session: None,
            opening: None,
            resuming: BTreeMap::new(),
            slots: [const { None }; SLOTS],
            seqs: [0; SLOTS],
            table,
            next_number: 1,
            next_value: 1,
            left,
        }
    }

    /// Another mount in its place, which knows nothing of its ops.
    pub(crate) fn begin_anew(&mut self) {
        self.life += 1;
        (self.session, self.opening) = (None, None);
        self.resuming.clear();
        self.slots = [const { None }; SLOTS];
        self.seqs = [0; SLOTS];
    }

    pub(crate) fn is_done(&self) -> bool {
        self.left == 0 && self.slots.iter().all(Option::is_none)
    }

    /// Begins an op in a free slot, or tries one again.
    pub(crate) fn timer(&mut self, desk: &mut Desk<'_>, slot: usize, attempt: u64) {
        match &self.slots[slot] {
            Some(op) if op.attempt == attempt => self.attempt(desk, slot),
            Some(_) => {}
            None if self.left > 0 => match self.session {
                Some(session) => self.begin(desk, slot, session),
                None => self.finish(desk, slot),
            },
            None => {}
        }
    }

    fn begin(&mut self, desk: &mut Desk<'_>, slot: usize, session: SessionId) {
        let chunk = ChunkId {
            data: desk.pick_file(),
            index: 0,
        };
        let is_writing = |op: &Option<Op>| {
            let op = op.as_ref();
            op.is_some_and(|op| op.chunk == chunk && matches!(op.kind, Kind::Write { .. }))
        };
        let writes = desk.rng.permille(600) && !self.slots.iter().any(is_writing);
        self.left -= 1;
        let kind = match writes {
            true => self.write(desk, slot, session),
            false => Kind::Read {
                floor: (desk.floor)(chunk),
                number: 0,
            },
        };
        self.slots[slot] = Some(Op {
            kind,
            chunk,
            begun_us: desk.now_us,
            attempt: 0,
        });
        self.attempt(desk, slot);
    }

    fn write(&mut self, desk: &mut Desk<'_>, slot: usize, session: SessionId) -> Kind {
        self.seqs[slot] += 1;
        self.next_value += 1;
        let op = OpId {
            session,
            slot: slot as u16,
            seq: self.seqs[slot],
        };
        let from = desk.rng.below(CELLS as u64) as u32;
        let patch = match desk.rng.permille(CUTS_PERMILLE) {
            true => Patch::Cut { len: from },
            false => Patch::Write {
                from,
                cells: 1 + desk.rng.below(CELLS as u64 - u64::from(from)) as u32,
                value: (self.index as u64 + 1) << 32 | self.next_value,
            },
        };
        Kind::Write { op, patch }
    }

    fn attempt(&mut self, desk: &mut Desk<'_>, slot: usize) {
        let op = self.slots[slot].as_mut().expect("under way");
        op.attempt += 1;
        let (attempt, chunk) = (op.attempt, op.chunk);
        let chain = chain_of(chunk);
        let row = self.table.chain(chain).expect("it exists");
        let epoch = row.epoch;
        let members: Vec<usize> = row.serving().map(|m| Node::index_of(m.volume)).collect();
        if members.is_empty() {
            // All had gone.
            return self.try_again(desk, slot);
        }
        let op = self.slots[slot].as_mut().expect("under way");
        let (to, message) = match &mut op.kind {
            Kind::Write { op, patch } => {
                let order = Order {
                    chain,
                    chunk,
                    op: *op,
                    body: *patch,
                };
                (
                    members[0],
                    Message::Write {
                        order,
                        epoch,
                        attempt,
                    },
                )
            }
            Kind::Read { number, .. } => {
                *number = self.next_number;
                self.next_number += 1;
                let read = Read {
                    chain,
                    epoch,
                    chunk,
                    number: *number,
                };
                (*desk.rng.pick(&members), Message::Read(read))
            }
        };
        desk.send(self.index, Place::Volume(to), message);
        let delay_us = desk.rng.between(200_000, 1_200_000);
        self.timer_after(desk, slot, attempt, delay_us);
    }

    fn timer_after(&self, desk: &mut Desk<'_>, slot: usize, attempt: u64, delay_us: u64) {
        let (client, life) = (self.index, self.life);
        let event = Event::ClientTimer {
            client,
            life,
            slot,
            attempt,
        };
        desk.actions.push(Action::After { delay_us, event });
    }

    pub(crate) fn start(&mut self, desk: &mut Desk<'_>) {
        self.beat(desk);
        for slot in 0..SLOTS {
            let delay_us = desk.rng.below(20_000);
            self.timer_after(desk, slot, 0, delay_us);
        }
    }

    /// Asks for a session, or says that it has one.
    pub(crate) fn beat(&mut self, desk: &mut Desk<'_>) {
        self.speak(desk);
        let (client, life) = (self.index, self.life);
        let delay_us = desk.rng.between(200_000, 800_000);
        let event = Event::ClientBeat { client, life };
        desk.actions.push(Action::After { delay_us, event });
    }

    fn speak(&mut self, desk: &mut Desk<'_>) {
        if self
            .opening
            .is_some_and(|(_, until_us)| until_us > desk.now_us)
        {
            return;
        }
        self.next_number += 1;
        let call = self.next_number;
        let request = match self.session {
            Some(session) => {
                self.resuming.insert(call, session);
                SessionRequest::ResumeSession(ResumeSession {
                    session,
                    handles: Vec::new(),
                    append_tokens: Vec::new(),
                    complete: true,
                })
            }
            None => {
                self.opening = Some((call, desk.now_us + OPEN_DEADLINE_US));
                SessionRequest::OpenSession(OpenSession {
                    identity: format!("mount-{}", self.index),
                    after: None,
                    host: String::new(),
                    mount: String::new(),
                })
            }
        };
        let message = Message::call((self.life, call), of_client(self.index, request));
        desk.send(self.index, Place::Master, message);
    }

    /// The master has answered a call. Whether the session has ended.
    pub(crate) fn told(&mut self, (life, call): (u64, u64), said: Said) -> bool {
        if life != self.life {
            return false;
        }
        let resumed = self.resuming.remove(&call);
        let is_opening = self.opening.is_some_and(|(of, _)| of == call);
        if is_opening {
            self.opening = None;
        }
        match said {
            Said::Session(SessionReply::OpenSession(opened)) => {
                if is_opening {
                    self.session = Some(opened.session);
                    self.learn(opened.table);
                }
                false
            }
            Said::Session(SessionReply::ResumeSession(resumed)) => {
                self.learn(resumed.table);
                false
            }
            Said::Refused(Status::SessionExpired) => resumed.is_some() && resumed == self.session,
            Said::Refused(_) => false,
            other => unreachable!("a client was told {other:?}"),
        }
    }

    fn learn(&mut self, table: ChainTable) {
        if table.version > self.table.version {
            self.table = table;
        }
    }

    pub(crate) fn written(
        &mut self,
        desk: &mut Desk<'_>,
        (of, attempt): (OpId, u64),
        outcome: Result<Version, Status>,
    ) -> Option<Ended> {
        let is_it = |op: &Option<Op>| {
            let op = op.as_ref().filter(|op| op.attempt == attempt);
            op.is_some_and(|op| matches!(op.kind, Kind::Write { op, .. } if op == of))
        };
        let slot = self.slots.iter().position(is_it)?;
        let op = self.slots[slot].as_ref().expect("found");
        let (chunk, begun_us) = (op.chunk, op.begun_us);
        match outcome {
            Ok(version) => {
                self.finish(desk, slot);
                Some(Ended::Acknowledged {
                    op: of,
                    chunk,
                    version,
                    begun_us,
                })
            }
            Err(Status::NoSpace | Status::Fenced) => {
                self.finish(desk, slot);
                Some(Ended::Refused { op: of })
            }
            Err(Status::DataLost) => {
                self.finish(desk, slot);
                Some(Ended::Lost { chunk })
            }
            // Nobody knows any more what became of it.
            Err(Status::SessionExpired) => {
                self.finish(desk, slot);
                None
            }
            Err(_) => {
                self.try_again(desk, slot);
                None
            }
        }
    }

    pub(crate) fn read_done(
        &mut self,
        desk: &mut Desk<'_>,
        of: u64,
        outcome: Result<(), Status>,
    ) -> Option<Ended> {
        let is_it = |op: &Option<Op>| {
            let op = op.as_ref();
            op.is_some_and(|op| matches!(op.kind, Kind::Read { number, .. } if number == of))
        };
        let slot = self.slots.iter().position(is_it)?;
        let op = self.slots[slot].clone().expect("found");
        if outcome.is_err_and(|status| status != Status::DataLost) {
            self.try_again(desk, slot);
            return None;
        }
        self.finish(desk, slot);
        if outcome.is_err() {
            return Some(Ended::Lost { chunk: op.chunk });
        }
        let Kind::Read { floor, .. } = op.kind else {
            unreachable!("it was found as a read")
        };
        Some(Ended::Read {
            chunk: op.chunk,
            floor,
            begun_us: op.begun_us,
        })
    }

    fn finish(&mut self, desk: &mut Desk<'_>, slot: usize) {
        self.slots[slot] = None;
        let delay_us = desk.rng.below(150_000);
        self.timer_after(desk, slot, 0, delay_us);
    }

    fn try_again(&mut self, desk: &mut Desk<'_>, slot: usize) {
        self.speak(desk);
        let op = self.slots[slot].as_mut().expect("under way");
        op.attempt += 1;
        let attempt = op.attempt;
        let delay_us = desk.rng.between(10_000, 200_000);
        self.timer_after(desk, slot, attempt, delay_us);
    }
}
