//! How many copies of a file's bytes there shall be, where a directory says so.

use serde::{Deserialize, Serialize};

use crate::limits::CHAIN_MEMBERS_MAX;
use crate::name::XattrName;
use crate::status::Status;

const ATTRIBUTE: &[u8] = b"user.vdfs.replicas";

/// A number of copies, from 1 to `CHAIN_MEMBERS_MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Copies(u8);

impl Copies {
    /// `Invalid` for any other number.
    pub fn new(count: u32) -> Result<Copies, Status> {
        match count {
            1.. if count as usize <= CHAIN_MEMBERS_MAX => Ok(Copies(count as u8)),
            _ => Err(Status::Invalid),
        }
    }

    pub fn count(self) -> u32 {
        u32::from(self.0)
    }

    /// The attribute by which a directory says how many copies there shall be of what is made in it.
    pub fn name() -> XattrName {
        XattrName::new(ATTRIBUTE).expect("a good name")
    }

    /// An attribute of this name says so.
    pub fn is_named(name: &XattrName) -> bool {
        name.as_bytes() == ATTRIBUTE
    }

    /// What the attribute says: one digit. `Invalid` for anything else.
    pub fn parse(value: &[u8]) -> Result<Copies, Status> {
        match value {
            [digit @ b'0'..=b'9'] => Copies::new(u32::from(digit - b'0')),
            _ => Err(Status::Invalid),
        }
    }

    /// As the attribute has it.
    pub fn to_bytes(self) -> Vec<u8> {
        vec![b'0' + self.0]
    }
}

impl TryFrom<u32> for Copies {
    type Error = Status;

    fn try_from(count: u32) -> Result<Copies, Status> {
        Copies::new(count)
    }
}

impl From<Copies> for u32 {
    fn from(copies: Copies) -> u32 {
        copies.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_one_digit_from_1_to_3() {
        for count in 1..=3 {
            let copies = Copies::new(count).expect("so many there can be");
            assert_eq!(Copies::parse(&copies.to_bytes()), Ok(copies));
        }
        for value in ["", "0", "4", "9", "03", "3\n", "3\0", "+1", "x"] {
            assert_eq!(Copies::parse(value.as_bytes()), Err(Status::Invalid));
        }
    }
}
