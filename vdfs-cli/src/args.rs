//! The command line: what can be said, and the help that explains it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use vdfs_program::{LogLevel, Size};
use vdfs_proto::ChunkSize;

use crate::install::VolumeName;

const EXAMPLES: &str = "\
Examples:
  vdfs up /mnt/vdfs                      a directory in RAM, until Ctrl-C or `vdfs down`
  cp -r ~/src /mnt/vdfs                  ordinary programs work on it
  vdfs put big.tar /big.tar              without a mount: paths are those of the filesystem
  vdfs status                            what it holds and how it is
  vdfs down --destroy /mnt/vdfs          stop it and give the RAM back

Exit status: 0 done, 1 failed (one line on standard error), 2 wrong usage.";

/// A filesystem in the RAM of one or many machines.
#[derive(Debug, Parser)]
#[command(name = "vdfs", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub log: LogArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct LogArgs {
    /// How much to log [default: warn for `up`, else error]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Logging")]
    pub log: Option<LogLevel>,
    /// Append logs to FILE instead of standard error
    #[arg(long, global = true, value_name = "FILE", help_heading = "Logging")]
    pub log_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a filesystem in this machine's RAM and mount it at DIR
    Up(UpArgs),
    /// Stop a running `vdfs up`: flush, unmount, end
    Down(DownArgs),
    /// Show health, space, volumes and mounts
    Status(StatusArgs),
    /// Copy files into the filesystem, without a mount
    Put(PutArgs),
    /// Copy files out of the filesystem, without a mount
    Get(GetArgs),
    /// List files and directories
    Ls(LsArgs),
    /// Remove files
    Rm(RmArgs),
    /// Show the attributes of files
    Stat(PathArgs),
    /// Write files to standard output
    Cat(PathArgs),
    /// Issue certificates for volumes and mounts of other machines
    Cert(CertArgs),
    /// Show which volumes hold the pieces of a file
    Locate(InodeArgs),
    /// Show who holds locks of a file, and who waits for one
    Locks(InodeArgs),
    /// Remove the files whose contents were in RAM that is gone
    ForgetLost(ForgetLostArgs),
    /// Compare everything that the volumes hold with its checksums
    Scrub(ScrubArgs),
    /// Compare what the master says there is with what the volumes have, and repair what can be
    Fsck(FsckArgs),
    /// Show who uses the filesystem: mounts and commands, with what they hold
    Sessions(SessionsArgs),
    /// Show or set how many copies the volumes keep, of everything or of what is below a directory
    Replicas(ReplicasArgs),
    /// List the volumes, empty one of its data, take one away, free the RAM that one has left
    Volume(VolumeArgs),
    /// Show, pause or resume the moving of data to volumes that have less than their share
    Rebalance(RebalanceArgs),
    /// Check the names of a filesystem, write them out as text, or load such a text
    Meta(MetaArgs),
    /// Put the programs, units, man pages and completions where the system looks for them
    Install(InstallArgs),
}

const UP_HELP: &str = "\
The command prints one line `ready DIR SIZE, ...` when DIR can be used, and stays. Stop it with \
Ctrl-C, SIGTERM or `vdfs down DIR`; started again, it goes on with the files that are there. \
File contents live in RAM only: a reboot loses them, the names stay.

Examples:
  vdfs up /mnt/vdfs                          a quarter of the available memory
  vdfs up /mnt/vdfs --ram 4GiB --volumes 2   4 GiB in all, on two volumes
  vdfs up ~/ram --state ~/.vdfs              as an ordinary user, through fusermount3
  vdfs up /mnt/vdfs --fresh                  forget the old files and start empty

A second mount of the same files:
  mount.vdfs \"$(cat STATE/addr)\" DIR2 -o identity=STATE/identity-client";

#[derive(Debug, Args)]
#[command(after_help = UP_HELP)]
pub struct UpArgs {
    /// Where to mount it; made if missing, must be empty
    pub dir: PathBuf,
    /// RAM for file contents and their tables, over all volumes [default: a quarter of the
    /// available memory, or what it had before]
    #[arg(long, value_name = "SIZE")]
    pub ram: Option<Size>,
    /// Number of volumes that share the RAM [default: 1, or as many as before]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub volumes: Option<u32>,
    /// Size of the pieces that files are cut into: a power of two from 64KiB to 256MiB, fixed when
    /// the filesystem is made [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_chunk_size)]
    pub chunk_size: Option<ChunkSize>,
    /// Where names, certificates and the link to the RAM are kept [default: /var/lib/vdfs/up for
    /// root, else $XDG_STATE_HOME/vdfs/up]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Start empty: frees the old files' RAM and keeps the old log aside
    #[arg(long)]
    pub fresh: bool,
    /// Address for other mounts and programs; volumes take the ports that follow it
    /// [default: 127.0.0.1 and the ports of the last start, or free ones]
    #[arg(long, value_name = "IP:PORT", value_parser = parse_listen)]
    pub listen: Option<SocketAddr>,
}

const DOWN_HELP: &str = "\
Examples:
  vdfs down                        stop the `up` of the default state directory
  vdfs down /mnt/vdfs              stop the one that is mounted there
  vdfs down --destroy /mnt/vdfs    stop it, free its RAM and remove all its files";

#[derive(Debug, Args)]
#[command(after_help = DOWN_HELP)]
pub struct DownArgs {
    /// Where it is, or was, mounted
    pub dir: Option<PathBuf>,
    /// Also free the RAM and remove the state: the files are gone. Works also when nothing runs
    #[arg(long)]
    pub destroy: bool,
    /// State directory of the `up` to stop
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

/// Which filesystem to talk to: the first that is given of --master with --identity, --state,
/// /etc/vdfs/client.toml, and the default state directory of `up`.
#[derive(Debug, Default, Args)]
pub struct ClusterArgs {
    /// Addresses of the master
    #[arg(
        long,
        value_name = "HOST[:PORT],..",
        value_delimiter = ',',
        requires = "identity"
    )]
    #[arg(help_heading = "Which filesystem")]
    pub master: Vec<String>,
    /// Directory with key.pem, cert.pem and ca.pem
    #[arg(
        long,
        value_name = "DIR",
        requires = "master",
        help_heading = "Which filesystem"
    )]
    pub identity: Option<PathBuf>,
    /// State directory of a running `vdfs up` or `vdfs-master`
    #[arg(long, value_name = "DIR", conflicts_with = "master")]
    #[arg(help_heading = "Which filesystem")]
    pub state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print one JSON object; bytes are integers in keys that end in _bytes
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

const PUT_HELP: &str = "\
A file is written beside its name and renamed when it is whole: a broken transfer leaves nothing \
under the name. Mode and modification time are kept.

Examples:
  vdfs put a.txt b.txt /dir          into a directory of the filesystem
  vdfs put -r src /                  a directory with all that is in it
  tar c src | vdfs put - /src.tar    from standard input";

#[derive(Debug, Args)]
#[command(after_help = PUT_HELP)]
pub struct PutArgs {
    /// Local files; `-` is standard input
    #[arg(required = true, value_name = "SRC")]
    pub sources: Vec<PathBuf>,
    /// Absolute path in the filesystem
    #[arg(value_name = "DST", value_parser = vdfs_path())]
    pub target: PathBuf,
    /// Copy directories with all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

const GET_HELP: &str = "\
A file is written beside its name and renamed when it is whole. Mode and modification time are \
kept.

Examples:
  vdfs get /dir/a.txt .                 into the current directory
  vdfs get -r /src /tmp                 a directory with all that is in it
  vdfs get /src.tar - | tar x           to standard output";

#[derive(Debug, Args)]
#[command(after_help = GET_HELP)]
pub struct GetArgs {
    /// Absolute paths in the filesystem
    #[arg(required = true, value_name = "SRC", value_parser = vdfs_path())]
    pub sources: Vec<PathBuf>,
    /// Local file or directory; `-` is standard output
    #[arg(value_name = "DST")]
    pub target: PathBuf,
    /// Copy directories with all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub struct LsArgs {
    /// Absolute paths in the filesystem
    #[arg(value_name = "PATH", default_value = "/", value_parser = vdfs_path())]
    pub paths: Vec<PathBuf>,
    /// With mode, links, owner, group, size and modification time (UTC)
    #[arg(short)]
    pub long: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// Absolute paths in the filesystem
    #[arg(required = true, value_name = "PATH", value_parser = vdfs_path())]
    pub paths: Vec<PathBuf>,
    /// Remove directories with all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub struct PathArgs {
    /// Absolute paths in the filesystem
    #[arg(required = true, value_name = "PATH", value_parser = vdfs_path())]
    pub paths: Vec<PathBuf>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub struct InodeArgs {
    /// Absolute path in the filesystem, or a path on a mount of it
    pub path: PathBuf,
    /// Print one JSON object; bytes are integers in keys that end in _bytes
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

const SCRUB_HELP: &str = "\
Each volume reads its own memory, at most --rate bytes a second, beside its other work. The command shows \
how far they are and waits; stopped with Ctrl-C it leaves them at work (--status shows them, --stop ends \
them). Damaged files are named; reads of the damaged bytes give EIO.

Exit status: 0 all that was checked is sound, 1 something is damaged or could not be checked.

Examples:
  vdfs scrub --rate 1GiB
  vdfs scrub --status --json";

#[derive(Debug, Args)]
#[command(after_help = SCRUB_HELP)]
pub struct ScrubArgs {
    /// Bytes that each volume checks in a second
    #[arg(long, value_name = "SIZE", default_value = "100MiB", conflicts_with_all = ["status", "stop"])]
    pub rate: Size,
    /// Only show what the scrub that runs, or the last one, has found
    #[arg(long, conflicts_with = "stop")]
    pub status: bool,
    /// End a scrub that runs
    #[arg(long)]
    pub stop: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

const FSCK_HELP: &str = "\
Found are chunks of files that there are not (orphaned), chunks that no volume has (missing, or lost where \
the master knows), that have fewer bytes than their file (short), copies that are not there (missing copy), \
are not what the others have (mismatched), or have lost their record or their file (damaged). Bits that \
have flipped are found by vdfs scrub.

With --repair orphans are dropped, and copies are given again by a volume that has them whole. Files may be \
used meanwhile. The exit status is 1 if something is wrong at the end.";

#[derive(Debug, Args)]
#[command(after_help = FSCK_HELP)]
pub struct FsckArgs {
    /// Repair what can be
    #[arg(long)]
    pub repair: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub struct SessionsArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

const REPLICAS_HELP: &str = "\
A directory may ask for a number of its own, which holds for what is made in it from then on, and is \
inherited by the directories made there: `vdfs replicas set N DIR`, or the attribute user.vdfs.replicas \
(setfattr(1)), without which the filesystem's number holds again.

Examples:
  vdfs replicas                           of the filesystem
  vdfs replicas set 2                     of everything that no directory asks another number for
  vdfs replicas set 3 /mnt/vdfs/papers    of what is made there
  vdfs replicas /mnt/vdfs/papers          what holds there, and how many copies its files have
  vdfs replicas --apply /mnt/vdfs/papers  give the files that were there before as many";

#[derive(Debug, Args)]
#[command(after_help = REPLICAS_HELP, args_conflicts_with_subcommands = true)]
pub struct ReplicasArgs {
    #[command(subcommand)]
    pub command: Option<ReplicasCommand>,
    /// Only of this file, or of what is below this directory: absolute path in the filesystem, or a
    /// path on a mount of it
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Copy the files below PATH that have not the number of copies that their directories ask for
    #[arg(long, requires = "path")]
    pub apply: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

#[derive(Debug, Subcommand)]
pub enum ReplicasCommand {
    /// Keep N copies of everything from now on; volumes on different hosts make them, or drop them,
    /// meanwhile. With DIR, of what is made below it
    Set(ReplicasSetArgs),
}

#[derive(Debug, Args)]
pub struct ReplicasSetArgs {
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=REPLICAS_MAX))]
    pub replicas: u32,
    /// Absolute path in the filesystem, or a path on a mount of it
    #[arg(value_name = "DIR")]
    pub path: Option<PathBuf>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

const REPLICAS_MAX: i64 = vdfs_proto::limits::CHAIN_MEMBERS_MAX as i64;

#[derive(Debug, Args)]
pub struct VolumeArgs {
    #[command(subcommand)]
    pub command: VolumeCommand,
}

#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Show the volumes, with what is left to move off those that are drained
    List(VolumeListArgs),
    /// Give a volume nothing new, and move what it has to the others
    Drain(VolumeDrainArgs),
    /// Take a volume out of the filesystem for good
    Remove(VolumeRemoveArgs),
    /// On a volume's own machine: free the RAM that it has left
    Wipe(VolumeWipeArgs),
}

#[derive(Debug, Args)]
pub struct VolumeListArgs {
    /// Print one JSON object; bytes are integers in keys that end in _bytes
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

const VOLUME_DRAIN_HELP: &str = "\
Its chains of chunks move a few at a time, under the programs that use them; there are never fewer copies \
than before, but with three: then one copy is missing until it is made elsewhere. The volume must run \
until nothing is left. A restart of the master does not end it.

Examples:
  vdfs volume drain volume-2 --wait      returns when nothing is left on it
  vdfs volume list                       how far it is
  vdfs volume drain volume-2 --cancel    it stays, and is filled again";

#[derive(Debug, Args)]
#[command(after_help = VOLUME_DRAIN_HELP)]
pub struct VolumeDrainArgs {
    /// Name of the volume
    pub name: String,
    /// End it: the volume is as any other again
    #[arg(long, conflicts_with = "wait")]
    pub cancel: bool,
    /// Return when nothing is left there; Ctrl-C ends only the wait
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

const VOLUME_REMOVE_HELP: &str = "\
A volume that runs must be drained first. One that is away is removed if others have copies of all that it \
held. With --lose-data it is removed although nobody has: the files that are lost are named first, reading \
them gives EIO from then on, and `vdfs forget-lost` removes them. A removed volume does not come back with \
what it holds: free that with `vdfs volume wipe`, and it comes in as a new one.

Examples:
  vdfs volume remove volume-2
  vdfs volume remove volume-2 --lose-data    its machine will not come back";

#[derive(Debug, Args)]
#[command(after_help = VOLUME_REMOVE_HELP)]
pub struct VolumeRemoveArgs {
    /// Name of the volume
    pub name: String,
    /// Also if it has the only copy of something, which is lost then
    #[arg(long)]
    pub lose_data: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

const VOLUME_WIPE_HELP: &str = "\
For a volume that was removed, or whose filesystem is gone: all that it holds is lost. Its identity and \
configuration stay. A tmpfs that somebody else has mounted stays too, empty.

Examples:
  vdfs volume wipe                              of the default state directory
  vdfs volume wipe --state /srv/volume --yes";

#[derive(Debug, Args)]
#[command(after_help = VOLUME_WIPE_HELP)]
pub struct VolumeWipeArgs {
    /// State directory of the volume [default: /var/lib/vdfs/volume for root, else
    /// $XDG_STATE_HOME/vdfs/volume]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Print one JSON object on what was freed
    #[arg(long)]
    pub json: bool,
}

const REBALANCE_HELP: &str = "\
Data moves by itself, a few chains of chunks at a time, from volumes that have more than their share, by \
their RAM, to those that have less: when one is added, or was away. No more moves than must.

Examples:
  vdfs rebalance             how far it is
  vdfs rebalance --pause     until --resume; draining and lost copies go on";

#[derive(Debug, Args)]
#[command(after_help = REBALANCE_HELP)]
pub struct RebalanceArgs {
    /// Show what is left to move; this is also what is done without options
    #[arg(long)]
    pub status: bool,
    /// Begin no more moves
    #[arg(long, conflicts_with_all = ["status", "resume"])]
    pub pause: bool,
    /// Go on
    #[arg(long, conflicts_with = "status")]
    pub resume: bool,
    /// Print one JSON object
    #[arg(long, conflicts_with_all = ["pause", "resume"])]
    pub json: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub struct MetaArgs {
    #[command(subcommand)]
    pub command: MetaCommand,
}

#[derive(Debug, Subcommand)]
pub enum MetaCommand {
    /// Look for damage in log, checkpoints and all that they say; changes nothing
    Check(MetaCheckArgs),
    /// Write everything but contents and sessions as text, one object a line
    Dump(MetaDumpArgs),
    /// Make a new master's log from the text that `dump` wrote
    Load(MetaLoadArgs),
}

const META_CHECK_HELP: &str = "\
With the --state of a master or `up` that does not run, its files are read, and never written. One that \
runs checks itself, beside its work: every invariant of one instant of its state, its checkpoints, and \
its log.

Exit status: 0 nothing is wrong, 1 something is (each on a line, with the way out), or it could not be \
checked.

Examples:
  vdfs meta check --state /var/lib/vdfs/master
  vdfs meta check --json --master 10.0.0.1 --identity admin";

#[derive(Debug, Args)]
#[command(after_help = META_CHECK_HELP)]
pub struct MetaCheckArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

const META_DUMP_HELP: &str = "\
Each line is a JSON object with one key: vdfs_dump, filesystem, numbers, slots, volume, chain, inode, \
name, xattr, orphan, trim, reap, removed_store, and end with the count and the sum of the lines. Bytes of names are \
printable ASCII, or % and two hexadecimal digits. Equal states give equal texts.

The text is one instant of everything, also while the master runs, which needs an administrator's \
identity. Contents are where they were: on the volumes.

Examples:
  vdfs meta dump --state /var/lib/vdfs/master names.dump
  vdfs meta dump - | zstd > names.dump.zst";

#[derive(Debug, Args)]
#[command(after_help = META_DUMP_HELP)]
pub struct MetaDumpArgs {
    /// File for the text, replaced when it is whole; `-` is standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print one JSON object on what was written
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

const META_LOAD_HELP: &str = "\
The state directory must have the authority of the cluster (DIR/ca) and no log: to replace one, move \
DIR/log aside. Started then, the master takes up the volumes with the contents that they hold, and \
mounts go on; what was open is closed. Names that were made after the dump are gone.

Examples:
  mv /var/lib/vdfs/master/log /var/lib/vdfs/master/log.old
  vdfs meta load --state /var/lib/vdfs/master names.dump
  zstd -dc names.dump.zst | vdfs meta load --state /var/lib/vdfs/master -";

#[derive(Debug, Args)]
#[command(after_help = META_LOAD_HELP)]
pub struct MetaLoadArgs {
    /// What `vdfs meta dump` wrote; `-` is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// State directory of the master, or of an `up`, that will serve it
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Print one JSON object on what was loaded
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ForgetLostArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

#[derive(Debug, Args)]
pub struct CertArgs {
    #[command(subcommand)]
    pub command: CertCommand,
}

#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Make a key and a certificate, valid for ten years, for another machine
    Issue(CertIssueArgs),
    /// Show whose certificate is in a directory, of which cluster, and until when it is valid
    Show(CertShowArgs),
}

const CERT_ISSUE_HELP: &str = "\
Run it where the state directory of the master is, as its user; the master may be running. Then \
bring DIR to the other machine, over a way that nobody else reads: whoever has key.pem is that volume \
or client.

Before a certificate ends (`vdfs status` warns 30 days before), make another with --renew, bring its \
files to where the old ones are, and start the volume, or mount, again. The master's own, `client` and \
`admin` are renewed by a start of the master.

Examples:
  vdfs cert issue --ca /var/lib/vdfs/master --role volume --name v1 --out v1
  vdfs cert issue --ca /var/lib/vdfs/master --role client --name web-3 --out web-3
  vdfs cert issue --renew --ca /var/lib/vdfs/master --role volume --name v1 --out v1-new";

#[derive(Debug, Args)]
#[command(after_help = CERT_ISSUE_HELP)]
pub struct CertIssueArgs {
    /// State directory of the master, or of an `up`
    #[arg(long, value_name = "MASTER_STATE")]
    pub ca: PathBuf,
    /// What its holder may be
    #[arg(long)]
    pub role: CertRole,
    /// Name of the holder, unique within its role: a-z, 0-9 and '-', at most 63
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// Directory for key.pem, cert.pem and ca.pem; made (0700) if missing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// For a name that was issued before; the certificate that it has stays valid until its end
    #[arg(long)]
    pub renew: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CertRole {
    /// Keeps contents
    Volume,
    /// Mounts, or copies without a mount
    Client,
    /// Administers
    Admin,
}

#[derive(Debug, Args)]
pub struct CertShowArgs {
    /// Directory with key.pem, cert.pem and ca.pem
    pub dir: PathBuf,
}

const INSTALL_HELP: &str = "\
Programs are taken from the directory of this `vdfs`. Each file is replaced whole, none before all \
are written; configuration that is there stays.

Examples:
  vdfs install                          into /usr, /sbin and the directories of systemd
  vdfs install --root /tmp/tree         the same below another root, as any user
  vdfs install --volume 1 --ram 8GiB --master 10.0.0.1
                                        the tmpfs and the configuration of vdfs-volume@1.service";

#[derive(Debug, Args)]
#[command(after_help = INSTALL_HELP)]
pub struct InstallArgs {
    /// Install below DIR as if it were /
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Where programs, units, pages and completions go; mount(8) looks for its programs in /sbin,
    /// so these go there
    #[arg(long, value_name = "DIR", default_value = "/usr", value_parser = absolute_path())]
    pub prefix: PathBuf,
    /// Only say what would be written
    #[arg(long)]
    pub dry_run: bool,
    /// Instead of the programs, write the unit of the RAM and the configuration of the service
    /// vdfs-volume@NAME: letters, digits and underscores
    #[arg(long, value_name = "NAME", requires_all = ["ram", "master"], help_heading = "A volume")]
    pub volume: Option<VolumeName>,
    /// RAM of the volume
    #[arg(
        long,
        value_name = "SIZE",
        requires = "volume",
        help_heading = "A volume"
    )]
    pub ram: Option<Size>,
    /// Addresses of the volume's masters
    #[arg(
        long,
        value_name = "HOST[:PORT],..",
        value_delimiter = ',',
        requires = "volume",
        help_heading = "A volume"
    )]
    pub master: Vec<String>,
    /// Address at which the volume listens [default: port 7401 of all addresses]
    #[arg(
        long,
        value_name = "IP:PORT",
        requires = "volume",
        help_heading = "A volume"
    )]
    pub listen: Option<SocketAddr>,
}

fn parse_chunk_size(text: &str) -> Result<ChunkSize, String> {
    let Size(bytes) = text.parse::<Size>().map_err(|error| error.to_string())?;
    ChunkSize::new(bytes).map_err(|_| "must be a power of two from 64KiB to 256MiB".to_owned())
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let addr: SocketAddr = text
        .parse()
        .map_err(|_| "an IP address and a port: 192.0.2.7:7400".to_owned())?;
    if addr.ip().is_unspecified() {
        return Err("must be an address that others can reach, not a wildcard".to_owned());
    }
    Ok(addr)
}

fn vdfs_path() -> impl TypedValueParser<Value = PathBuf> {
    absolute_path_or("paths in the filesystem are absolute: they begin with /")
}

fn absolute_path() -> impl TypedValueParser<Value = PathBuf> {
    absolute_path_or("must be absolute: begin with /")
}

/// Takes any bytes: names need not be UTF-8.
fn absolute_path_or(refusal: &'static str) -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(move |path| {
        if path.is_absolute() {
            Ok(path)
        } else {
            Err(refusal)
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn up_takes_sizes_with_units() {
        let cli =
            Cli::try_parse_from(["vdfs", "up", "/m", "--ram", "4GiB", "--chunk-size", "1MiB"])
                .expect("parses");
        let Command::Up(up) = cli.command else {
            panic!("another command")
        };
        assert_eq!(up.ram, Some(Size(4 << 30)));
        assert_eq!(up.chunk_size, ChunkSize::new(1 << 20).ok());
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "vdfs",
            "vdfs up",
            "vdfs up /m --ram 4096",
            "vdfs up /m --chunk-size 3MiB",
            "vdfs up /m --chunk-size 512MiB",
            "vdfs up /m --volumes 0",
            "vdfs up /m --listen 0.0.0.0:7400",
            "vdfs up /m --frsh",
            "vdfs put a",
            "vdfs put a relative",
            "vdfs ls relative",
            "vdfs status --master 127.0.0.1:1",
            "vdfs status --state /s --master 127.0.0.1:1 --identity /i",
            "vdfs meta",
            "vdfs meta dump",
            "vdfs meta load names.dump",
            "vdfs install --prefix usr",
            "vdfs install --ram 4GiB",
            "vdfs install --volume 1 --ram 4GiB",
            "vdfs install --volume a-b --ram 4GiB --master 10.0.0.1",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert_eq!(parsed.expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn put_takes_several_sources_and_one_target() {
        let cli = Cli::try_parse_from(["vdfs", "put", "a", "-", "/d"]).expect("parses");
        let Command::Put(put) = cli.command else {
            panic!("another command")
        };
        assert_eq!(put.sources, [PathBuf::from("a"), PathBuf::from("-")]);
        assert_eq!(put.target, PathBuf::from("/d"));
    }
}
