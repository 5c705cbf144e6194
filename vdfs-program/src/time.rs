//! Spans of time as people write them: always with a unit.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

const UNITS: [(&str, Duration); 4] = [
    ("ms", Duration::from_millis(1)),
    ("s", Duration::from_secs(1)),
    ("min", Duration::from_secs(60)),
    ("h", Duration::from_secs(3600)),
];

/// A span of time, parsed from a whole number and a unit: `500ms`, `30s`, `5min`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time: 500ms, 30s, 5min")]
pub struct TimeError(pub String);

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let bad = || TimeError(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u32 = number.parse().map_err(|_| bad())?;
        let known = UNITS.iter().find(|(name, _)| *name == unit);
        known.map(|(_, unit)| Time(*unit * number)).ok_or_else(bad)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse()
            .map_err(|error: TimeError| serde::de::Error::custom(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_needs_a_whole_number_and_a_unit() {
        let parse = |text: &str| text.parse::<Time>().map(|time| time.0);
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("5min"), Ok(Duration::from_secs(300)));
        for bad in ["30", "s", "1.5s", "99999999999s", ""] {
            assert_eq!(parse(bad), Err(TimeError(bad.into())), "{bad}");
        }
    }
}
