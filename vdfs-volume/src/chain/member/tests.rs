//! The core on its effects. Interleavings are the simulation's business (`tests/chain`).

use vdfs_proto::{Chain, ChunkSize, Layout, MemberState};

use super::*;
use crate::limits::{CALLERS_PER_CHANGE_MAX, CHANGES_PER_CHUNK_MAX, READERS_PER_CHUNK_MAX};

const CHAIN: ChainId = ChainId(0);
const CHUNK: ChunkId = ChunkId {
    data: DataId(5),
    index: 0,
};

type TestMember = Member<&'static str, u32>;

/// Volume 1 with store 1, in a chain of these volumes.
fn member(epoch: u64, volumes: &[u32]) -> TestMember {
    let mut member = Member::new(StoreId(1), [], 8);
    step(&mut member, registered(table(epoch, volumes), Vec::new()));
    let lease = Input::Lease {
        sent_ms: 0,
        lease_ms: 1000,
    };
    step(&mut member, lease);
    member
}

fn registered(table: ChainTable, fences: Vec<Fence>) -> Input<&'static str, u32> {
    Input::Registered(Box::new(Registered {
        volume: VolumeId(1),
        term: 1,
        registration: 1,
        chunk_size: ChunkSize::DEFAULT,
        table,
        data_next: DataId(1),
        fences,
        live_sessions: vec![SessionId(1), SessionId(2)],
        session_next: SessionId(3),
    }))
}

fn table(epoch: u64, volumes: &[u32]) -> ChainTable {
    let member = |volume: &u32| vdfs_proto::Member {
        volume: VolumeId(*volume),
        store: StoreId(u128::from(*volume)),
        state: MemberState::Serving,
    };
    let chain = Chain {
        epoch: Epoch(epoch),
        members: volumes.iter().map(member).collect(),
        lost_below: DataId(0),
        is_active: true,
    };
    ChainTable {
        version: epoch,
        chains: vec![chain],
        volumes: Vec::new(),
    }
}

fn step_at(member: &mut TestMember, now_ms: u64, input: Input<&'static str, u32>) -> Vec<String> {
    let mut effects = Vec::new();
    member.step(now_ms, input, &mut effects);
    member.check();
    effects.iter().map(name).collect()
}

fn step(member: &mut TestMember, input: Input<&'static str, u32>) -> Vec<String> {
    step_at(member, 0, input)
}

/// What tests look at of an effect.
fn name(effect: &Effect<&'static str, u32>) -> String {
    match effect {
        Effect::Execute { order, .. } => format!("execute {}", order.body),
        Effect::Prepare { order, .. } => format!("prepare {}", order.body),
        Effect::Apply { op, .. } => format!("apply {}", op.seq),
        Effect::Discard { op, .. } => format!("discard {}", op.seq),
        Effect::Record { op, .. } => format!("record {}", op.seq),
        Effect::PassOn(PassedOn {
            to,
            epoch,
            version,
            lacks_chunk: false,
            ..
        }) => format!("forward {version:?} to {to} in {epoch}"),
        Effect::Answer { caller, outcome } => match outcome {
            Ok(version) => format!("answer {caller} {version:?}"),
            Err(status) => format!("answer {caller} {status}"),
        },
        Effect::Fenced { ack } => format!("fenced {ack}"),
        Effect::Opened { caller } => format!("opened {caller}"),
        other => format!("{other:?}"),
    }
}

fn op(session: u64, seq: u64) -> OpId {
    OpId {
        session: SessionId(session),
        slot: 0,
        seq,
    }
}

fn request(op: OpId, body: &'static str, epoch: u64, caller: u32) -> Input<&'static str, u32> {
    let order = Order {
        chain: CHAIN,
        chunk: CHUNK,
        op,
        body,
    };
    Input::Request {
        order,
        epoch: Epoch(epoch),
        caller,
    }
}

fn version(epoch: u64, counter: u64) -> Version {
    Version {
        epoch: Epoch(epoch),
        counter,
    }
}

fn executed(op: OpId, counter: u64) -> Input<&'static str, u32> {
    Input::Executed {
        op,
        outcome: Ok(version(1, counter)),
    }
}

#[test]
fn member_alone_begins_no_other_change_of_a_chunk_before_the_reply_is_on_record() {
    let mut member = member(1, &[1]);
    let (first, second) = (op(1, 1), op(2, 1));
    assert_eq!(step(&mut member, request(first, "a", 1, 10)), ["execute a"]);
    assert!(step(&mut member, request(second, "b", 1, 20)).is_empty());
    assert_eq!(step(&mut member, executed(first, 1)), ["record 1"]);
    let recorded = step(&mut member, Input::Recorded { op: first });
    let answer = format!("answer 10 {:?}", version(1, 1));
    assert_eq!(recorded, [answer, "execute b".to_owned()]);
}

#[test]
fn member_retry_waits_for_the_first_copy_and_is_answered_after_it() {
    let mut member = member(1, &[1]);
    step(&mut member, request(op(1, 1), "a", 1, 10));
    assert!(step(&mut member, request(op(1, 1), "a", 1, 11)).is_empty());
    step(&mut member, executed(op(1, 1), 1));
    let recorded = step(&mut member, Input::Recorded { op: op(1, 1) });
    assert_eq!(recorded.len(), 2, "both are answered: {recorded:?}");
    let again = step(&mut member, request(op(1, 1), "a", 1, 12));
    assert_eq!(again, [format!("answer 12 {:?}", version(1, 1))]);
    let late = step(&mut member, request(op(1, 0), "old", 1, 13));
    assert_eq!(late, [format!("answer 13 {}", Status::StaleRequest)]);
}

#[test]
fn member_lets_no_more_wait_for_a_chunk_than_it_has_room_for() {
    let mut alone = Member::new(StoreId(1), [], 1000);
    step(&mut alone, registered(table(1, &[1]), Vec::new()));
    let lease = Input::Lease {
        sent_ms: 0,
        lease_ms: 1000,
    };
    step(&mut alone, lease);
    let in_slot = |slot: usize| OpId {
        slot: slot as u16,
        ..op(1, 1)
    };
    let busy = |caller: u32| vec![format!("answer {caller} {}", Status::Busy)];
    step(&mut alone, request(in_slot(0), "a", 1, 0));
    for slot in 1..=CHANGES_PER_CHUNK_MAX {
        let waits = step(&mut alone, request(in_slot(slot), "b", 1, 0));
        assert!(waits.is_empty(), "{slot}: {waits:?}");
    }
    let one_more = CHANGES_PER_CHUNK_MAX + 1;
    let refused = step(&mut alone, request(in_slot(one_more), "c", 1, 7));
    assert_eq!(refused, busy(7));
    for caller in 1..CALLERS_PER_CHANGE_MAX as u32 {
        let waits = step(&mut alone, request(in_slot(0), "a", 1, caller));
        assert!(waits.is_empty(), "{caller}: {waits:?}");
    }
    let refused = step(&mut alone, request(in_slot(0), "a", 1, 99));
    assert_eq!(refused, busy(99));
    let wait_for_open = |caller| Input::WaitForOpen {
        chunk: CHUNK,
        caller,
    };
    for caller in 0..READERS_PER_CHUNK_MAX as u32 {
        assert!(step(&mut alone, wait_for_open(caller)).is_empty());
    }
    let again = step(&mut alone, wait_for_open(5000));
    assert_eq!(again, ["opened 5000"], "it asks again");
}

#[test]
fn member_fence_holds_when_the_session_has_nothing_under_way() {
    let mut member = member(1, &[1]);
    step(&mut member, request(op(1, 1), "a", 1, 10));
    let fence = Fence {
        number: 1,
        session: SessionId(1),
    };
    assert!(step(&mut member, Input::Fence { fence, ack: 7 }).is_empty());
    step(&mut member, executed(op(1, 1), 1));
    let recorded = step(&mut member, Input::Recorded { op: op(1, 1) });
    assert!(recorded.contains(&"fenced 7".to_owned()), "{recorded:?}");
    let refused = step(&mut member, request(op(1, 2), "b", 1, 11));
    assert_eq!(refused, [format!("answer 11 {}", Status::Fenced)]);
}

#[test]
fn member_without_a_lease_takes_no_write_and_reads_only_where_it_is_alone() {
    let mut alone = member(1, &[1]);
    let late = step_at(&mut alone, 1000, request(op(1, 1), "a", 1, 10));
    assert_eq!(late, [format!("answer 10 {}", Status::NotServing)]);
    let reading = |member: &TestMember, now_ms| member.reading(now_ms, CHAIN, Epoch(1), CHUNK);
    assert_eq!(reading(&alone, 1000), Ok(Reading::Now(DataId(0))));
    let two = member(1, &[1, 2]);
    assert_eq!(reading(&two, 999), Ok(Reading::Now(DataId(0))));
    assert_eq!(reading(&two, 1000), Err(Status::NotServing));
    assert_eq!(alone.part(1000, &part(&[0], 1)), Ok(DataId(0)));
    assert_eq!(two.part(999, &part(&[0], 1)), Ok(DataId(0)));
    assert_eq!(two.part(1000, &part(&[0], 1)), Err(Status::NotServing));
}

/// The thread stood still between the core and the store, beyond the lease: others may have the rights of the
/// session by now, and whoever reads must not find the chunk without the change.
#[test]
fn member_has_readers_wait_for_a_change_that_was_let_in_under_an_earlier_lease() {
    let mut alone = member(1, &[1]);
    step(&mut alone, request(op(1, 1), "a", 1, 10));
    let reading = |member: &TestMember, now_ms| member.reading(now_ms, CHAIN, Epoch(1), CHUNK);
    assert!(matches!(reading(&alone, 999), Ok(Reading::Now(_))));
    assert_eq!(reading(&alone, 1000), Ok(Reading::WhenOpen));
    let lease = Input::Lease {
        sent_ms: 1500,
        lease_ms: 1000,
    };
    step(&mut alone, lease);
    assert!(matches!(reading(&alone, 1600), Ok(Reading::Now(_))));
    step(&mut alone, Input::ForgetSession(SessionId(1)));
    assert_eq!(reading(&alone, 1600), Ok(Reading::WhenOpen));
    step(&mut alone, executed(op(1, 1), 1));
    step(&mut alone, Input::Recorded { op: op(1, 1) });
    assert!(matches!(reading(&alone, 1600), Ok(Reading::Now(_))));
}

/// Of a file whose chunks lie in the chains in their order.
fn part(positions: &[u8], table_version: u64) -> FilePart {
    let mut chains = ChainSet::default();
    positions.iter().for_each(|of| chains.insert(*of));
    let layout = Layout {
        data: CHUNK.data,
        truncations: 0,
        group: 0,
        seed: 0,
        size: 0,
        holes: true,
    };
    FilePart {
        layout,
        chains,
        table_version,
    }
}

#[test]
fn member_answers_for_a_part_of_a_file_whose_chains_are_all_here() {
    let mut chains = table(1, &[1]);
    chains.chains[0].lost_below = DataId(5);
    chains.chains.extend(table(1, &[2]).chains);
    let mut member = member(1, &[1]);
    step(&mut member, registered(chains, Vec::new()));
    let cases = [
        (part(&[0], 1), Ok(DataId(5))),
        (part(&[], 1), Err(Status::Invalid)),
        (part(&[0, 1], 1), Err(Status::NotServing)),
        (part(&[0, 9], 1), Err(Status::NotServing)),
        // A table that is on its way.
        (part(&[0], 2), Err(Status::NotServing)),
    ];
    for (part, answer) in cases {
        assert_eq!(member.part(0, &part), answer, "{part:?}");
    }
}

/// A head of two whose change has gone to the successor.
fn head_that_has_passed_on(volumes: &[u32]) -> TestMember {
    let mut head = member(1, volumes);
    assert_eq!(
        step(&mut head, request(op(1, 1), "a", 1, 10)),
        ["prepare a"]
    );
    let prepared = Input::Prepared {
        op: op(1, 1),
        outcome: Ok(Prepared::Ready {
            base: version(0, 0),
            version: version(1, 1),
        }),
    };
    let passed = step(&mut head, prepared);
    assert_eq!(passed, [forward(2, 1)]);
    head
}

fn forward(to: u32, epoch: u64) -> String {
    format!(
        "forward {:?} to {} in {}",
        version(1, 1),
        VolumeId(to),
        Epoch(epoch)
    )
}

fn answered(exchange: u64, answer: Result<Version, Status>) -> Input<&'static str, u32> {
    Input::Answered { exchange, answer }
}

#[test]
fn member_applies_when_its_successor_has_and_holds_readers_until_then() {
    let mut head = head_that_has_passed_on(&[1, 2]);
    assert_eq!(
        head.reading(0, CHAIN, Epoch(1), CHUNK),
        Ok(Reading::WhenOpen)
    );
    assert_eq!(head.to_be_seen(0, &part(&[0], 1)), [(CHUNK, op(1, 1))]);
    let mut others = [part(&[1], 1), part(&[0], 1)];
    others[1].layout.data = DataId(CHUNK.data.0 + 1);
    assert!(others.iter().all(|of| head.to_be_seen(0, of).is_empty()));
    let wait = Input::WaitForOpen {
        chunk: CHUNK,
        caller: 30,
    };
    assert!(step(&mut head, wait).is_empty());
    let lost = answered(1, Err(Status::Disconnected));
    assert!(step(&mut head, lost).is_empty(), "that ends nothing");
    assert_eq!(
        step_at(&mut head, PASS_AGAIN_MS, Input::Tick),
        [forward(2, 1)]
    );
    assert!(
        step(&mut head, answered(1, Ok(version(1, 1)))).is_empty(),
        "an answer to the first message says nothing any more"
    );
    let applied = step(&mut head, answered(2, Ok(version(1, 1))));
    assert_eq!(applied, ["apply 1"]);
    assert_eq!(
        step(&mut head, Input::Applied { op: op(1, 1) }),
        ["record 1"]
    );
    let ended = step(&mut head, Input::Recorded { op: op(1, 1) });
    assert!(ended.contains(&"opened 30".to_owned()), "{ended:?}");
    assert!(ended.iter().any(|effect| effect.starts_with("answer 10")));
}

#[test]
fn member_in_a_new_epoch_passes_the_same_version_to_its_new_successor() {
    let mut head = head_that_has_passed_on(&[1, 2, 3]);
    let again = step(&mut head, Input::Table(table(2, &[1, 3])));
    assert_eq!(again, [forward(3, 2)]);
    let late = step(&mut head, answered(1, Ok(version(1, 1))));
    assert!(late.is_empty(), "volume 3 need not have it");
    let alone = step(&mut head, Input::Table(table(3, &[1])));
    assert_eq!(alone, ["apply 1"], "it is the tail now");
}

#[test]
fn member_takes_a_refusal_from_below_for_good_and_a_stale_epoch_for_nothing() {
    let mut head = head_that_has_passed_on(&[1, 2]);
    let stale = answered(1, Err(Status::StaleEpoch(Epoch(2))));
    assert!(step(&mut head, stale).is_empty());
    step_at(&mut head, PASS_AGAIN_MS, Input::Tick);
    let refused = step(&mut head, answered(2, Err(Status::NoSpace)));
    assert_eq!(refused, ["discard 1", "record 1"]);
    let ended = step(&mut head, Input::Recorded { op: op(1, 1) });
    assert_eq!(ended, [format!("answer 10 {}", Status::NoSpace)]);
}

#[test]
fn member_that_is_removed_drops_what_waits_for_its_successor() {
    let mut head = head_that_has_passed_on(&[1, 2]);
    let removed = step(&mut head, Input::Table(table(2, &[2])));
    let stale = Status::StaleEpoch(Epoch(2));
    assert_eq!(
        removed,
        ["discard 1".to_owned(), format!("answer 10 {stale}")]
    );
    assert!(head.is_idle());
}

/// Between volumes 3 and 2.
fn middle_that_has_passed_on() -> TestMember {
    let mut middle = member(1, &[3, 1, 2]);
    let order = Order {
        chain: CHAIN,
        chunk: CHUNK,
        op: op(1, 1),
        body: "a",
    };
    let from_above = Input::Forward {
        order,
        epoch: Epoch(1),
        base: version(0, 0),
        version: version(1, 1),
        caller: 10,
    };
    assert_eq!(step(&mut middle, from_above), ["prepare a"]);
    let prepared = Input::Prepared {
        op: op(1, 1),
        outcome: Ok(Prepared::Ready {
            base: version(0, 0),
            version: version(1, 1),
        }),
    };
    assert_eq!(step(&mut middle, prepared), [forward(2, 1)]);
    middle
}

/// What is answered in epoch 1 counts for all three of them.
#[test]
fn member_that_has_lost_its_successor_answers_nothing_in_the_epoch_before() {
    let mut middle = middle_that_has_passed_on();
    let alone = step(&mut middle, Input::Table(table(2, &[3, 1])));
    assert_eq!(alone, ["apply 1"]);
    let applied = Input::Applied { op: op(1, 1) };
    assert_eq!(step(&mut middle, applied), ["record 1"]);
    let recorded = step(&mut middle, Input::Recorded { op: op(1, 1) });
    let stale = Status::StaleEpoch(Epoch(2));
    assert_eq!(recorded, [format!("answer 10 {stale}")]);
}

#[test]
fn head_takes_an_epoch_over_when_what_was_under_way_is_made() {
    let mut head = head_that_has_passed_on(&[1, 2]);
    let mut alone = table(2, &[1]);
    alone.chains[0].is_active = false;
    let (chain, epoch) = (CHAIN, Epoch(2));
    let activate = format!("{:?}", Effect::<(), ()>::Activate { chain, epoch });
    assert_eq!(step(&mut head, Input::Table(alone)), ["apply 1"]);
    let reading = head.reading(0, CHAIN, epoch, CHUNK);
    assert_eq!(reading, Err(Status::NotServing), "it may go back");
    step(&mut head, Input::Applied { op: op(1, 1) });
    let recorded = step(&mut head, Input::Recorded { op: op(1, 1) });
    assert_eq!(recorded, [activate], "and the client waits");
}

/// The volume below may have it, and the one that is lost in the end may be another.
#[test]
fn member_told_to_leave_keeps_what_it_has_passed_on_for_a_place_in_the_next_epoch() {
    let mut middle = middle_that_has_passed_on();
    let (chain, epoch) = (CHAIN, Epoch(1));
    assert!(step(&mut middle, Input::Leave { chain, epoch }).is_empty());
    let reading = middle.reading(0, CHAIN, Epoch(1), CHUNK);
    assert_eq!(reading, Err(Status::NotServing));
    let again = step(&mut middle, Input::Table(table(2, &[1, 2])));
    assert!(again.contains(&forward(2, 2)), "{again:?}");
    let removed = step(&mut middle, Input::Table(table(3, &[2])));
    assert_eq!(removed[0], "discard 1");
    assert!(middle.is_idle());
}

#[test]
fn member_reports_a_silent_successor_again_and_again() {
    let mut head = head_that_has_passed_on(&[1, 2]);
    for round in 1..4 {
        let at_ms = round * SILENT_SUCCESSOR_MS;
        let reports = step_at(&mut head, at_ms, Input::Tick);
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert!(step_at(&mut head, at_ms + 1, Input::Tick).is_empty());
    }
}

/// The last of these is syncing.
fn with_syncing(epoch: u64, volumes: &[u32]) -> ChainTable {
    let mut table = table(epoch, volumes);
    let last = table.chains[0].members.last_mut().expect("it has some");
    last.state = MemberState::Syncing;
    table
}

#[test]
fn member_takes_no_refusal_from_one_that_is_syncing_and_reports_it() {
    let mut head = head_that_has_passed_on(&[1, 2]);
    step(&mut head, Input::Table(with_syncing(2, &[1, 3])));
    let refused = step(&mut head, answered(2, Err(Status::NoSpace)));
    assert_eq!(refused, Vec::<String>::new(), "others may have shown it");
    let reported = step(&mut head, Input::Tick);
    assert!(
        reported[0].contains("suspect: v3"),
        "it lacks room: {reported:?}"
    );
}

#[test]
fn member_gives_a_successor_that_serves_by_now_no_chunk_that_it_lacked_while_syncing() {
    let mut head = head_that_has_passed_on(&[1, 2]);
    step(&mut head, Input::Table(with_syncing(2, &[1, 3])));
    let given = step(&mut head, answered(2, Err(Status::NotInSync)));
    assert!(given[0].contains("lacks_chunk: true"), "{given:?}");
    let passed = step(&mut head, Input::Table(table(3, &[1, 3])));
    assert_eq!(passed, [forward(3, 3)]);
}

#[test]
fn member_that_comes_back_as_syncing_drops_what_it_had_passed_on() {
    let mut head = head_that_has_passed_on(&[1, 2]);
    let back = step(&mut head, Input::Table(with_syncing(3, &[2, 1])));
    let stale = Status::StaleEpoch(Epoch(3));
    assert_eq!(back, ["discard 1".to_owned(), format!("answer 10 {stale}")]);
    assert!(head.is_idle());
}

#[test]
fn member_whose_copy_is_not_the_chains_leaves_it_until_it_is_given_another() {
    let mut tail = member(1, &[2, 1]);
    let forward = |epoch: u64, caller| Input::Forward {
        order: Order {
            chain: CHAIN,
            chunk: CHUNK,
            op: op(1, 1),
            body: "a",
        },
        epoch: Epoch(epoch),
        base: version(1, 1),
        version: version(1, 2),
        caller,
    };
    assert_eq!(step(&mut tail, forward(1, 20)), ["execute a"]);
    let diverged = Input::Executed {
        op: op(1, 1),
        outcome: Err(Failure::Diverged),
    };
    let left = step(&mut tail, diverged);
    let refused = format!("answer 20 {}", Status::NotServing);
    assert!(left.contains(&refused) && left.iter().any(|of| of.starts_with("Left")));
    let reading = tail.reading(0, CHAIN, Epoch(1), CHUNK);
    assert_eq!(reading, Err(Status::NotServing));
    step(&mut tail, Input::Table(table(2, &[3, 1])));
    let again = step(&mut tail, forward(2, 21));
    assert_eq!(again, [format!("answer 21 {}", Status::NotServing)]);
    step(&mut tail, Input::Table(with_syncing(3, &[3, 1])));
    assert_eq!(step(&mut tail, forward(3, 22)), ["execute a"]);
}

/// Its thread stood still between the store and the core.
#[test]
fn member_that_comes_back_as_syncing_goes_on_with_nothing_that_the_store_was_asked_before() {
    let mut head = member(1, &[1, 2]);
    step(&mut head, request(op(1, 1), "a", 1, 10));
    step(&mut head, Input::Table(with_syncing(3, &[2, 1])));
    step(&mut head, Input::Table(table(4, &[2, 1])));
    step(&mut head, Input::Table(table(5, &[1])));
    let prepared = Input::Prepared {
        op: op(1, 1),
        outcome: Ok(Prepared::Ready {
            base: version(0, 0),
            version: version(1, 1),
        }),
    };
    let stale = Status::StaleEpoch(Epoch(5));
    let ended = step(&mut head, prepared);
    assert_eq!(
        ended,
        ["discard 1".to_owned(), format!("answer 10 {stale}")]
    );

    let mut alone = member(1, &[1]);
    step(&mut alone, request(op(1, 1), "a", 1, 10));
    step(&mut alone, Input::Table(with_syncing(3, &[2, 1])));
    let ended = step(&mut alone, executed(op(1, 1), 1));
    let stale = Status::StaleEpoch(Epoch(3));
    assert_eq!(ended, [format!("answer 10 {stale}")], "no record of it");
}

#[test]
fn member_that_is_taught_forgets_what_its_chain_never_had() {
    let mut member = member(1, &[1]);
    let (gone, late) = (op(1, 2), op(1, 1));
    step(&mut member, request(gone, "a", 1, 7));
    step(&mut member, executed(gone, 1));
    step(&mut member, Input::Recorded { op: gone });
    step(&mut member, Input::Table(with_syncing(3, &[2, 1])));
    let lesson = Input::Taught {
        chain: CHAIN,
        epoch: Epoch(3),
        replies: vec![(op(2, 1), Ok(version(2, 1)))],
    };
    let taught = step(&mut member, lesson);
    assert!(taught[0].contains("ForgetReply") && taught[1].contains("Remember {"));
    assert_eq!(member.replies_of(CHAIN), [(op(2, 1), Ok(version(2, 1)))]);
    step(&mut member, Input::Table(table(4, &[1])));
    let again = step(&mut member, request(late, "b", 4, 8));
    assert_eq!(again, [format!("answer 8 {}", Status::StaleRequest)]);
    assert_eq!(step(&mut member, request(gone, "a", 4, 9)), ["execute a"]);
}

#[test]
fn member_that_is_taught_keeps_what_came_in_this_epoch_with_a_version_of_an_earlier_one() {
    let mut member = member(3, &[2]);
    step(&mut member, Input::Table(with_syncing(4, &[2, 1])));
    let early = op(1, 1);
    let order = Order {
        chain: CHAIN,
        chunk: CHUNK,
        op: early,
        body: "a",
    };
    let passed_on = Input::Forward {
        order,
        epoch: Epoch(4),
        base: Version::default(),
        version: version(2, 1),
        caller: 7,
    };
    step(&mut member, passed_on);
    let applied = Input::Executed {
        op: early,
        outcome: Ok(version(2, 1)),
    };
    step(&mut member, applied);
    step(&mut member, Input::Recorded { op: early });
    let lesson = Input::Taught {
        chain: CHAIN,
        epoch: Epoch(4),
        replies: Vec::new(),
    };
    assert_eq!(step(&mut member, lesson), Vec::<String>::new());
    assert_eq!(member.replies_of(CHAIN), [(early, Ok(version(2, 1)))]);
}
