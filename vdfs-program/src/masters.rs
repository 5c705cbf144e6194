//! Where the masters are: `HOST[:PORT]`, one or more.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::failure::Failure;

/// The port of a master that is named without one.
pub const PORT: u16 = 7400;

/// The addresses of all `hosts` in order; a name that has several gives them all.
pub fn resolve(hosts: &[impl AsRef<str>]) -> Result<Vec<SocketAddr>, Failure> {
    let mut all = Vec::new();
    for host in hosts
        .iter()
        .map(AsRef::as_ref)
        .filter(|host| !host.is_empty())
    {
        all.extend(addresses(host)?);
    }
    if all.is_empty() {
        return Err(Failure::new("master", "none is named").way_out("HOST[:PORT],.."));
    }
    Ok(all)
}

fn addresses(host: &str) -> Result<Vec<SocketAddr>, Failure> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse() {
        return Ok(vec![SocketAddr::new(ip, PORT)]);
    }
    let found = if host.contains(':') {
        host.to_socket_addrs()
    } else {
        (host, PORT).to_socket_addrs()
    };
    let what = || format!("master {host}");
    let found: Vec<SocketAddr> = found
        .map_err(|error| Failure::new(what(), error))?
        .collect();
    if found.is_empty() {
        return Err(Failure::new(what(), "the name has no address"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(hosts: &[&str]) -> Vec<String> {
        let all = resolve(hosts).expect("addresses");
        all.iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn masters_take_the_usual_port_unless_one_is_named() {
        assert_eq!(addrs(&["10.0.0.1"]), ["10.0.0.1:7400"]);
        assert_eq!(
            addrs(&["10.0.0.1:99", "", "10.0.0.2"]),
            ["10.0.0.1:99", "10.0.0.2:7400"]
        );
        assert_eq!(
            addrs(&["::1", "[::2]", "[::3]:5"]),
            ["[::1]:7400", "[::2]:7400", "[::3]:5"]
        );
    }

    #[test]
    fn masters_of_nothing_and_of_nonsense_are_refused() {
        let line = resolve(&[""]).expect_err("none").to_string();
        assert!(line.contains("none is named"), "{line}");
        let line = resolve(&["a:b:c"]).expect_err("nonsense").to_string();
        assert!(line.starts_with("master a:b:c: "), "{line}");
    }
}
