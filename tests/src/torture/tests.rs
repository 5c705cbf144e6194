//! Histories that are possible, and broken ones that must not be taken for it.

use super::history::{Answer, Call, Name, Node, Place, Record, Round};
use super::listing::check_listings;
use super::rounds::{Fault, check};
use super::search::{Verdict, search};
use super::tree::{Inode, Tree};

const ROOT: Node = Node(1);
const FILE: Node = Node(10);
const OTHER: Node = Node(11);
const LEFT: Node = Node(20);
const RIGHT: Node = Node(21);

fn at(directory: Node, name: u8) -> Place {
    Place {
        directory,
        name: Name(name),
    }
}

fn directory(parent: Node) -> Inode {
    Inode::Directory {
        parent,
        entries: Default::default(),
        is_removed: false,
    }
}

/// `a` is a file, `b` and `c` are empty directories.
fn tree() -> Tree {
    let mut tree = Tree::new(ROOT);
    tree.add(at(ROOT, 0), FILE, Inode::File { links: 1 });
    tree.add(at(ROOT, 1), LEFT, directory(ROOT));
    tree.add(at(ROOT, 2), RIGHT, directory(ROOT));
    tree
}

fn record(times: (u64, u64), call: Call, answer: Answer) -> Record {
    Record {
        worker: 0,
        call,
        begun: times.0,
        returned: times.1,
        answer,
    }
}

/// The round ends with the tree that `change` makes.
fn round(records: Vec<Record>, change: impl FnOnce(&mut Tree)) -> Round {
    let mut after = tree();
    change(&mut after);
    Round {
        mounts: 1,
        before: tree(),
        records,
        after,
    }
}

fn unlink(at: Place) -> Call {
    Call::Unlink { at }
}

fn rename(from: Place, to: Place) -> Call {
    Call::Rename {
        from,
        to,
        no_replace: false,
    }
}

fn create(at: Place) -> Call {
    Call::Create {
        at,
        exclusive: true,
    }
}

fn stat(at: Place) -> Call {
    Call::Stat { at }
}

fn file(node: Node) -> Answer {
    Answer::File { node, bytes: 8 }
}

fn file_stat(node: Node, links: u64) -> Answer {
    Answer::FileStat { node, links }
}

fn is_possible(round: &Round) -> bool {
    matches!(search(round), Verdict::Explained(_))
}

#[test]
fn search_finds_the_order_of_calls_at_the_same_time() {
    let records = vec![
        record((0, 10), create(at(ROOT, 0)), Answer::Failed(libc::EEXIST)),
        record((0, 10), unlink(at(ROOT, 0)), Answer::Done),
        record((0, 10), create(at(ROOT, 0)), file(OTHER)),
        record((0, 10), stat(at(ROOT, 0)), file_stat(FILE, 0)),
        record((0, 10), stat(at(ROOT, 0)), Answer::Failed(libc::ENOENT)),
    ];
    let possible = round(records, |tree| {
        tree.unlink(at(ROOT, 0)).expect("it is there");
        tree.add(at(ROOT, 0), OTHER, Inode::File { links: 1 });
    });
    assert!(is_possible(&possible));
}

#[test]
fn search_rejects_a_name_that_was_made_twice() {
    let other = at(LEFT, 0);
    let records = vec![
        record((0, 10), create(other), file(OTHER)),
        record((5, 15), create(other), file(Node(12))),
    ];
    let broken = round(records, |tree| {
        tree.add(other, OTHER, Inode::File { links: 1 })
    });
    assert_eq!(search(&broken), Verdict::Impossible);
}

#[test]
fn search_rejects_a_name_that_was_removed_twice() {
    let records = vec![
        record((0, 10), unlink(at(ROOT, 0)), Answer::Done),
        record((0, 10), unlink(at(ROOT, 0)), Answer::Done),
    ];
    let broken = round(records, |tree| {
        tree.unlink(at(ROOT, 0)).expect("it is there")
    });
    assert_eq!(search(&broken), Verdict::Impossible);
}

#[test]
fn search_rejects_an_old_name_seen_after_its_removal() {
    let removed = |tree: &mut Tree| tree.unlink(at(ROOT, 0)).expect("it is there");
    let records = |begun| {
        vec![
            record((0, 10), unlink(at(ROOT, 0)), Answer::Done),
            record((begun, 20), stat(at(ROOT, 0)), file_stat(FILE, 1)),
        ]
    };
    assert!(is_possible(&round(records(9), removed)));
    assert_eq!(search(&round(records(11), removed)), Verdict::Impossible);
}

#[test]
fn search_rejects_a_name_that_is_missing_while_it_is_replaced() {
    let (from, to) = (at(LEFT, 0), at(ROOT, 0));
    let mut before = tree();
    before.add(from, OTHER, Inode::File { links: 1 });
    let mut after = before.clone();
    after.rename(from, to, false).expect("it can be renamed");
    let records = vec![
        record((0, 10), rename(from, to), Answer::Done),
        record((0, 10), stat(to), Answer::Failed(libc::ENOENT)),
    ];
    let mut broken = Round {
        mounts: 1,
        before,
        records,
        after,
    };
    assert_eq!(search(&broken), Verdict::Impossible);
    broken.records[1].answer = file_stat(OTHER, 1);
    assert!(is_possible(&broken));
}

#[test]
fn search_rejects_directories_that_were_moved_into_each_other() {
    let records = vec![
        record((0, 10), rename(at(ROOT, 1), at(RIGHT, 0)), Answer::Done),
        record((0, 10), rename(at(ROOT, 2), at(LEFT, 0)), Answer::Done),
    ];
    let mut broken = round(records, |tree| {
        let moved = tree.rename(at(ROOT, 1), at(RIGHT, 0), false);
        moved.expect("the first can be moved");
    });
    assert_eq!(search(&broken), Verdict::Impossible);
    broken.records[1].answer = Answer::Failed(libc::EINVAL);
    assert!(is_possible(&broken));
}

#[test]
fn search_rejects_the_removal_of_a_directory_that_is_not_empty() {
    let records = vec![
        record((0, 10), create(at(LEFT, 0)), file(OTHER)),
        record((11, 20), Call::Rmdir { at: at(ROOT, 1) }, Answer::Done),
    ];
    let broken = round(records, |tree| {
        tree.rmdir(at(ROOT, 1)).expect("it is empty")
    });
    assert_eq!(search(&broken), Verdict::Impossible);
}

#[test]
fn search_rejects_a_file_made_in_a_removed_directory() {
    let rmdir = Call::Rmdir { at: at(ROOT, 1) };
    let records = |answer| {
        vec![
            record((0, 10), rmdir, Answer::Done),
            record((11, 20), create(at(LEFT, 0)), answer),
        ]
    };
    let removed = |tree: &mut Tree| tree.rmdir(at(ROOT, 1)).expect("it is empty");
    let broken = round(records(file(OTHER)), removed);
    assert_eq!(search(&broken), Verdict::Impossible);
    let possible = round(records(Answer::Failed(libc::ENOENT)), removed);
    assert!(is_possible(&possible));
}

#[test]
fn search_rejects_a_wrong_number_of_links() {
    let link = Call::Link {
        from: at(ROOT, 0),
        to: at(LEFT, 0),
    };
    let linked = |tree: &mut Tree| tree.link(FILE, at(LEFT, 0)).expect("it is free");
    let records = |links| {
        vec![
            record((0, 10), link, Answer::Done),
            record((11, 20), stat(at(ROOT, 0)), file_stat(FILE, links)),
        ]
    };
    assert!(is_possible(&round(records(2), linked)));
    assert_eq!(search(&round(records(1), linked)), Verdict::Impossible);
}

#[test]
fn search_rejects_an_end_that_the_calls_do_not_lead_to() {
    let records = vec![record((0, 10), unlink(at(ROOT, 0)), Answer::Done)];
    assert_eq!(search(&round(records, |_| {})), Verdict::Impossible);
}

#[test]
fn link_that_lost_its_inode_on_the_way_may_fail() {
    let link = Call::Link {
        from: at(ROOT, 0),
        to: at(LEFT, 0),
    };
    // The old name is there again, with another inode, before the call returns.
    let records = vec![
        record((0, 30), link, Answer::Failed(libc::ENOENT)),
        record((5, 10), unlink(at(ROOT, 0)), Answer::Done),
        record((15, 20), create(at(ROOT, 0)), file(OTHER)),
    ];
    let possible = round(records, |tree| {
        tree.unlink(at(ROOT, 0)).expect("it is there");
        tree.add(at(ROOT, 0), OTHER, Inode::File { links: 1 });
    });
    assert!(is_possible(&possible));
}

#[test]
fn listing_must_have_what_is_there_throughout() {
    let list = Call::List { directory: ROOT };
    let names = |names: &[u8]| Answer::Names(names.iter().copied().map(Name).collect());
    let listed = |answer| round(vec![record((5, 10), list, answer)], |_| {});
    assert_eq!(check_listings(&listed(names(&[2, 0, 1]))), Ok(()));
    assert!(
        check_listings(&listed(names(&[0, 1]))).is_err(),
        "one is missing"
    );
    assert!(
        check_listings(&listed(names(&[0, 1, 2, 2]))).is_err(),
        "one is there twice"
    );
}

#[test]
fn listing_may_or_may_not_have_what_changes_meanwhile() {
    let list = Call::List { directory: ROOT };
    let names = |names: &[u8]| Answer::Names(names.iter().copied().map(Name).collect());
    let listed = |times, answer| {
        let records = vec![
            record((0, 10), unlink(at(ROOT, 0)), Answer::Done),
            record(times, list, answer),
        ];
        round(records, |tree| {
            tree.unlink(at(ROOT, 0)).expect("it is there")
        })
    };
    assert_eq!(check_listings(&listed((5, 20), names(&[0, 1, 2]))), Ok(()));
    assert_eq!(check_listings(&listed((5, 20), names(&[1, 2]))), Ok(()));
    assert!(check_listings(&listed((15, 20), names(&[0, 1, 2]))).is_err());
}

#[test]
fn check_rejects_errors_and_contents_that_cannot_be() {
    let stale = record((0, 10), stat(at(ROOT, 0)), Answer::Failed(libc::ESTALE));
    let found = check(&round(vec![stale], |_| {}));
    assert!(
        matches!(found, Err(Fault::Error(libc::ESTALE))),
        "{found:?}"
    );
    let open = Call::Open { at: at(ROOT, 0) };
    let empty = Answer::File {
        node: FILE,
        bytes: 0,
    };
    let found = check(&round(vec![record((0, 10), open, empty)], |_| {}));
    assert!(matches!(found, Err(Fault::Contents(FILE))), "{found:?}");
}
