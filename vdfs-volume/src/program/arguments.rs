//! The command line and the config file.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser};
use serde::{Deserialize, Serialize};
use vdfs_net::address;
use vdfs_program::{ConfigArgs, Failure, LogLevel, Size, places};

const PORT: u16 = 7401;

const HELP: &str = "\
The volume needs an identity of its own, which is made where the master's state directory is:
  vdfs cert issue --ca /var/lib/vdfs/master --role volume --name v1 --out v1
and put into DIR/identity, or named with --identity. The program prints one line `ready volume NAME \
ADDR SIZE` when the master has taken it in, and stays; while the master is away it waits. SIGTERM or \
Ctrl-C ends it. The contents stay in DIR/ram, a tmpfs, and are served again after a restart; a \
reboot of the machine loses them.

Examples:
  vdfs-volume --state /var/lib/vdfs/volume --master 192.0.2.1 --ram 4GiB
  vdfs-volume --master m1.example,m2.example:7400 --listen 192.0.2.2:7401 --host rack1-a

Exit status: 0 stopped, 1 failed (one line on standard error), 2 wrong usage.";

/// A volume of a VDFS: keeps contents of files in RAM.
#[derive(Clone, Debug, Parser)]
#[command(name = "vdfs-volume", version, after_help = HELP, max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    pub options: Options,
    #[command(flatten)]
    pub config: ConfigArgs,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where the identity and the link to the RAM are kept [default: /var/lib/vdfs/volume for
    /// root, else $XDG_STATE_HOME/vdfs/volume]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Addresses of the master
    #[arg(long, value_name = "HOST[:PORT],..", value_delimiter = ',')]
    pub master: Option<Vec<String>>,
    /// Address for clients; port 0 takes a free one [default: port 7401 on all
    /// addresses]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// RAM for contents of files and their tables [default: all of the tmpfs that is mounted at
    /// STATE/ram, else a quarter of the available memory]
    #[arg(long, value_name = "SIZE")]
    pub ram: Option<Size>,
    /// Most that copies for other volumes take of the network, in bytes a second; what a write waits
    /// for goes at once, and others later [default: no limit; they leave most of it to clients]
    #[arg(long, value_name = "SIZE")]
    pub copy_rate: Option<Size>,
    /// The machine it is on, for the placement of copies [default: the address at which the
    /// master sees it]
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// What status reports call it [default: the name in its certificate]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Directory with key.pem, cert.pem and ca.pem [default: STATE/identity, else
    /// /etc/vdfs/identity]
    #[arg(long, value_name = "DIR")]
    pub identity: Option<PathBuf>,
    /// How much to log [default: info]
    #[arg(long, value_name = "LEVEL", help_heading = "Logging")]
    pub log: Option<LogLevel>,
    /// Append logs to FILE instead of standard error
    #[arg(long, value_name = "FILE", help_heading = "Logging")]
    pub log_file: Option<PathBuf>,
}

impl Options {
    /// With the defaults of what was not said, as far as they need no look at the machine.
    pub fn with_defaults(self) -> Result<Options, Failure> {
        let state = match self.state {
            Some(state) => state,
            None => places::default_state("volume")?,
        };
        let identity = self.identity.unwrap_or_else(|| default_identity(&state));
        Ok(Options {
            state: Some(state),
            identity: Some(identity),
            listen: Some(self.listen.unwrap_or_else(|| address::anywhere(PORT))),
            log: Some(self.log.unwrap_or(LogLevel::Info)),
            ..self
        })
    }

    pub(super) fn log(&self) -> LogLevel {
        self.log.unwrap_or(LogLevel::Info)
    }
}

fn default_identity(state: &std::path::Path) -> PathBuf {
    let shared = PathBuf::from(places::IDENTITY);
    let own = state.join("identity");
    if !own.exists() && shared.exists() {
        return shared;
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_definition_is_consistent() {
        super::super::command().debug_assert();
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "vdfs-volume --ram 4096",
            "vdfs-volume --listen nowhere",
            "vdfs-volume --master",
            "vdfs-volume /state",
        ] {
            let parsed = Arguments::try_parse_from(line.split(' '));
            assert_eq!(parsed.expect_err(line).exit_code(), 2, "{line}");
        }
    }
}
