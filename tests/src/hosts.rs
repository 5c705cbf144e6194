//! Hosts on one machine: network namespaces joined by a bridge in a namespace of its own.
//!
//! They share files, boot id and mounts with the machine, not the network; a program on a host is
//! started with `nsenter`, so its mounts are seen by all. Needs root and iproute2.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::programs::run;
use crate::scratch::Scratch;

/// A hardware address that nobody has: what is sent to it is lost without a word.
const NOBODY: &str = "02:00:00:00:00:fe";

/// The network of one test; its namespaces go with the test's [`Scratch`].
#[derive(Debug)]
pub struct Hosts {
    prefix: String,
    mtu: u32,
    count: u8,
}

/// One host. It has an interface `e0` whose other end is `vN` at the bridge.
#[derive(Clone, Debug)]
pub struct Host {
    prefix: String,
    number: u8,
}

impl Hosts {
    /// An empty network whose links carry packets of `mtu` bytes.
    pub fn new(scratch: &Scratch, mtu: u32) -> Hosts {
        let hosts = Hosts {
            prefix: scratch.net_prefix().to_owned(),
            mtu,
            count: 0,
        };
        let switch = switch_name(&hosts.prefix);
        ip(&format!("netns add {switch}"));
        ip(&format!("-n {switch} link add br0 type bridge"));
        ip(&format!("-n {switch} link set br0 mtu {mtu} up"));
        hosts
    }

    /// One more host.
    pub fn add(&mut self) -> Host {
        self.count += 1;
        let host = Host {
            prefix: self.prefix.clone(),
            number: self.count,
        };
        let (switch, name, port) = (switch_name(&self.prefix), host.name(), host.port());
        let (mtu, addr) = (self.mtu, host.addr());
        ip(&format!("netns add {name}"));
        ip(&format!(
            "-n {switch} link add {port} mtu {mtu} type veth peer name e0 mtu {mtu} netns {name}"
        ));
        ip(&format!("-n {switch} link set {port} master br0 up"));
        ip(&format!("-n {name} addr add {addr}/24 dev e0"));
        ip(&format!("-n {name} link set e0 up"));
        ip(&format!("-n {name} link set lo up"));
        host
    }
}

impl Host {
    pub fn addr(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.number)
    }

    /// Its network namespace, as a file.
    pub fn net_namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(self.name())
    }

    /// Takes it off the network.
    pub fn cut(&self) {
        self.set_port("down");
    }

    /// Puts it back.
    pub fn heal(&self) {
        self.set_port("up");
    }

    /// Loses every packet between this host and `other`; both still reach all the rest.
    pub fn cut_from(&self, other: &Host) {
        self.lose_packets_to(other);
        other.lose_packets_to(self);
    }

    pub fn heal_with(&self, other: &Host) {
        self.deliver_packets_to(other);
        other.deliver_packets_to(self);
    }

    /// Loses what this host sends to `other`; what comes from there arrives.
    pub fn lose_packets_to(&self, other: &Host) {
        let (name, addr) = (self.name(), other.addr());
        ip(&format!(
            "-n {name} neigh replace {addr} lladdr {NOBODY} dev e0 nud permanent"
        ));
    }

    pub fn deliver_packets_to(&self, other: &Host) {
        let (name, addr) = (self.name(), other.addr());
        ip(&format!("-n {name} neigh del {addr} dev e0"));
    }

    /// Words before a command that make it run on this host.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let namespace = format!("--net={}", self.net_namespace().display());
        vec!["nsenter".into(), namespace, "--".into()]
    }

    fn set_port(&self, state: &str) {
        let (switch, port) = (switch_name(&self.prefix), self.port());
        ip(&format!("-n {switch} link set {port} {state}"));
    }

    fn name(&self) -> String {
        format!("{}-h{}", self.prefix, self.number)
    }

    fn port(&self) -> String {
        format!("v{}", self.number)
    }
}

fn switch_name(prefix: &str) -> String {
    format!("{prefix}-sw")
}

fn ip(words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    run("ip", &words, Path::new("/"));
}
