//! The shipped examples of config files name every key, and only those.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use vdfs_program::client::ClientFile;
use vdfs_program::config::{keys_of, read};

/// Reads an example with all its keys in force.
fn read_whole<T: DeserializeOwned>(name: &str, keys: &[String]) -> T {
    let example = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../systemd/examples");
    let text = std::fs::read_to_string(example.join(name)).expect("an example");
    for key in keys {
        let mut lines = text.lines();
        let is_there = lines.any(|line| line.starts_with(&format!("#{key} = ")));
        assert!(is_there, "{name} has no `#{key} = ...`");
    }
    let uncommented = text.lines().map(|line| match line.strip_prefix('#') {
        Some(option) if !option.starts_with(' ') => option,
        _ => line,
    });
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().join(name);
    std::fs::write(&path, uncommented.collect::<Vec<_>>().join("\n")).expect("writes");
    read(&path, keys).unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn master_example_names_every_key() {
    let keys = keys_of::<vdfs_master::program::Options>();
    let options: vdfs_master::program::Options = read_whole("master.toml", &keys);
    let defaults = vdfs_master::program::Options::default().with_defaults();
    let defaults = defaults.expect("there are defaults");
    assert_eq!(
        (options.log, options.sync_log),
        (defaults.log, defaults.sync_log)
    );
}

#[test]
fn volume_example_names_every_key() {
    let keys = keys_of::<vdfs_volume::program::Options>();
    let options: vdfs_volume::program::Options = read_whole("volume.toml", &keys);
    let defaults = vdfs_volume::program::Options::default().with_defaults();
    let defaults = defaults.expect("there are defaults");
    assert_eq!(options.log, defaults.log);
}

#[test]
fn client_example_names_every_key() {
    let file: ClientFile = read_whole("client.toml", &ClientFile::KEYS.map(str::to_owned));
    assert_eq!(file.identity, Some(ClientFile::default().identity()));
}
