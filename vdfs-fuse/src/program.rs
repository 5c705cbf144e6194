//! `mount.vdfs SOURCE DIR [-sfnv] [-o OPTS]`, as mount(8) calls it or a person.
//!
//! In the background the program runs twice: the first process starts the second as a session of
//! its own, with its standard output on a pipe, and leaves as soon as the second says `ready`,
//! which it does when the mountpoint answers. So the mount is made before anybody is told, and
//! errors reach whoever called.

mod arguments;
mod background;
mod options;
mod serve;
mod source;

use std::fmt;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use vdfs_program::one_line;

use crate::mount;
use crate::program::arguments::Arguments;
use crate::program::options::Options;

/// Statuses of mount(8).
const WRONG_USAGE: u8 = 1;
const NOT_MOUNTED: u8 = 32;

/// Why there is no mount: what is said, and with which status.
#[derive(Debug)]
struct Failure {
    line: String,
    status: u8,
}

impl Failure {
    fn usage(why: impl fmt::Display) -> Self {
        Failure {
            line: one_line(&why),
            status: WRONG_USAGE,
        }
    }

    fn not_mounted(why: impl fmt::Display) -> Self {
        Failure {
            line: one_line(&why),
            status: NOT_MOUNTED,
        }
    }

    /// For errors that do not say themselves what they are about.
    fn at(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Failure::not_mounted(format!("{what}: {why}"))
    }
}

/// Runs the program: returns when the mount has ended or, in the background, when it stands.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return tell_usage(&error),
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("mount.vdfs: {}", failure.line);
            ExitCode::from(failure.status)
        }
    }
}

impl From<vdfs_program::Failure> for Failure {
    fn from(failure: vdfs_program::Failure) -> Failure {
        Failure::not_mounted(failure)
    }
}

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Help and version are no errors.
fn tell_usage(error: &clap::Error) -> ExitCode {
    if error.print().is_err() {
        return ExitCode::from(WRONG_USAGE);
    }
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(WRONG_USAGE),
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let options = Options::parse(&arguments.options, arguments.sloppy).map_err(Failure::usage)?;
    if options.remount && !arguments.fake {
        return mount::remount(&arguments.dir, options.flags).map_err(Failure::not_mounted);
    }
    let (masters, options) = source::settle(&arguments.source, options)?;
    if arguments.fake {
        return Ok(());
    }
    if arguments.foreground || arguments.background_child {
        return serve::serve(arguments, options, masters);
    }
    background::start(&arguments.dir)
}
