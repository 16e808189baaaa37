//! What commands print: results on standard output, errors on standard error.

use std::io::{self, Write};
use std::process::ExitCode;

/// To standard output. What cannot be written, to a full disk for example, is no success; where whoever read it has
/// gone (`| head`), nothing more is said of that.
pub fn say(text: &str) -> ExitCode {
    match write_out(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => complain(&format!("standard output cannot be written: {error}"), 1),
    }
}

pub(crate) fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// To standard error, a line for each sentence. Where that cannot be written, the exit status says it alone.
pub fn complain(sentences: &str, code: u8) -> ExitCode {
    let mut err = io::stderr().lock();
    for sentence in sentences.lines() {
        let _ = writeln!(err, "ringyard: {sentence}");
    }
    ExitCode::from(code)
}
