//! Who is a member: lives, silences, suspicions, waits.

use vdfs_proto::limits::VOLUME_LEASE_MS;
use vdfs_proto::volume::{ChainEvent, Command, Register};
use vdfs_proto::{ChainId, DataId, Epoch, MemberState, Status, VolumeId};

use MemberState::{Serving, Syncing, Waiting};

use super::cluster::Cluster;
use super::volume_life::status;
use super::world::{CHUNK_BYTES, World, registration};
use crate::core::limits::COPIES_WAIT_MS;

#[test]
fn volumes_of_two_hosts_form_chains_of_two_members_that_are_active() {
    let cluster = Cluster::new(2, 2);
    let table = &cluster.world.core.live.table;
    for chain in &table.chains {
        assert_eq!((chain.members.len(), chain.is_active), (2, true));
        assert_ne!(chain.members[0].volume, chain.members[1].volume);
    }
    let headed = |volume| {
        let is_headed = |chain: &&vdfs_proto::Chain| chain.members[0].volume == volume;
        table.chains.iter().filter(is_headed).count()
    };
    assert_eq!((headed(VolumeId(1)), headed(VolumeId(2))), (128, 128));
}

#[test]
fn new_life_beside_a_live_peer_loses_its_place_and_is_given_it_again() {
    let mut cluster = Cluster::new(2, 2);
    let chain = cluster.chain_of(&[1, 2]);
    cluster.respawn(0);
    let told = cluster.register(0).table;
    let row = told.chain(chain).expect("there");
    assert_eq!((row.epoch, row.is_active), (Epoch(3), false));
    assert_eq!(cluster.members(chain), [(2, Serving)]);
    cluster.pass(250);
    let active = cluster.news(chain, ChainEvent::Active);
    cluster.tell(0, vec![active]);
    assert!(!cluster.chain(chain).is_active, "not from the head");
    let news = cluster.duties(1);
    cluster.tell(1, news);
    assert!(cluster.chain(chain).is_active);
    cluster.pass(2_000);
    assert_eq!(cluster.members(chain), [(2, Serving), (1, Syncing)]);
    assert_eq!(status(&mut cluster.world).chains.short, 256);
    let in_sync = cluster.news(chain, ChainEvent::InSync(VolumeId(1)));
    cluster.tell(1, vec![in_sync]);
    assert_eq!(cluster.members(chain)[1], (1, Syncing), "not active yet");
    cluster.settle(1_000);
    assert_eq!(cluster.members(chain), [(2, Serving), (1, Serving)]);
    assert_eq!(status(&mut cluster.world).chains.whole, 256);
    cluster.world.restart(true);
}

#[test]
fn silent_volume_loses_its_places_once_and_the_last_member_never_does() {
    let mut cluster = Cluster::new(2, 2);
    let chain = cluster.chain_of(&[1, 2]);
    cluster.kill(0);
    cluster.pass_lease();
    cluster.pass(1_000);
    assert_eq!(cluster.members(chain), [(2, Serving)]);
    assert_eq!(cluster.chain(chain).epoch, Epoch(3));
    let news = cluster.duties(1);
    cluster.tell(1, news);
    assert!(cluster.chain(chain).is_active);
    cluster.kill(1);
    cluster.pass_lease();
    assert_eq!(cluster.members(chain), [(2, Serving)], "the last one stays");
    assert_eq!(cluster.chain(chain).epoch, Epoch(3));
    cluster.respawn(0);
    cluster.register(0);
    cluster.pass(5_000);
    assert_eq!(cluster.members(chain), [(2, Serving)], "its copy is old");
    cluster.respawn(1);
    cluster.settle(4_000);
    assert_eq!(cluster.members(chain), [(2, Serving), (1, Serving)]);
}

#[test]
fn volume_that_registers_again_within_its_life_keeps_its_places() {
    let mut cluster = Cluster::new(2, 2);
    let before = cluster.world.core.live.table.clone();
    cluster.register(0);
    cluster.world.restart(true);
    cluster.register(1);
    cluster.register(0);
    cluster.pass(1_000);
    assert_eq!(cluster.world.core.live.table, before);
}

#[test]
fn new_life_waits_until_others_are_heard_after_a_restart_of_the_master() {
    let mut cluster = Cluster::new(2, 2);
    let chain = cluster.chain_of(&[1, 2]);
    cluster.respawn(0);
    cluster.world.restart(true);
    assert_eq!(cluster.try_register(0).map(drop), Err(Status::Busy));
    cluster.register(1);
    cluster.register(0);
    assert_eq!(cluster.members(chain), [(2, Serving)]);
}

/// All volumes end; the first that comes back finds nobody.
fn all_down() -> (Cluster, ChainId) {
    let mut cluster = Cluster::new(2, 2);
    cluster.kill(0);
    cluster.kill(1);
    cluster.pass_lease();
    cluster.respawn(0);
    cluster.register(0);
    let chain = cluster.chain_of(&[1, 2]);
    assert_eq!(cluster.members(chain), [(1, Waiting), (2, Waiting)]);
    assert_eq!(status(&mut cluster.world).chains.waiting, 256);
    (cluster, chain)
}

/// The same, and both are back.
fn all_back() -> (Cluster, ChainId) {
    let (mut cluster, chain) = all_down();
    cluster.pass(1_000);
    assert_eq!(cluster.members(chain), [(1, Waiting), (2, Waiting)]);
    cluster.respawn(1);
    cluster.register(1);
    cluster.pass(500);
    assert_eq!(cluster.members(chain), [(2, Serving), (1, Waiting)]);
    assert!(!cluster.chain(chain).is_active);
    cluster.world.restart(true);
    cluster.register(0);
    cluster.register(1);
    (cluster, chain)
}

#[test]
fn chains_whose_members_had_all_gone_are_taken_over_by_the_last_one_while_the_others_wait() {
    let (mut cluster, chain) = all_back();
    let active = cluster.news(chain, ChainEvent::Active);
    cluster.tell(1, vec![active]);
    assert_eq!(cluster.members(chain), [(2, Serving)]);
    assert!(cluster.chain(chain).is_active);
    cluster.settle(3_000);
    assert_eq!(status(&mut cluster.world).chains.whole, 256);
    cluster.world.restart(true);
}

#[test]
fn head_that_ends_before_it_has_better_copies_waits_again_with_those_who_have_them() {
    let (mut cluster, chain) = all_back();
    cluster.respawn(1);
    cluster.register(1);
    cluster.pass(500);
    assert_eq!(cluster.members(chain), [(2, Serving), (1, Waiting)]);
    cluster.kill(1);
    cluster.pass_lease();
    cluster.pass(1_000);
    assert_eq!(cluster.members(chain), [(1, Waiting), (2, Waiting)]);
    cluster.pass(COPIES_WAIT_MS);
    assert_eq!(cluster.members(chain)[0], (1, Serving));
}

#[test]
fn member_that_waits_loses_its_place_if_it_goes_or_the_head_does_not_reach_it() {
    let (mut cluster, chain) = all_back();
    let epoch = cluster.chain(chain).epoch;
    let suspect = cluster.news(chain, ChainEvent::Suspect(VolumeId(1)));
    cluster.tell(1, vec![suspect]);
    let left = cluster.news(chain, ChainEvent::HasLeft);
    cluster.tell(0, vec![left]);
    assert_eq!(cluster.members(chain), [(2, Serving)]);
    assert!(cluster.chain(chain).epoch > epoch, "the head looks again");

    let (mut cluster, chain) = all_back();
    cluster.kill(0);
    cluster.pass_lease();
    cluster.pass(1_000);
    assert_eq!(cluster.members(chain), [(2, Serving)]);
    cluster.respawn(1);
    cluster.register(1);
    assert_eq!(
        cluster.members(chain).len(),
        2,
        "it is in sync all the same"
    );
}

#[test]
fn chains_whose_members_do_not_all_come_back_take_who_is_there() {
    let (mut cluster, chain) = all_down();
    cluster.pass(COPIES_WAIT_MS - 1_000);
    assert_eq!(cluster.members(chain).len(), 2);
    cluster.pass(2_000);
    assert_eq!(cluster.members(chain), [(1, Serving)]);
}

#[test]
fn other_store_loses_data_only_where_no_copy_is_left() {
    let mut cluster = Cluster::new(2, 2);
    let chain = cluster.chain_of(&[1, 2]);
    cluster.kill(0);
    cluster.kill(1);
    cluster.pass_lease();
    cluster.replace(0);
    cluster.register(0);
    assert_eq!(cluster.members(chain), [(2, Serving)]);
    assert_eq!(cluster.chain(chain).lost_below, DataId(0));
    cluster.replace(1);
    cluster.register(1);
    assert_eq!(cluster.members(chain), [(2, Serving)]);
    assert_eq!(cluster.chain(chain).lost_below, DataId(1));
}

/// The tail has lost its place, and the head ends before it has taken the epoch over.
fn tail_then_head() -> (Cluster, ChainId) {
    let mut cluster = Cluster::new(2, 2);
    let chain = cluster.chain_of(&[1, 2]);
    cluster.kill(1);
    cluster.pass_lease();
    cluster.pass(1_000);
    assert_eq!(cluster.members(chain), [(1, Serving)]);
    assert!(!cluster.chain(chain).is_active);
    cluster.world.restart(true);
    cluster.kill(0);
    cluster.pass_lease();
    (cluster, chain)
}

#[test]
fn head_that_ends_before_its_epoch_is_active_waits_for_those_in_sync() {
    let (mut cluster, chain) = tail_then_head();
    cluster.respawn(0);
    cluster.register(0);
    assert_eq!(cluster.members(chain), [(1, Waiting), (2, Waiting)]);
    cluster.world.restart(true);
    cluster.register(0);
    cluster.pass(1_000);
    assert_eq!(cluster.members(chain).len(), 2, "they wait");
    cluster.respawn(1);
    cluster.register(1);
    cluster.pass(500);
    assert_eq!(cluster.members(chain), [(2, Serving), (1, Waiting)]);
    cluster.settle(3_000);
    assert_eq!(status(&mut cluster.world).chains.whole, 256);
}

#[test]
fn head_that_goes_for_good_before_its_epoch_is_active_leaves_the_chain_to_those_in_sync() {
    let (mut cluster, chain) = tail_then_head();
    cluster.respawn(1);
    cluster.register(1);
    assert_eq!(cluster.members(chain), [(1, Serving)], "it may be alive");
    cluster.pass_lease();
    cluster.pass(1_000);
    assert_eq!(cluster.members(chain), [(1, Waiting), (2, Waiting)]);
    cluster.pass(COPIES_WAIT_MS);
    assert_eq!(cluster.members(chain), [(2, Serving)]);
    assert_eq!(cluster.chain(chain).lost_below, DataId(0));
    cluster.respawn(0);
    cluster.register(0);
    cluster.settle(5_000);
    assert_eq!(status(&mut cluster.world).chains.whole, 256);
}

#[test]
fn head_whose_store_is_lost_before_its_epoch_is_active_leaves_the_data_to_those_in_sync() {
    let (mut cluster, chain) = tail_then_head();
    cluster.replace(0);
    cluster.register(0);
    assert_eq!(cluster.members(chain), [(2, Waiting)]);
    assert_eq!(cluster.chain(chain).lost_below, DataId(0));
    cluster.respawn(1);
    cluster.register(1);
    cluster.settle(3_000);
    assert_eq!(cluster.chain(chain).lost_below, DataId(0));
    assert_eq!(status(&mut cluster.world).chains.whole, 256);
}

#[test]
fn chains_that_are_formed_anew_go_back_to_nobody() {
    let mut cluster = Cluster::new(2, 2);
    let chain = cluster.chain_of(&[1, 2]);
    cluster.kill(1);
    cluster.pass_lease();
    cluster.pass(1_000);
    assert!(!cluster.chain(chain).is_active);
    cluster.join();
    assert!(cluster.chain(chain).is_active);
    cluster.world.restart(true);
}

#[test]
fn member_that_has_left_is_in_sync_no_more() {
    let mut cluster = Cluster::new(2, 2);
    let chain = cluster.chain_of(&[1, 2]);
    let own = cluster.news(chain, ChainEvent::Suspect(VolumeId(2)));
    cluster.tell(1, vec![own]);
    assert_eq!(cluster.members(chain), [(1, Serving)]);
    cluster.respawn(0);
    cluster.register(0);
    assert_eq!(cluster.members(chain), [(1, Serving)]);
}

fn leaves(commands: &[Command]) -> usize {
    let is_leave = |command: &&Command| matches!(command, Command::Leave { .. });
    commands.iter().filter(is_leave).count()
}

#[test]
fn suspected_member_is_removed_when_it_has_left_and_gets_no_lease_before() {
    let mut cluster = Cluster::new(2, 2);
    let chain = cluster.chain_of(&[1, 2]);
    let suspect = cluster.news(chain, ChainEvent::Suspect(VolumeId(2)));
    cluster.tell(0, vec![suspect]);
    assert_eq!(cluster.members(chain).len(), 2, "it may be alive");
    assert_eq!(cluster.world.heartbeat(VolumeId(2), 1), Err(Status::Busy));
    // It registers again: that is no answer.
    cluster.register(1);
    assert_eq!(cluster.world.heartbeat(VolumeId(2), 1), Err(Status::Busy));
    let back = cluster.news(chain, ChainEvent::Suspect(VolumeId(1)));
    let commands = cluster.tell(1, vec![back]);
    assert_eq!(leaves(&commands), 1);
    assert_eq!(cluster.members(chain), [(1, Serving)], "one at a time");
    assert_eq!(cluster.world.heartbeat(VolumeId(2), 1), Ok(()));
    let last = cluster.news(chain, ChainEvent::Suspect(VolumeId(1)));
    cluster.tell(0, vec![last]);
    assert_eq!(cluster.members(chain), [(1, Serving)], "the last one");
}

#[test]
fn suspected_member_that_says_nothing_is_removed_after_its_lease() {
    let mut cluster = Cluster::new(2, 2);
    let chain = cluster.chain_of(&[1, 2]);
    let suspect = cluster.news(chain, ChainEvent::Suspect(VolumeId(2)));
    cluster.tell(0, vec![suspect]);
    cluster.pass(VOLUME_LEASE_MS / 2);
    assert_eq!(cluster.members(chain).len(), 2);
    cluster.pass(VOLUME_LEASE_MS);
    assert_eq!(cluster.members(chain), [(1, Serving)]);
}

#[test]
fn member_that_suspects_itself_is_removed_at_once() {
    let mut cluster = Cluster::new(2, 2);
    let chain = cluster.chain_of(&[1, 2]);
    let other = cluster.news(chain, ChainEvent::Suspect(VolumeId(1)));
    cluster.tell(1, vec![other]);
    let own = cluster.news(chain, ChainEvent::Suspect(VolumeId(2)));
    cluster.tell(1, vec![own]);
    assert_eq!(cluster.members(chain), [(1, Serving)]);
    assert_eq!(cluster.world.heartbeat(VolumeId(1), 1), Ok(()), "it stays");
}

#[test]
fn news_of_other_epochs_and_from_strangers_change_nothing() {
    let mut cluster = Cluster::new(3, 2);
    let chain = cluster.chain_of(&[1, 2]);
    let before = cluster.world.core.live.table.clone();
    let mut stale = cluster.news(chain, ChainEvent::Suspect(VolumeId(1)));
    cluster.tell(2, vec![stale]);
    stale.epoch = Epoch(9);
    cluster.tell(1, vec![stale]);
    stale.chain = vdfs_proto::ChainId(9_999);
    cluster.tell(1, vec![stale]);
    assert!(cluster.world.core.live.removals.is_empty());
    assert_eq!(cluster.world.core.live.table, before);
}

#[test]
fn volumes_on_two_hosts_keep_two_copies_unless_somebody_has_said_how_many() {
    for (said, expected) in [(None, [1, 1, 2]), (Some(1), [1, 1, 1])] {
        let mut world = World::with_replicas(said);
        let counts = [(1, "one"), (2, "one"), (3, "other")].map(|(store, host)| {
            let register = Register {
                host: host.to_owned(),
                ..registration(store, 1)
            };
            world.register(&store.to_string(), register);
            world.core.state.replicas()
        });
        assert_eq!(counts, expected);
        world.restart(true);
        assert_eq!(world.core.state.replicas(), expected[2]);
    }
}

#[test]
fn copies_are_made_and_dropped_when_their_number_is_changed() {
    let mut cluster = Cluster::new(3, 1);
    assert_eq!(cluster.set_replicas(0), Err(Status::Invalid));
    assert_eq!(cluster.set_replicas(4), Err(Status::Invalid));
    assert_eq!(cluster.set_replicas(3), Ok(()));
    let report = status(&mut cluster.world);
    assert_eq!((report.replicas, report.chains.short), (3, 256));
    cluster.settle(5_000);
    assert_eq!(status(&mut cluster.world).chains.whole, 256);
    cluster.world.restart(true);
    cluster.settle(1_000);
    assert_eq!(cluster.set_replicas(1), Ok(()));
    cluster.settle(5_000);
    let chains = &cluster.world.core.live.table.chains;
    assert!(
        chains
            .iter()
            .all(|chain| chain.members.len() == 1 && chain.is_active)
    );
    cluster.world.restart(true);
}

#[test]
fn change_of_a_chain_is_shown_only_when_it_is_durable() {
    let mut cluster = Cluster::new(2, 2);
    let chain = cluster.chain_of(&[1, 2]);
    cluster.world.syncs_at_once = false;
    let own = cluster.news(chain, ChainEvent::Suspect(VolumeId(2)));
    cluster.obey(1, vec![own]);
    assert_eq!(cluster.chain(chain).epoch, Epoch(2));
    cluster.world.sync();
    assert_eq!(cluster.chain(chain).epoch, Epoch(3));
}

#[test]
fn capacity_is_what_can_be_written_with_all_its_copies() {
    let mut cluster = Cluster::new(2, 2);
    let room = cluster.world.core.stats().capacity_bytes;
    assert_eq!(room, 10 * CHUNK_BYTES);
    cluster.kill(0);
    cluster.pass_lease();
    assert_eq!(cluster.world.core.stats().capacity_bytes, room);
}
