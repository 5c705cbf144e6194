//! Strings from users and peers, parsed into types that cannot be wrong.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;
use crate::status::Status;

macro_rules! byte_string {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<[u8]>);

        impl $name {
            pub fn new(bytes: &[u8]) -> Result<Self, Status> {
                $check(bytes)?;
                Ok($name(bytes.into()))
            }

            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            pub fn as_os_str(&self) -> &OsStr {
                OsStr::from_bytes(&self.0)
            }
        }

        // In one piece, not byte by byte: a checkpoint holds millions of names.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
                let bytes = source.deserialize_bytes(BytesVisitor)?;
                $check(&bytes).map_err(serde::de::Error::custom)?;
                Ok($name(bytes))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
            }
        }
    };
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Box<[u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Box<[u8]>, E> {
        Ok(bytes.into())
    }
}

byte_string!(
    /// A name in a directory: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
    FileName, check_file_name
);
byte_string!(
    /// What a symlink points to: 1 to 4,095 bytes, no NUL (path_resolution(7)).
    SymlinkTarget, check_symlink_target
);
byte_string!(
    /// The name of an extended attribute with its namespace: 1 to 255 bytes, no NUL (xattr(7)).
    XattrName, check_xattr_name
);

fn check_file_name(bytes: &[u8]) -> Result<(), Status> {
    if bytes.len() > limits::NAME_BYTES_MAX {
        return Err(Status::NameTooLong);
    }
    if bytes.is_empty() || bytes == b"." || bytes == b".." {
        return Err(Status::Invalid);
    }
    if bytes.iter().any(|&byte| byte == b'/' || byte == 0) {
        return Err(Status::Invalid);
    }
    Ok(())
}

fn check_symlink_target(bytes: &[u8]) -> Result<(), Status> {
    if bytes.len() > limits::SYMLINK_BYTES_MAX {
        return Err(Status::NameTooLong);
    }
    if bytes.is_empty() {
        return Err(Status::NotFound);
    }
    if bytes.contains(&0) {
        return Err(Status::Invalid);
    }
    Ok(())
}

fn check_xattr_name(bytes: &[u8]) -> Result<(), Status> {
    if bytes.is_empty() || bytes.len() > limits::XATTR_NAME_BYTES_MAX {
        return Err(Status::OutOfRange);
    }
    if bytes.contains(&0) {
        return Err(Status::Invalid);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_name_refuses_what_no_directory_may_hold() {
        assert!(FileName::new(b"a").is_ok());
        assert!(FileName::new(&[b'x'; 255]).is_ok());
        assert_eq!(FileName::new(&[b'x'; 256]), Err(Status::NameTooLong));
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
            assert_eq!(FileName::new(bad), Err(Status::Invalid), "{bad:?}");
        }
    }

    #[test]
    fn file_name_is_checked_when_it_arrives() {
        let wire = postcard::to_allocvec(&b"a/b"[..]).expect("encodes");
        assert!(postcard::from_bytes::<FileName>(&wire).is_err());
    }
}
