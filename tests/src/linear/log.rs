//! Appends, reads and sizes of the log. The order of its records is in the file, so that each call has
//! its place, and only whether places agree with times is left to see.

use std::collections::HashMap;

use super::check::Fault;
use super::history::{Answer, Call, Record, Value};

/// Where a call stands among the records: an append of the n-th record is before a look at n records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    records: u64,
    is_look: bool,
}

#[derive(Clone, Copy, Debug)]
struct Step<'a> {
    place: Place,
    record: &'a Record,
}

pub(super) fn check_log(records: &[Record]) -> Result<(), Fault> {
    let content = content(records)?;
    let mut numbers = HashMap::new();
    for (number, value) in (1..).zip(&content) {
        if numbers.insert(*value, number).is_some() {
            return Err(Fault::Twice(*value));
        }
    }
    check_makers(records, &numbers)?;
    let steps: Vec<Step> = records
        .iter()
        .filter_map(|record| step(record, &numbers))
        .collect();
    check_times(steps)
}

/// All records, in their order. What anybody has read is how it begins.
fn content(records: &[Record]) -> Result<Vec<Value>, Fault> {
    let reads = records.iter().filter_map(read_of);
    let longest = reads.max_by_key(|(_, values)| values.len());
    let longest = longest
        .map(|(_, values)| values.to_vec())
        .unwrap_or_default();
    for (record, values) in records.iter().filter_map(read_of) {
        if !longest.starts_with(values) {
            return Err(Fault::Rewritten(record.clone()));
        }
    }
    Ok(longest)
}

fn read_of(record: &Record) -> Option<(&Record, &[Value])> {
    match (&record.call, record.answer()) {
        (Call::ReadLog, Some(Answer::Values(values))) => Some((record, values)),
        _ => None,
    }
}

/// Each record was appended by somebody, and what was acknowledged is there.
fn check_makers(records: &[Record], numbers: &HashMap<Value, u64>) -> Result<(), Fault> {
    let mut unknown = numbers.clone();
    for record in records {
        if let Call::Append { value } = record.call {
            unknown.remove(&value);
            if record.returned().is_some() && !numbers.contains_key(&value) {
                return Err(Fault::Missing(record.clone()));
            }
        }
    }
    match unknown.into_keys().min() {
        Some(value) => Err(Fault::OfNobody(value)),
        None => Ok(()),
    }
}

fn step<'a>(record: &'a Record, numbers: &HashMap<Value, u64>) -> Option<Step<'a>> {
    let place = |records, is_look| Place { records, is_look };
    let place = match (&record.call, record.answer()) {
        (Call::Append { value }, _) => place(*numbers.get(value)?, false),
        (Call::ReadLog, Some(Answer::Values(values))) => place(values.len() as u64, true),
        (Call::SizeLog, Some(Answer::Count(count))) => place(*count, true),
        _ => return None,
    };
    Some(Step { place, record })
}

/// Who begins after another one has returned is not before it.
fn check_times(mut steps: Vec<Step>) -> Result<(), Fault> {
    let mut returns: Vec<Step> = steps.clone();
    returns.retain(|step| step.record.returned().is_some());
    returns.sort_by_key(|step| step.record.returned());
    steps.sort_by_key(|step| step.record.begun);
    let mut returns = returns.into_iter().peekable();
    let mut latest: Option<Step> = None;
    for step in steps {
        let is_before = |before: &Step| before.record.returned() < Some(step.record.begun);
        while let Some(before) = returns.next_if(is_before) {
            if latest.is_none_or(|latest| latest.place < before.place) {
                latest = Some(before);
            }
        }
        if let Some(before) = latest.filter(|latest| latest.place > step.place) {
            let (before, after) = (before.record.clone(), step.record.clone());
            return Err(Fault::BackInTime(Box::new([before, after])));
        }
    }
    Ok(())
}
