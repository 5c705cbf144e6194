//! The program `vdfs-volume`: a volume alone, reached over QUIC.
//!
//! Owns the order in which its parts start and stop: state directory, identity, RAM, door,
//! registration; and back.
//!
//! Invariants: nothing of a state directory that another process uses is touched; the ready line is
//! printed when the master has taken the volume in; a master that is away is waited for.

mod arguments;
mod server;

use vdfs_program::{Failure, LogTarget, Settings, logs};

pub use arguments::{Arguments, Options};
pub use server::{Server, ServerConfig};

/// As it calls itself.
pub const PROGRAM: &str = "vdfs-volume";
/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Serves until a signal asks for the end.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.config.config.as_deref();
    let settings = Settings::load("volume", &arguments.options, config)?;
    let options = settings.options.clone().with_defaults()?;
    if arguments.config.print_config {
        return vdfs_program::print(&settings.print(&options)?);
    }
    logs::start(LogTarget::of(options.log_file.as_deref()), options.log())?;
    vdfs_program::serve(Server::start(&ServerConfig::of(&options)?)?)
}
