use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dhow_engine::Engine;

use crate::commands;
use crate::error::CliError;
use crate::settings;
use crate::ui::Ui;

/// Build, store, run, pull and push container images. One binary, no daemon.
#[derive(Parser, Debug)]
#[command(name = "dhow", bin_name = "dhow", version, propagate_version = false, max_term_width = 100)]
#[command(disable_help_subcommand = true, subcommand_value_name = "COMMAND", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Top-level commands; most are short for one of `image` or `container`.
#[derive(Subcommand, Debug)]
enum Command {
    // images: alphabetical
    // containers: alphabetical
    /// Build an image from a Dockerfile
    Build(commands::build::BuildArgs),
}

/// Runs one command line and returns the exit status of the process.
pub(crate) fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let mut ui = Ui::new();
    let result = dispatch(cli.command, &mut ui).and_then(|code| ui.flush().map(|()| code));
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // What was printed so far comes before the error, as it happened.
            let _ = ui.flush();
            if !error.is_silent() {
                ui.note(&error);
            }
            ExitCode::from(error.code())
        }
    }
}

/// Help is a success; a mistake in the arguments is docker's 125 for `run`, `create` and `exec`, else 1.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to be told when this fails.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 1 } else { 0 })
}

fn open() -> Result<Engine, CliError> {
    Ok(Engine::open(settings::read()?)?)
}

fn dispatch(command: Command, ui: &mut Ui) -> Result<u8, CliError> {
    match command {
        Command::Build(args) => commands::build::run(args, &open()?, ui),
    }
}
