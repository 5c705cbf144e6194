//! One more volume on this machine: the unit of its RAM and its configuration.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;

use serde::Serialize;

use super::files::File;
use super::units;
use crate::args::InstallArgs;
use vdfs_program::Failure;
use vdfs_program::Size;

const NAME_MAX: usize = 32;

/// Name of a volume's service: characters that systemd does not escape, neither as an instance nor
/// as a part of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeName(String);

impl FromStr for VolumeName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if text.is_empty() || text.len() > NAME_MAX || !text.bytes().all(is_plain) {
            return Err("must be 1 to 32 letters, digits and underscores");
        }
        Ok(VolumeName(text.to_owned()))
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the volume shall be.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    name: &'a VolumeName,
    ram: Size,
    settings: Settings<'a>,
}

/// Keys of `volume-NAME.toml`.
#[derive(Debug, Serialize)]
struct Settings<'a> {
    master: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<SocketAddr>,
}

impl<'a> Wanted<'a> {
    /// `None` if the command line asks for no volume.
    pub(super) fn of(args: &'a InstallArgs) -> Option<Self> {
        Some(Wanted {
            name: args.volume.as_ref()?,
            ram: args.ram?,
            settings: Settings {
                master: &args.master,
                listen: args.listen,
            },
        })
    }

    /// Both are the administrator's own, so nothing that is there is replaced.
    pub(super) fn files(&self, root: &Path) -> Result<Vec<File>, Failure> {
        let unit = Path::new("/etc/systemd/system").join(units::ram_unit_name(&self.name.0));
        let config = Path::new("/etc/vdfs").join(format!("volume-{}.toml", self.name));
        let files = vec![
            File::text(unit, units::ram_unit(&self.name.0, self.ram.0)),
            File::text(config, self.config()),
        ];
        for file in &files {
            let place = file.place_below(root);
            if place.exists() {
                return Err(Failure::new(place.display(), "is there already")
                    .way_out("edit it, or choose another --volume"));
            }
        }
        Ok(files)
    }

    fn config(&self) -> String {
        let settings = toml::to_string(&self.settings).expect("strings and numbers are TOML");
        let name = self.name;
        format!(
            "# vdfs-volume@{name}.service; all keys: volume.toml among the examples\n{settings}"
        )
    }

    pub(super) fn next(&self) -> String {
        let name = self.name;
        format!(
            "next, as root: put key.pem, cert.pem and ca.pem of `vdfs cert issue --role volume` \
             into /var/lib/vdfs/volumes/{name}/identity\n\
             then:          systemctl daemon-reload && systemctl enable --now vdfs-volume@{name}"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn wanted<'a>(name: &'a VolumeName, master: &'a [String]) -> Wanted<'a> {
        Wanted {
            name,
            ram: Size(1 << 30),
            settings: Settings {
                master,
                listen: None,
            },
        }
    }

    #[test]
    fn volume_name_takes_only_what_systemd_does_not_escape() {
        for good in ["1", "a_B2"] {
            assert!(good.parse::<VolumeName>().is_ok(), "{good}");
        }
        for bad in ["", "a-b", "a/b", "a.b", "ä", &"x".repeat(33)] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn files_never_replace_a_configuration() {
        let root = tempfile::tempdir().expect("a scratch directory");
        let name: VolumeName = "1".parse().expect("a name");
        let master = ["10.0.0.1".to_owned()];
        let wanted = wanted(&name, &master);
        assert_eq!(wanted.files(root.path()).expect("free").len(), 2);
        let config = root.path().join("etc/vdfs/volume-1.toml");
        fs::create_dir_all(config.parent().expect("etc/vdfs")).expect("made");
        fs::write(&config, "").expect("written");
        let line = wanted.files(root.path()).expect_err("there").to_string();
        assert!(line.contains("volume-1.toml: is there already"), "{line}");
    }
}
