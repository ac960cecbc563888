use std::io::{self, Write as _};
use std::ops::ControlFlow;

use dhow_engine::Engine;
use dhow_engine::containers::{LogLine, LogsOptions, OutputStream};
use jiff::Timestamp;

use crate::error::{CliError, output_error};
use crate::ui::Ui;
use crate::when;

/// Show what a container wrote
#[derive(clap::Args, Debug)]
pub(crate) struct LogsArgs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only what was written since a time, such as 2026-01-31T10:00:00Z or 42m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was written until a time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only this many lines from the end, or all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all", allow_hyphen_values = true)]
    tail: String,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Show the labels and variables that --log-opt labels and env name
    #[arg(long)]
    details: bool,
    /// Container, by name or id
    container: String,
}

pub(crate) fn run(args: &LogsArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let now = Timestamp::now();
    let time = |text: &Option<String>| text.as_deref().map(|text| point_in_time(text, now)).transpose();
    let options = LogsOptions {
        follow: args.follow,
        // Like docker: what is no number, or below zero, means all.
        tail: args.tail.parse().ok(),
        since: time(&args.since)?,
        until: time(&args.until)?,
    };
    ui.flush()?;
    let mut failed = None;
    engine.containers().logs(&args.container, &options, &mut |line| match print(&line, args) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    match failed {
        Some(error) => Err(output_error(&error)),
        None => Ok(0),
    }
}

fn print(line: &LogLine, args: &LogsArgs) -> io::Result<()> {
    let stamp = if args.timestamps { format!("{} ", line.time) } else { String::new() };
    let details = if args.details { format!("{} ", details(line)) } else { String::new() };
    let text = format!("{stamp}{details}{}", line.text);
    match line.stream {
        OutputStream::Stdout => io::stdout().write_all(text.as_bytes()),
        OutputStream::Stderr => io::stderr().write_all(text.as_bytes()),
    }
}

/// `name=value,…`, escaped as in the query of a URL.
fn details(line: &LogLine) -> String {
    let pairs = line.attributes.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value)));
    pairs.collect::<Vec<_>>().join(",")
}

fn escape(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        b' ' => "+".to_owned(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// Log lines are closer to each other than the seconds others are content with.
fn point_in_time(text: &str, now: Timestamp) -> Result<Timestamp, CliError> {
    match text.parse() {
        Ok(time) => Ok(time),
        Err(_) => Ok(Timestamp::from_second(when::parse(text, now)?)?),
    }
}
