//! Numbers of copies that directories ask for, and the groups of chains that follow from them.

use vdfs_proto::limits::CHAINS_PER_GROUP;
use vdfs_proto::meta::{
    AdminRequest, GetXattr, NewKind, RemoveXattr, SetReplicas, SetXattr, XattrMode,
};
use vdfs_proto::{ChainId, Copies, Ino, SessionId, Status, VolumeId};

use super::cluster::Cluster;
use super::volume_life::status;
use super::world::{World, create_in, registration, truncate};
use crate::core::{Core, CoreRequest};

pub(super) fn ask_for_copies(
    world: &mut World,
    session: SessionId,
    ino: Ino,
    value: &str,
) -> Result<(), Status> {
    let set = SetXattr {
        ino,
        name: Copies::name(),
        value: value.into(),
        mode: XattrMode::Set,
    };
    world.mutate(session, set)
}

fn asked(world: &mut World, session: SessionId, ino: Ino) -> Result<Vec<u8>, Status> {
    let name = Copies::name();
    world.ask(session, GetXattr { ino, name })
}

fn make(world: &mut World, session: SessionId, parent: Ino, text: &str, kind: NewKind) -> Ino {
    world
        .create(session, create_in(parent, text, kind))
        .attr
        .ino
}

fn group_of(world: &World, ino: Ino) -> u16 {
    world.core.state.file(ino).expect("a file").group
}

/// Members of the chain in which the file's first chunk lies.
fn members_of(cluster: &Cluster, ino: Ino) -> usize {
    let layout = cluster.world.core.state.file(ino).expect("a file").layout();
    cluster.chain(layout.chain(0)).members.len()
}

/// With a directory that asks for `copies`.
fn cluster(volumes: usize, replicas: u32, copies: &str) -> (Cluster, SessionId, Ino) {
    let mut cluster = Cluster::new(volumes, replicas);
    let world = &mut cluster.world;
    let session = world.open_session("a");
    let dir = make(world, session, Ino::ROOT, "d", NewKind::Directory);
    ask_for_copies(world, session, dir, copies).expect("sets");
    (cluster, session, dir)
}

#[test]
fn number_of_copies_is_from_1_to_3_and_of_directories_alone() {
    let mut world = World::new();
    let session = world.open_session("a");
    let file = world.create_file(session, "f");
    let dir = make(&mut world, session, Ino::ROOT, "d", NewKind::Directory);
    for value in ["", "0", "4", "10", "2 ", "two"] {
        let refused = ask_for_copies(&mut world, session, dir, value);
        assert_eq!(refused, Err(Status::Invalid), "{value:?}");
    }
    assert_eq!(asked(&mut world, session, dir), Err(Status::NoData));
    let refused = ask_for_copies(&mut world, session, file, "2");
    assert_eq!(refused, Err(Status::Invalid));
    assert_eq!(ask_for_copies(&mut world, session, dir, "2"), Ok(()));
    assert_eq!(asked(&mut world, session, dir), Ok(b"2".to_vec()));
}

#[test]
fn what_is_made_in_a_directory_has_the_copies_that_it_asks_for() {
    let (mut cluster, session, dir) = cluster(3, 1, "3");
    let world = &mut cluster.world;
    assert_eq!(world.core.state.groups.len(), 1, "no file needs another");
    let within = make(world, session, dir, "within", NewKind::Regular);
    let below = make(world, session, dir, "below", NewKind::Directory);
    let deeper = make(world, session, below, "deeper", NewKind::Regular);
    let beside = world.create_file(session, "beside");
    assert_eq!(asked(world, session, below), Ok(b"3".to_vec()));
    assert_eq!(world.core.state.groups.len(), 2, "one for all of them");
    world.sync();
    let members = [within, deeper, beside].map(|ino| members_of(&cluster, ino));
    assert_eq!(members, [3, 3, 1]);
}

#[test]
fn directory_that_asks_for_nothing_any_more_is_like_all_others() {
    let (mut cluster, session, dir) = cluster(3, 1, "2");
    let world = &mut cluster.world;
    let first = make(world, session, dir, "first", NewKind::Regular);
    let name = Copies::name();
    let removal = RemoveXattr { ino: dir, name };
    world.mutate(session, removal).expect("removes");
    let second = make(world, session, dir, "second", NewKind::Regular);
    world.sync();
    let members = [first, second].map(|ino| members_of(&cluster, ino));
    assert_eq!(members, [2, 1]);
}

#[test]
fn truncation_to_nothing_keeps_the_number_of_copies() {
    let (mut cluster, session, dir) = cluster(2, 1, "2");
    let world = &mut cluster.world;
    let ino = make(world, session, dir, "f", NewKind::Regular);
    let data = world.core.state.file(ino).expect("there").data;
    world.mutate(session, truncate(ino, 0)).expect("truncates");
    assert_ne!(world.core.state.file(ino).expect("there").data, data);
    assert_eq!(group_of(world, ino), 1);
}

#[test]
fn number_of_the_filesystem_changes_what_no_directory_asks_for() {
    let (mut cluster, session, dir) = cluster(3, 1, "2");
    let world = &mut cluster.world;
    let within = make(world, session, dir, "within", NewKind::Regular);
    let beside = world.create_file(session, "beside");
    for (replicas, expected) in [(3, [2, 3]), (1, [2, 1])] {
        let request = AdminRequest::SetReplicas(SetReplicas { replicas });
        cluster.world.send(CoreRequest::Admin(request));
        cluster.settle(10_000);
        let members = [within, beside].map(|ino| members_of(&cluster, ino));
        assert_eq!(members, expected);
        assert_eq!(status(&mut cluster.world).chains.whole, 512);
    }
    cluster.world.restart(true);
}

#[test]
fn chains_of_a_directory_are_healed_to_its_number() {
    let (mut cluster, session, dir) = cluster(3, 1, "2");
    let ino = make(&mut cluster.world, session, dir, "f", NewKind::Regular);
    cluster.settle(1_000);
    cluster.kill(1);
    cluster.settle(10_000);
    let first = CHAINS_PER_GROUP;
    for chain in (first..2 * first).map(ChainId) {
        let members = cluster.members(chain);
        assert!(members.len() == 2 && members.iter().all(|(of, _)| *of != 2));
    }
    assert_eq!(members_of(&cluster, ino), 2);
}

#[test]
fn group_is_made_of_volumes_that_serve_and_grows_when_others_come() {
    let (mut cluster, session, dir) = cluster(2, 1, "2");
    cluster.kill(1);
    cluster.pass_lease();
    let ino = make(&mut cluster.world, session, dir, "f", NewKind::Regular);
    cluster.world.sync();
    assert_eq!(members_of(&cluster, ino), 1, "there is no other");
    let groups = status(&mut cluster.world).groups;
    assert_eq!((groups[1].chains, groups[1].short), (256, 256));
    cluster.respawn(1);
    cluster.settle(10_000);
    assert_eq!(members_of(&cluster, ino), 2);
    assert_eq!(status(&mut cluster.world).groups[1].short, 0);
}

#[test]
fn later_volume_gets_places_in_each_group() {
    let (mut cluster, session, dir) = cluster(2, 1, "2");
    make(&mut cluster.world, session, dir, "within", NewKind::Regular);
    cluster.world.create_file(session, "beside");
    let later = cluster.join();
    cluster.settle(60_000);
    let state = &cluster.world.core.state;
    assert_eq!(state.groups.len(), 2);
    let chains = state.table.chains.chunks(CHAINS_PER_GROUP as usize);
    let places = chains.map(|chains| {
        let members = chains.iter().flat_map(|chain| &chain.members);
        members
            .filter(|member| member.volume == VolumeId(later as u32 + 1))
            .count()
    });
    // A third of 256 chains of one member, and of 256 of two.
    let places: Vec<usize> = places.collect();
    let is_share = (84..=86).contains(&places[0]) && (169..=172).contains(&places[1]);
    assert!(places.len() == 2 && is_share, "{places:?}");
}

#[test]
fn each_number_has_one_group_whatever_volumes_came() {
    let mut world = World::new();
    let session = world.open_session("a");
    for number in 0..50_u128 {
        let text = format!("n{number}");
        world.register(&text, registration(number + 1, 1));
        world.create_file(session, &text);
    }
    assert_eq!(world.core.state.groups.len(), 1);
    for value in ["1", "2", "3", "1", "2", "3"] {
        let text = format!("{value}-{}", world.log.len());
        let dir = make(&mut world, session, Ino::ROOT, &text, NewKind::Directory);
        ask_for_copies(&mut world, session, dir, value).expect("sets");
        make(&mut world, session, dir, "f", NewKind::Regular);
    }
    assert_eq!(world.core.state.groups.len(), 4);
    world.register("later", registration(1 << 40, 1));
    assert_eq!(world.core.state.groups.len(), 4);
    world.restart(true);
}

#[test]
fn file_has_no_place_before_there_is_a_volume_for_its_copies() {
    let mut world = World::new();
    let session = world.open_session("a");
    let dir = make(&mut world, session, Ino::ROOT, "d", NewKind::Directory);
    ask_for_copies(&mut world, session, dir, "2").expect("sets");
    let create = create_in(dir, "f", NewKind::Regular);
    let refused = world.mutate(session, create.clone());
    assert_eq!(refused.map(drop), Err(Status::NoSpace));
    world.register("n", registration(1, 1));
    world.create(session, create);
}

#[test]
fn groups_are_in_images_and_shown_when_they_are_durable() {
    let (mut cluster, session, dir) = cluster(2, 1, "2");
    let world = &mut cluster.world;
    world.syncs_at_once = false;
    make(world, session, dir, "f", NewKind::Regular);
    assert_eq!(world.core.live.table.chains.len(), 256);
    assert!(world.sync_wanted);
    world.sync();
    assert_eq!(world.core.live.table.chains.len(), 512);
    let sections = world.core.image().sections();
    let sections = sections.map(|(name, bytes)| (name.to_owned(), bytes));
    let restored = Core::from_image(sections).expect("a whole image");
    assert_eq!(restored.state.groups, world.core.state.groups);
}
