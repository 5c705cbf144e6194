//! Where the masters are.

use std::net::{SocketAddr, ToSocketAddrs};

use vdfs_net::Target;
use vdfs_proto::handshake::Role;

use crate::program::Failure;

const MASTER_PORT: u16 = 7400;

/// `HOST[:PORT],..` in order; a name that has several addresses gives them all.
pub(super) fn masters(source: &str) -> Result<Vec<Target>, Failure> {
    let mut masters = Vec::new();
    for host in source.split(',').filter(|host| !host.is_empty()) {
        masters.extend(addresses(host)?.into_iter().map(target));
    }
    if masters.is_empty() {
        return Err(Failure::usage(format!(
            "`{source}` names no master: HOST[:PORT],.."
        )));
    }
    Ok(masters)
}

fn target(addr: SocketAddr) -> Target {
    Target {
        addr,
        role: Role::Master,
        node: None,
    }
}

fn addresses(host: &str) -> Result<Vec<SocketAddr>, Failure> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse() {
        return Ok(vec![SocketAddr::new(ip, MASTER_PORT)]);
    }
    let found = if host.contains(':') {
        host.to_socket_addrs()
    } else {
        (host, MASTER_PORT).to_socket_addrs()
    };
    let found: Vec<SocketAddr> = found.map_err(|error| Failure::at(host, error))?.collect();
    if found.is_empty() {
        return Err(Failure::at(host, "the name has no address"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(source: &str) -> Vec<String> {
        let masters = masters(source).expect("addresses");
        masters
            .iter()
            .map(|target| target.addr.to_string())
            .collect()
    }

    #[test]
    fn masters_take_the_usual_port_unless_one_is_named() {
        assert_eq!(addrs("10.0.0.1"), ["10.0.0.1:7400"]);
        assert_eq!(
            addrs("10.0.0.1:99,10.0.0.2"),
            ["10.0.0.1:99", "10.0.0.2:7400"]
        );
        assert_eq!(
            addrs("::1,[::2],[::3]:5"),
            ["[::1]:7400", "[::2]:7400", "[::3]:5"]
        );
    }

    #[test]
    fn masters_of_nothing_is_wrong_usage() {
        assert_eq!(masters(",").err().map(|failure| failure.status), Some(1));
        assert_eq!(
            masters("a:b:c").err().map(|failure| failure.status),
            Some(32)
        );
    }
}
