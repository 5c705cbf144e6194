//! What a running master says of itself, piece by piece.

use std::sync::Arc;
use std::time::Duration;

use vdfs_master::meta::Progress;
use vdfs_net::Carrier;
use vdfs_net::rpc::call_operation;
use vdfs_program::Failure;
use vdfs_proto::Status;
use vdfs_proto::frame::Method;
use vdfs_proto::meta::{BeginInspection, Inspection, InspectionPiece, NextInspection};

use super::slots::SlotsBar;
use crate::client::connection::runtime;
use crate::cluster::{AS_ADMIN, Cluster, Line, MASTER_WAIT};

/// A piece is made in less; a master that is busy answers later.
const PIECE_WAIT: Duration = Duration::from_secs(20);

/// Has the master inspect itself; each piece goes to `take`, in order.
pub(crate) fn inspect(
    cluster: &Cluster,
    what: Inspection,
    bar: &SlotsBar,
    mut take: impl FnMut(InspectionPiece) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let line = Line::open(cluster)?;
    let target = cluster.targets().into_iter().next();
    let target = target.ok_or_else(|| Failure::new("master", "none is named"))?;
    let master = line.connector().carrier(&target);
    let outcome = runtime()?.block_on(pieces(&master, what, bar, &mut take));
    let outcome = match outcome {
        Err(Stopped::Master(Status::Disconnected | Status::DeadlineExceeded)) => {
            Err(line.unanswered(cluster))
        }
        Err(Stopped::Master(status)) => Err(refusal(cluster, status)),
        Err(Stopped::Here(failure)) => Err(failure),
        Ok(()) => Ok(()),
    };
    line.close();
    outcome
}

/// Why there are no more pieces.
enum Stopped {
    Master(Status),
    Here(Failure),
}

impl From<Status> for Stopped {
    fn from(status: Status) -> Stopped {
        Stopped::Master(status)
    }
}

async fn pieces(
    master: &Arc<dyn Carrier>,
    what: Inspection,
    bar: &SlotsBar,
    take: &mut impl FnMut(InspectionPiece) -> Result<(), Failure>,
) -> Result<(), Stopped> {
    let begin = BeginInspection { what };
    let begun = call_operation(&**master, Method::Admin, begin, MASTER_WAIT).await?;
    let mut piece = 0;
    loop {
        let next = NextInspection {
            inspection: begun.inspection,
            piece,
        };
        let answer = call_operation(&**master, Method::Admin, next, PIECE_WAIT).await?;
        bar.show(Progress {
            done: answer.done,
            total: answer.total,
        });
        if !answer.is_there {
            continue;
        }
        piece += 1;
        let is_last = answer.is_last;
        take(answer).map_err(Stopped::Here)?;
        if is_last {
            return Ok(());
        }
    }
}

fn refusal(cluster: &Cluster, status: Status) -> Failure {
    let what = format!("master {}", cluster.masters_text());
    match status {
        Status::WrongRole => {
            Failure::new(what, "only an administrator may inspect it").way_out(AS_ADMIN)
        }
        Status::NotFound => Failure::new(what, "the inspection has ended before its end")
            .way_out("try again when less is changed, or give the master more --ram"),
        status => Failure::new(what, status),
    }
}
