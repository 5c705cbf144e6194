//! The program `vdfs-master`: a master alone, reached over QUIC.
//!
//! Owns the order in which its parts start and stop: state directory, authority and identities,
//! log, door; and back.
//!
//! Invariants: nothing of a state directory that another process uses is touched; the ready line is
//! printed when the door is open.

mod arguments;
mod server;

use std::time::Duration;

use tokio::runtime::Runtime;
use vdfs_program::{Blame, Failure, LogTarget, Settings, StopSignals, logs, notify, say_ready};

pub use arguments::{Arguments, Options};
pub use server::{Server, ServerConfig};

/// As it calls itself.
pub const PROGRAM: &str = "vdfs-master";
/// How long a stop may take.
const STOP_MAX: Duration = Duration::from_secs(9);

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Serves until a signal asks for the end.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.config.config.as_deref();
    let settings = Settings::load("master", &arguments.options, config)?;
    let options = settings.options.clone().with_defaults()?;
    if arguments.config.print_config {
        return vdfs_program::print(&settings.print(&options)?);
    }
    logs::start(LogTarget::of(options.log_file.as_deref()), options.log())?;
    let server = Server::start(&ServerConfig::of(&options)?)?;
    let runtime = runtime()?;
    let served = runtime.block_on(serve(&server));
    notify::stopping();
    if let Ok(signals) = served {
        runtime.spawn(signals.end_at_next(PROGRAM, STOP_MAX));
        server.stop();
        return Ok(());
    }
    served.map(drop)
}

/// For signals and the service manager: requests have threads of their own.
fn runtime() -> Result<Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(1).thread_name("vdfs-signals");
    builder.enable_all().build().blame("runtime")
}

/// Returns when it is time to stop.
async fn serve(server: &Server) -> Result<StopSignals, Failure> {
    let mut signals = StopSignals::watch()?;
    let addr = server.addr();
    say_ready(&format!("ready master {addr}"))?;
    notify::ready(&format!("serving at {addr}"));
    signals.next().await;
    Ok(signals)
}
