use dhow_engine::Engine;

use super::{events, info, system_df, system_prune, system_start};
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
    /// Show what images, containers, volumes and the build cache take
    Df(system_df::DfArgs),
    /// Show what happens to images, containers and volumes
    Events(events::EventsArgs),
    /// Show what there is to know about this machine and this dhow
    Info(info::InfoArgs),
    /// Remove what is not used: stopped containers, images, the build cache
    Prune(system_prune::SystemPruneArgs),
    /// Start the containers that are to run when the host is up
    Start(system_start::SystemStartArgs),
    /// Stop all containers so that `system start` starts them again
    Stop(system_start::SystemStopArgs),
}

pub(crate) fn run(args: SystemArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    match args.command {
        SystemCommand::Check => check(engine, ui),
        SystemCommand::Df(args) => system_df::run(&args, engine, ui),
        SystemCommand::Events(args) => events::run(&args, engine, ui),
        SystemCommand::Info(args) => info::run(&args, engine, ui),
        SystemCommand::Prune(args) => system_prune::run(&args, engine, ui),
        SystemCommand::Start(args) => system_start::start(&args, engine, ui),
        SystemCommand::Stop(args) => system_start::stop(&args, engine, ui),
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
