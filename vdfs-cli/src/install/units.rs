//! Units for systemd, and examples.

use std::path::Path;

use super::files::File;

const BIN: &str = "/usr/bin/";
const MASTER: &str = include_str!("../../../systemd/vdfs-master.service");
const VOLUME: &str = include_str!("../../../systemd/vdfs-volume@.service");
const RAM: &str = include_str!("../../../systemd/var-lib-vdfs-volumes-1-ram.mount");
const USER: &str = include_str!("../../../systemd/vdfs.sysusers.conf");
const SYSCTL: &str = include_str!("../../../systemd/vdfs.sysctl.conf");
const EXAMPLES: [(&str, &str); 6] = [
    (
        "client.toml",
        include_str!("../../../systemd/examples/client.toml"),
    ),
    ("fstab", include_str!("../../../systemd/examples/fstab")),
    (
        "master.toml",
        include_str!("../../../systemd/examples/master.toml"),
    ),
    (
        "mnt-vdfs.automount",
        include_str!("../../../systemd/examples/mnt-vdfs.automount"),
    ),
    (
        "mnt-vdfs.mount",
        include_str!("../../../systemd/examples/mnt-vdfs.mount"),
    ),
    (
        "volume.toml",
        include_str!("../../../systemd/examples/volume.toml"),
    ),
];

pub(super) fn files(prefix: &Path) -> Vec<File> {
    let units = prefix.join("lib/systemd/system");
    let examples = prefix.join("share/doc/vdfs/examples");
    let mut files = vec![
        File::text(units.join("vdfs-master.service"), service(MASTER, prefix)),
        File::text(units.join("vdfs-volume@.service"), service(VOLUME, prefix)),
        File::text(units.join(ram_unit_name("1")), RAM),
        File::text(prefix.join("lib/sysusers.d/vdfs.conf"), USER),
        File::text(prefix.join("lib/sysctl.d/vdfs.conf"), SYSCTL),
    ];
    let example = |(name, text): (&str, &str)| File::text(examples.join(name), text);
    files.extend(EXAMPLES.map(example));
    files
}

/// The unit with the place of the programs in it.
fn service(text: &str, prefix: &Path) -> String {
    let bin = format!("{}/", prefix.join("bin").display());
    text.replace(BIN, &bin)
}

/// systemd derives it from the directory; a volume's name has nothing that would be escaped.
pub(super) fn ram_unit_name(volume: &str) -> String {
    format!("var-lib-vdfs-volumes-{volume}-ram.mount")
}

/// The unit of another volume's RAM.
pub(super) fn ram_unit(volume: &str, size_bytes: u64) -> String {
    let text = RAM
        .replace("vdfs-volumes-1-ram", &format!("vdfs-volumes-{volume}-ram"))
        .replace("/volumes/1/ram", &format!("/volumes/{volume}/ram"))
        .replace("volume 1", &format!("volume {volume}"))
        .replace("size=25%", &format!("size={size_bytes}"));
    assert!(
        text.contains(&format!("size={size_bytes},")),
        "the shipped unit has a size"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_allows_the_buffers_that_are_asked_for() {
        let bytes = vdfs_net::limits::SOCKET_BUFFER_BYTES;
        for key in ["rmem_max", "wmem_max"] {
            assert!(SYSCTL.contains(&format!("\nnet.core.{key} = {bytes}\n")));
        }
    }

    #[test]
    fn service_names_the_programs_of_the_prefix() {
        for text in [MASTER, VOLUME] {
            let unit = service(text, Path::new("/opt/vdfs"));
            assert!(unit.contains("\nExecStart=/opt/vdfs/bin/vdfs-"), "{unit}");
            assert!(!unit.contains(BIN), "{unit}");
        }
    }

    #[test]
    fn ram_unit_of_another_volume_differs_in_name_and_size_alone() {
        let unit = ram_unit("two", 4096);
        let differing = RAM.lines().zip(unit.lines()).filter(|(a, b)| a != b);
        let keys: Vec<&str> = differing
            .filter_map(|(_, line)| line.split_once('=').map(|(key, _)| key))
            .filter(|key| !key.starts_with('#'))
            .collect();
        assert_eq!(keys, ["Description", "Where", "Options"]);
        assert!(unit.contains("\nWhere=/var/lib/vdfs/volumes/two/ram\n"));
        assert!(unit.contains("\nOptions=size=4096,nr_inodes=0,"));
    }
}
