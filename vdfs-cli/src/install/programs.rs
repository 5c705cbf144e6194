//! The programs, from beside the `vdfs` that runs.

use std::path::{Path, PathBuf};

use super::files::{Content, File};
use vdfs_program::{Blame, Failure};

/// Where mount(8) looks for programs, whatever the prefix is.
const MOUNT_DIR: &str = "/sbin";

pub(super) fn files(prefix: &Path) -> Result<Vec<File>, Failure> {
    let running = std::env::current_exe().blame("the running program")?;
    let built = running.parent().expect("a program lies in a directory");
    let bin = prefix.join("bin");
    let sbin = Path::new(MOUNT_DIR);
    Ok(vec![
        program(built, "vdfs", bin.join("vdfs"))?,
        program(built, "vdfs-master", bin.join("vdfs-master"))?,
        program(built, "vdfs-volume", bin.join("vdfs-volume"))?,
        // Cargo makes no program with a dot in its name.
        program(built, "mount-vdfs", sbin.join("mount.vdfs"))?,
        // `mount -o remount` takes the type from the kernel, which says `fuse.vdfs`.
        File {
            place: sbin.join("mount.fuse.vdfs"),
            content: Content::Link("mount.vdfs"),
        },
    ])
}

fn program(built: &Path, name: &str, place: PathBuf) -> Result<File, Failure> {
    let source = built.join(name);
    if !source.is_file() {
        let missing = Failure::new(source.display(), "is not there, beside this `vdfs`");
        return Err(missing.way_out("build all with: cargo build --release --workspace"));
    }
    Ok(File {
        place,
        content: Content::Program(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_that_was_not_built_names_the_command_that_builds_it() {
        let built = tempfile::tempdir().expect("a scratch directory");
        let missing = program(built.path(), "vdfs-master", "/usr/bin/vdfs-master".into());
        let line = missing.expect_err("nothing is there").to_string();
        assert!(line.contains("/vdfs-master: is not there"), "{line}");
        assert!(
            line.ends_with("cargo build --release --workspace"),
            "{line}"
        );
    }
}
