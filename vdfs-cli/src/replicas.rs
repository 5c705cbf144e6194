//! `vdfs replicas`: how many copies there are, and how many there shall be.

mod apply;
mod below;

use serde::Serialize;
use vdfs_program::{Blame, Failure};
use vdfs_proto::Copies;
use vdfs_proto::meta::{SetReplicas, StatusReport, XattrMode};

use crate::args::{ReplicasArgs, ReplicasCommand, ReplicasSetArgs};
use crate::client::on_inode::run_on_inode;
use crate::cluster::Cluster;
use crate::output::Output;
use crate::status;
use crate::status::copies::{Kind, kinds_of_copies};

#[derive(Debug, Serialize)]
struct ReplicasJson {
    replicas: u32,
    chains: u32,
    whole: u32,
    short: u32,
    /// Numbers that directories ask for.
    directories: Vec<KindJson>,
}

#[derive(Debug, Serialize)]
struct KindJson {
    replicas: u32,
    chains: u32,
    short: u32,
}

pub(crate) fn run(args: &ReplicasArgs) -> Result<(), Failure> {
    match (&args.command, &args.path) {
        (Some(ReplicasCommand::Set(args)), _) => set(args),
        (None, Some(path)) if args.apply => apply::run(args, path),
        (None, Some(path)) => below::show(args, path),
        (None, None) => show(args),
    }
}

fn set(args: &ReplicasSetArgs) -> Result<(), Failure> {
    let replicas = args.replicas;
    let Some(path) = &args.path else {
        let cluster = Cluster::find(&args.cluster)?;
        return status::ask_masters(&cluster, SetReplicas { replicas });
    };
    let what = &path.display();
    run_on_inode(path, &args.cluster, "replicas", async |connection, ino| {
        let fs = &connection.fs;
        let attr = fs.getattr(ino).await.blame(what)?;
        connection
            .caller
            .check_user_xattr(fs, &attr)
            .await
            .blame(what)?;
        let copies = Copies::new(replicas).blame(what)?;
        let set = fs.set_xattr(ino, Copies::name(), copies.to_bytes(), XattrMode::Set);
        set.await.blame(what)
    })
}

fn show(args: &ReplicasArgs) -> Result<(), Failure> {
    let report = status::ask(&args.cluster)?;
    let mut output = Output::open();
    if args.json {
        output.json(&json(&report))?;
    } else {
        output.line(text(&report))?;
        for kind in asked_for(&report) {
            output.line(text_of_kind(&kind))?;
        }
    }
    output.finish()
}

/// What directories ask for.
fn asked_for(report: &StatusReport) -> impl Iterator<Item = Kind> {
    let kinds = kinds_of_copies(report).into_iter();
    kinds.filter(|kind| kind.copies.is_some())
}

fn json(report: &StatusReport) -> ReplicasJson {
    let directories = asked_for(report).map(|kind| KindJson {
        replicas: kind.replicas,
        chains: kind.chains,
        short: kind.short,
    });
    ReplicasJson {
        replicas: report.replicas,
        chains: report.chains.total,
        whole: report.chains.whole,
        short: report.chains.short,
        directories: directories.collect(),
    }
}

fn text(report: &StatusReport) -> String {
    let chains = &report.chains;
    format!(
        "{} copies of everything: {} of {} chains have them, {} have fewer",
        report.replicas, chains.whole, chains.total, chains.short
    )
}

fn text_of_kind(kind: &Kind) -> String {
    format!(
        "{} copies where directories ask for that: {} of {} chains have them, {} have fewer",
        kind.replicas,
        kind.chains - kind.short,
        kind.chains,
        kind.short
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
            "replicas": 1, "chains": 256, "whole": 256, "short": 0, "directories": [],
        });
        assert_eq!(json, expected);
    }
}
