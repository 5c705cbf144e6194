//! Volumes that are drained, that come, and that go for good: what moves, and how much of it.

use vdfs_proto::limits::CHAIN_MEMBERS_MAX;
use vdfs_proto::meta::{AdminRequest, DrainAnswer, PauseBalance, RemoveAnswer};
use vdfs_proto::{Chain, DataId, MemberState, Status, VolumeId};

use super::cluster::Cluster;
use super::volume_life::status;
use super::world::{CHUNK_BYTES, WRITE};
use crate::core::limits::MOVES_MAX;
use crate::core::record::{ChainChange, Record};

/// Long enough for hundreds of moves.
const LONG_MS: u64 = 40_000;

/// Members that were added to chains since the log had `records`.
fn added_since(cluster: &Cluster, records: usize) -> usize {
    let records = cluster.world.log[records..].iter();
    let records = records.map(|bytes| Record::decode(bytes).expect("a record"));
    let changes = records.flat_map(|record| match record {
        Record::ChainsChanged { changes } => changes,
        _ => Vec::new(),
    });
    let is_added = |change: &ChainChange| matches!(change, ChainChange::Added(_));
    changes.filter(|(_, change)| is_added(change)).count()
}

fn syncing(cluster: &Cluster) -> usize {
    let is_syncing = |chain: &&Chain| {
        let last = chain.members.last().expect("a chain has members");
        last.state == MemberState::Syncing
    };
    let chains = cluster.world.core.state.table.chains.iter();
    chains.filter(is_syncing).count()
}

/// As `settle`, and never are more chains under way, nor fewer copies there, than there may be.
fn settle_watching(cluster: &mut Cluster, ms: u64, copies_min: usize) {
    for _ in 0..ms / 250 {
        cluster.settle(250);
        assert!(syncing(cluster) <= MOVES_MAX);
        for chain in &cluster.world.core.state.table.chains {
            let serving = crate::core::chains::serving(chain).count();
            assert!(serving >= copies_min, "{chain:?}");
        }
    }
}

#[test]
fn drained_volume_loses_all_its_places_and_copies_are_there_all_the_time() {
    for (volumes, replicas) in [(3, 1), (3, 2), (4, 2)] {
        let mut cluster = Cluster::new(volumes, replicas);
        cluster.world.open_session("a");
        let had = cluster.places()[0];
        let records = cluster.world.log.len();
        assert_eq!(cluster.drain(0, true), DrainAnswer::Logged);
        let report = status(&mut cluster.world);
        let drain = report.volumes[0].drain.expect("it is drained");
        assert_eq!((drain.progress.left, drain.left_bytes), (had, CHUNK_BYTES));
        assert!(drain.can_move);
        settle_watching(&mut cluster, 5_000, replicas as usize);
        let drain = status(&mut cluster.world).volumes[0].drain.expect("still");
        assert!(drain.progress.left < had && drain.progress.done > 0);
        assert!(drain.progress.remaining_ms.is_some());
        settle_watching(&mut cluster, LONG_MS, replicas as usize);
        let places = cluster.places();
        assert_eq!(places[0], 0);
        assert_eq!(places.iter().sum::<u32>(), 256 * replicas);
        let others = &places[1..];
        let uneven = others.iter().max().expect("some") - others.iter().min().expect("some");
        assert!(uneven <= 2, "{places:?}");
        assert_eq!(added_since(&cluster, records), had as usize, "and no more");
        let report = status(&mut cluster.world);
        assert_eq!(report.chains.whole, 256);
        let drain = report.volumes[0].drain.expect("still");
        assert_eq!((drain.progress.left, drain.left_bytes), (0, 0));
    }
}

#[test]
fn drain_goes_on_after_a_restart_of_the_master_and_ends_when_it_is_cancelled() {
    let mut cluster = Cluster::new(3, 1);
    cluster.world.open_session("a");
    cluster.drain(0, true);
    cluster.settle(3_000);
    cluster.world.restart(true);
    assert!(cluster.world.core.is_draining(VolumeId(1)));
    cluster.settle(3_000);
    let left = cluster.places()[0];
    assert!(left > 0 && left < 80);
    assert_eq!(cluster.drain(0, false), DrainAnswer::Logged);
    cluster.settle(LONG_MS);
    assert!(
        cluster
            .places()
            .iter()
            .all(|places| (84..=87).contains(places))
    );
    assert_eq!(status(&mut cluster.world).volumes[0].drain, None);
}

#[test]
fn drain_is_refused_where_nobody_can_take_what_is_there() {
    let mut cluster = Cluster::new(1, 1);
    assert_eq!(cluster.drain(0, true), DrainAnswer::NoOther);
    cluster.join();
    assert_eq!(cluster.drain(1, true), DrainAnswer::Logged);
    assert_eq!(cluster.drain(0, true), DrainAnswer::NoOther, "drained too");
    cluster.drain(1, false);
    cluster.set_replicas(2).expect("sets");
    let (hosts, replicas) = (1, 2);
    let refused = DrainAnswer::TooFewHosts { hosts, replicas };
    assert_eq!(cluster.drain(0, true), refused);
    cluster.set_replicas(1).expect("sets");
    let live = cluster.world.core.live.volumes.get_mut(&VolumeId(2));
    live.expect("there").used_bytes = 9 * CHUNK_BYTES;
    let held_bytes = 20 * CHUNK_BYTES;
    let live = cluster.world.core.live.volumes.get_mut(&VolumeId(1));
    live.expect("there").used_bytes = held_bytes;
    let free_bytes = CHUNK_BYTES / 2;
    let refused = DrainAnswer::NoRoom {
        held_bytes,
        free_bytes,
    };
    assert_eq!(cluster.drain(0, true), refused);
    cluster.lives[0].id = VolumeId(77);
    assert_eq!(cluster.drain(0, true), DrainAnswer::Unknown);
}

#[test]
fn drained_volume_gets_no_new_data_and_no_copies() {
    let mut cluster = Cluster::new(3, 2);
    let session = cluster.world.open_session("a");
    cluster.drain(0, true);
    for number in 0..20 {
        let ino = cluster.world.create_file(session, &format!("f{number}"));
        let layout = cluster.world.open(session, ino, number + 1, WRITE).layout;
        let members = cluster.members(layout.chain(0));
        assert!(
            members.iter().all(|(volume, _)| *volume != 1),
            "{members:?}"
        );
    }
    // Chains of both others have nobody else to go to.
    cluster.kill(1);
    cluster.settle(10_000);
    assert!(cluster.places()[0] > 0, "its copies are needed");
    let drain = status(&mut cluster.world).volumes[0].drain;
    assert!(!drain.expect("drained").can_move);
}

#[test]
fn member_of_a_full_chain_goes_before_its_place_is_filled() {
    let replicas = CHAIN_MEMBERS_MAX as u32;
    let mut cluster = Cluster::new(4, replicas);
    cluster.drain(0, true);
    settle_watching(&mut cluster, 2 * LONG_MS, CHAIN_MEMBERS_MAX - 1);
    assert_eq!(cluster.places(), [0, 256, 256, 256]);
    assert_eq!(status(&mut cluster.world).chains.whole, 256);
}

#[test]
fn volume_that_dies_while_chains_move_leaves_them_whole() {
    for victim in 0..3 {
        let mut cluster = Cluster::new(4, 2);
        cluster.world.open_session("a");
        cluster.drain(0, true);
        cluster.settle(2_000);
        cluster.kill(victim);
        cluster.settle(LONG_MS);
        assert_eq!(status(&mut cluster.world).chains.whole, 256, "{victim}");
        assert_eq!(cluster.places()[victim], 0);
        cluster.respawn(victim);
        cluster.settle(LONG_MS);
        assert_eq!(cluster.places()[0], 0);
        assert_eq!(status(&mut cluster.world).chains.whole, 256, "{victim}");
    }
}

#[test]
fn volume_that_comes_gets_its_share_and_nothing_else_moves() {
    for (volumes, replicas) in [(2, 1), (3, 2), (3, 3)] {
        let mut cluster = Cluster::new(volumes, replicas);
        cluster.world.open_session("a");
        let records = cluster.world.log.len();
        let new = cluster.join();
        settle_watching(&mut cluster, 5_000, (replicas as usize).min(2));
        let balance = status(&mut cluster.world).balance;
        assert!(balance.progress.left > 0 && balance.progress.done > 0);
        settle_watching(&mut cluster, 2 * LONG_MS, (replicas as usize).min(2));
        let share = 256 * replicas / (volumes as u32 + 1);
        let places = cluster.places();
        let is_fair = |places: &u32| places.abs_diff(share) <= 2;
        assert!(places.iter().all(is_fair), "{places:?}");
        let moved = added_since(&cluster, records);
        assert_eq!(moved, places[new] as usize, "to the new one alone");
        assert_eq!(status(&mut cluster.world).chains.whole, 256);
        assert_eq!(status(&mut cluster.world).balance, Default::default());
        let records = cluster.world.log.len();
        cluster.settle(10_000);
        assert_eq!(added_since(&cluster, records), 0, "it has come to an end");
    }
}

#[test]
fn shares_go_by_capacity() {
    let mut cluster = Cluster::new(2, 1);
    cluster.world.open_session("a");
    let new = cluster.join();
    let large = cluster.lives[new].id;
    for _ in 0..200 {
        let live = cluster.world.core.live.volumes.get_mut(&large);
        live.expect("there").capacity_bytes = 20 * CHUNK_BYTES;
        cluster.settle(250);
    }
    let places = cluster.places();
    assert!(places[new].abs_diff(128) <= 1, "{places:?}");
    assert!(places[0].abs_diff(64) <= 1, "{places:?}");
}

#[test]
fn nothing_moves_while_that_is_paused() {
    let mut cluster = Cluster::new(2, 1);
    cluster.world.open_session("a");
    let pause = |is_paused| AdminRequest::PauseBalance(PauseBalance { is_paused });
    cluster.admin(pause(true)).expect("pauses");
    let new = cluster.join();
    cluster.settle(3_000);
    cluster.world.restart(true);
    cluster.settle(3_000);
    assert_eq!(cluster.places()[new], 0);
    let balance = status(&mut cluster.world).balance;
    assert!(balance.is_paused);
    assert_eq!(balance.progress.left, 84);
    cluster.admin(pause(false)).expect("resumes");
    cluster.settle(LONG_MS);
    assert_eq!(cluster.places()[new], 84);
}

#[test]
fn volume_without_places_is_removed_and_its_store_is_refused_for_ever() {
    let mut cluster = Cluster::new(3, 1);
    cluster.world.open_session("a");
    assert_eq!(
        cluster.remove(0, false),
        RemoveAnswer::Serves {
            chains: 86,
            alone: 86
        }
    );
    cluster.drain(0, true);
    cluster.settle(LONG_MS);
    assert_eq!(cluster.remove(0, false), RemoveAnswer::Removed);
    assert_eq!(cluster.remove(0, false), RemoveAnswer::Unknown);
    assert_eq!(cluster.beat(0), Err(Status::NotFound));
    assert_eq!(cluster.try_register(0).map(drop), Err(Status::Removed));
    cluster.world.restart(true);
    cluster.respawn(0);
    assert_eq!(cluster.try_register(0).map(drop), Err(Status::Removed));
    assert_eq!(status(&mut cluster.world).volumes.len(), 2);
    cluster.replace(0);
    let again = cluster.register(0);
    assert_eq!(
        again.volume,
        VolumeId(4),
        "with an empty store it is another"
    );
}

#[test]
fn only_copy_is_lost_with_its_volume_only_if_that_is_said() {
    let mut cluster = Cluster::new(2, 1);
    let session = cluster.world.open_session("a");
    let (_, chain) = cluster.write_file(session, "f");
    let victim = cluster.members(chain)[0].0 as usize - 1;
    let serves = RemoveAnswer::Serves {
        chains: 128,
        alone: 128,
    };
    assert_eq!(cluster.remove(victim, true), serves);
    cluster.kill(victim);
    assert_eq!(cluster.remove(victim, true), serves, "not known to be away");
    cluster.pass_lease();
    let alone = RemoveAnswer::HasOnlyCopy { chains: 128 };
    assert_eq!(cluster.remove(victim, false), alone);
    assert_eq!(cluster.remove(victim, true), RemoveAnswer::Removed);
    cluster.settle(3_000);
    let other = 2 - victim as u32;
    assert_eq!(cluster.members(chain), [(other, MemberState::Serving)]);
    assert!(cluster.chain(chain).is_active);
    assert!(cluster.chain(chain).lost_below > DataId(1));
    let report = status(&mut cluster.world);
    assert_eq!(
        (report.lost_files, report.lost_names),
        (1, vec!["/f".to_owned()])
    );
    cluster.world.restart(true);
}

#[test]
fn volume_that_is_away_goes_without_loss_where_others_have_copies() {
    let mut cluster = Cluster::new(3, 2);
    cluster.kill(0);
    cluster.settle(6_000);
    assert_eq!(cluster.remove(0, false), RemoveAnswer::Removed);
    assert_eq!(status(&mut cluster.world).chains.whole, 256);
    let mut last = Cluster::new(1, 1);
    last.kill(0);
    last.pass_lease();
    assert_eq!(last.remove(0, true), RemoveAnswer::NoOther);
    last.world.restart(true);
    assert_eq!(last.remove(0, true), RemoveAnswer::MayBeAlive);
}
