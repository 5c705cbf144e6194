//! The program `vdfs`: one command to a filesystem in RAM, and the commands that work on it.
//!
//! Owns what only a program has: the command line, exit status and error lines, state directories,
//! signals. [`up::Up`] is a whole filesystem in this process (authority, master, volumes, mount),
//! so a test can run one. Everything else is a client of a running one over QUIC.
//!
//! Left out: every decision about files. The crates below make these.

mod args;
mod calendar;
mod cert;
mod client;
mod cluster;
mod down;
mod fsck;
mod install;
mod meta;
mod output;
mod places;
mod rebalance;
mod replicas;
mod scrub;
mod sessions;
mod state_files;
mod status;
pub mod up;
mod volume;

use vdfs_program::{Failure, LogLevel, LogTarget, logs};

pub use args::{Cli, Command};

/// Does what the command line says.
pub fn run(cli: Cli) -> Result<(), Failure> {
    // A command that fails says so in one line; a filesystem that runs has more to tell.
    let default_level = match cli.command {
        Command::Up(_) => LogLevel::Warn,
        _ => LogLevel::Error,
    };
    let target = LogTarget::of(cli.log.log_file.as_deref());
    logs::start(target, cli.log.log.unwrap_or(default_level))?;
    match cli.command {
        Command::Up(args) => up::run(args),
        Command::Down(args) => down::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Put(args) => client::put::run(&args),
        Command::Get(args) => client::get::run(&args),
        Command::Ls(args) => client::ls::run(&args),
        Command::Rm(args) => client::rm::run(&args),
        Command::Stat(args) => client::stat::run(&args),
        Command::Cat(args) => client::cat::run(&args),
        Command::Locate(args) => client::locate::run(&args),
        Command::Locks(args) => client::locks::run(&args),
        Command::Cert(args) => cert::run(&args),
        Command::ForgetLost(args) => client::forget_lost::run(&args),
        Command::Scrub(args) => scrub::run(&args),
        Command::Fsck(args) => fsck::run(&args),
        Command::Sessions(args) => sessions::run(&args),
        Command::Replicas(args) => replicas::run(&args),
        Command::Volume(args) => volume::run(&args.command),
        Command::Rebalance(args) => rebalance::run(&args),
        Command::Meta(args) => meta::run(&args),
        Command::Install(args) => install::run(&args),
    }
}
