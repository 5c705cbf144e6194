//! Two hosts with a link between them: network namespaces joined by a veth pair.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Both end with this.
pub(super) struct Hosts {
    names: [String; 2],
}

fn ip(args: &str) -> bool {
    let output = Command::new("ip").args(args.split_whitespace()).output();
    output.is_ok_and(|output| output.status.success())
}

impl Hosts {
    /// `mtu` bytes of IP fit a frame of the link.
    pub(super) fn new(mtu: u16) -> Hosts {
        let word = format!("{:x}", rand::random::<u32>());
        let names = [1, 2].map(|host| format!("vdfs-{word}-{host}"));
        let hosts = Hosts { names };
        let [one, two] = &hosts.names;
        let run = |args: String| assert!(ip(&args), "ip {args}");
        run(format!("netns add {one}"));
        run(format!("netns add {two}"));
        run(format!(
            "-n {one} link add e0 mtu {mtu} type veth peer name e0 mtu {mtu} netns {two}"
        ));
        for (host, name) in (1..).zip(&hosts.names) {
            run(format!("-n {name} addr add 10.77.0.{host}/24 dev e0"));
            run(format!("-n {name} addr add fd77::{host}/64 dev e0 nodad"));
            run(format!("-n {name} link set e0 up"));
            run(format!("-n {name} link set lo up"));
        }
        hosts
    }

    pub(super) fn addr(host: usize) -> IpAddr {
        [10, 77, 0, host as u8 + 1].into()
    }

    /// Runs `work` on a thread that is on host 0 or 1; what it opens stays there.
    pub(super) fn on<T: Send>(&self, host: usize, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.names[host]);
        std::thread::scope(|scope| {
            let inside = || {
                let namespace = File::open(path).expect("a namespace");
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may enter it");
                work()
            };
            scope.spawn(inside).join().expect("did not panic")
        })
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&format!("netns del {name}"));
        }
    }
}
