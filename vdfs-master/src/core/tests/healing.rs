//! What time does to chains, and that the log tells it all.

use proptest::prelude::*;
use vdfs_proto::volume::{ChainEvent, Command};
use vdfs_proto::{ChainId, DataId, Status, VolumeId};

use super::cluster::{CHAIN, Cluster};
use super::volume_life::status;

#[test]
fn chain_is_healed_by_another_host_when_its_member_stays_away() {
    let mut cluster = Cluster::new(3, 2);
    let chain = cluster.chain_of(&[1, 2]);
    cluster.kill(1);
    cluster.settle(6_000);
    let members: Vec<u32> = cluster.members(chain).iter().map(|(of, _)| *of).collect();
    assert_eq!(members, [1, 3]);
    assert_eq!(status(&mut cluster.world).chains.whole, 256);
}

#[test]
fn volume_with_a_new_store_is_told_what_others_have_to_drop() {
    let mut cluster = Cluster::new(2, 2);
    let session = cluster.world.open_session("a");
    cluster.world.create_file(session, "f");
    cluster.world.unlink(session, "f").expect("unlinks");
    cluster.world.sync();
    let reaps = |commands: Vec<Command>| {
        let ids = commands.into_iter().filter_map(|command| match command {
            Command::Reap { ids } => Some(ids),
            _ => None,
        });
        ids.flatten().collect::<Vec<DataId>>()
    };
    cluster.kill(0);
    cluster.pass_lease();
    assert_eq!(reaps(cluster.tell(1, vec![])), [DataId(1)]);
    let other = cluster.world.create_file(session, "g");
    cluster.world.unlink(session, "g").expect("unlinks");
    cluster.world.sync();
    assert!(cluster.world.has_ended(other));
    cluster.replace(0);
    cluster.register(0);
    assert_eq!(reaps(cluster.tell(0, vec![])), [DataId(2)], "as the other");
}

#[test]
fn trim_goes_to_the_new_head_of_its_chain() {
    let mut cluster = Cluster::new(2, 2);
    let session = cluster.world.open_session("a");
    let (ino, chain) = cluster.write_file(session, "f");
    let head = cluster.members(chain)[0].0 as usize - 1;
    let ticket = cluster.world.send_truncate(session, ino, 5);
    cluster.world.sync();
    cluster.kill(head);
    cluster.pass_lease();
    let next = 1 - head;
    let is_trim = |command: &Command| matches!(command, Command::Trim { .. });
    let commands = cluster.tell(next, vec![]);
    assert!(commands.iter().any(is_trim), "{commands:?}");
    assert!(cluster.world.mutated(ticket).is_ok());
    assert!(cluster.world.core.state.trims.is_empty());
}

/// What may happen to volumes, and what they may say.
#[derive(Clone, Debug)]
enum Step {
    Kill(usize),
    Respawn(usize),
    Replace(usize),
    Register(usize),
    Suspect { by: usize, of: u32, chain: u32 },
    Duty(usize),
    Pass(u64),
    RestartMaster,
    Drain { volume: usize, is_on: bool },
}

fn steps() -> impl Strategy<Value = Step> {
    let volume = 0usize..3;
    prop_oneof![
        2 => volume.clone().prop_map(Step::Kill),
        3 => volume.clone().prop_map(Step::Respawn),
        1 => volume.clone().prop_map(Step::Replace),
        4 => volume.clone().prop_map(Step::Register),
        4 => (volume.clone(), 1u32..4, 0u32..4)
            .prop_map(|(by, of, chain)| Step::Suspect { by, of, chain }),
        4 => volume.prop_map(Step::Duty),
        4 => (1u64..14).prop_map(|quarters| Step::Pass(quarters * 250)),
        1 => Just(Step::RestartMaster),
        1 => (0usize..3, any::<bool>())
            .prop_map(|(volume, is_on)| Step::Drain { volume, is_on }),
    ]
}

fn take(cluster: &mut Cluster, step: Step) {
    match step {
        Step::Kill(volume) => cluster.kill(volume),
        Step::Respawn(volume) => cluster.respawn(volume),
        Step::Replace(volume) => cluster.replace(volume),
        Step::Register(volume) => match cluster.try_register(volume) {
            Ok(_) | Err(Status::Busy | Status::NameInUse) => {}
            Err(status) => panic!("{status}"),
        },
        Step::Suspect { by, of, chain } => {
            let what = ChainEvent::Suspect(VolumeId(of));
            let news = cluster.news(ChainId(CHAIN.0 + chain), what);
            if cluster.is_known(by) {
                cluster.tell(by, vec![news]);
            }
        }
        Step::Duty(by) => {
            if cluster.is_known(by) {
                let news = cluster.duties(by);
                cluster.tell(by, news);
            }
        }
        Step::Pass(ms) => cluster.pass(ms),
        Step::RestartMaster => cluster.world.restart(true),
        Step::Drain { volume, is_on } => drop(cluster.drain(volume, is_on)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The world checks all invariants after each step.
    #[test]
    fn chains_are_whole_again_after_all_faults_and_the_log_tells_all(
        replicas in 2u32..4,
        steps in proptest::collection::vec(steps(), 1..40),
    ) {
        let mut cluster = Cluster::new(3, replicas);
        let mut epochs = vec![0; 256];
        for step in steps {
            take(&mut cluster, step);
            for (chain, before) in cluster.world.core.live.table.chains.iter().zip(&mut epochs) {
                prop_assert!(chain.epoch.0 >= *before, "epochs only grow");
                *before = chain.epoch.0;
            }
        }
        for volume in 0..3 {
            cluster.lives[volume].is_up = true;
            cluster.drain(volume, false);
        }
        cluster.settle(20_000);
        prop_assert_eq!(status(&mut cluster.world).chains.short, 0);
        cluster.world.restart(true);
    }
}
