//! The mount call: root by mount(2), others through `fusermount3`, which hands the device over.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::mount::{FS_TYPE, MountError, MountOptions, SUBTYPE};

const DEVICE: &str = "/dev/fuse";
pub(super) const FUSERMOUNT: &str = "fusermount3";

/// Mounts on `dir`; the result is the device on which the kernel's requests arrive.
pub(super) fn attach(dir: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let device = open_device()?;
    if rustix::process::geteuid().is_root() {
        mount(dir, options, device)
    } else {
        // It opens the device itself, but the loop threads need it open to the user as well.
        drop(device);
        fusermount(dir, options)
    }
}

fn open_device() -> Result<OwnedFd, MountError> {
    match File::options().read(true).write(true).open(DEVICE) {
        Ok(device) => Ok(device.into()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(MountError::DeviceClosed(error))
        }
        Err(error) => Err(MountError::NoDevice(error)),
    }
}

fn mount(dir: &Path, options: &MountOptions, device: OwnedFd) -> Result<OwnedFd, MountError> {
    use std::os::fd::AsRawFd;

    let allow_other = if options.allow_other {
        ",allow_other"
    } else {
        ""
    };
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions{allow_other}",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let data = CString::new(data).expect("numbers and words hold no NUL");
    let source = options.source.as_str();
    rustix::mount::mount(source, dir, FS_TYPE, mount_flags(options), data.as_c_str())
        .map_err(|error| MountError::Refused(error.into()))?;
    Ok(device)
}

fn mount_flags(options: &MountOptions) -> MountFlags {
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::NOATIME, options.no_atime);
    flags.set(MountFlags::RELATIME, !options.no_atime);
    flags.set(MountFlags::RDONLY, options.read_only);
    flags.set(MountFlags::NOSUID, options.no_suid);
    flags.set(MountFlags::NODEV, options.no_dev);
    flags.set(MountFlags::NOEXEC, options.no_exec);
    flags
}

fn fusermount(dir: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let (ours, theirs) = UnixStream::pair().map_err(MountError::Refused)?;
    let child = start_fusermount(dir, options, theirs)?;
    let device = receive_device(&ours);
    let output = child.wait_with_output().map_err(MountError::Refused)?;
    match device {
        Ok(Some(device)) if output.status.success() => Ok(device),
        Err(error) if output.status.success() => Err(MountError::Refused(error)),
        _ => Err(MountError::Fusermount(last_line(&output.stderr))),
    }
}

/// The program is told by `_FUSE_COMMFD` on which descriptor to hand the device over: its standard
/// input. The socket's other end must not stay open here, or a failure would never be seen.
fn start_fusermount(
    dir: &Path,
    options: &MountOptions,
    socket: UnixStream,
) -> Result<Child, MountError> {
    let mut command = Command::new(FUSERMOUNT);
    command
        .arg("-o")
        .arg(fusermount_options(options))
        .arg("--")
        .arg(dir);
    command
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(socket));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MountError::NoFusermount,
        _ => MountError::Refused(error),
    })
}

fn fusermount_options(options: &MountOptions) -> String {
    let source = options.source.replace('\\', "\\\\").replace(',', "\\,");
    let mut words = vec![
        format!("fsname={source}"),
        format!("subtype={SUBTYPE}"),
        "default_permissions".into(),
    ];
    let flags = [
        (options.allow_other, "allow_other"),
        (options.read_only, "ro"),
        (options.no_exec, "noexec"),
        (options.no_atime, "noatime"),
    ];
    words.extend(
        flags
            .into_iter()
            .filter(|(is_set, _)| *is_set)
            .map(|(_, word)| word.into()),
    );
    words.join(",")
}

/// `None` if the other end was closed without a descriptor.
fn receive_device(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8];
    let mut data = [IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}

/// What the program said last, without its name.
fn last_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let line = text
        .lines()
        .last()
        .unwrap_or("failed without a word")
        .trim();
    let name = format!("{FUSERMOUNT}: ");
    line.strip_prefix(&name).unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_notifier::KernelNotifier;

    #[test]
    fn fusermount_options_keep_a_comma_within_the_source() {
        let cache = KernelNotifier::start().expect("threads");
        let mut options = MountOptions::new("/mnt".into(), "a:1,b:2".into(), cache);
        options.allow_other = false;
        options.read_only = true;
        options.no_atime = true;
        let expected = "fsname=a:1\\,b:2,subtype=vdfs,default_permissions,ro,noatime";
        assert_eq!(fusermount_options(&options), expected);
    }

    #[test]
    fn receive_device_of_a_closed_socket_is_none() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(theirs);
        assert!(receive_device(&ours).expect("end of file").is_none());
    }
}
