//! Sizes as people write and read them: always with a unit, binary units only.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// A number of bytes. Parses from and prints as a whole number with a unit, without rounding:
/// `512MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    #[error("a size needs a unit: 512MiB, 4GiB")]
    NoUnit,
    #[error("unknown unit `{0}`: sizes are in KiB, MiB, GiB or TiB")]
    UnknownUnit(String),
    #[error("a size is a whole number and a unit: 512MiB, 4GiB")]
    NoNumber,
    #[error("more bytes than 64 bits can count")]
    TooLarge,
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() || unit.starts_with('.') {
            return Err(SizeError::NoNumber);
        }
        let bytes = unit_bytes(unit.trim_start())?;
        let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
        number
            .checked_mul(bytes)
            .map(Size)
            .ok_or(SizeError::TooLarge)
    }
}

fn unit_bytes(unit: &str) -> Result<u64, SizeError> {
    if unit.is_empty() {
        return Err(SizeError::NoUnit);
    }
    let known = UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit));
    known
        .map(|(_, bytes)| *bytes)
        .ok_or_else(|| SizeError::UnknownUnit(unit.to_owned()))
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |bytes: u64| self.0 >= bytes && self.0.is_multiple_of(bytes);
        match UNITS.iter().find(|(_, bytes)| fits(*bytes)) {
            Some((name, bytes)) => write!(f, "{}{name}", self.0 / bytes),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// `bytes` for a reader, to one decimal: `1.2 GiB`, `4 GiB`, `17 B`.
pub fn human(bytes: u64) -> String {
    let (name, unit) = *UNITS
        .iter()
        .find(|(_, unit)| bytes >= *unit)
        .unwrap_or(&("B", 1));
    let tenths = (u128::from(bytes) * 10 + u128::from(unit) / 2) / u128::from(unit);
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        tenth => format!("{}.{tenth} {name}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn size_takes_a_whole_number_with_a_binary_unit() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("4GiB", 4 << 30),
            ("64 KiB", 64 << 10),
            ("1tib", 1 << 40),
            ("7B", 7),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn size_refuses_what_could_be_misread() {
        for (text, error) in [
            ("4096", SizeError::NoUnit),
            ("", SizeError::NoNumber),
            ("GiB", SizeError::NoNumber),
            ("-1GiB", SizeError::NoNumber),
            ("1.5GiB", SizeError::NoNumber),
            ("4G", SizeError::UnknownUnit("G".into())),
            ("4GB", SizeError::UnknownUnit("GB".into())),
            ("99999999999999999999GiB", SizeError::TooLarge),
            ("99999999999TiB", SizeError::TooLarge),
        ] {
            assert_eq!(text.parse::<Size>(), Err(error), "{text}");
        }
    }

    #[test]
    fn human_rounds_to_one_decimal() {
        for (bytes, text) in [
            (0, "0 B"),
            (17, "17 B"),
            (1536, "1.5 KiB"),
            (4 << 30, "4 GiB"),
            ((12 << 30) / 10, "1.2 GiB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn size_parses_what_it_prints(bytes in any::<u64>()) {
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
    }
}
