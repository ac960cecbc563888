use dhow_engine::Engine;

use crate::error::{CliError, EXIT_FAILURE};
use crate::ui::Ui;

/// Manage dhow itself
#[derive(clap::Args, Debug)]
#[command(arg_required_else_help = true, subcommand_value_name = "COMMAND")]
pub(crate) struct SystemArgs {
    #[command(subcommand)]
    command: SystemCommand,
}

#[derive(clap::Subcommand, Debug)]
enum SystemCommand {
    /// Check that everything stored is there and undamaged
    Check,
}

pub(crate) fn run(args: SystemArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    match args.command {
        SystemCommand::Check => check(engine, ui),
    }
}

fn check(engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let report = engine.check()?;
    report.problems.iter().try_for_each(|problem| ui.line(problem))?;
    if report.problems.is_empty() {
        ui.line(format_args!("{} blobs and {} references are as they should be", report.blobs, report.refs))?;
        return Ok(0);
    }
    Ok(EXIT_FAILURE)
}
