//! The options of `-o`.

use std::path::PathBuf;
use std::time::Duration;

use vdfs_program::client::ClientFile;
use vdfs_program::{Time, TimeError};

use crate::mount::FlagChanges;

/// Options that mount(8) acts on itself and passes on, or that say what is so anyway (access times
/// are kept as `relatime` says).
const WITHOUT_EFFECT: [&str; 26] = [
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "_netdev",
    "nofail",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "diratime",
    "nodiratime",
    "lazytime",
    "nolazytime",
    "async",
    "silent",
    "loud",
    "nomand",
    "default_permissions",
];
/// What the kernel shows of a mount, and mount(8) hands back when it remounts.
const SHOWN: [&str; 3] = ["user_id", "group_id", "max_read"];
/// Remarks for other programs: `x-systemd.automount`, `X-mount.mkdir`, `comment=...`.
const REMARKS: [&str; 3] = ["x-", "X-", "comment="];

/// What `-o` says. Of contradicting options the last one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// The config file; `None` is the usual one, if it is needed.
    pub(super) config: Option<PathBuf>,
    pub(super) identity: Option<PathBuf>,
    /// `None` waits without limit.
    pub(super) timeout: Option<Duration>,
    pub(super) log: Option<PathBuf>,
    pub(super) allow_other: bool,
    pub(super) no_atime: bool,
    pub(super) remount: bool,
    pub(super) flags: FlagChanges,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OptionError {
    #[error("unknown option `{0}`; see mount.vdfs --help")]
    Unknown(String),
    #[error("`{0}` needs a value: {0}=...")]
    NoValue(String),
    #[error(transparent)]
    BadTime(#[from] TimeError),
}

impl Options {
    /// Takes the values of all `-o`; unknown words are refused unless `sloppy`.
    pub(super) fn parse(values: &[String], sloppy: bool) -> Result<Self, OptionError> {
        let mut options = Options::default();
        let words = values.iter().flat_map(|value| value.split(','));
        for word in words.filter(|word| !word.is_empty()) {
            match options.take(word) {
                Err(OptionError::Unknown(_)) if sloppy => {}
                taken => taken?,
            }
        }
        Ok(options)
    }

    fn take(&mut self, word: &str) -> Result<(), OptionError> {
        if WITHOUT_EFFECT.contains(&word) || REMARKS.iter().any(|mark| word.starts_with(mark)) {
            return Ok(());
        }
        match word.split_once('=') {
            Some((name, value)) => self.take_value(word, name, value),
            None => self.take_word(word),
        }
    }

    fn take_value(&mut self, word: &str, name: &str, value: &str) -> Result<(), OptionError> {
        match name {
            "config" | "identity" | "timeout" | "log" if value.is_empty() => {
                return Err(OptionError::NoValue(name.to_owned()));
            }
            "config" => self.config = Some(value.into()),
            "identity" => self.identity = Some(value.into()),
            "timeout" => self.timeout = Some(value.parse::<Time>()?.0),
            "log" => self.log = Some(value.into()),
            _ if SHOWN.contains(&name) => {}
            _ => return Err(OptionError::Unknown(word.to_owned())),
        }
        Ok(())
    }

    fn take_word(&mut self, word: &str) -> Result<(), OptionError> {
        match word {
            "ro" => self.flags.read_only = Some(true),
            "rw" => self.flags.read_only = Some(false),
            "nosuid" => self.flags.no_suid = Some(true),
            "suid" => self.flags.no_suid = Some(false),
            "nodev" => self.flags.no_dev = Some(true),
            "dev" => self.flags.no_dev = Some(false),
            "noexec" => self.flags.no_exec = Some(true),
            "exec" => self.flags.no_exec = Some(false),
            "allow_other" => self.allow_other = true,
            "noatime" => self.no_atime = true,
            "atime" => self.no_atime = false,
            "remount" => self.remount = true,
            "config" | "identity" | "timeout" | "log" => {
                return Err(OptionError::NoValue(word.to_owned()));
            }
            _ => return Err(OptionError::Unknown(word.to_owned())),
        }
        Ok(())
    }
}

impl Options {
    /// What `-o` leaves open is taken from a config file.
    pub(super) fn or(self, file: ClientFile) -> Self {
        Options {
            identity: Some(self.identity.unwrap_or_else(|| file.identity())),
            timeout: self.timeout.or(file.timeout.map(|time| time.0)),
            log: self.log.or(file.log_file),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, OptionError> {
        Options::parse(&[text.to_owned()], false)
    }

    #[test]
    fn parse_of_nothing_is_the_default() {
        assert_eq!(parse(""), Ok(Options::default()));
        assert_eq!(Options::parse(&[], false), Ok(Options::default()));
    }

    #[test]
    fn parse_takes_the_last_of_contradicting_options() {
        let options = parse("ro,nosuid,rw,log=/a,log=/b").expect("known");
        assert_eq!(options.flags.read_only, Some(false));
        assert_eq!(options.flags.no_suid, Some(true));
        assert_eq!(options.flags.no_dev, None);
        assert!(parse("atime,noatime").expect("known").no_atime);
        assert!(!parse("noatime,relatime,atime").expect("known").no_atime);
        assert_eq!(options.log, Some("/b".into()));
    }

    #[test]
    fn parse_accepts_what_mount_passes_on() {
        let text =
            "rw,_netdev,nofail,x-systemd.requires=a,X-mount.mkdir,comment=b,noatime,defaults";
        let options = parse(text).expect("accepted");
        assert_eq!(options.flags.read_only, Some(false));
    }

    #[test]
    fn parse_accepts_what_a_remount_hands_back() {
        let shown = "rw,noatime,user_id=0,group_id=0,default_permissions,allow_other,remount,ro";
        let options = parse(shown).expect("accepted");
        assert!(options.remount);
        assert_eq!(options.flags.read_only, Some(true));
    }

    #[test]
    fn parse_refuses_the_unknown_unless_sloppy() {
        assert_eq!(
            parse("rw,frobnicate"),
            Err(OptionError::Unknown("frobnicate".into()))
        );
        assert_eq!(
            parse("color=red"),
            Err(OptionError::Unknown("color=red".into()))
        );
        assert!(Options::parse(&["frobnicate,color=red".into()], true).is_ok());
    }

    #[test]
    fn options_win_over_the_config_file() {
        let file = ClientFile {
            identity: Some("/of-file".into()),
            log_file: Some("/log".into()),
            ..ClientFile::default()
        };
        let options = parse("identity=/given").expect("known").or(file);
        assert_eq!(options.identity, Some("/given".into()));
        assert_eq!(options.log, Some("/log".into()));
        let none = parse("").expect("known").or(ClientFile::default());
        assert_eq!(none.identity, Some("/etc/vdfs/identity".into()));
    }

    #[test]
    fn parse_of_a_time_needs_a_unit() {
        let timeout = |text: &str| parse(text).map(|options| options.timeout);
        assert_eq!(
            timeout("timeout=500ms"),
            Ok(Some(Duration::from_millis(500)))
        );
        assert_eq!(timeout("timeout=5min"), Ok(Some(Duration::from_secs(300))));
        for bad in ["30", "s", "1.5s", "99999999999s"] {
            let error = Err(OptionError::BadTime(TimeError(bad.into())));
            assert_eq!(timeout(&format!("timeout={bad}")), error);
        }
        assert_eq!(
            timeout("timeout="),
            Err(OptionError::NoValue("timeout".into()))
        );
        assert_eq!(
            timeout("identity"),
            Err(OptionError::NoValue("identity".into()))
        );
    }
}
