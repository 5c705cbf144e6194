//! Where the masters are, and what else a config file says.

use std::net::SocketAddr;

use vdfs_net::Target;
use vdfs_program::client::ClientFile;
use vdfs_program::masters;
use vdfs_proto::handshake::Role;

use crate::program::Failure;
use crate::program::options::Options;

/// A source that names no masters: the config file does. mount(8) and fstab(5) need some word.
const OF_CONFIG: &str = "none";

/// The masters that `source` names, or else the config file; with the options that the file fills
/// in. It is read only if the source is left to it, or if it is named.
pub(super) fn settle(source: &str, options: Options) -> Result<(Vec<Target>, Options), Failure> {
    let of_config = source == OF_CONFIG;
    let file = match &options.config {
        None if !of_config => ClientFile::default(),
        named => ClientFile::load(named.as_deref())?.ok_or_else(no_masters)?,
    };
    let addrs = if of_config {
        file.masters()?
    } else {
        resolve(source)?
    };
    Ok((addrs.into_iter().map(target).collect(), options.or(file)))
}

/// `HOST[:PORT],..` in order; a name that has several addresses gives them all.
fn resolve(source: &str) -> Result<Vec<SocketAddr>, Failure> {
    let hosts: Vec<&str> = source.split(',').filter(|host| !host.is_empty()).collect();
    if hosts.is_empty() {
        let why = format!("`{source}` names no master: HOST[:PORT],..");
        return Err(Failure::usage(why));
    }
    Ok(masters::resolve(&hosts)?)
}

fn no_masters() -> Failure {
    Failure::not_mounted(
        "master: none is named; name it as SOURCE, in /etc/vdfs/client.toml, or with -o config=FILE",
    )
}

fn target(addr: SocketAddr) -> Target {
    Target {
        addr,
        role: Role::Master,
        node: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(source: &str, config: Option<&str>) -> Result<Vec<Target>, Failure> {
        let config = config.map(Into::into);
        let options = Options {
            config,
            ..Options::default()
        };
        settle(source, options).map(|(targets, _)| targets)
    }

    #[test]
    fn masters_of_nothing_is_wrong_usage() {
        assert_eq!(
            settled(",", None).err().map(|failure| failure.status),
            Some(1)
        );
        let nonsense = settled("10.0.0.1,a:b:c", None).err();
        assert_eq!(nonsense.map(|failure| failure.status), Some(32));
    }

    #[test]
    fn masters_are_taken_from_the_config_file_if_the_source_is_left_to_it() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("client.toml");
        std::fs::write(&path, "master = [\"10.0.0.9:1\"]\n").expect("writes");
        let addr = |source| {
            settled(source, path.to_str()).expect("addresses")[0]
                .addr
                .to_string()
        };
        assert_eq!(addr("none"), "10.0.0.9:1");
        assert_eq!(addr("10.0.0.1"), "10.0.0.1:7400");
        let missing = settled("none", Some("/nowhere/client.toml")).err();
        assert_eq!(missing.map(|failure| failure.status), Some(32));
    }
}
