//! Histories that are possible, and broken ones that must not be taken for it.

use std::path::Path;

use super::check::{Fault, check};
use super::history::{Answer, Call, End, History, Record, Register, Value};

const ONE: Register = Register(7);
const OTHER: Register = Register(8);

fn record(times: (u64, u64), call: Call, answer: Answer) -> Record {
    Record {
        client: 0,
        mount: 0,
        call,
        begun: times.0,
        ended: Some(End {
            at: times.1,
            answer,
        }),
    }
}

fn write(begun: u64, at: u64, value: u64) -> Record {
    let call = Call::Write {
        registers: vec![ONE],
        value: Value(value),
    };
    record((begun, at), call, Answer::Done)
}

fn read(begun: u64, at: u64, value: u64) -> Record {
    let registers = vec![ONE];
    let values = Answer::Values(vec![Value(value)]);
    record((begun, at), Call::Read { registers }, values)
}

fn append(begun: u64, at: u64, value: u64) -> Record {
    let value = Value(value);
    record((begun, at), Call::Append { value }, Answer::Done)
}

fn read_log(begun: u64, at: u64, values: &[u64]) -> Record {
    let values = values.iter().copied().map(Value).collect();
    record((begun, at), Call::ReadLog, Answer::Values(values))
}

fn size_log(begun: u64, at: u64, count: u64) -> Record {
    record((begun, at), Call::SizeLog, Answer::Count(count))
}

fn failed(mut record: Record) -> Record {
    let end = record.ended.as_mut().expect("it has ended");
    end.answer = Answer::Failed(libc::EIO);
    record
}

fn died(mut record: Record) -> Record {
    record.ended = None;
    record
}

fn verdict(records: &[Record]) -> Result<(), Fault> {
    let records = records.to_vec();
    let summary = check(&History { records })?;
    assert_eq!(summary.undecided, 0);
    Ok(())
}

fn kept(name: &str) -> History {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("histories");
    History::load(&dir.join(name)).expect("it is kept")
}

/// Where it gets impossible.
fn last_of(fault: &Fault) -> &Record {
    let Fault::Register(_, records) = fault else {
        panic!("{fault}");
    };
    let returned = records.iter().filter(|record| record.returned().is_some());
    returned
        .max_by_key(|record| record.begun)
        .expect("one returned")
}

#[test]
fn stale_read_that_was_kept_is_rejected() {
    let fault = check(&kept("stale-read.json")).expect_err("stale");
    assert_eq!(last_of(&fault).begun, 60);
}

#[test]
fn lost_write_that_was_kept_is_rejected() {
    let fault = check(&kept("lost-write.json")).expect_err("lost");
    assert_eq!(last_of(&fault).begun, 100);
}

#[test]
fn value_taken_back_that_was_kept_is_rejected() {
    let fault = check(&kept("value-taken-back.json")).expect_err("taken back");
    assert_eq!(last_of(&fault).begun, 60);
}

#[test]
fn calls_that_overlap_may_take_place_in_any_order() {
    let writes = [write(0, 100, 1), write(0, 100, 2), write(50, 100, 3)];
    for order in [[1, 2, 3], [2, 1, 3], [2, 3, 1], [1, 3, 2]] {
        let reads = [51, 61, 71].into_iter().zip(order);
        let reads = reads.map(|(begun, value)| read(begun, begun + 9, value));
        let records: Vec<Record> = writes.iter().cloned().chain(reads).collect();
        assert_eq!(verdict(&records), Ok(()), "{order:?}");
    }
    let twice = [read(51, 52, 1), read(53, 54, 2), read(55, 56, 1)];
    let records: Vec<Record> = writes.iter().cloned().chain(twice).collect();
    assert!(verdict(&records).is_err(), "a value comes once");
}

#[test]
fn register_begins_with_zeros_and_never_goes_back_to_them() {
    assert_eq!(
        verdict(&[read(0, 9, 0), write(5, 20, 1), read(8, 12, 0)]),
        Ok(())
    );
    assert!(verdict(&[write(0, 9, 1), read(10, 12, 0)]).is_err());
}

#[test]
fn value_that_nobody_wrote_is_rejected() {
    assert!(verdict(&[write(0, 9, 1), read(2, 12, 7)]).is_err());
}

#[test]
fn value_is_not_read_before_its_write_begins() {
    assert!(verdict(&[read(0, 9, 1), write(10, 12, 1)]).is_err());
}

#[test]
fn write_that_failed_takes_place_late_or_never_but_once() {
    for lost in [failed(write(10, 20, 2)), died(write(10, 20, 2))] {
        let begin = [write(0, 9, 1), lost];
        let with = |reads: &[Record]| verdict(&[&begin[..], reads].concat());
        assert_eq!(with(&[read(30, 40, 1), read(50, 60, 1)]), Ok(()));
        assert_eq!(with(&[read(30, 40, 1), read(50, 60, 2)]), Ok(()));
        assert!(with(&[read(30, 40, 2), read(50, 60, 1)]).is_err());
        assert!(with(&[read(3, 6, 2)]).is_err(), "not before its begin");
        let overwritten = [read(30, 40, 2), write(50, 60, 3), read(70, 80, 2)];
        assert!(with(&overwritten).is_err(), "not twice");
    }
}

#[test]
fn registers_of_one_call_are_checked_by_themselves() {
    let both = |begun, at, call: fn(Vec<Register>) -> Call, answer| {
        record((begun, at), call(vec![ONE, OTHER]), answer)
    };
    let values = |values: [u64; 2]| Answer::Values(values.map(Value).to_vec());
    let written = both(
        0,
        50,
        |registers| Call::Write {
            registers,
            value: Value(1),
        },
        Answer::Done,
    );
    let reading = |begun, found| {
        both(
            begun,
            begun + 9,
            |registers| Call::Read { registers },
            values(found),
        )
    };
    assert_eq!(verdict(&[written.clone(), reading(10, [1, 0])]), Ok(()));
    assert!(verdict(&[written, reading(60, [1, 0])]).is_err());
}

#[test]
fn torn_block_is_rejected() {
    let mut torn = read(0, 9, 0);
    torn.ended.as_mut().expect("it has ended").answer = Answer::Torn("half".into());
    assert_eq!(verdict(&[torn.clone()]), Err(Fault::Torn(torn)));
}

#[test]
fn log_in_the_order_of_time_is_accepted() {
    let records = [
        append(0, 10, 1),
        append(5, 30, 3),
        append(6, 20, 2),
        failed(append(15, 40, 9)),
        read_log(12, 22, &[1, 2]),
        size_log(12, 22, 1),
        size_log(24, 26, 2),
        read_log(60, 70, &[1, 2, 3]),
    ];
    assert_eq!(verdict(&records), Ok(()));
    let mut shown = records.to_vec();
    shown.push(read_log(80, 90, &[1, 2, 3, 9]));
    assert_eq!(verdict(&shown), Ok(()), "a failed one may show later");
}

#[test]
fn size_that_counts_what_is_under_way_holds_for_all_mounts() {
    let mut elsewhere = size_log(24, 25, 0);
    elsewhere.mount = 1;
    let begin = [append(10, 50, 1), size_log(20, 22, 1)];
    let with = |after: Record| verdict(&[&begin[..], &[after, read_log(60, 70, &[1])]].concat());
    assert!(matches!(with(elsewhere), Err(Fault::BackInTime(_))));
    assert!(matches!(
        with(size_log(24, 25, 0)),
        Err(Fault::BackInTime(_))
    ));
}

#[test]
fn log_that_shows_what_one_file_cannot_is_rejected() {
    let appends = [append(0, 10, 1), append(20, 30, 2)];
    let with = |records: &[Record]| verdict(&[&appends[..], records].concat()).unwrap_err();
    assert_eq!(
        with(&[read_log(40, 50, &[1])]),
        Fault::Missing(append(20, 30, 2))
    );
    assert_eq!(
        with(&[read_log(40, 50, &[1, 2, 2])]),
        Fault::Twice(Value(2))
    );
    assert_eq!(
        with(&[read_log(40, 50, &[1, 2, 7])]),
        Fault::OfNobody(Value(7))
    );
    let late = read_log(40, 50, &[1, 2]);
    let swapped = read_log(40, 50, &[2, 1]);
    assert!(matches!(with(&[swapped]), Fault::BackInTime(_)));
    assert!(matches!(
        with(&[late.clone(), read_log(22, 25, &[2])]),
        Fault::Rewritten(_)
    ));
    assert!(matches!(
        with(&[late.clone(), size_log(35, 38, 1)]),
        Fault::BackInTime(_)
    ));
    assert!(matches!(
        with(&[late.clone(), size_log(12, 18, 2)]),
        Fault::BackInTime(_)
    ));
    let growing = [size_log(22, 24, 2), size_log(25, 28, 1), late];
    assert!(matches!(with(&growing), Fault::BackInTime(_)));
}
