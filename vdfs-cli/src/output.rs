//! Results, on standard output.

use std::io::{BufWriter, ErrorKind, Stdout, Write};

use serde::Serialize;

use vdfs_program::Failure;

/// Buffered standard output; what is not finished may not have been written.
#[derive(Debug)]
pub(crate) struct Output(BufWriter<Stdout>);

impl Output {
    pub(crate) fn open() -> Output {
        Output(BufWriter::new(std::io::stdout()))
    }

    pub(crate) fn line(&mut self, line: impl AsRef<[u8]>) -> Result<(), Failure> {
        self.bytes(line.as_ref())?;
        self.bytes(b"\n")
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write_all(bytes).map_err(output_failure)
    }

    pub(crate) fn json(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.0, object)
            .map_err(|error| output_failure(error.into()))?;
        self.bytes(b"\n")
    }

    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.0.flush().map_err(output_failure)
    }
}

fn output_failure(error: std::io::Error) -> Failure {
    match error.kind() {
        // `vdfs cat FILE | head` is no error to tell anybody of.
        ErrorKind::BrokenPipe => Failure::reader_left(),
        _ => Failure::new("standard output", error),
    }
}
