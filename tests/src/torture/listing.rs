//! Listings: what was there throughout is listed once, what was not there throughout is not.

use serde::{Deserialize, Serialize};

use super::history::{Answer, Call, Name, Node, Place, Record, Round};

/// A name that was listed too often or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListingFault {
    /// Index of the listing in its round.
    pub index: usize,
    pub name: Name,
    pub listed: usize,
    pub was_there: bool,
}

/// What a call leaves of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    There,
    Gone,
    /// A rename may have found both names to be of one inode.
    Unknown,
}

/// Checks every listing of a round, as far as calls at the same time leave anything certain.
pub fn check_listings(round: &Round) -> Result<(), ListingFault> {
    for (index, listing) in round.records.iter().enumerate() {
        if let (Call::List { directory }, Answer::Names(names)) = (listing.call, &listing.answer) {
            check_listing(round, (index, listing), directory, names)?;
        }
    }
    Ok(())
}

fn check_listing(
    round: &Round,
    (index, listing): (usize, &Record),
    directory: Node,
    names: &[Name],
) -> Result<(), ListingFault> {
    for name in Name::all() {
        let at = Place { directory, name };
        let Some(was_there) = was_there_throughout(round, listing, at) else {
            continue;
        };
        let listed = names.iter().filter(|listed| **listed == name).count();
        if listed != usize::from(was_there) {
            return Err(ListingFault {
                index,
                name,
                listed,
                was_there,
            });
        }
    }
    Ok(())
}

/// `None` if that cannot be said.
fn was_there_throughout(round: &Round, listing: &Record, at: Place) -> Option<bool> {
    let effects = || {
        let records = round.records.iter();
        records.filter_map(|record| effect(record, at).map(|effect| (record, effect)))
    };
    if effects().any(|(record, _)| record.overlaps(listing)) {
        return None;
    }
    let earlier = || effects().filter(|(record, _)| record.returned <= listing.begun);
    let Some((last, effect)) = earlier().max_by_key(|(record, _)| record.returned) else {
        return Some(round.before.find(at).is_some());
    };
    let overlapping = earlier()
        .filter(|(record, _)| record.overlaps(last))
        .count();
    // The last one overlaps itself.
    match effect {
        Effect::There if overlapping == 1 => Some(true),
        Effect::Gone if overlapping == 1 => Some(false),
        _ => None,
    }
}

/// `None` if the call leaves the name alone.
fn effect(record: &Record, at: Place) -> Option<Effect> {
    if matches!(record.answer, Answer::Failed(_)) {
        return None;
    }
    match record.call {
        Call::Create { at: made, .. }
        | Call::Mkdir { at: made }
        | Call::Symlink { at: made, .. } => (made == at).then_some(Effect::There),
        Call::Link { to, .. } => (to == at).then_some(Effect::There),
        Call::Rename { to, .. } if to == at => Some(Effect::There),
        Call::Rename { from, .. } => (from == at).then_some(Effect::Unknown),
        Call::Unlink { at: gone } | Call::Rmdir { at: gone } => {
            (gone == at).then_some(Effect::Gone)
        }
        Call::Open { .. } | Call::Stat { .. } | Call::ReadLink { .. } | Call::List { .. } => None,
    }
}
