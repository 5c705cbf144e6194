//! What a long-running program prints on standard output.

use std::io::{self, Write};

use crate::failure::{Blame, Failure};
use crate::notify;

/// The one line of a long-running program on standard output, and `READY=1`. Whoever waits for it may
/// read from a pipe.
pub fn say_ready(line: &str) -> Result<(), Failure> {
    print(&format!("{line}\n"))?;
    notify::ready(line);
    Ok(())
}

/// A text on standard output, at once.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes()).blame("standard output")?;
    stdout.flush().blame("standard output")
}
