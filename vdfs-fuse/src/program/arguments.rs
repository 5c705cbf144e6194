//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Mounts a VDFS on a directory, and returns when the directory answers.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "mount.vdfs",
    version,
    allow_missing_positional = true,
    after_help = "\
Examples:
  mount.vdfs 10.0.0.1 /mnt/vdfs
  mount.vdfs 10.0.0.1:7400 /mnt/vdfs -o ro,identity=/etc/vdfs/identity
  mount.vdfs \"$(cat /var/lib/vdfs/up/addr)\" /mnt/second -o identity=/var/lib/vdfs/up/identity-client
  mount.vdfs /mnt/vdfs                 the masters of /etc/vdfs/client.toml
  /etc/fstab:  10.0.0.1:7400  /mnt/vdfs  vdfs  _netdev,nofail  0  0
  /etc/fstab:  none           /mnt/vdfs  vdfs  _netdev,nofail  0  0

Options of -o:
  config=FILE    take masters (if no SOURCE is given), identity, timeout and log from FILE
                 (without a SOURCE, default /etc/vdfs/client.toml)
  identity=DIR   key.pem, cert.pem and ca.pem of a client (default /etc/vdfs/identity)
  timeout=TIME   give an operation up with EIO after this time (30s, 5min; default: wait)
  log=FILE       append logs to FILE (default: syslog, and standard error in the foreground)
  allow_other    let other users in (the default for root)
  ro rw suid nosuid dev nodev exec noexec remount, and what mount(8) keeps for itself

Status: 0 mounted, 1 wrong usage, 32 not mounted."
)]
pub(super) struct Arguments {
    /// Addresses of the masters: HOST[:PORT],.. (port 7400); left out, or `none`: those of the
    /// config file
    #[arg(
        value_name = "SOURCE",
        default_value = "none",
        hide_default_value = true
    )]
    pub(super) source: String,
    /// An empty directory
    #[arg(value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// Options, separated by commas
    #[arg(short = 'o', value_name = "OPTS")]
    pub(super) options: Vec<String>,
    /// Accept options that are not known
    #[arg(short = 's')]
    pub(super) sloppy: bool,
    /// Fake: check everything, but do not mount
    #[arg(short = 'f')]
    pub(super) fake: bool,
    /// Do not write /etc/mtab (which is never written)
    #[arg(short = 'n')]
    pub(super) no_mtab: bool,
    /// Say more in the log
    #[arg(short = 'v')]
    pub(super) verbose: bool,
    /// The type by which mount(8) was called
    #[arg(short = 't', value_name = "TYPE", hide = true)]
    pub(super) fs_type: Option<String>,
    /// Stay in the foreground and print `ready` on standard output
    #[arg(long)]
    pub(super) foreground: bool,
    #[arg(long, hide = true)]
    pub(super) background_child: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn arguments_as_mount_gives_them_are_taken() {
        let words = [
            "mount.vdfs",
            "10.0.0.1:7400",
            "/mnt",
            "-sfnv",
            "-o",
            "rw,nofail",
            "-t",
            "vdfs",
        ];
        let arguments = Arguments::try_parse_from(words).expect("parses");
        assert!(arguments.sloppy && arguments.fake && arguments.no_mtab && arguments.verbose);
        assert_eq!(arguments.options, ["rw,nofail"]);
        assert_eq!(arguments.fs_type.as_deref(), Some("vdfs"));
        assert!(Arguments::try_parse_from(["mount.vdfs"]).is_err());
    }

    #[test]
    fn arguments_without_a_source_have_only_a_directory() {
        let arguments = Arguments::try_parse_from(["mount.vdfs", "/mnt", "-o", "ro"]);
        let arguments = arguments.expect("parses");
        assert_eq!(
            (&*arguments.source, arguments.dir.to_str()),
            ("none", Some("/mnt"))
        );
        let both = Arguments::try_parse_from(["mount.vdfs", "h", "/mnt"]).expect("parses");
        assert_eq!((&*both.source, both.dir.to_str()), ("h", Some("/mnt")));
    }
}
