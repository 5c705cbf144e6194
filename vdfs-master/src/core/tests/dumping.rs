//! A state with some of everything, and states with flaws in them.

use std::sync::Arc;

use vdfs_proto::meta::{NewKind, SetXattr, XattrMode};
use vdfs_proto::{
    DataId, Ino, MemberState, SessionId, StoreId, SymlinkTarget, VolumeId, XattrName,
};

use super::copies::ask_for_copies;
use super::world::{WRITE, World, create_in, name, registration};
use crate::core::Core;
use crate::core::directory::NameHash;
use crate::core::state::State;

const MIB: u64 = 1 << 20;

/// Files with bytes and without, one with two names, one that waits to be cut, one without a name that
/// is open, one being written; a removed one that a volume has still to drop; every other kind of
/// inode, free slots, attributes, and names that are not text.
pub(crate) fn a_bit_of_everything() -> Core {
    let mut world = World::new();
    world.register("n", registration(1, 1));
    let session = world.open_session("a");
    for (text, kind) in [
        ("directory", NewKind::Directory),
        ("fifo", NewKind::Fifo),
        ("socket", NewKind::Socket),
        ("tty", NewKind::CharDevice { rdev: 0x0501 }),
        ("disk", NewKind::BlockDevice { rdev: 0x0801 }),
        ("link", NewKind::Symlink(target(b"to \xff and 100%"))),
        ("quoted \" \\ \u{e9}\n", NewKind::Regular),
    ] {
        world.create(session, create_in(Ino::ROOT, text, kind));
    }
    let directory = world.lookup(session, "directory").expect("there").ino;
    ask_for_copies(&mut world, session, directory, "3").expect("sets");
    let below = world.create(session, create_in(directory, "below", NewKind::Regular));
    let ino = below.attr.ino;
    let link = vdfs_proto::meta::Link {
        ino,
        parent: Ino::ROOT,
        name: name("second"),
    };
    world.mutate(session, link).expect("links");
    set_xattr(&mut world, session, ino);
    let cut = world.create_file(session, "cut");
    world.open(session, cut, 1, WRITE);
    world.commit(session, cut, MIB).expect("commits");
    world.send_truncate(session, cut, MIB / 2 + 5);
    let open = world.create_file(session, "open");
    world.open(session, open, 2, WRITE);
    for gone in ["gone", "gone too"] {
        world.create_file(session, gone);
        world.unlink(session, gone).expect("unlinks");
    }
    world.unlink(session, "open").expect("unlinks");
    std::sync::Arc::make_mut(&mut world.core.state.removed).push(StoreId(7));
    world.core
}

fn target(bytes: &[u8]) -> SymlinkTarget {
    SymlinkTarget::new(bytes).expect("a good target")
}

fn set_xattr(world: &mut World, session: SessionId, ino: Ino) {
    for (name, value) in [("user.a", &b"\0\x80%z"[..]), ("user.b", b"")] {
        let set = SetXattr {
            ino,
            name: XattrName::new(name.as_bytes()).expect("a good name"),
            value: value.to_vec(),
            mode: XattrMode::Create,
        };
        world.mutate(session, set).expect("sets");
    }
}

pub(crate) fn dump_of(core: &Core) -> Vec<u8> {
    let mut text = Vec::new();
    let dumped = core.image().dump(&mut text, &mut |_| {});
    dumped.expect("memory has room");
    text
}

/// What can be wrong with a state.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flaw {
    LinkCount,
    NameWithoutInode,
    NameAtOtherHash,
    LostInode,
    OrphanWithName,
    SubdirectoryCount,
    Cycle,
    DataTwice,
    DataNeverGivenOut,
    DataToBeDropped,
    FreeList,
    AttributesOfNothing,
    WriterWithoutSession,
    MemberTwice,
    MembersAtOdds,
    Weights,
}

impl Flaw {
    pub(crate) const ALL: [Flaw; 16] = [
        Flaw::LinkCount,
        Flaw::NameWithoutInode,
        Flaw::NameAtOtherHash,
        Flaw::LostInode,
        Flaw::OrphanWithName,
        Flaw::SubdirectoryCount,
        Flaw::Cycle,
        Flaw::DataTwice,
        Flaw::DataNeverGivenOut,
        Flaw::DataToBeDropped,
        Flaw::FreeList,
        Flaw::AttributesOfNothing,
        Flaw::WriterWithoutSession,
        Flaw::MemberTwice,
        Flaw::MembersAtOdds,
        Flaw::Weights,
    ];

    /// Puts it into the state that [`a_bit_of_everything`] makes; gives a word that must be said of it.
    pub(crate) fn plant(self, core: &mut Core) -> &'static str {
        let state = &mut core.state;
        let find = |text: &str| {
            let found = state.find(Ino::ROOT, &name(text));
            let ino = found.expect("the root is a directory");
            ino.expect("it is there")
        };
        let (cut, second) = (find("cut"), find("second"));
        match self {
            Flaw::LinkCount
            | Flaw::NameWithoutInode
            | Flaw::NameAtOtherHash
            | Flaw::LostInode
            | Flaw::OrphanWithName
            | Flaw::SubdirectoryCount
            | Flaw::Cycle => self.plant_in_names(state, cut),
            _ => self.plant_beside_names(state, cut, second),
        }
    }

    fn plant_in_names(self, state: &mut State, cut: Ino) -> &'static str {
        let hash_key = state.config.hash_key;
        let hash = |text: &str| NameHash::of(&hash_key, &name(text));
        let add = |state: &mut State, text: &str, at: &str, ino| {
            state.change_names(Ino::ROOT, |names| names.insert(hash(at), name(text), ino));
        };
        match self {
            Flaw::LinkCount => {
                state.inodes.get_mut(cut).nlink = 3;
                "has 1 names and counts 3"
            }
            Flaw::NameWithoutInode => {
                add(state, "ghost", "ghost", Ino::new(cut.slot(), 77));
                "\"ghost\" in i1.0 stands for"
            }
            Flaw::NameAtOtherHash => {
                state.inodes.get_mut(cut).nlink = 2;
                add(state, "astray", "elsewhere", cut);
                "\"astray\" in i1.0 is not where its hash is"
            }
            Flaw::LostInode => {
                state.change_names(Ino::ROOT, |names| names.remove(hash("cut"), &name("cut")));
                state.inodes.get_mut(cut).nlink = 0;
                "no name and is not among the orphans"
            }
            Flaw::OrphanWithName => {
                state.orphans.insert(cut, ());
                "among the orphans and has names"
            }
            Flaw::SubdirectoryCount => {
                let root = state.inodes.get_mut(Ino::ROOT).directory_mut();
                root.expect("a directory").subdirectories = 9;
                "1 subdirectories and counts 9"
            }
            Flaw::Cycle => {
                let found = state.find(Ino::ROOT, &name("directory"));
                let directory = found.expect("the root lists").expect("it is there");
                let inode = state.inodes.get_mut(directory).directory_mut();
                inode.expect("a directory").parent = directory;
                "does not lie below the root"
            }
            other => unreachable!("{other:?} is not in names"),
        }
    }

    fn plant_beside_names(self, state: &mut State, cut: Ino, second: Ino) -> &'static str {
        let data = |state: &State, ino| state.file(ino).expect("a file").data;
        let set_data = |state: &mut State, data| {
            let file = state.inodes.get_mut(cut).file_mut();
            file.expect("a file").data = data;
        };
        match self {
            Flaw::DataTwice => {
                let data = data(state, second);
                set_data(state, data);
                "two files have the bytes of"
            }
            Flaw::DataNeverGivenOut => {
                set_data(state, DataId(1 << 50));
                "was never given out"
            }
            Flaw::DataToBeDropped => {
                let data = data(state, cut);
                state.reaps.insert((VolumeId(1), data), ());
                "in use and to be dropped"
            }
            Flaw::FreeList => {
                state.inodes.counters.free_count += 1;
                "slots are free and"
            }
            Flaw::AttributesOfNothing => {
                let nobody = Ino::new(cut.slot(), 99);
                let xattrs = state.xattrs.get(second).expect("has some").clone();
                state.xattrs.insert(nobody, xattrs);
                "extended attributes of"
            }
            Flaw::WriterWithoutSession => {
                state.writers.insert((SessionId(1 << 40), cut), ());
                "has ended and writes to"
            }
            Flaw::MemberTwice => {
                let members = &mut Arc::make_mut(&mut state.table).chains[7].members;
                members.push(members[0]);
                "2 members, of 1 volumes"
            }
            Flaw::MembersAtOdds => {
                let members = &mut Arc::make_mut(&mut state.table).chains[7].members;
                members[0].state = MemberState::Syncing;
                "cannot be in these states"
            }
            Flaw::Weights => {
                state.weigh_reply();
                "is counted"
            }
            other => unreachable!("{other:?} is in names"),
        }
    }
}

#[test]
fn check_finds_each_flaw_and_none_where_there_is_none() {
    let core = a_bit_of_everything();
    assert_eq!(core.image().check(&mut |_| {}), Vec::<String>::new());
    for flaw in Flaw::ALL {
        let mut core = a_bit_of_everything();
        let word = flaw.plant(&mut core);
        let found = core.image().check(&mut |_| {});
        let is_said = found.iter().any(|said| said.contains(word));
        assert!(is_said, "{flaw:?}: {found:?} does not say {word:?}");
    }
}
