//! The command line and the config file.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser};
use serde::{Deserialize, Serialize};
use vdfs_net::address;
use vdfs_program::{Blame, ConfigArgs, Failure, LogLevel, Size, places};
use vdfs_proto::ChunkSize;

use crate::limits::RAM_BYTES_MIN;

const PORT: u16 = 7400;
const REPLICAS_MAX: i64 = vdfs_proto::limits::CHAIN_MEMBERS_MAX as i64;

const HELP: &str = "\
The first start makes the cluster: its authority in DIR/ca, and the identities DIR/identity (its \
own), DIR/identity-client and DIR/identity-admin. The program prints one line `ready master ADDR` \
when it serves, and stays. SIGTERM or Ctrl-C ends it; started again it goes on with what is there.

Examples:
  vdfs-master --state /var/lib/vdfs/master --listen 192.0.2.1:7400
  vdfs cert issue --ca /var/lib/vdfs/master --role volume --name v1 --out v1
  vdfs status --state /var/lib/vdfs/master

Exit status: 0 stopped, 1 failed (one line on standard error), 2 wrong usage.";

/// The master of a VDFS: keeps all names, and tells clients where contents are.
#[derive(Clone, Debug, Parser)]
#[command(name = "vdfs-master", version, after_help = HELP, max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    pub options: Options,
    #[command(flatten)]
    pub config: ConfigArgs,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where the log, the authority and the certificates are kept [default: /var/lib/vdfs/master
    /// for root, else $XDG_STATE_HOME/vdfs/master]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Address for clients and volumes; port 0 takes a free one [default: port 7400 on all
    /// addresses]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Size of the pieces that files are cut into: a power of two from 64KiB to 256MiB, fixed when
    /// the filesystem is made [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_chunk_size)]
    pub chunk_size: Option<Size>,
    /// Copies of everything, on different hosts: 1 to 3; later changed by `vdfs replicas set`
    /// [default: 1, or 2 while there are volumes on two hosts]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=REPLICAS_MAX))]
    pub replicas: Option<u32>,
    /// RAM that the master may take, for names and all else that it keeps; at the limit nothing new
    /// can be made [default: half of the available memory]
    #[arg(long, value_name = "SIZE", value_parser = parse_ram)]
    pub ram: Option<Size>,
    /// Answer changes only when they are on the disk, not only in the kernel [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(value_name = "BOOL")]
    pub sync_log: Option<bool>,
    /// How much to log [default: info]
    #[arg(long, value_name = "LEVEL", help_heading = "Logging")]
    pub log: Option<LogLevel>,
    /// Append logs to FILE instead of standard error
    #[arg(long, value_name = "FILE", help_heading = "Logging")]
    pub log_file: Option<PathBuf>,
}

impl Options {
    /// With the defaults of what was not said. Chunk size and copies stay open: the filesystem that is
    /// there has them.
    pub fn with_defaults(self) -> Result<Options, Failure> {
        let state = match self.state {
            Some(state) => state,
            None => places::default_state("master")?,
        };
        let ram = match self.ram {
            Some(ram) => ram,
            None => default_ram()?,
        };
        Ok(Options {
            state: Some(state),
            ram: Some(ram),
            listen: Some(self.listen.unwrap_or_else(|| address::anywhere(PORT))),
            sync_log: Some(self.sync_log.unwrap_or(false)),
            log: Some(self.log.unwrap_or(LogLevel::Info)),
            ..self
        })
    }

    pub(super) fn log(&self) -> LogLevel {
        self.log.unwrap_or(LogLevel::Info)
    }
}

fn default_ram() -> Result<Size, Failure> {
    let available = vdfs_program::available_bytes().blame("/proc/meminfo")?;
    Ok(Size(((available / 2) >> 20 << 20).max(RAM_BYTES_MIN)))
}

fn parse_ram(text: &str) -> Result<Size, String> {
    let size: Size = text.parse().map_err(|error| format!("{error}"))?;
    let refusal = || format!("must be at least {}", Size(RAM_BYTES_MIN));
    (size.0 >= RAM_BYTES_MIN)
        .then_some(size)
        .ok_or_else(refusal)
}

fn parse_chunk_size(text: &str) -> Result<Size, String> {
    let size: Size = text.parse().map_err(|error| format!("{error}"))?;
    let is_possible = ChunkSize::new(size.0).is_ok();
    let refusal = || "must be a power of two from 64KiB to 256MiB".to_owned();
    is_possible.then_some(size).ok_or_else(refusal)
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
            "vdfs-master --chunk-size 3MiB",
            "vdfs-master --chunk-size 65536",
            "vdfs-master --replicas 0",
            "vdfs-master --replicas 4",
            "vdfs-master --ram 64MiB",
            "vdfs-master --ram 4294967296",
            "vdfs-master --listen nowhere",
            "vdfs-master --sync-log=maybe",
            "vdfs-master /state",
        ] {
            let parsed = Arguments::try_parse_from(line.split(' '));
            assert_eq!(parsed.expect_err(line).exit_code(), 2, "{line}");
        }
    }
}
