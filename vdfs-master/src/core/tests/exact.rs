//! The master against a filesystem of maps: for any sequence of operations, retries, restarts and
//! crashes both answer the same and hold the same, and every way of restoring the state gives the
//! same bytes.
//!
//! A failure prints the shortest list of transitions that still fails, and leaves its seed under
//! `proptest-regressions/`. `PROPTEST_CASES` runs more of them; `long_form` is for release builds.
//!
//! To add an operation: its arm in [`model`], its identities in [`ids`], its strategy in
//! [`choose`].

mod choose;
mod ids;
mod model;
mod restores;
mod storage;
mod system;

use std::fmt;

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use vdfs_proto::OpId;
use vdfs_proto::meta::{Create, MutateRequest, Mutation, Open, Query};

use model::{Expected, Model};
use system::System;

/// Time that passes at the end of each transition: one tick of the core's.
const SETTLE_MS: u64 = 250;
/// Silence that ends a session, and the time until it has ended.
const SILENCE_MS: u64 = 12_000;

/// Silence of a volume after which it may come with another store.
const VOLUME_SILENCE_MS: u64 = 3_000;

#[derive(Clone)]
enum Transition {
    Mutate {
        by: usize,
        slot: u16,
        mutation: Mutation,
        fate: Fate,
    },
    Ask {
        by: usize,
        query: Query,
    },
    /// A close whose reply is lost with the master.
    AskKilled {
        by: usize,
        query: Query,
    },
    /// The op `back` before the last one of a slot arrives again.
    Retry {
        by: usize,
        slot: u16,
        back: usize,
    },
    /// The last op of the session before arrives again.
    RetryFormer {
        by: usize,
        slot: u16,
    },
    /// A session, in place of the present one if there is one.
    Begin {
        by: usize,
    },
    Close {
        by: usize,
    },
    Expire {
        by: usize,
    },
    Pass {
        ms: u64,
    },
    Sync,
    Checkpoint,
    /// The master is killed and started again.
    Restart {
        from: Restore,
    },
    /// The machine loses what was not synced, at most so many transitions.
    Crash {
        lose: usize,
        torn: bool,
    },
    /// The volume comes back with an empty store.
    LoseVolume,
}

/// What happens to a request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Calm,
    /// It arrives twice, and once more when it is answered.
    Resent,
    /// Its caller leaves and comes back.
    Abandoned,
    /// The master dies after so many steps of what the op waits for; then it is sent again.
    Killed {
        after: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restore {
    Newest,
    /// A bit of the newest checkpoint has flipped.
    OlderCheckpoint,
}

/// A line each, whatever the attributes hold.
impl fmt::Debug for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Transition::Mutate {
                by,
                slot,
                mutation,
                fate,
            } => format!("{by}:{slot} {fate:?} {mutation:?}"),
            Transition::Ask { by, query } => format!("{by} {query:?}"),
            Transition::AskKilled { by, query } => format!("{by} killed {query:?}"),
            Transition::Retry { by, slot, back } => format!("{by}:{slot} again, {back} back"),
            Transition::RetryFormer { by, slot } => format!("{by}:{slot} again, of before"),
            Transition::Begin { by } => format!("{by} begins"),
            Transition::Close { by } => format!("{by} closes"),
            Transition::Expire { by } => format!("{by} is silent"),
            Transition::Pass { ms } => format!("{ms} ms pass"),
            Transition::Sync => "sync".to_owned(),
            Transition::Checkpoint => "checkpoint".to_owned(),
            Transition::Restart { from } => format!("restart from {from:?}"),
            Transition::Crash { lose, torn } => format!("crash, loses {lose}, torn: {torn}"),
            Transition::LoseVolume => "the volume loses its store".to_owned(),
        };
        write!(f, "{text:.300}")
    }
}

impl Transition {
    /// A crash does not take it: the log is synced before it ends.
    fn syncs(&self) -> bool {
        match self {
            Transition::Mutate { mutation, fate, .. } => {
                matches!(fate, Fate::Killed { .. }) || may_wait_for_volumes(mutation)
            }
            Transition::Ask { query, .. } => {
                matches!(query, Query::Open(Open { access, .. }) if access.write)
            }
            Transition::Retry { .. } | Transition::RetryFormer { .. } | Transition::Pass { .. } => {
                false
            }
            _ => true,
        }
    }
}

fn may_wait_for_volumes(mutation: &Mutation) -> bool {
    match mutation {
        Mutation::Truncate(_) | Mutation::Extend(_) => true,
        Mutation::Create(Create { open, .. }) => open.is_some(),
        _ => false,
    }
}

struct Reference;

impl ReferenceStateMachine for Reference {
    type State = Model;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Model> {
        Just(Model::new(System::STARTS_MS)).boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Transition> {
        choose::transitions(model)
    }

    fn apply(mut model: Model, transition: &Transition) -> Model {
        let kinds = model.kinds.len();
        model.answer = expect(&mut model, transition);
        model.pass(SETTLE_MS);
        // A group is shown to others when it is on the disk.
        model.is_synced = transition.syncs() || model.kinds.len() > kinds;
        if model.is_synced {
            model.sync();
        }
        model.remember();
        model
    }
}

fn expect(model: &mut Model, transition: &Transition) -> Expected {
    match transition {
        Transition::Mutate {
            by,
            slot,
            mutation,
            fate,
        } => {
            let Some(op) = next_op(model, *by, *slot) else {
                return Expected::Nothing;
            };
            let mutation = mutation.clone();
            let answer = model.mutate(&MutateRequest { op, mutation });
            match fate {
                Fate::Killed { .. } => model.restart(),
                // Once more when it is answered.
                Fate::Resent | Fate::Abandoned | Fate::Calm => {}
            }
            Expected::Mutated(answer)
        }
        Transition::Ask { by, query } => ask(model, *by, query),
        Transition::AskKilled { by, query } => {
            let answer = ask(model, *by, query);
            model.restart();
            answer
        }
        Transition::Retry { by, slot, back } => expect_retry(model, *by, *slot, *back),
        Transition::RetryFormer { .. } => Expected::Nothing,
        fault => {
            take_fault(model, fault);
            Expected::Nothing
        }
    }
}

fn take_fault(model: &mut Model, fault: &Transition) {
    match fault {
        Transition::Begin { by } => {
            model.end_session(*by);
            model.begin_session(*by);
        }
        Transition::Close { by } => model.close_session(*by),
        Transition::Expire { by } => {
            model.end_session(*by);
            model.pass(SILENCE_MS);
        }
        Transition::Pass { ms } => model.pass(*ms),
        Transition::Restart { .. } => model.restart(),
        Transition::Crash { lose, .. } => {
            let lose = model.losable(*lose);
            if !model.unsynced.is_empty() {
                model.go_back(lose);
            }
            model.reboot();
        }
        Transition::LoseVolume => {
            model.pass(VOLUME_SILENCE_MS);
            model.lost_below = model.next_data;
        }
        Transition::Sync | Transition::Checkpoint => {}
        other => unreachable!("{other:?} is no fault"),
    }
}

fn ask(model: &mut Model, by: usize, query: &Query) -> Expected {
    match model.clients[by] {
        Some(session) => Expected::Answer(model.ask(session, query)),
        None => Expected::Nothing,
    }
}

fn next_op(model: &Model, by: usize, slot: u16) -> Option<OpId> {
    let session = model.clients[by]?;
    let asked = model.sessions[&session].slots.get(&slot);
    Some(OpId {
        session,
        slot,
        seq: asked.map_or(0, |slot| slot.asked.len() as u64) + 1,
    })
}

fn expect_retry(model: &mut Model, by: usize, slot: u16, back: usize) -> Expected {
    let Some(next) = next_op(model, by, slot) else {
        return Expected::Nothing;
    };
    let asked = model.sessions[&next.session].slots.get(&slot);
    let at = asked.and_then(|slot| slot.asked.len().checked_sub(back + 1));
    let (Some(asked), Some(at)) = (asked, at) else {
        return Expected::Nothing;
    };
    let request = MutateRequest {
        op: OpId {
            seq: at as u64 + 1,
            ..next
        },
        mutation: asked.asked[at].clone(),
    };
    Expected::Mutated(model.mutate(&request))
}

struct Exact;

impl StateMachineTest for Exact {
    type SystemUnderTest = System;
    type Reference = Reference;

    fn init_test(_: &Model) -> System {
        System::new()
    }

    fn apply(mut system: System, model: &Model, transition: Transition) -> System {
        system.apply(&transition, &model.answer);
        system.settle(model.is_synced);
        assert_eq!(system.world.now_ms, model.now_ms, "one clock");
        let (held, expected) = (system.dump(), model.dump());
        assert!(
            held == expected,
            "the core holds\n{}and the model\n{}",
            held.text(),
            expected.text()
        );
        system
    }

    fn teardown(system: System, _: Model) {
        system.check_restores();
    }
}

/// Failures are told with their transitions; seeds are kept by CI's log, not in the tree.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 4096,
        ..ProptestConfig::default()
    }
}

prop_state_machine! {
    #![proptest_config(config(256))]
    #[test]
    fn core_is_equal_to_the_model_and_to_whatever_is_restored(sequential 1..100 => Exact);
}

prop_state_machine! {
    #![proptest_config(config(20_000))]
    #[test]
    #[ignore = "minutes in a release build"]
    fn core_is_equal_to_the_model_long_form(sequential 1..100 => Exact);
}
