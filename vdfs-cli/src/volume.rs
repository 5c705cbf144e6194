//! `vdfs volume`: the volumes, one that is emptied, one that goes, and the RAM that one has left.

mod drain;
mod list;
mod losses;
mod remove;
mod wipe;

use std::io::{BufRead, IsTerminal};

use vdfs_program::{Blame, Failure};
use vdfs_proto::meta::{StatusReport, VolumeStatus};

use crate::args::VolumeCommand;

pub(crate) fn run(command: &VolumeCommand) -> Result<(), Failure> {
    match command {
        VolumeCommand::List(args) => list::run(args),
        VolumeCommand::Drain(args) => drain::run(args),
        VolumeCommand::Remove(args) => remove::run(args),
        VolumeCommand::Wipe(args) => wipe::run(args),
    }
}

/// The one volume of that name.
fn find<'a>(report: &'a StatusReport, name: &str) -> Result<&'a VolumeStatus, Failure> {
    let volumes = report.volumes.iter();
    let mut named = volumes.filter(|volume| volume.info.name == name);
    let what = format!("volume {name}");
    match (named.next(), named.next()) {
        (Some(volume), None) => Ok(volume),
        (Some(_), Some(_)) => Err(Failure::new(what, "several volumes have this name")
            .way_out("start them with different --name")),
        (None, _) => {
            let names = report.volumes.iter().map(|of| of.info.name.as_str());
            let names: Vec<&str> = names.collect();
            let failure = Failure::new(what, "there is none of this name");
            Err(failure.way_out(format!("there are: {}", names.join(", "))))
        }
    }
}

fn unknown(name: &str) -> Failure {
    Failure::new(format!("volume {name}"), "it is not there any more")
}

/// Asks whoever sits there; without anybody the answer must have been given before.
fn confirm(what: &str, question: &str) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::new(what, "nobody is there to confirm it").way_out("say --yes"));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.blame("standard input")?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(what, "not confirmed: nothing was done")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::report;

    #[test]
    fn find_names_the_volumes_that_there_are() {
        let mut report = report();
        assert!(find(&report, "volume-1").is_ok());
        let failure = find(&report, "v").expect_err("none").to_string();
        assert!(failure.contains("there are: volume-1"), "{failure}");
        report.volumes.push(report.volumes[0].clone());
        assert!(find(&report, "volume-1").is_err(), "two");
    }
}
