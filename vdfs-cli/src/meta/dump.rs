//! `vdfs meta dump`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use vdfs_master::meta;
use vdfs_program::{Blame, Failure, human};
use vdfs_proto::meta::Inspection;

use super::Names;
use super::running::inspect;
use super::slots::SlotsBar;
use crate::args::MetaDumpArgs;
use crate::output::Output;

#[derive(Debug, Serialize)]
struct DumpJson<'a> {
    online: bool,
    file: &'a str,
    text_bytes: u64,
}

pub(super) fn run(args: &MetaDumpArgs) -> Result<(), Failure> {
    let names = Names::find(&args.cluster)?;
    let online = matches!(names, Names::Running(_));
    if args.file.as_os_str() == "-" {
        write(&names, &mut io::stdout().lock())?;
        return Ok(());
    }
    let beside = beside(&args.file);
    let written = write_file(&names, &beside);
    if written.is_err() {
        // What is there of it is of no use.
        std::fs::remove_file(&beside).ok();
    }
    let text_bytes = written?;
    std::fs::rename(&beside, &args.file).blame(args.file.display())?;
    let file = args.file.display().to_string();
    let mut output = Output::open();
    if args.json {
        output.json(&DumpJson {
            online,
            file: &file,
            text_bytes,
        })?;
    } else {
        output.line(format!("{file}: {}", human(text_bytes)))?;
    }
    output.finish()
}

/// Where the text is until it is whole.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".unfinished");
    name.into()
}

fn write_file(names: &Names, path: &Path) -> Result<u64, Failure> {
    let file = File::create(path).blame(path.display())?;
    let mut out = BufWriter::new(file);
    let bytes = write(names, &mut out)?;
    let file = out.into_inner().blame(path.display())?;
    file.sync_all().blame(path.display())?;
    Ok(bytes)
}

/// Gives how many bytes there are.
fn write(names: &Names, out: &mut dyn Write) -> Result<u64, Failure> {
    let bar = SlotsBar::start("writing");
    let mut counted = Counted { out, bytes: 0 };
    match names {
        Names::Files { log_dir, .. } => {
            let dumped = meta::dump(log_dir, &mut counted, &mut |progress| bar.show(progress));
            dumped.map_err(Failure::of)?;
        }
        Names::Running(cluster) => inspect(cluster, Inspection::Dump, &bar, |piece| {
            counted.write_all(&piece.text).blame("dump")
        })?,
    }
    counted.flush().blame("dump")?;
    Ok(counted.bytes)
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
