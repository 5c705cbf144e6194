//! `vdfs install`: everything where the system looks for it, from what was built.
//!
//! Owns the list of what is installed where. Man pages and completions are made from the
//! definitions of the command lines, units and examples come from `systemd/`, the programs lie
//! beside the `vdfs` that runs.
//!
//! Invariants: no file is replaced before all are written beside their places, and each is replaced
//! whole; a file of `/etc` that is there is never touched.

mod completions;
mod files;
mod pages;
mod programs;
mod units;
mod volume;

use std::path::Path;

use crate::args::InstallArgs;
use crate::output::Output;
use files::File;
use vdfs_program::Failure;
pub(crate) use volume::VolumeName;

const NEXT: &str = "\
next, as root: systemd-sysusers && sysctl --system && systemctl daemon-reload
a master:      systemctl enable --now vdfs-master
a volume:      vdfs install --volume 1 --ram SIZE --master ADDR
a mount:       mount -t vdfs ADDR DIR";

/// Does what `vdfs install` was asked for, and says what it wrote.
pub(crate) fn run(args: &InstallArgs) -> Result<(), Failure> {
    let (files, next) = match volume::Wanted::of(args) {
        Some(wanted) => (wanted.files(&args.root)?, wanted.next()),
        None => (everything(&args.prefix)?, NEXT.to_owned()),
    };
    if !args.dry_run {
        files::write(&args.root, &files)?;
    }
    let mut output = Output::open();
    for file in &files {
        output.line(file.place_below(&args.root).as_os_str().as_encoded_bytes())?;
    }
    output.line(next)?;
    output.finish()
}

fn everything(prefix: &Path) -> Result<Vec<File>, Failure> {
    let mut files = programs::files(prefix)?;
    files.extend(units::files(prefix));
    files.extend(pages::files(prefix));
    files.extend(completions::files(prefix));
    Ok(files)
}

/// The four programs' command lines: name, section of the manual, definition.
fn command_lines() -> [(&'static str, &'static str, clap::Command); 4] {
    use clap::CommandFactory;
    [
        ("vdfs", "1", crate::Cli::command()),
        ("vdfs-master", "8", vdfs_master::program::command()),
        ("vdfs-volume", "8", vdfs_volume::program::command()),
        ("mount.vdfs", "8", vdfs_fuse::program::command()),
    ]
}
