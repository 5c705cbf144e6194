//! `/etc/vdfs/client.toml`: which filesystem this machine uses, for mounts and for commands.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::config::{find, read};
use crate::failure::Failure;
use crate::masters;
use crate::places;
use crate::time::Time;

/// What a client's config file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientFile {
    /// `HOST[:PORT]` each.
    #[serde(default)]
    pub master: Vec<String>,
    /// Directory with key.pem, cert.pem and ca.pem.
    pub identity: Option<PathBuf>,
    /// When an operation of a mount is given up; `None` waits without limit.
    pub timeout: Option<Time>,
    /// Where mounts append their logs.
    pub log_file: Option<PathBuf>,
}

impl ClientFile {
    /// All keys.
    pub const KEYS: [&str; 4] = ["master", "identity", "timeout", "log_file"];

    /// Reads the file that is named, or the usual one; `None` if that does not exist.
    pub fn load(named: Option<&Path>) -> Result<Option<ClientFile>, Failure> {
        let keys = Self::KEYS.map(str::to_owned);
        find("client", named)
            .map(|path| read(&path, &keys))
            .transpose()
    }

    /// The masters' addresses; an error if none are named.
    pub fn masters(&self) -> Result<Vec<SocketAddr>, Failure> {
        masters::resolve(&self.master)
    }

    pub fn identity(&self) -> PathBuf {
        let usual = || PathBuf::from(places::IDENTITY);
        self.identity.clone().unwrap_or_else(usual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<ClientFile, Failure> {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("client.toml");
        std::fs::write(&path, text).expect("writes");
        ClientFile::load(Some(&path)).map(|file| file.expect("it was named"))
    }

    #[test]
    fn client_file_may_have_all_its_keys_or_none() {
        let text =
            "master = [\"10.0.0.1\"]\nidentity = \"/i\"\ntimeout = \"30s\"\nlog_file = \"/l\"\n";
        let file = load(text).expect("known keys");
        assert_eq!(
            file.masters().expect("addresses")[0].to_string(),
            "10.0.0.1:7400"
        );
        assert_eq!(file.identity(), Path::new("/i"));
        assert_eq!(
            load("").expect("no keys").identity(),
            Path::new(places::IDENTITY)
        );
    }

    #[test]
    fn client_file_refuses_what_it_does_not_know() {
        let line = load("masters = []\n").expect_err("unknown").to_string();
        assert!(
            line.ends_with("line 1: unknown key `masters`; did you mean `master`?"),
            "{line}"
        );
        let line = load("timeout = \"30\"\n").expect_err("no unit").to_string();
        assert!(line.contains("line 1: timeout: `30` is no time"), "{line}");
    }
}
