use dhow_engine::Engine;

use crate::commands;
use crate::error::CliError;
use crate::ui::Ui;

/// Manage builds
#[derive(clap::Args, Debug)]
#[command(arg_required_else_help = true, subcommand_value_name = "COMMAND")]
pub(crate) struct BuilderArgs {
    #[command(subcommand)]
    command: BuilderCommand,
}

#[derive(clap::Subcommand, Debug)]
enum BuilderCommand {
    /// Build an image from a Dockerfile
    Build(Box<commands::build::BuildArgs>),
    /// Show what the build cache takes
    Du(commands::build_cache::DuArgs),
    /// Show and remove what is remembered of builds
    History(commands::builds::BuildsArgs),
    /// Remove what the build cache keeps
    Prune(commands::build_cache::PruneArgs),
}

pub(crate) fn run(args: BuilderArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    match args.command {
        BuilderCommand::Build(args) => commands::build::run(*args, engine, ui),
        BuilderCommand::Du(args) => commands::build_cache::usage(&args, engine, ui),
        BuilderCommand::Prune(args) => commands::build_cache::prune(&args, engine, ui),
        BuilderCommand::History(args) => commands::builds::run(args, engine, ui),
    }
}
