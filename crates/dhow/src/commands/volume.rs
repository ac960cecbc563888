use clap::Subcommand;
use dhow_engine::Engine;

use super::{volume_create, volume_inspect, volume_ls, volume_prune, volume_rm};
use crate::error::CliError;
use crate::ui::Ui;

/// Manage volumes
#[derive(clap::Args, Debug)]
#[command(arg_required_else_help = true, disable_help_subcommand = true, subcommand_value_name = "COMMAND")]
pub(crate) struct VolumeArgs {
    #[command(subcommand)]
    command: VolumeCommand,
}

#[derive(Subcommand, Debug)]
enum VolumeCommand {
    /// Create a volume
    Create(volume_create::VolumeCreateArgs),
    /// Show everything about volumes
    Inspect(volume_inspect::VolumeInspectArgs),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(volume_ls::VolumeLsArgs),
    /// Remove volumes that no container has
    Prune(volume_prune::VolumePruneArgs),
    /// Remove volumes
    #[command(visible_alias = "remove")]
    Rm(volume_rm::VolumeRmArgs),
}

pub(crate) fn run(args: &VolumeArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    match &args.command {
        VolumeCommand::Create(args) => volume_create::run(args, engine, ui),
        VolumeCommand::Inspect(args) => volume_inspect::run(args, engine, ui),
        VolumeCommand::Ls(args) => volume_ls::run(args, engine, ui),
        VolumeCommand::Prune(args) => volume_prune::run(args, engine, ui),
        VolumeCommand::Rm(args) => volume_rm::run(args, engine, ui),
    }
}
