//! `vdfs fsck`: compares what the master says there is with what the volumes have.

mod compare;
mod repair;
mod stock;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use vdfs_program::Failure;
use vdfs_proto::{DataId, Status, VolumeId};

use crate::args::FsckArgs;
use crate::client::paths::paths_of;
use crate::cluster::{AS_ADMIN, Cluster};
use crate::output::Output;
use compare::{Finding, Kind, compare};
use stock::Stocks;
use view::View;

/// Between two looks: longer than a change takes.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// What was found, twice alike.
#[derive(Debug)]
struct Look {
    found: BTreeSet<Finding>,
    files: u64,
    chunks: u64,
    /// Chains that are on the way to more, or other, members: their copies were not compared.
    unsettled: u64,
    names: BTreeMap<VolumeId, String>,
    unasked: Vec<(String, Status)>,
}

#[derive(Debug, Serialize)]
struct FsckJson {
    ok: bool,
    files: u64,
    /// Of all volumes together.
    chunks: u64,
    /// Whose copies were not compared, as they are being made.
    unsettled_chains: u64,
    /// Volumes that did not answer.
    unasked: Vec<UnaskedJson>,
    findings: Vec<FlawJson>,
    /// Of what was found at first.
    repaired: u64,
}

#[derive(Debug, Serialize)]
struct UnaskedJson {
    volume: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct FlawJson {
    kind: &'static str,
    /// A name of the file; none if it has none any more.
    path: Option<PathBuf>,
    data: u64,
    /// Its place in the file.
    chunk: u32,
    /// Whose copy it is; none if it is of all copies.
    volume: Option<String>,
}

pub(crate) fn run(args: &FsckArgs) -> Result<(), Failure> {
    let cluster = Cluster::find(&args.cluster)?;
    let mut last = look(&cluster)?;
    let found_first = last.found.len();
    // Of a chain one member is mended at a time.
    while args.repair && !last.found.is_empty() {
        repair::repair(&cluster, &last.found)?;
        let before = std::mem::replace(&mut last, look(&cluster)?);
        if last.found.len() >= before.found.len() {
            break;
        }
    }
    let last = &last;
    let repaired = found_first.saturating_sub(last.found.len()) as u64;
    let flaws = name(&cluster, last)?;
    let mut output = Output::open();
    match args.json {
        true => output.json(&json(last, flaws, repaired))?,
        false => text(&mut output, last, &flaws, repaired)?,
    }
    output.finish()?;
    judge(last, args.repair)
}

fn look(cluster: &Cluster) -> Result<Look, Failure> {
    let mut before = View::take(cluster)?;
    let mut found: Option<BTreeSet<Finding>> = None;
    loop {
        let stocks = Stocks::take(cluster)?;
        let after = View::take(cluster)?;
        let now = compare(&before, &stocks, &after);
        let is_second = found.is_some();
        let both = found.map_or(now.clone(), |first| &first & &now);
        if both.is_empty() || is_second {
            return Ok(Look {
                found: both,
                files: after.files.len() as u64,
                chunks: stocks.chunks(),
                unsettled: after.chains.iter().filter(|of| !of.is_settled).count() as u64,
                names: stocks.names,
                unasked: stocks.unasked,
            });
        }
        found = Some(both);
        before = after;
        std::thread::sleep(LOOK_PAUSE);
    }
}

/// What was found, with names of files and volumes.
fn name(cluster: &Cluster, look: &Look) -> Result<Vec<FlawJson>, Failure> {
    let named = look.found.iter().filter(|of| of.kind != Kind::Orphaned);
    let data: HashSet<DataId> = named.map(|of| of.chunk.data).collect();
    let paths = paths_of(cluster, "fsck", &data)?;
    let flaw = |finding: &Finding| flaw(finding, look, &paths);
    Ok(look.found.iter().map(flaw).collect())
}

fn flaw(finding: &Finding, look: &Look, paths: &HashMap<DataId, PathBuf>) -> FlawJson {
    let chunk = finding.chunk;
    FlawJson {
        kind: kind_text(finding.kind),
        path: paths.get(&chunk.data).cloned(),
        data: chunk.data.0,
        chunk: chunk.index,
        volume: finding.volume.and_then(|id| look.names.get(&id).cloned()),
    }
}

fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Orphaned => "orphaned",
        Kind::Missing => "missing",
        Kind::Lost => "lost",
        Kind::Short => "short",
        Kind::MissingCopy => "missing copy",
        Kind::Mismatched => "mismatched",
        Kind::Damaged => "damaged",
    }
}

fn json(look: &Look, flaws: Vec<FlawJson>, repaired: u64) -> FsckJson {
    let unasked = look.unasked.iter();
    let unasked = unasked.map(|(volume, status)| UnaskedJson {
        volume: volume.clone(),
        why: status.to_string(),
    });
    FsckJson {
        ok: flaws.is_empty() && look.unasked.is_empty() && look.unsettled == 0,
        files: look.files,
        chunks: look.chunks,
        unsettled_chains: look.unsettled,
        unasked: unasked.collect(),
        findings: flaws,
        repaired,
    }
}

fn text(
    output: &mut Output,
    look: &Look,
    flaws: &[FlawJson],
    repaired: u64,
) -> Result<(), Failure> {
    for flaw in flaws {
        output.line(flaw_text(flaw))?;
    }
    for (volume, status) in &look.unasked {
        output.line(format!("volume {volume} was not asked: {status}"))?;
    }
    if look.unsettled > 0 {
        let unsettled = look.unsettled;
        output.line(format!(
            "{unsettled} chains are being copied; they were not compared"
        ))?;
    }
    if repaired > 0 {
        output.line(format!("{repaired} flaws are repaired"))?;
    }
    let found = match flaws.len() {
        0 => "nothing is wrong".to_owned(),
        count => format!("{count} flaws"),
    };
    let (files, chunks) = (look.files, look.chunks);
    output.line(format!("{found}: {files} files, {chunks} chunks compared"))
}

fn flaw_text(flaw: &FlawJson) -> String {
    let path = match &flaw.path {
        Some(path) => path.display().to_string(),
        None => format!("(data {}, without a name)", flaw.data),
    };
    let on = match &flaw.volume {
        Some(volume) => format!(" on {volume}"),
        None => String::new(),
    };
    format!("{path}: chunk {}{on}: {}", flaw.chunk, flaw.kind)
}

/// An error if there is something to do.
fn judge(look: &Look, is_repairing: bool) -> Result<(), Failure> {
    if let Some((name, status)) = look.unasked.first() {
        let failure = Failure::new(format!("volume {name}"), status);
        return Err(match status {
            Status::WrongRole => failure.way_out(AS_ADMIN),
            _ => failure.way_out("vdfs status says how it is"),
        });
    }
    if look.found.is_empty() {
        return Ok(());
    }
    let count = look.found.len();
    let failure = Failure::new("fsck", format!("{count} flaws"));
    Err(match is_repairing {
        true => failure.way_out(
            "what is left has no good copy, or not the same on most volumes: write these files anew, from \
             where they came from",
        ),
        false => failure.way_out("what can be repaired is, by: vdfs fsck --repair"),
    })
}
