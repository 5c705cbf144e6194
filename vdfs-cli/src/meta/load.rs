//! `vdfs meta load`.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::Serialize;
use vdfs_master::meta;
use vdfs_net::{Issuer, StateDir};
use vdfs_program::{Blame, Failure};

use super::slots::LinesBar;
use crate::args::MetaLoadArgs;
use crate::output::Output;

#[derive(Debug, Serialize)]
struct LoadJson {
    files: u64,
}

pub(super) fn run(args: &MetaLoadArgs) -> Result<(), Failure> {
    let mut input = open(&args.file)?;
    if !args.state.join("ca").is_dir() {
        let why = "it has no authority (ca): clients and volumes would not know the master";
        let failure = Failure::new(args.state.display(), why);
        return Err(failure.way_out("put ca and identity* back from a copy of the old one"));
    }
    let state = StateDir::open(&args.state).map_err(Failure::of)?;
    let issuer = Issuer::open(&args.state.join("ca")).map_err(Failure::of)?;
    let bar = LinesBar::start("loading");
    let loaded = meta::load(&state.log(), issuer.cluster(), &mut *input, &mut |lines| {
        bar.show(lines);
    });
    drop(bar);
    let files = loaded.blame(args.file.display())?;
    let mut output = Output::open();
    if args.json {
        output.json(&LoadJson { files })?;
    } else {
        output.line(format!("{files} files; start the master now"))?;
    }
    output.finish()
}

fn open(file: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if file.as_os_str() == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(file).blame(file.display())?;
    Ok(Box::new(BufReader::with_capacity(1 << 20, file)))
}
