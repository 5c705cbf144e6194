//! A master, volumes and mounts, each a process of its own with a state directory and a certificate
//! of its own, talking QUIC over loopback or from host to host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::cgroup::MemoryCgroup;
use crate::filesystem::Options;
use crate::hosts::{Host, Hosts};
use crate::mount::{Access, Mount, path_text, unmount_lazily};
use crate::part::Part;
use crate::programs;
use crate::scratch::Scratch;

const MASTER_PORT: u16 = 7400;
const VOLUME_PORT: u16 = 7401;

/// What the parts of a cluster talk over.
#[derive(Clone, Copy, Debug)]
pub enum Network {
    Loopback,
    /// Each part has a host of its own; packets have at most `mtu` bytes.
    Hosts {
        mtu: u32,
    },
}

/// Whatever happens, dropping it leaves no process, no mount, no RAM, no network and no file.
#[derive(Debug)]
pub struct Cluster {
    pub mounts: Vec<Mount>,
    pub volumes: Vec<Part>,
    pub master: Part,
    hosts: Option<Hosts>,
    scratch: Scratch,
}

impl Cluster {
    /// A cluster with `mounts` mounts; returns when all of its parts are ready.
    pub fn start(options: Options, network: Network, mounts: u32) -> Cluster {
        let scratch = Scratch::new();
        let mut hosts = match network {
            Network::Loopback => None,
            Network::Hosts { mtu } => Some(Hosts::new(&scratch, mtu)),
        };
        let mut cluster = Cluster {
            mounts: Vec::new(),
            volumes: Vec::new(),
            master: start_master(scratch.path(), &options, new_host(&mut hosts)),
            hosts,
            scratch,
        };
        for _ in 0..options.volumes {
            let ram_mib = options.ram_mib / u64::from(options.volumes);
            cluster.add_volume_with(ram_mib, options.copy_rate);
        }
        for _ in 0..mounts {
            cluster.add_mount();
        }
        cluster
    }

    /// One more volume, on a new host; returns when it has registered.
    pub fn add_volume(&mut self, ram_mib: u64) {
        self.add_volume_with(ram_mib, None);
    }

    fn add_volume_with(&mut self, ram_mib: u64, copy_rate: Option<&str>) {
        let number = self.volumes.len() + 1;
        let (name, host) = (format!("volume-{number}"), new_host(&mut self.hosts));
        let identity = self.issue("volume", &name);
        let mut arguments = words(&["--master", &self.master_addr()]);
        arguments.extend(["--state".into(), path_text(&self.volume_state(number - 1))]);
        arguments.extend(["--identity".into(), path_text(&identity)]);
        arguments.extend(["--name".into(), name.clone()]);
        arguments.extend(["--ram".into(), format!("{ram_mib}MiB")]);
        if let Some(rate) = copy_rate {
            arguments.extend(words(&["--copy-rate", rate]));
        }
        let listen = listen(host.as_ref(), VOLUME_PORT);
        let log = self.log(&name);
        let part = Part::new(programs::vdfs_volume(), arguments, log).on(host);
        self.volumes.push(start_listening(part, &listen));
    }

    /// One more mount, on a new host, that belongs to the cluster.
    pub fn add_mount(&mut self) -> &Mount {
        let host = new_host(&mut self.hosts);
        let name = format!("mount-{}", self.mounts.len() + 1);
        let mount = self.mount(&name, host, "");
        self.mounts.push(mount);
        self.mounts.last().expect("just pushed")
    }

    /// One more mount on this machine, that belongs to the caller. Loopback only.
    pub fn another_mount(&self, name: &str, options: &str) -> Mount {
        assert!(self.hosts.is_none(), "such a mount reaches no host");
        self.mount(name, None, options)
    }

    fn mount(&self, name: &str, host: Option<Host>, options: &str) -> Mount {
        let access = Access {
            master: self.master_addr(),
            identity: self.issue("client", name),
            host,
            options: options.to_owned(),
        };
        Mount::start(self.scratch.path(), name, access)
    }

    /// Makes an identity as an administrator does; gives its directory.
    fn issue(&self, role: &str, name: &str) -> PathBuf {
        let out = self.scratch.path().join(format!("identity-{name}"));
        let (ca, out_text) = (path_text(&self.master_state()), path_text(&out));
        let ends = ["--role", role, "--name", name, "--out", &out_text];
        let arguments = [&["cert", "issue", "--ca", &ca][..], &ends].concat();
        let program = path_text(&programs::vdfs());
        programs::run(&program, &arguments, Path::new("/"));
        out
    }

    /// The first mount.
    pub fn dir(&self) -> PathBuf {
        self.mounts[0].dir()
    }

    /// A directory on the disk beside the mounts.
    pub fn outside(&self) -> PathBuf {
        let dir = self.scratch.path().join("outside");
        fs::create_dir_all(&dir).expect("a directory on the disk");
        dir
    }

    pub fn master_state(&self) -> PathBuf {
        self.scratch.path().join("master")
    }

    pub fn volume_state(&self, index: usize) -> PathBuf {
        self.scratch.path().join(format!("volume-{}", index + 1))
    }

    fn master_addr(&self) -> String {
        let addr = fs::read_to_string(self.master_state().join("addr"));
        addr.expect("the master wrote its address").trim().into()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("{name}.log"))
    }

    /// Every part, in the order in which they start.
    pub fn parts(&mut self) -> impl DoubleEndedIterator<Item = &mut Part> {
        let mounts = self.mounts.iter_mut().map(|mount| &mut mount.part);
        let servers = std::iter::once(&mut self.master).chain(&mut self.volumes);
        servers.chain(mounts)
    }

    /// What the memory of a volume outlives everything but: a reboot. Only while it is not running.
    pub fn lose_ram(&mut self, index: usize) {
        unmount_lazily(&self.volume_state(index).join("ram"));
    }

    /// From its next start on, a volume is in `cgroup` from its first instruction.
    pub fn confine_volume(&mut self, index: usize, cgroup: &MemoryCgroup) {
        let volume = &mut self.volumes[index];
        let words = [cgroup.wrapper(), volume.wrapper().to_vec()].concat();
        volume.wrap(words);
    }

    /// Frees the RAM of a volume that does not run, as its machine's administrator does.
    pub fn wipe(&self, index: usize, args: &[&str]) -> Output {
        let mut command = Command::new(programs::vdfs());
        command.args(["volume", "wipe", "--state"]);
        command.arg(self.volume_state(index)).args(args);
        command.stdin(Stdio::null()).output().expect("vdfs runs")
    }

    /// Runs `vdfs ARGS` with the identity of an administrator, on the master's host.
    pub fn vdfs(&self, args: &[&str]) -> Output {
        let program = path_text(&programs::vdfs());
        let mut words = self.master.wrapper().to_vec();
        words.push(program);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(args);
        command.arg("--state").arg(self.master_state());
        command.stdin(Stdio::null()).output().expect("vdfs runs")
    }
}

fn start_master(scratch: &Path, options: &Options, host: Option<Host>) -> Part {
    let state = path_text(&scratch.join("master"));
    let mut arguments = words(&["--state", &state, "--chunk-size", options.chunk_size]);
    if let Some(replicas) = options.replicas {
        arguments.extend(["--replicas".into(), replicas.to_string()]);
    }
    let listen = listen(host.as_ref(), MASTER_PORT);
    let log = scratch.join("master.log");
    let part = Part::new(programs::vdfs_master(), arguments, log).on(host);
    start_listening(part, &listen)
}

/// Starts a part for the first time; it listens on the same address in all further lives.
fn start_listening(mut part: Part, listen: &str) -> Part {
    let arguments = part.arguments().to_vec();
    let with = |addr: &str| [arguments.clone(), words(&["--listen", addr])].concat();
    part.set_arguments(with(listen));
    let ready = part.start();
    let addr = ready.split(' ').find(|word| word.contains(':'));
    part.set_arguments(with(addr.expect("a ready line names the address")));
    part
}

fn listen(host: Option<&Host>, port: u16) -> String {
    match host {
        Some(host) => format!("{}:{port}", host.addr()),
        None => "127.0.0.1:0".into(),
    }
}

fn new_host(hosts: &mut Option<Hosts>) -> Option<Host> {
    hosts.as_mut().map(Hosts::add)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
