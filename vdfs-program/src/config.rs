//! Settings from the command line and from a config file, with where each came from.
//!
//! One struct serves for both: the keys of the file are the long options with underscores. So the
//! struct derives `clap::Args`, `Serialize` and `Deserialize`, and every field is an `Option`.
//!
//! Invariant: an unknown key, or a value that the option would not take, is refused with file, line
//! and key; what the command line says wins over the file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::de::DeTable;
use toml::{Table, Value};

use crate::failure::{Blame, Failure};

const DIRECTORY: &str = "/etc/vdfs";
/// How alike (Jaro-Winkler, 0 to 1) a known key must be to be suggested.
const SUGGESTED_FROM: f64 = 0.75;

/// The options that are about the config file itself.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// Read options from FILE: TOML, with the names of the options as keys (`log_file = "..."`);
    /// the command line wins [default: /etc/vdfs/NAME.toml, if it exists]
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    pub config: Option<PathBuf>,
    /// Print the options in force, as a config file that says where each comes from, and end
    #[arg(long, help_heading = "Configuration")]
    pub print_config: bool,
}

/// Where a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    CommandLine,
    File,
}

/// What the command line and the file say together.
#[derive(Debug)]
pub struct Settings<T> {
    pub options: T,
    file: Option<PathBuf>,
    origins: BTreeMap<String, Origin>,
}

impl<T: Args + Serialize + DeserializeOwned> Settings<T> {
    /// Lays `given`, the command line, over the file: `config`, or `/etc/vdfs/PART.toml` if that
    /// exists.
    pub fn load(part: &str, given: &T, config: Option<&Path>) -> Result<Self, Failure> {
        let file = find(part, config);
        let mut merged = match &file {
            Some(path) => table(&read::<T>(path, &keys_of::<T>())?)?,
            None => Table::new(),
        };
        let mut origins = origins(&merged, Origin::File);
        let given = table(given)?;
        origins.append(&mut self::origins(&given, Origin::CommandLine));
        merged.extend(given);
        let options = merged.try_into().blame("options")?;
        Ok(Settings {
            options,
            file,
            origins,
        })
    }

    /// `in_force`, which has the defaults filled in, as a config file with remarks.
    pub fn print(&self, in_force: &T) -> Result<String, Failure> {
        let values = table(in_force)?;
        let lines = keys_of::<T>().into_iter().map(|key| {
            let origin = self.origin(&key);
            match values.get(&key) {
                Some(value) => format!("{key} = {value} # {origin}\n"),
                None => format!("# {key}: not set\n"),
            }
        });
        Ok(lines.collect())
    }

    fn origin(&self, key: &str) -> String {
        match (self.origins.get(key), &self.file) {
            (Some(Origin::CommandLine), _) => "command line".to_owned(),
            (Some(Origin::File), Some(path)) => path.display().to_string(),
            (Some(Origin::File), None) | (None, _) => "default".to_owned(),
        }
    }
}

/// The keys of a config file for `T`, in the order of the options.
pub fn keys_of<T: Args>() -> Vec<String> {
    let command = T::augment_args(Command::new("keys"));
    let names = command
        .get_arguments()
        .filter_map(|argument| argument.get_long());
    names.map(|name| name.replace('-', "_")).collect()
}

/// The config file of `part`: the one that is named, or the usual one if it exists.
pub fn find(part: &str, named: Option<&Path>) -> Option<PathBuf> {
    let usual = || Path::new(DIRECTORY).join(format!("{part}.toml"));
    match named {
        Some(path) => Some(path.to_owned()),
        None => Some(usual()).filter(|path| path.exists()),
    }
}

/// Reads a config file that may have `keys` and no others.
pub fn read<T: DeserializeOwned>(path: &Path, keys: &[String]) -> Result<T, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    parse(&text, keys).map_err(|flaw| flaw.failure(path))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(path.display(), error);
    match error.kind() {
        io::ErrorKind::NotFound => failure.way_out("name another file with --config FILE"),
        _ => failure,
    }
}

/// What is wrong with a config file.
#[derive(Debug, PartialEq, Eq)]
struct Flaw {
    /// From 1.
    line: usize,
    why: String,
    way_out: Option<String>,
}

impl Flaw {
    fn at(text: &str, offset: usize, why: String) -> Flaw {
        let before = text.as_bytes().iter().take(offset);
        Flaw {
            line: 1 + before.filter(|byte| **byte == b'\n').count(),
            why,
            way_out: None,
        }
    }

    fn failure(self, path: &Path) -> Failure {
        let failure = Failure::new(format!("{}: line {}", path.display(), self.line), self.why);
        match self.way_out {
            Some(way_out) => failure.way_out(way_out),
            None => failure,
        }
    }
}

fn parse<T: DeserializeOwned>(text: &str, keys: &[String]) -> Result<T, Flaw> {
    let malformed = |error: toml::de::Error| {
        let offset = error.span().map_or(0, |span| span.start);
        Flaw::at(text, offset, error.message().to_owned())
    };
    let document = DeTable::parse(text).map_err(malformed)?;
    let entries = document.get_ref();
    for key in entries.keys() {
        if !keys.iter().any(|known| known == key.get_ref()) {
            let flaw = Flaw::at(
                text,
                key.span().start,
                format!("unknown key `{}`", key.get_ref()),
            );
            let way_out = Some(suggestion(key.get_ref(), keys));
            return Err(Flaw { way_out, ..flaw });
        }
    }
    toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let entry = entries
            .iter()
            .find(|(_, value)| value.span().contains(&offset));
        let key = entry.map_or("", |(key, _)| key.get_ref());
        Flaw::at(text, offset, format!("{key}: {}", error.message()))
    })
}

fn suggestion(key: &str, keys: &[String]) -> String {
    let alike = |known: &&String| strsim::jaro_winkler(key, known);
    let nearest = keys.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    match nearest.filter(|known| alike(known) >= SUGGESTED_FROM) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("the keys are: {}", keys.join(", ")),
    }
}

fn table(options: &impl Serialize) -> Result<Table, Failure> {
    match Value::try_from(options).blame("options")? {
        Value::Table(table) => Ok(table),
        _ => unreachable!("a struct is a table"),
    }
}

fn origins(table: &Table, origin: Origin) -> BTreeMap<String, Origin> {
    table.keys().map(|key| (key.clone(), origin)).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde::Deserialize;

    use super::*;
    use crate::size::Size;

    #[derive(Debug, PartialEq, Parser, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Options {
        #[arg(long)]
        ram: Option<Size>,
        #[arg(long)]
        log_file: Option<PathBuf>,
        #[arg(long, value_delimiter = ',')]
        master: Option<Vec<String>>,
    }

    fn given(line: &str) -> Options {
        let words = std::iter::once("program").chain(line.split_whitespace());
        Options::try_parse_from(words).expect("parses")
    }

    fn load(line: &str, text: &str) -> Result<Settings<Options>, Failure> {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("part.toml");
        std::fs::write(&path, text).expect("writes");
        Settings::load("part", &given(line), Some(&path))
    }

    fn refusal(text: &str) -> String {
        let line = load("", text).expect_err("refused").to_string();
        let (_, rest) = line.split_once("part.toml: ").expect("names the file");
        rest.to_owned()
    }

    #[test]
    fn settings_of_the_command_line_win_over_the_file() {
        let text = "ram = \"1GiB\"\nmaster = [\"a:1\", \"b:2\"]\n";
        let settings = load("--ram 2GiB --log-file /l", text).expect("fits");
        let master = Some(vec!["a:1".to_owned(), "b:2".to_owned()]);
        let log_file = Some(PathBuf::from("/l"));
        let ram = Some(Size(2 << 30));
        let expected = Options {
            ram,
            log_file,
            master,
        };
        assert_eq!(settings.options, expected);
    }

    #[test]
    fn unknown_key_is_refused_with_its_line_and_the_nearest_key() {
        assert_eq!(
            refusal("ram = \"1GiB\"\nmasters = []\n"),
            "line 2: unknown key `masters`; did you mean `master`?"
        );
        assert_eq!(
            refusal("[section]\n"),
            "line 1: unknown key `section`; the keys are: ram, log_file, master"
        );
    }

    #[test]
    fn bad_value_is_refused_with_its_line_and_key() {
        let line = refusal("\nram = \"4096\"\n");
        assert_eq!(line, "line 2: ram: a size needs a unit: 512MiB, 4GiB");
        let line = refusal("\n\nram = 4096\n");
        assert!(line.starts_with("line 3: ram: invalid type"), "{line}");
        let line = refusal("ram = \n");
        assert!(line.starts_with("line 1: "), "{line}");
    }

    #[test]
    fn missing_file_that_was_named_is_refused() {
        let loaded = Settings::load("part", &given(""), Some(Path::new("/nowhere/x.toml")));
        let line = loaded.expect_err("refused").to_string();
        assert!(line.starts_with("/nowhere/x.toml: No such file"), "{line}");
    }

    #[test]
    fn print_is_a_config_file_that_says_where_each_value_comes_from() {
        let settings = load("--log-file /l", "ram = \"1GiB\"\n").expect("fits");
        let text = settings.print(&settings.options).expect("printed");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("ram = \"1GiB\" # /"), "{text}");
        assert_eq!(lines[1], "log_file = \"/l\" # command line");
        assert_eq!(lines[2], "# master: not set");
        let again: Options = parse(&text, &keys_of::<Options>()).expect("valid");
        assert_eq!(again, settings.options);
    }
}
