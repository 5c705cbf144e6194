//! `vdfs scrub`: has every volume compare what it holds with its sums, and names what is damaged.

mod damage;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use vdfs_net::Carrier;
use vdfs_net::rpc::call_operation;
use vdfs_program::{Failure, human};
use vdfs_proto::data::{Scrub, ScrubReport, ScrubState};
use vdfs_proto::frame::Method;
use vdfs_proto::meta::VolumeStatus;
use vdfs_proto::{Status, VolumeInfo};

use crate::args::ScrubArgs;
use crate::client::connection::runtime;
use crate::client::progress::Progress;
use crate::cluster::{AS_ADMIN, Cluster, Line, MASTER_WAIT};
use crate::output::Output;
use crate::status;
use damage::{Damage, find_damage};

/// Between two looks at how far the volumes are.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// What a volume says of its scrub.
#[derive(Debug)]
struct VolumeScrub {
    volume: VolumeInfo,
    report: Result<ScrubReport, Status>,
}

pub(crate) fn run(args: &ScrubArgs) -> Result<(), Failure> {
    let cluster = Cluster::find(&args.cluster)?;
    let volumes = status::ask_of(&cluster)?.volumes;
    let line = Line::open(&cluster)?;
    let scrubs = runtime()?.block_on(ask_and_wait(args, (&cluster, &line), volumes));
    line.close();
    let damage = find_damage(&cluster, &scrubs)?;
    let mut output = Output::open();
    match args.json {
        true => output.json(&json(&scrubs, &damage))?,
        false => text(&mut output, &scrubs, &damage)?,
    }
    output.finish()?;
    judge(&scrubs)
}

async fn ask_and_wait(
    args: &ScrubArgs,
    way: (&Cluster, &Line),
    volumes: Vec<VolumeStatus>,
) -> Vec<VolumeScrub> {
    let bytes_per_second = args.rate.0;
    let first = match (args.status, args.stop) {
        (true, _) => Scrub::Report,
        (_, true) => Scrub::Stop,
        (false, false) => Scrub::Begin { bytes_per_second },
    };
    let mut scrubs = ask_all(way, &volumes, first).await;
    if args.status {
        return scrubs;
    }
    let bar = Progress::start();
    bar.expect("scrub", scrubs.iter().map(|scrub| scrub.bytes().1).sum());
    let mut shown_bytes = 0;
    while scrubs.iter().any(VolumeScrub::is_running) {
        tokio::time::sleep(LOOK_PAUSE).await;
        scrubs = ask_all(way, &volumes, Scrub::Report).await;
        let checked_bytes = scrubs.iter().map(|scrub| scrub.bytes().0).sum();
        bar.advance(u64::saturating_sub(checked_bytes, shown_bytes));
        shown_bytes = checked_bytes;
    }
    scrubs
}

async fn ask_all(
    (cluster, line): (&Cluster, &Line),
    volumes: &[VolumeStatus],
    ask: Scrub,
) -> Vec<VolumeScrub> {
    let ask_one = async |volume: Arc<dyn Carrier>| {
        call_operation(&*volume, Method::Data, ask, MASTER_WAIT).await
    };
    let reports = line.ask_volumes(cluster, volumes, ask_one).await;
    let asked = volumes.iter().zip(reports);
    let scrub = asked.map(|(volume, report)| VolumeScrub {
        volume: volume.info.clone(),
        report,
    });
    scrub.collect()
}

impl VolumeScrub {
    fn is_running(&self) -> bool {
        let report = self.report.as_ref();
        report.is_ok_and(|report| report.state == ScrubState::Running)
    }

    /// Checked, and in all.
    fn bytes(&self) -> (u64, u64) {
        match &self.report {
            Ok(report) => (report.checked_bytes, report.total_bytes),
            Err(_) => (0, 0),
        }
    }
}

fn state_text(state: ScrubState) -> &'static str {
    match state {
        ScrubState::Never => "never scrubbed",
        ScrubState::Running => "running",
        ScrubState::Done => "done",
        ScrubState::Stopped => "stopped",
    }
}

#[derive(Debug, Serialize)]
struct ScrubJson<'a> {
    volumes: Vec<VolumeJson<'a>>,
    damaged: &'a [Damage],
}

#[derive(Debug, Serialize)]
struct VolumeJson<'a> {
    name: &'a str,
    state: &'static str,
    /// Why it could not be asked.
    error: Option<String>,
    checked_bytes: u64,
    /// What it held when the scrub began.
    total_bytes: u64,
    checked_chunks: u64,
    damaged_chunks: u64,
    took_ms: u64,
}

fn json<'a>(scrubs: &'a [VolumeScrub], damaged: &'a [Damage]) -> ScrubJson<'a> {
    let volume = |scrub: &'a VolumeScrub| {
        let report = scrub.report.clone().unwrap_or_default();
        VolumeJson {
            name: &scrub.volume.name,
            state: match &scrub.report {
                Ok(report) => state_text(report.state),
                Err(_) => "unknown",
            },
            error: scrub.report.as_ref().err().map(ToString::to_string),
            checked_bytes: report.checked_bytes,
            total_bytes: report.total_bytes,
            checked_chunks: report.checked_chunks,
            damaged_chunks: report.damaged_chunks,
            took_ms: report.took_ms,
        }
    };
    ScrubJson {
        volumes: scrubs.iter().map(volume).collect(),
        damaged,
    }
}

fn text(output: &mut Output, scrubs: &[VolumeScrub], damage: &[Damage]) -> Result<(), Failure> {
    for VolumeScrub { volume, report } in scrubs {
        let said = match report {
            Ok(report) => format!(
                "{}, {} in {} chunks checked in {:.1} s, {} damaged",
                state_text(report.state),
                human(report.checked_bytes),
                report.checked_chunks,
                report.took_ms as f64 / 1000.0,
                report.damaged_chunks,
            ),
            Err(status) => format!("not checked: {status}"),
        };
        output.line(format!("{:<12} {said}", volume.name))?;
    }
    for damage in damage {
        output.line(damage.text())?;
    }
    Ok(())
}

/// An error if there is something to do.
fn judge(scrubs: &[VolumeScrub]) -> Result<(), Failure> {
    let reports = scrubs.iter().filter_map(|scrub| scrub.report.as_ref().ok());
    let damaged: u64 = reports.map(|report| report.damaged_chunks).sum();
    if damaged > 0 {
        return Err(
            Failure::new("scrub", format!("{damaged} chunks are damaged"))
                .way_out(
                    "where other volumes have good copies they are made again by themselves: scrub again; \
                     otherwise write these files anew, from where they came from",
                ),
        );
    }
    let unasked = scrubs.iter().find_map(|scrub| {
        let status = scrub.report.as_ref().err()?;
        Some((&scrub.volume.name, status))
    });
    match unasked {
        Some((name, Status::WrongRole)) => Err(Failure::new(
            format!("volume {name}"),
            "only an administrator may have it scrubbed",
        )
        .way_out(AS_ADMIN)),
        Some((name, status)) => {
            Err(Failure::new(format!("volume {name}"), status)
                .way_out("vdfs status says how it is"))
        }
        None => Ok(()),
    }
}
