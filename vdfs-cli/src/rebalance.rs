//! `vdfs rebalance`: how far data has moved to volumes that have less than their share, and whether it may.

use serde::Serialize;
use vdfs_program::Failure;
use vdfs_proto::meta::{BalanceStatus, PauseBalance};

use crate::args::RebalanceArgs;
use crate::cluster::Cluster;
use crate::output::Output;
use crate::status;

#[derive(Debug, Serialize)]
struct BalanceJson {
    /// `balanced`, `moving` or `paused`.
    state: &'static str,
    paused: bool,
    /// Chains that are on their way, off drained volumes too.
    moving: u32,
    left: u32,
    done: u32,
    /// `null` as long as that is not known.
    remaining_s: Option<u64>,
}

pub(crate) fn run(args: &RebalanceArgs) -> Result<(), Failure> {
    let cluster = Cluster::find(&args.cluster)?;
    if args.pause || args.resume {
        let is_paused = args.pause;
        return status::ask_masters(&cluster, PauseBalance { is_paused });
    }
    let balance = status::ask_of(&cluster)?.balance;
    let mut output = Output::open();
    if args.json {
        output.json(&json(&balance))?;
    } else {
        output.line(text(&balance))?;
    }
    output.finish()
}

fn json(balance: &BalanceStatus) -> BalanceJson {
    let progress = balance.progress;
    BalanceJson {
        state: match (progress.left, balance.is_paused) {
            (0, _) => "balanced",
            (_, true) => "paused",
            (_, false) => "moving",
        },
        paused: balance.is_paused,
        moving: balance.moving,
        left: progress.left,
        done: progress.done,
        remaining_s: progress.remaining_ms.map(|ms| ms.div_ceil(1000)),
    }
}

fn text(balance: &BalanceStatus) -> String {
    let progress = balance.progress;
    let left = match progress.left {
        0 => return idle_text(balance.is_paused).to_owned(),
        left => format!(
            "{left} places in chains are to move, {} have moved",
            progress.done
        ),
    };
    let when = match (balance.is_paused, progress.remaining_ms) {
        (true, _) => "paused; go on with: vdfs rebalance --resume".to_owned(),
        (false, Some(ms)) => format!("about {} s are left", ms.div_ceil(1000)),
        (false, None) => "it has just begun".to_owned(),
    };
    format!("{left}: {when}")
}

fn idle_text(is_paused: bool) -> &'static str {
    match is_paused {
        true => "every volume has its share; moving data is paused: vdfs rebalance --resume",
        false => "every volume has its share: nothing is to move",
    }
}

#[cfg(test)]
mod tests {
    use vdfs_proto::meta::MoveProgress;

    use super::*;

    #[test]
    fn rebalance_says_how_far_it_is() {
        let mut balance = BalanceStatus::default();
        assert!(text(&balance).contains("nothing is to move"));
        balance.progress = MoveProgress {
            left: 80,
            done: 5,
            remaining_ms: Some(16_001),
        };
        let shown = text(&balance);
        assert!(
            shown.contains("80 places") && shown.contains("about 17 s"),
            "{shown}"
        );
        balance.is_paused = true;
        let json = serde_json::to_value(json(&balance)).expect("serialises");
        let expected = serde_json::json!({
            "state": "paused", "paused": true, "moving": 0, "left": 80, "done": 5, "remaining_s": 17,
        });
        assert_eq!(json, expected);
    }
}
