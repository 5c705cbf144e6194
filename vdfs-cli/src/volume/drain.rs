//! `vdfs volume drain`.

use std::thread;
use std::time::Duration;

use vdfs_program::{Failure, human};
use vdfs_proto::VolumeId;
use vdfs_proto::meta::{DrainAnswer, DrainStatus, DrainVolume};

use super::list::left_text;
use super::{find, unknown};
use crate::args::VolumeDrainArgs;
use crate::cluster::Cluster;
use crate::output::Output;
use crate::status;

/// Between two looks of somebody who waits.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn run(args: &VolumeDrainArgs) -> Result<(), Failure> {
    let cluster = Cluster::find(&args.cluster)?;
    let report = status::ask_of(&cluster)?;
    let volume = find(&report, &args.name)?.info.id;
    let is_on = !args.cancel;
    let answer = status::ask_masters(&cluster, DrainVolume { volume, is_on })?;
    check(&args.name, answer)?;
    let mut output = Output::open();
    if args.cancel {
        output.line(format!("{} is drained no more", args.name))?;
        return output.finish();
    }
    let mut drain = look(&cluster, &args.name, volume)?;
    while args.wait && drain.progress.left > 0 {
        thread::sleep(LOOK_INTERVAL);
        drain = look(&cluster, &args.name, volume)?;
    }
    output.line(format!("{}: {}", args.name, left_text(&drain)))?;
    output.finish()
}

fn look(cluster: &Cluster, name: &str, volume: VolumeId) -> Result<DrainStatus, Failure> {
    let report = status::ask_of(cluster)?;
    let found = report.volumes.iter().find(|of| of.info.id == volume);
    let found = found.ok_or_else(|| unknown(name))?;
    found
        .drain
        .ok_or_else(|| Failure::new(format!("volume {name}"), "somebody has cancelled its drain"))
}

fn check(name: &str, answer: DrainAnswer) -> Result<(), Failure> {
    let failure = |why: String| Failure::new(format!("volume {name}"), why);
    let add = "add a volume: start vdfs-volume with this master";
    Err(match answer {
        DrainAnswer::Logged => return Ok(()),
        DrainAnswer::Unknown => unknown(name),
        DrainAnswer::NoOther => {
            failure("no other volume is there to take what it has".to_owned()).way_out(add)
        }
        DrainAnswer::TooFewHosts { hosts, replicas } => failure(format!(
            "{replicas} copies need as many hosts, and the other volumes are on {hosts}"
        ))
        .way_out(format!(
            "{add}, or keep fewer copies: vdfs replicas set {hosts}"
        )),
        DrainAnswer::NoRoom {
            held_bytes,
            free_bytes,
        } => failure(format!(
            "it holds {}, and the others have room for {}",
            human(held_bytes),
            human(free_bytes)
        ))
        .way_out("add a volume, give one more --ram, or remove files"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_way_out() {
        let text = |answer| check("v", answer).expect_err("refused").to_string();
        assert!(text(DrainAnswer::NoOther).contains("start vdfs-volume"));
        let (hosts, replicas) = (1, 2);
        let hosts = text(DrainAnswer::TooFewHosts { hosts, replicas });
        assert!(hosts.contains("vdfs replicas set 1"), "{hosts}");
        let room = text(DrainAnswer::NoRoom {
            held_bytes: 4096,
            free_bytes: 1024,
        });
        assert!(
            room.contains("holds 4 KiB") && room.contains("remove files"),
            "{room}"
        );
        assert!(check("v", DrainAnswer::Logged).is_ok());
    }
}
