use clap::Subcommand;
use dhow_engine::Engine;

use super::{
    network_connect, network_create, network_disconnect, network_inspect, network_ls, network_prune,
    network_rm,
};
use crate::error::CliError;
use crate::ui::Ui;

/// Manage networks
#[derive(clap::Args, Debug)]
#[command(arg_required_else_help = true, disable_help_subcommand = true, subcommand_value_name = "COMMAND")]
pub(crate) struct NetworkArgs {
    #[command(subcommand)]
    command: NetworkCommand,
}

#[derive(Subcommand, Debug)]
enum NetworkCommand {
    /// Put a container on a network
    Connect(network_connect::NetworkConnectArgs),
    /// Create a network
    Create(Box<network_create::NetworkCreateArgs>),
    /// Take a container off a network
    Disconnect(network_disconnect::NetworkDisconnectArgs),
    /// Show everything about networks
    Inspect(network_inspect::NetworkInspectArgs),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(network_ls::NetworkLsArgs),
    /// Remove networks that no container uses
    Prune(network_prune::NetworkPruneArgs),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(network_rm::NetworkRmArgs),
}

pub(crate) fn run(args: &NetworkArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    match &args.command {
        NetworkCommand::Connect(args) => network_connect::run(args, engine),
        NetworkCommand::Create(args) => network_create::run(args, engine, ui),
        NetworkCommand::Disconnect(args) => network_disconnect::run(args, engine),
        NetworkCommand::Inspect(args) => network_inspect::run(args, engine, ui),
        NetworkCommand::Ls(args) => network_ls::run(args, engine, ui),
        NetworkCommand::Prune(args) => network_prune::run(args, engine, ui),
        NetworkCommand::Rm(args) => network_rm::run(args, engine, ui),
    }
}
