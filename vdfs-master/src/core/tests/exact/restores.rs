//! Every way to a state gives the same bytes: replay of the whole log, and at any point an image
//! with the rest of the log behind it.

use std::collections::BTreeMap;

use crate::core::Core;

/// Points of the log at which an image is made.
const POINTS: usize = 3;

pub(super) fn replayed(records: &[Vec<u8>]) -> Core {
    let mut core = Core::from_first_record(&records[0]).expect("a format record");
    replay(&mut core, &records[1..]);
    core
}

fn replay(core: &mut Core, records: &[Vec<u8>]) {
    for record in records {
        core.replay(record).expect("a good record");
    }
}

/// The bytes of an image, section by section; where a section is cut into blocks does not count.
fn image_bytes(core: &Core) -> BTreeMap<&'static str, Vec<u8>> {
    let mut sections: BTreeMap<&'static str, Vec<u8>> = BTreeMap::new();
    for (name, bytes) in core.image().sections() {
        sections.entry(name).or_default().extend(bytes);
    }
    sections
}

fn through_image(core: &Core) -> Core {
    let sections = core.image().sections();
    let sections = sections.map(|(name, bytes)| (name.to_owned(), bytes));
    Core::from_image(sections).expect("a whole image")
}

pub(super) fn assert_same(found: &Core, expected: &Core, what: &str) {
    let (found_dump, expected_dump) = (found.dump(), expected.dump());
    assert!(
        found_dump == expected_dump,
        "{what} gives another state:\n{}",
        first_difference(&found_dump, &expected_dump)
    );
    assert!(image_bytes(found) == image_bytes(expected), "{what}: image");
}

fn first_difference(found: &str, expected: &str) -> String {
    let same = found
        .bytes()
        .zip(expected.bytes())
        .take_while(|(a, b)| a == b);
    let at = same.count().saturating_sub(60);
    let part = |text: &str| text.chars().skip(at).take(240).collect::<String>();
    format!("found    ..{}\nexpected ..{}", part(found), part(expected))
}

/// `core` is what `records` give.
pub(super) fn check(core: &Core, records: &[Vec<u8>]) {
    assert_eq!(core.records(), records.len() as u64, "records are counted");
    assert_same(&replayed(records), core, "replay");
    for point in 0..POINTS {
        // Spread, and different for logs of different lengths.
        let at = 1 + (records.len() * 31 + point * 7919) % records.len();
        let at = at.min(records.len());
        let before = replayed(&records[..at]);
        let mut restored = through_image(&before);
        assert_same(&restored, &before, "an image");
        replay(&mut restored, &records[at..]);
        restored.check();
        assert_same(&restored, core, "an image and the log behind it");
    }
}
