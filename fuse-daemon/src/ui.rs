//! What people and scripts see: results on stdout, everything else on stderr.
//!
//! # Invariants
//!
//! 1. Nothing else in this crate writes to stdout or stderr, but the logger to stderr.
//! 2. Colour and progress appear on a terminal only, and no colour if `NO_COLOR` is set.
//! 3. A reader that goes away (`cairnfs log x | head`) ends the output, not the verb; any other
//!    failure to write a result makes the verb fail.
//! 4. A name from a bucket, or a path, reaches a terminal without control characters.

use std::{
    fmt::Display,
    io::{self, BufRead, IsTerminal, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use crate::exit::{Failure, Result};

/// Why results no longer reach stdout.
static STDOUT_ERROR: Mutex<Option<io::Error>> = Mutex::new(None);

/// Writes one line of the result.
pub(crate) fn result(line: impl Display) {
    write_result(format_args!("{line}\n"));
}

/// Writes the result as one JSON document.
pub(crate) fn json<T: Serialize>(document: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|err| Failure::new(crate::exit::Code::Failed, format_args!("json: {err}")))?;
    result(text);
    Ok(())
}

/// A path in a document. JSON has no other bytes than UTF-8: what is none of it is replaced.
#[derive(Clone, Debug)]
pub(crate) struct PathText(pub(crate) PathBuf);

impl Serialize for PathText {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(&self.0.display())
    }
}

/// Writes raw bytes of the result, such as a completion script.
pub(crate) fn write_result(text: impl Display) {
    let mut error = STDOUT_ERROR.lock();
    if error.is_none() {
        let mut out = io::stdout().lock();
        *error = write!(out, "{text}").and_then(|()| out.flush()).err();
    }
}

/// Whether all results were written; a reader that went away is no failure.
pub(crate) fn results_written() -> Result<()> {
    match STDOUT_ERROR.lock().take() {
        Some(err) if err.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("cannot write the result", &err))
        }
        _ => Ok(()),
    }
}

/// Says something to the person at the terminal.
pub(crate) fn note(line: impl Display) {
    // Nobody is left to be told that nobody listens.
    writeln!(io::stderr().lock(), "{line}").ok();
}

/// Asks the person at the terminal, who has to answer with `y`.
pub(crate) fn confirm(question: &str) -> Result<bool> {
    write!(io::stderr().lock(), "{}", shown(question.as_bytes())).ok();
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|err| Failure::io("cannot ask whether to go on", &err))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Says why the verb failed: always the last line on stderr.
pub(crate) fn failure(failure: &Failure) {
    note(format_args!("cairnfs: {}", shown(failure.message.as_bytes())));
}

/// Warns of something that does not keep the verb from what it does.
pub(crate) fn warning(message: impl Display) {
    note(format_args!("cairnfs: {}", shown(message.to_string().as_bytes())));
}

/// `text` as good news.
pub(crate) fn good(text: &str) -> String {
    paint(text, "32")
}

/// `text` as bad news.
pub(crate) fn bad(text: &str) -> String {
    paint(text, "1;31")
}

fn paint(text: &str, colour: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain || !io::stdout().is_terminal() {
        text.to_owned()
    } else {
        format!("\x1b[{colour}m{text}\x1b[0m")
    }
}

/// A name or path of a bucket, with control characters made visible.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(bytes).chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

/// A path outside of a bucket, as [`shown`].
pub(crate) fn shown_path(path: &Path) -> String {
    shown(path.as_os_str().as_bytes())
}

/// A line on stderr that is rewritten while something goes on.
///
/// Where stderr is no terminal, a line each [`ProgressLine::QUIET`] instead.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    terminal: bool,
    last: Option<Instant>,
    drawn: bool,
}

impl ProgressLine {
    const QUIET: Duration = Duration::from_secs(10);
    const REDRAW: Duration = Duration::from_millis(100);

    /// Nothing is shown yet.
    pub(crate) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), last: None, drawn: false }
    }

    /// Shows `text`, unless something was shown a moment ago.
    pub(crate) fn show(&mut self, text: impl Display) {
        let now = Instant::now();
        let pause = if self.terminal { Self::REDRAW } else { Self::QUIET };
        if self.last.is_some_and(|last| now.duration_since(last) < pause) {
            return;
        }
        // Without a terminal the first line waits too: most things end before anybody wonders.
        let first = self.last.is_none();
        self.last = Some(now);
        if self.terminal {
            write!(io::stderr().lock(), "\r\x1b[K{text}").ok();
            self.drawn = true;
        } else if !first {
            note(text);
        }
    }

    /// Takes the line away, so that another can be written.
    pub(crate) fn clear(&mut self) {
        if self.drawn {
            write!(io::stderr().lock(), "\r\x1b[K").ok();
            self.drawn = false;
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(shown(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(shown("käse".as_bytes()), "käse");
    }
}
