//! `mount.vdfs`: mounts a VDFS, as mount(8) calls it.

use std::process::ExitCode;

fn main() -> ExitCode {
    vdfs_fuse::program::main()
}
