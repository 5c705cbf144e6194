//! How a program fails: one line `WHAT: WHY`, and behind it the way out where there is one.

use std::fmt;
use std::process::ExitCode;

/// Why a command could not do what it was asked. Prints as one line, whatever it was made from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}")]
pub struct Failure {
    line: String,
    is_silent: bool,
}

impl Failure {
    /// `what` was asked for or was touched, `why` it did not work.
    pub fn new(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Failure {
            line: format!("{}: {}", one_line(&what), one_line(&why)),
            is_silent: false,
        }
    }

    /// From an error that already says what, why and the way out.
    pub fn of(error: impl fmt::Display) -> Self {
        Failure {
            line: one_line(&error),
            is_silent: false,
        }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn way_out(mut self, way_out: impl fmt::Display) -> Self {
        self.line.push_str("; ");
        self.line.push_str(&one_line(&way_out));
        self
    }

    /// The program that read standard output has ended: a failure that nobody needs to read of.
    pub fn reader_left() -> Self {
        let failure = Failure::new("standard output", "its reader has ended");
        Failure {
            is_silent: true,
            ..failure
        }
    }

    /// True if no line is to be printed.
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }
}

/// What a program ends with: 0, or 1 and the line `PROGRAM: WHAT: WHY` on standard error.
pub fn exit_status(program: &str, outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                eprintln!("{program}: {failure}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Names what failed, for errors that only say why.
pub trait Blame<T> {
    fn blame(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Blame<T> for Result<T, E> {
    fn blame(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|why| Failure::new(what, why))
    }
}

/// The text on one line, without the numbers that `std::io::Error` appends.
pub fn one_line(text: &impl fmt::Display) -> String {
    let text = text.to_string();
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut line = words.join(" ");
    while let Some((start, end)) = error_number(&line) {
        line.replace_range(start..end, "");
    }
    line
}

/// Where ` (os error 13)` stands.
fn error_number(line: &str) -> Option<(usize, usize)> {
    let start = line.find(" (os error ")?;
    let len = line[start..].find(')')?;
    Some((start, start + len + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_prints_what_why_and_way_out_on_one_line() {
        let failure = Failure::new("put /a", "no space\n left").way_out("free some");
        assert_eq!(failure.to_string(), "put /a: no space left; free some");
    }

    #[test]
    fn failure_of_an_io_error_leaves_out_the_number() {
        let denied = std::io::Error::from_raw_os_error(13);
        let failure = Failure::new("/root/x", denied);
        assert_eq!(failure.to_string(), "/root/x: Permission denied");
        let quoted = Failure::of("/dev/fuse: Permission denied (os error 13); do this");
        assert_eq!(quoted.to_string(), "/dev/fuse: Permission denied; do this");
    }
}
