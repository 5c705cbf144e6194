//! Completions for shells, from the command lines' definitions.

use std::path::Path;

use clap_complete::{Shell, generate};

use super::command_lines;
use super::files::File;

pub(super) fn files(prefix: &Path) -> Vec<File> {
    let mut files = Vec::new();
    for (name, _, command) in command_lines() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            generate(shell, &mut command.clone(), name, &mut script);
            files.push(File::text(prefix.join(place(shell, name)), script));
        }
    }
    files
}

/// Where the shell looks, below a prefix.
fn place(shell: Shell, name: &str) -> String {
    match shell {
        Shell::Zsh => format!("share/zsh/site-functions/_{name}"),
        Shell::Fish => format!("share/fish/vendor_completions.d/{name}.fish"),
        _ => format!("share/bash-completion/completions/{name}"),
    }
}
