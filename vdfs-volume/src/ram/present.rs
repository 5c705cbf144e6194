//! What is mounted at a place.

use std::fs;
use std::io;
use std::path::Path;

use super::RamError;

/// What /proc/mounts shows; how a tmpfs of ours is known.
pub(super) const SOURCE: &str = "vdfs-ram";

/// What is mounted at a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Present {
    Nothing,
    Ours {
        no_swap: bool,
    },
    /// A tmpfs by another name.
    ReadyMade,
    /// Another filesystem.
    Foreign,
}

impl Present {
    pub(super) fn at(path: &Path) -> Result<Self, RamError> {
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Present::Nothing),
            Err(error) => return Err(RamError::io("resolve", path, error)),
        };
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| RamError::io("read the mounts for", path, error))?;
        Ok(Present::parse(&mounts, &real))
    }

    /// Reads mountinfo (proc(5)); the last mount at a path is the one on top.
    fn parse(mounts: &str, path: &Path) -> Self {
        let at_path = |line: &&str| {
            let point = line.split(' ').nth(4);
            point.is_some_and(|point| unescape(point) == path.as_os_str().as_encoded_bytes())
        };
        match mounts.lines().rfind(at_path) {
            None => Present::Nothing,
            Some(line) => Present::of_line(line),
        }
    }

    fn of_line(line: &str) -> Self {
        let details = line.split_once(" - ").map_or("", |(_, details)| details);
        let mut fields = details.split(' ');
        if fields.next() != Some("tmpfs") {
            return Present::Foreign;
        }
        if fields.next() != Some(SOURCE) {
            return Present::ReadyMade;
        }
        let no_swap = fields.next().is_some_and(|options| {
            let mut options = options.split(',');
            options.any(|option| option == "noswap")
        });
        Present::Ours { no_swap }
    }
}

/// Undoes the octal escapes of mountinfo.
fn unescape(field: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\');
        let code = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 0:20 / / rw - ext4 /dev/vda rw
30 22 0:31 / /a rw,nosuid - tmpfs vdfs-ram rw,size=4096k,noswap
31 22 0:32 / /b rw shared:1 - tmpfs vdfs-ram rw,size=4096k
32 22 0:33 / /c\\040d rw - tmpfs tmpfs rw
33 30 0:34 / /b rw - ext4 /dev/vdb rw
";

    #[test]
    fn present_is_read_from_the_topmost_mount() {
        let cases = [
            ("/a", Present::Ours { no_swap: true }),
            ("/b", Present::Foreign),
            ("/c d", Present::ReadyMade),
            ("/c", Present::Nothing),
        ];
        for (path, present) in cases {
            assert_eq!(Present::parse(MOUNTS, Path::new(path)), present, "{path}");
        }
        let without_last = MOUNTS.rsplit_once("33 ").expect("it is there").0;
        let ours = Present::Ours { no_swap: false };
        assert_eq!(Present::parse(without_last, Path::new("/b")), ours);
    }
}
