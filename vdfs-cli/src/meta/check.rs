//! `vdfs meta check`.

use serde::Serialize;
use vdfs_master::meta::{self, Checked};
use vdfs_program::Failure;
use vdfs_proto::meta::{Finding, Inspection};

use super::Names;
use super::running::inspect;
use super::slots::SlotsBar;
use crate::args::MetaCheckArgs;
use crate::output::Output;

#[derive(Debug, Serialize)]
struct CheckJson<'a> {
    /// The master checked itself.
    online: bool,
    ok: bool,
    findings: Vec<FindingJson<'a>>,
    notes: &'a [String],
    /// `null` of a running master: `vdfs status` says it.
    files: Option<u64>,
    records: Option<u64>,
    checkpoints: Option<u32>,
}

#[derive(Debug, Serialize)]
struct FindingJson<'a> {
    what: &'a str,
    way_out: &'a str,
}

pub(super) fn run(args: &MetaCheckArgs) -> Result<(), Failure> {
    let bar = SlotsBar::start("checking");
    let (online, checked) = match Names::find(&args.cluster)? {
        Names::Files { log_dir, .. } => {
            let checked = meta::check(&log_dir, &mut |progress| bar.show(progress));
            (false, checked.map_err(Failure::of)?)
        }
        Names::Running(cluster) => (true, ask(&cluster, &bar)?),
    };
    drop(bar);
    say(args.json, online, &checked)?;
    match checked.findings.len() {
        0 => Ok(()),
        1 => Err(Failure::new("meta check", "1 thing is wrong")),
        count => Err(Failure::new(
            "meta check",
            format!("{count} things are wrong"),
        )),
    }
}

fn ask(cluster: &crate::cluster::Cluster, bar: &SlotsBar) -> Result<Checked, Failure> {
    let mut findings: Vec<Finding> = Vec::new();
    inspect(cluster, Inspection::Check, bar, |piece| {
        findings.extend(piece.findings);
        Ok(())
    })?;
    Ok(Checked {
        findings,
        ..Checked::default()
    })
}

fn say(is_json: bool, online: bool, checked: &Checked) -> Result<(), Failure> {
    let mut output = Output::open();
    if is_json {
        output.json(&json(online, checked))?;
        return output.finish();
    }
    for finding in &checked.findings {
        output.line(format!("{}; {}", finding.what, finding.way_out))?;
    }
    for note in &checked.notes {
        output.line(format!("note: {note}"))?;
    }
    if checked.findings.is_empty() {
        output.line(all_well(online, checked))?;
    }
    output.finish()
}

fn all_well(online: bool, checked: &Checked) -> String {
    match online {
        true => {
            "nothing is wrong: the state, the checkpoints and the log of the running master".into()
        }
        false => format!(
            "nothing is wrong: {} files, {} changes, {} checkpoints",
            checked.files, checked.records, checked.checkpoints
        ),
    }
}

fn json(online: bool, checked: &Checked) -> CheckJson<'_> {
    CheckJson {
        online,
        ok: checked.findings.is_empty(),
        findings: checked
            .findings
            .iter()
            .map(|finding| FindingJson {
                what: &finding.what,
                way_out: &finding.way_out,
            })
            .collect(),
        notes: &checked.notes,
        files: (!online).then_some(checked.files),
        records: (!online).then_some(checked.records),
        checkpoints: (!online).then_some(checked.checkpoints),
    }
}
