//! What the core alone does in a second, on one thread.

use std::time::Instant;

use vdfs_proto::meta::{Lookup, MutateRequest, Mutation, NewKind, Query, QueryRequest};
use vdfs_proto::{FileName, Ino, OpId, SessionId};

use super::world::{World, create_in, now, registration};
use crate::core::{CoreRequest, Effect, Input, Ticket};

/// Directories that the files are in.
const DIRECTORIES: u32 = 500;
const DIRECTORY_FILES: u32 = 1000;
/// Rounds; the fastest counts, because others run here too.
const ROUNDS: u32 = 3;
#[cfg(not(debug_assertions))]
const MUTATIONS_PER_SECOND: f64 = 500_000.0;
#[cfg(not(debug_assertions))]
const LOOKUPS_PER_SECOND: f64 = 2_000_000.0;

/// Steps the core as a keeper does, and drops what it emits.
struct Bare {
    world: World,
    effects: Vec<Effect>,
    session: SessionId,
    next: u64,
}

impl Bare {
    fn new() -> Bare {
        let mut world = World::new();
        world.checks = false;
        world.keeps_log = false;
        world.register("n", registration(1, 1));
        let session = world.open_session("a");
        Bare {
            world,
            effects: Vec::new(),
            session,
            next: 1 << 32,
        }
    }

    fn step(&mut self, request: CoreRequest) {
        self.next += 1;
        let input = Input::Request {
            ticket: Ticket(self.next),
            request,
        };
        let now = now(self.world.now_ms);
        self.world.core.step(now, input, &mut self.effects);
    }

    fn mutate(&mut self, mutation: Mutation) {
        let op = OpId {
            session: self.session,
            // The world's own ops are in slot 0.
            slot: 1 + (self.next % 31) as u16,
            seq: self.next,
        };
        let peer = self.world.peer.clone();
        self.step(CoreRequest::Mutate(peer, MutateRequest { op, mutation }));
        let is_done = |effect: &Effect| matches!(effect, Effect::Reply { outcome: Ok(_), .. });
        assert!(self.effects.drain(..).any(|effect| is_done(&effect)));
    }

    fn lookup(&mut self, parent: Ino, name: FileName) {
        let request = QueryRequest {
            session: self.session,
            query: Query::Lookup(Lookup { parent, name }),
        };
        let peer = self.world.peer.clone();
        self.step(CoreRequest::Query(peer, request));
        self.effects.clear();
    }
}

fn per_second(count: u32, begin: Instant) -> f64 {
    f64::from(count) / begin.elapsed().as_secs_f64()
}

fn file_name(number: u32) -> String {
    format!("a-name-of-20-b{number:06}")
}

/// Makes the directories of one round and fills them; gives them with the rate of creates.
fn create_round(bare: &mut Bare, round: u32, count: u32) -> (Vec<Ino>, f64) {
    let directories: Vec<Ino> = (0..count)
        .map(|number| {
            let text = format!("d{round}-{number}");
            let create = create_in(Ino::ROOT, &text, NewKind::Directory);
            bare.world.create(bare.session, create).attr.ino
        })
        .collect();
    let begin = Instant::now();
    for directory in &directories {
        for number in 0..DIRECTORY_FILES {
            let create = create_in(*directory, &file_name(number), NewKind::Regular);
            bare.mutate(Mutation::Create(create));
        }
    }
    let rate = per_second(count * DIRECTORY_FILES, begin);
    (directories, rate)
}

fn lookup_round(bare: &mut Bare, directories: &[Ino]) -> f64 {
    let names: Vec<FileName> = (0..DIRECTORY_FILES)
        .map(|number| super::world::name(&file_name(number)))
        .collect();
    let begin = Instant::now();
    for directory in directories {
        for name in &names {
            bare.lookup(*directory, name.clone());
        }
    }
    per_second(directories.len() as u32 * DIRECTORY_FILES, begin)
}

#[test]
fn core_does_half_a_million_creates_and_two_million_lookups_a_second() {
    let count = DIRECTORIES / if cfg!(debug_assertions) { 50 } else { 1 };
    let mut bare = Bare::new();
    let (mut creates, mut lookups) = (0.0f64, 0.0f64);
    for round in 0..ROUNDS {
        let (directories, rate) = create_round(&mut bare, round, count);
        creates = creates.max(rate);
        lookups = lookups.max(lookup_round(&mut bare, &directories));
    }
    println!("{creates:.0} creates and {lookups:.0} lookups a second");
    #[cfg(not(debug_assertions))]
    assert!(creates >= MUTATIONS_PER_SECOND && lookups >= LOOKUPS_PER_SECOND);
}
