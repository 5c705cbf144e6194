//! A simulated mount: reads and writes by its own table, tries again with the same op until there is
//! a definite answer, and takes a slot again only then.

use vdfs_proto::{ChainTable, ChunkId, DataId, OpId, SessionId, Status, Version};
use vdfs_volume::chain::Order;

use crate::message::{Action, CHAINS, Event, Message, Place, Read, chain_of};
use crate::node::Node;
use crate::rng::Rng;
use crate::shelf::{CELLS, Patch};

const SLOTS: usize = 2;
/// Of all changes.
const CUTS_PERMILLE: u64 = 100;
const FILES: u64 = 2 * CHAINS;

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
    pub(crate) session: SessionId,
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
    fn send(&mut self, from: usize, to: Place, message: Message) {
        let from = Place::Client(from);
        self.actions.push(Action::Send { from, to, message });
    }
}

impl Client {
    pub(crate) fn new(index: usize, session: SessionId, table: ChainTable, left: u64) -> Self {
        Client {
            index,
            life: 1,
            session,
            slots: [const { None }; SLOTS],
            seqs: [0; SLOTS],
            table,
            next_number: 1,
            next_value: 1,
            left,
        }
    }

    /// Another mount in its place, which knows nothing of its ops.
    pub(crate) fn begin_anew(&mut self, session: SessionId) {
        self.life += 1;
        self.session = session;
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
            None if self.left > 0 => self.begin(desk, slot),
            None => {}
        }
    }

    fn begin(&mut self, desk: &mut Desk<'_>, slot: usize) {
        let chunk = ChunkId {
            data: DataId(1 + desk.rng.below(FILES)),
            index: 0,
        };
        let is_writing = |op: &Option<Op>| {
            let op = op.as_ref();
            op.is_some_and(|op| op.chunk == chunk && matches!(op.kind, Kind::Write { .. }))
        };
        let writes = desk.rng.permille(600) && !self.slots.iter().any(is_writing);
        self.left -= 1;
        let kind = match writes {
            true => self.write(desk, slot),
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

    fn write(&mut self, desk: &mut Desk<'_>, slot: usize) -> Kind {
        self.seqs[slot] += 1;
        self.next_value += 1;
        let op = OpId {
            session: self.session,
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

    pub(crate) fn start(&self, desk: &mut Desk<'_>) {
        for slot in 0..SLOTS {
            let delay_us = desk.rng.below(20_000);
            self.timer_after(desk, slot, 0, delay_us);
        }
    }

    pub(crate) fn learn(&mut self, table: ChainTable) {
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
            Err(Status::NoSpace | Status::Fenced | Status::SessionExpired) => {
                self.finish(desk, slot);
                Some(Ended::Refused { op: of })
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
        is_good: bool,
    ) -> Option<Ended> {
        let is_it = |op: &Option<Op>| {
            let op = op.as_ref();
            op.is_some_and(|op| matches!(op.kind, Kind::Read { number, .. } if number == of))
        };
        let slot = self.slots.iter().position(is_it)?;
        let op = self.slots[slot].clone().expect("found");
        if !is_good {
            self.try_again(desk, slot);
            return None;
        }
        self.finish(desk, slot);
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
        desk.send(self.index, Place::Master, Message::FetchTable);
        let op = self.slots[slot].as_mut().expect("under way");
        op.attempt += 1;
        let attempt = op.attempt;
        let delay_us = desk.rng.between(10_000, 200_000);
        self.timer_after(desk, slot, attempt, delay_us);
    }
}
