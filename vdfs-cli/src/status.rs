//! `vdfs status`: the master's report, for people and for scripts.

pub(crate) mod copies;
mod health;
pub(crate) mod json;
mod problems;
mod text;

use std::sync::Arc;
use std::time::SystemTime;

use vdfs_net::Carrier;
use vdfs_net::rpc::call_operation;
use vdfs_proto::Status;
use vdfs_proto::frame::Method;
use vdfs_proto::meta::{AdminReply, AdminRequest, GetStatus, StatusReport};
use vdfs_proto::operation::Operation;

use crate::args::{ClusterArgs, StatusArgs};
use crate::client::connection::runtime;
use crate::cluster::{Cluster, Line, MASTER_WAIT};
use crate::output::Output;
use vdfs_program::Failure;

/// What there is to say: the report, where it is from, and what is wrong.
#[derive(Debug)]
struct Findings {
    report: StatusReport,
    masters: Vec<String>,
    health: health::Health,
    problems: Vec<String>,
}

pub(crate) fn run(args: &StatusArgs) -> Result<(), Failure> {
    let cluster = Cluster::find(&args.cluster)?;
    let report = ask_of(&cluster)?;
    let (health, problems) = health::judge(&report, SystemTime::now());
    let masters = cluster.masters.iter().map(ToString::to_string).collect();
    let findings = Findings {
        report,
        masters,
        health,
        problems,
    };
    let mut output = Output::open();
    if args.json {
        output.json(&json::StatusJson::of(&findings))?;
    } else {
        output.bytes(text::render(&findings).as_bytes())?;
    }
    output.finish()
}

/// The master's report.
pub(crate) fn ask(args: &ClusterArgs) -> Result<StatusReport, Failure> {
    ask_of(&Cluster::find(args)?)
}

pub(crate) fn ask_of(cluster: &Cluster) -> Result<StatusReport, Failure> {
    Ok(*ask_masters(cluster, GetStatus {})?)
}

/// Asks without a session: a question leaves no trace.
pub(crate) fn ask_masters<O>(cluster: &Cluster, operation: O) -> Result<O::Reply, Failure>
where
    O: Operation<Request = AdminRequest, Envelope = AdminReply> + Clone,
{
    let line = Line::open(cluster)?;
    let reply = fetch(cluster, &line, operation)?;
    line.close();
    Ok(reply)
}

fn fetch<O>(cluster: &Cluster, line: &Line, operation: O) -> Result<O::Reply, Failure>
where
    O: Operation<Request = AdminRequest, Envelope = AdminReply> + Clone,
{
    let connector = line.connector();
    let carriers: Vec<Arc<dyn Carrier>> = cluster
        .targets()
        .iter()
        .map(|target| connector.carrier(target))
        .collect();
    let asked = runtime()?.block_on(first_reply(&carriers, operation));
    match asked {
        Ok(reply) => Ok(reply),
        Err(Status::Disconnected | Status::DeadlineExceeded) => Err(line.unanswered(cluster)),
        Err(status) => Err(Failure::new(
            format!("master {}", cluster.masters_text()),
            status,
        )),
    }
}

/// The first reply that one of the masters gives within the wait for a master.
async fn first_reply<O>(masters: &[Arc<dyn Carrier>], operation: O) -> Result<O::Reply, Status>
where
    O: Operation<Request = AdminRequest, Envelope = AdminReply> + Clone,
{
    let deadline = tokio::time::Instant::now() + MASTER_WAIT;
    let mut last = Status::Disconnected;
    while tokio::time::Instant::now() < deadline {
        for master in masters {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            match call_operation(&**master, Method::Admin, operation.clone(), left).await {
                Ok(reply) => return Ok(reply),
                // The carrier connects again with a pause of its own.
                Err(status @ (Status::Disconnected | Status::NotServing)) => last = status,
                Err(status) => return Err(status),
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Err(last)
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::json::tests::report;
}
