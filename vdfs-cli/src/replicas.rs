//! `vdfs replicas`: how many copies there are of everything, and how many there shall be.

use serde::Serialize;
use vdfs_program::Failure;
use vdfs_proto::meta::{SetReplicas, StatusReport};

use crate::args::{ReplicasArgs, ReplicasCommand, ReplicasSetArgs};
use crate::cluster::Cluster;
use crate::output::Output;
use crate::status;

#[derive(Debug, Serialize)]
struct ReplicasJson {
    replicas: u32,
    chains: u32,
    whole: u32,
    short: u32,
}

pub(crate) fn run(args: &ReplicasArgs) -> Result<(), Failure> {
    match &args.command {
        Some(ReplicasCommand::Set(args)) => set(args),
        None => show(args),
    }
}

fn set(args: &ReplicasSetArgs) -> Result<(), Failure> {
    let cluster = Cluster::find(&args.cluster)?;
    let replicas = args.replicas;
    status::ask_masters(&cluster, SetReplicas { replicas })
}

fn show(args: &ReplicasArgs) -> Result<(), Failure> {
    let report = status::ask(&args.cluster)?;
    let mut output = Output::open();
    if args.json {
        output.json(&json(&report))?;
    } else {
        output.line(text(&report))?;
    }
    output.finish()
}

fn json(report: &StatusReport) -> ReplicasJson {
    ReplicasJson {
        replicas: report.replicas,
        chains: report.chains.total,
        whole: report.chains.whole,
        short: report.chains.short,
    }
}

fn text(report: &StatusReport) -> String {
    let chains = &report.chains;
    format!(
        "{} copies of everything: {} of {} chains have them, {} have fewer",
        report.replicas, chains.whole, chains.total, chains.short
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::report;

    #[test]
    fn replicas_json_has_the_keys_that_scripts_rely_on() {
        let json = serde_json::to_value(json(&report())).expect("serialises");
        let expected = serde_json::json!({
            "replicas": 1, "chains": 256, "whole": 256, "short": 0,
        });
        assert_eq!(json, expected);
    }
}
