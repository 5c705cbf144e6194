//! Where the masters are.

use std::net::SocketAddr;

use vdfs_net::Target;
use vdfs_program::masters;
use vdfs_proto::handshake::Role;

use crate::program::Failure;

/// `HOST[:PORT],..` in order; a name that has several addresses gives them all.
pub(super) fn masters(source: &str) -> Result<Vec<Target>, Failure> {
    let hosts: Vec<&str> = source.split(',').filter(|host| !host.is_empty()).collect();
    if hosts.is_empty() {
        let why = format!("`{source}` names no master: HOST[:PORT],..");
        return Err(Failure::usage(why));
    }
    let target = |addr: SocketAddr| Target {
        addr,
        role: Role::Master,
        node: None,
    };
    Ok(masters::resolve(&hosts)?.into_iter().map(target).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masters_of_nothing_is_wrong_usage() {
        assert_eq!(masters(",").err().map(|failure| failure.status), Some(1));
        let nonsense = masters("10.0.0.1,a:b:c").err();
        assert_eq!(nonsense.map(|failure| failure.status), Some(32));
    }
}
