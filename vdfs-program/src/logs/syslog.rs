//! Lines to syslog(3), without its library.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

const SYSLOG: &str = "/dev/log";
/// `LOG_DAEMON` of syslog(3), shifted as it travels.
const FACILITY: u8 = 3 << 3;

/// One datagram a line (RFC 3164); without a syslog daemon, and while it is full, nothing.
#[derive(Debug)]
pub(super) struct Syslog {
    program: &'static str,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    pub(super) fn open(program: &'static str) -> Self {
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.connect(SYSLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        Syslog {
            program,
            socket: socket.ok(),
        }
    }
}

#[derive(Debug)]
pub(super) struct SyslogLine<'a> {
    program: &'static str,
    socket: Option<&'a UnixDatagram>,
    severity: u8,
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = SyslogLine<'a>;

    fn make_writer(&'a self) -> SyslogLine<'a> {
        SyslogLine {
            program: self.program,
            socket: self.socket.as_ref(),
            severity: severity(Level::INFO),
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> SyslogLine<'a> {
        SyslogLine {
            program: self.program,
            socket: self.socket.as_ref(),
            severity: severity(*meta.level()),
        }
    }
}

impl Write for SyslogLine<'_> {
    /// The formatter writes each line whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(socket) = self.socket {
            drop(socket.send(&datagram(self.program, self.severity, line)));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn datagram(program: &str, severity: u8, line: &[u8]) -> Vec<u8> {
    let head = format!(
        "<{}>{program}[{}]: ",
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
            datagram("mount.vdfs", severity(Level::WARN), b"a line\n"),
            expected.as_bytes()
        );
    }
}
