//! Logs: to standard error in the foreground, else to a file or to syslog.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Mutex;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::log_filter::log_filter;
use crate::program::Failure;

const SYSLOG: &str = "/dev/log";
/// `LOG_DAEMON` of syslog(3), shifted as it travels.
const FACILITY: u8 = 3 << 3;

/// Where logs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogTarget<'a> {
    StandardError,
    File(&'a Path),
    Syslog,
}

pub(super) fn start(target: LogTarget<'_>, verbose: bool) -> Result<(), Failure> {
    let level = if verbose {
        LevelFilter::INFO
    } else {
        LevelFilter::WARN
    };
    let filter = log_filter(level);
    let lines = tracing_subscriber::fmt().with_max_level(level);
    let started = match target {
        LogTarget::StandardError => {
            let colours = io::stderr().is_terminal();
            lines
                .with_ansi(colours)
                .with_writer(io::stderr)
                .finish()
                .with(filter)
                .try_init()
        }
        LogTarget::File(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let file = file.map_err(|error| Failure::at(path.display(), error))?;
            lines
                .with_ansi(false)
                .with_writer(Mutex::new(file))
                .finish()
                .with(filter)
                .try_init()
        }
        LogTarget::Syslog => {
            let lines = lines.with_ansi(false).without_time().with_level(false);
            lines
                .with_writer(Syslog::open())
                .finish()
                .with(filter)
                .try_init()
        }
    };
    started.map_err(|error| Failure::at("logs", error))
}

/// One datagram a line (RFC 3164); without a syslog daemon, and while it is full, nothing.
#[derive(Debug)]
struct Syslog {
    socket: Option<UnixDatagram>,
}

impl Syslog {
    fn open() -> Self {
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.connect(SYSLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        Syslog {
            socket: socket.ok(),
        }
    }
}

#[derive(Debug)]
struct SyslogLine<'a> {
    socket: Option<&'a UnixDatagram>,
    severity: u8,
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = SyslogLine<'a>;

    fn make_writer(&'a self) -> SyslogLine<'a> {
        SyslogLine {
            socket: self.socket.as_ref(),
            severity: severity(Level::INFO),
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> SyslogLine<'a> {
        SyslogLine {
            socket: self.socket.as_ref(),
            severity: severity(*meta.level()),
        }
    }
}

impl Write for SyslogLine<'_> {
    /// The formatter writes each line whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(socket) = self.socket {
            drop(socket.send(&datagram(self.severity, line)));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn datagram(severity: u8, line: &[u8]) -> Vec<u8> {
    let head = format!(
        "<{}>mount.vdfs[{}]: ",
        FACILITY | severity,
        std::process::id()
    );
    [head.as_bytes(), line.trim_ascii_end()].concat()
}

/// As syslog(3) numbers them.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagram_names_facility_severity_and_process() {
        let expected = format!("<28>mount.vdfs[{}]: a line", std::process::id());
        assert_eq!(
            datagram(severity(Level::WARN), b"a line\n"),
            expected.as_bytes()
        );
    }
}
