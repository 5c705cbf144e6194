//! The Linux kernel: its source is unpacked on the mount, built, and removed; the same beside it on
//! tmpfs, which gives the same kernel, byte for byte.

use std::path::Path;
use std::time::Instant;

use vdfs_tests::programs::shell;
use vdfs_tests::{Options, Way, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    #[ignore = "long; needs Debian's linux-source-6.1, flex, bison, bc, libelf-dev and libssl-dev"]
    linux_is_unpacked_built_and_removed_long,
);

const SOURCE: &str = "/usr/src/linux-source-6.1.tar.xz";

/// What is done, and measured. Names of users, hosts and times would be in the kernel.
const STEPS: [(&str, &str); 5] = [
    ("untar", "tar xf $OUT/linux.tar"),
    ("tinyconfig", "make -s -C linux-source-6.1 tinyconfig"),
    (
        "make -j2",
        "make -s -C linux-source-6.1 -j2 KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=u \
         KBUILD_BUILD_HOST=h && sha256sum < linux-source-6.1/vmlinux",
    ),
    ("du", "test $(find linux-source-6.1 | wc -l) -gt 70000"),
    ("rm -rf", "rm -rf linux-source-6.1 && test -z \"$(ls -A)\""),
];

fn linux_is_unpacked_built_and_removed_long(way: Way) {
    let vdfs = way.start(Options {
        ram_mib: 4096,
        ..Options::default()
    });
    let outside = vdfs.outside();
    shell(
        &format!("xz -dc {SOURCE} > linux.tar; mkdir tmpfs; mount -t tmpfs -o size=4g t tmpfs"),
        &outside,
    );
    let tmpfs = outside.join("tmpfs");
    let expected = build(&tmpfs, &outside);
    shell("umount tmpfs", &outside);
    let built = build(&vdfs.dir(), &outside);
    for ((step, before), (_, seconds)) in expected.1.iter().zip(&built.1) {
        eprintln!("{way:?} {step}: {seconds:.1} s, on tmpfs {before:.1} s");
    }
    assert_eq!(built.0, expected.0, "another kernel came out");
}

/// What the steps print, and how long each takes, in seconds.
fn build(dir: &Path, outside: &Path) -> (String, Vec<(&'static str, f64)>) {
    let mut printed = String::new();
    let mut times = Vec::new();
    for (step, script) in STEPS {
        let begun = Instant::now();
        printed += &shell(&format!("OUT={outside:?}; {script}"), dir);
        times.push((step, begun.elapsed().as_secs_f64()));
    }
    (printed, times)
}
