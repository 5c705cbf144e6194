//! `vdfs volume remove`.

use vdfs_program::{Failure, human};
use vdfs_proto::meta::{RemoveAnswer, RemoveVolume, VolumeState, VolumeStatus};

use super::losses::{Losses, find_losses};
use super::{confirm, find, unknown};
use crate::args::VolumeRemoveArgs;
use crate::cluster::Cluster;
use crate::output::Output;
use crate::status;

pub(super) fn run(args: &VolumeRemoveArgs) -> Result<(), Failure> {
    let cluster = Cluster::find(&args.cluster)?;
    let report = status::ask_of(&cluster)?;
    let status = find(&report, &args.name)?;
    let volume = status.info.id;
    // One that runs is refused, whatever it would lose.
    if args.lose_data && status.state == VolumeState::Away {
        name_losses(args, &find_losses(&cluster, volume)?)?;
    }
    let may_lose = args.lose_data;
    let answer = status::ask_masters(&cluster, RemoveVolume { volume, may_lose })?;
    check(status, answer)?;
    let mut output = Output::open();
    output.line(format!("{} is removed", args.name))?;
    output.finish()
}

/// Names what is lost and asks, unless that is nothing.
fn name_losses(args: &VolumeRemoveArgs, losses: &Losses) -> Result<(), Failure> {
    let mut output = Output::open();
    for path in &losses.paths {
        output.line(path.as_os_str().as_encoded_bytes())?;
    }
    output.finish()?;
    let (files, bytes) = (losses.paths.len(), human(losses.bytes));
    if files == 0 {
        return Ok(());
    }
    eprintln!("{files} files ({bytes}) are lost with volume {}", args.name);
    match args.yes {
        true => Ok(()),
        false => confirm(&format!("volume {}", args.name), "Lose them?"),
    }
}

fn check(volume: &VolumeStatus, answer: RemoveAnswer) -> Result<(), Failure> {
    let name = &volume.info.name;
    let failure = |why: String| Failure::new(format!("volume {name}"), why);
    let drain = format!("vdfs volume drain {name}");
    let used = human(volume.used_bytes);
    Err(match answer {
        RemoveAnswer::Removed => return Ok(()),
        RemoveAnswer::Unknown => unknown(name),
        RemoveAnswer::Serves { chains, alone } => failure(format!(
            "it runs and holds {used} of {chains} chains, of {alone} of them the only copy"
        ))
        .way_out(format!(
            "move that to others with: {drain} --wait; or stop its process first, and what has no other \
             copy is lost"
        )),
        RemoveAnswer::HasOnlyCopy { chains } => failure(format!(
            "it is away and has the only copy of what lies on {chains} chains ({used} when it was heard \
             last)"
        ))
        .way_out(format!(
            "start it again and move that to others with: {drain}; or lose it with --lose-data"
        )),
        RemoveAnswer::NoOther => failure("no other volume is there to go on".to_owned())
            .way_out("add a volume: start vdfs-volume with this master"),
        RemoveAnswer::MayBeAlive => {
            failure("the master has just started, and does not know whether it runs".to_owned())
                .way_out("try again in 3 s")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::report;

    #[test]
    fn refusals_name_how_much_there_is_and_the_way_out() {
        let report = report();
        let volume = &report.volumes[0];
        let text = |answer| check(volume, answer).expect_err("refused").to_string();
        let serves = text(RemoveAnswer::Serves {
            chains: 80,
            alone: 7,
        });
        for part in [
            "3 KiB of 80 chains",
            "of 7 of them",
            "vdfs volume drain volume-1",
        ] {
            assert!(serves.contains(part), "{serves}");
        }
        let alone = text(RemoveAnswer::HasOnlyCopy { chains: 7 });
        assert!(
            alone.contains("7 chains") && alone.contains("--lose-data"),
            "{alone}"
        );
    }
}
