//! Showing a build while it runs, in the ways of `--progress`.

mod classic;
mod plain;
mod rawjson;
mod screen;
mod tty;

use std::io::{self, Write as _};

use dhow_engine::BuildEvent;
use dhow_oci::{Digest, Reference};

/// A way to show a build. Called from several threads, one at a time.
pub(crate) trait Progress: Send {
    /// Something happened.
    fn event(&mut self, event: &BuildEvent<'_>);

    /// Time has passed; a live display moves on.
    fn tick(&mut self) {}

    /// The build is over and the image has these names. After a failure it is not called.
    fn built(&mut self, image: &Digest, names: &[Reference]);

    /// The build is over, well or not; what is live becomes still.
    fn close(&mut self) {}
}

/// The value of `--progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProgressMode {
    /// `tty` on a terminal, else `plain`
    Auto,
    /// Lines, each with the number of its step
    Plain,
    /// A live display
    Tty,
    /// `Step N/M` as docker's first builder printed it
    Classic,
    /// One JSON object a line, as BuildKit has them
    Rawjson,
    /// Nothing but the image ID and errors
    Quiet,
    /// Nothing but errors
    None,
}

impl ProgressMode {
    /// What `--progress` and `--quiet` come to; where neither is given, the environment has a say.
    pub(crate) fn resolve(self, is_quiet: bool, variable: Option<&str>) -> Result<ProgressMode, String> {
        use clap::ValueEnum as _;
        match (self, is_quiet, variable.filter(|value| !value.is_empty())) {
            (Self::Auto | Self::Quiet | Self::None, true, _) => Ok(Self::Quiet),
            (mode, true, _) => {
                let name = mode.to_possible_value().map(|value| value.get_name().to_owned());
                Err(format!("--progress={} and --quiet cannot be used together", name.unwrap_or_default()))
            }
            (Self::Auto, false, Some(value)) => Self::from_str(value, true)
                .map_err(|_| format!("invalid value {value:?} in BUILDKIT_PROGRESS, see --progress")),
            (mode, false, _) => Ok(mode),
        }
    }

    /// Whether nothing is shown of the build.
    pub(crate) fn is_silent(self) -> bool {
        matches!(self, Self::Quiet | Self::None)
    }
}

/// The display for `mode`.
pub(crate) fn new(mode: ProgressMode, is_terminal: bool, context_bytes: Option<u64>) -> Box<dyn Progress> {
    // As <https://no-color.org> asks for.
    let has_colors = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match mode {
        ProgressMode::Quiet | ProgressMode::None => Box::new(Quiet),
        ProgressMode::Classic => Box::new(classic::Classic::new(context_bytes.unwrap_or(0))),
        ProgressMode::Rawjson => Box::new(rawjson::RawJson::new()),
        ProgressMode::Tty => Box::new(tty::Tty::new(has_colors)),
        ProgressMode::Auto if is_terminal => Box::new(tty::Tty::new(has_colors)),
        ProgressMode::Auto | ProgressMode::Plain => Box::new(plain::Plain::new()),
    }
}

struct Quiet;

impl Progress for Quiet {
    fn event(&mut self, _: &BuildEvent<'_>) {}

    fn built(&mut self, _: &Digest, _: &[Reference]) {}
}

/// Tells on standard error. If that is gone nobody is left to be told.
fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// What to say of a cache elsewhere that is of no use.
fn cache_warning(cache: &str, why: &str) -> String {
    format!("WARNING: the cache {} is not used: {}\n", screen::plain(cache), screen::plain(why))
}

/// Splits output that arrives in pieces into lines.
#[derive(Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// A line without an end is shown when it is as long as this.
    const LINE_BYTES_MAX: usize = 64 * 1024;

    /// Adds a piece and hands out the lines it completes. A carriage return starts a line over, as the
    /// progress bars of the programs run expect.
    pub(crate) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        self.0.extend_from_slice(bytes);
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let rest = self.0.split_off(end + 1);
            line(&text(&self.0[..end]));
            self.0 = rest;
        }
        if self.0.len() > Self::LINE_BYTES_MAX {
            line(&text(&std::mem::take(&mut self.0)));
        }
    }

    /// The line that has no end yet, as it stands; empty if there is none.
    fn unfinished(&self) -> String {
        text(&self.0)
    }

    /// Hands out what is left.
    pub(crate) fn finish(&mut self, line: impl FnOnce(&str)) {
        if !self.0.is_empty() {
            line(&text(&std::mem::take(&mut self.0)));
        }
    }
}

fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let last = line.rsplit(|byte| *byte == b'\r').next().unwrap_or(line);
    String::from_utf8_lossy(last).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_and_the_environment_decide_where_nothing_else_is_said() {
        use ProgressMode::{Auto, None, Plain, Quiet, Rawjson};
        for (mode, is_quiet, variable, expected) in [
            (Auto, false, Option::None, Ok(Auto)),
            (Auto, false, Some("plain"), Ok(Plain)),
            (Auto, false, Some(""), Ok(Auto)),
            (Rawjson, false, Some("plain"), Ok(Rawjson)),
            (Auto, true, Some("plain"), Ok(Quiet)),
            (None, true, Option::None, Ok(Quiet)),
            (None, false, Some("plain"), Ok(None)),
            (Plain, true, Option::None, Err("--progress=plain and --quiet cannot be used together")),
            (Auto, false, Some("loud"), Err("invalid value \"loud\" in BUILDKIT_PROGRESS, see --progress")),
        ] {
            assert_eq!(mode.resolve(is_quiet, variable), expected.map_err(str::to_owned));
        }
    }

    #[test]
    fn pieces_become_lines_and_a_carriage_return_starts_over() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for piece in [&b"one\ntw"[..], b"o\r\n", b"10%\r20%\r30%\n", b"rest"] {
            lines.push(piece, |line| seen.push(line.to_owned()));
        }
        lines.finish(|line| seen.push(line.to_owned()));
        assert_eq!(seen, ["one", "two", "30%", "rest"]);
    }
}
