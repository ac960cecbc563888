use clap::Subcommand;
use dhow_engine::Engine;

use super::{
    attach, commit, container_inspect, container_prune, cp, create, diff, exec, export, kill, logs, pause,
    port, ps, rename, restart, rm, run as run_command, start, stats, stop, top, unpause, update, wait,
};
use crate::error::CliError;
use crate::ui::Ui;

/// Manage containers
#[derive(clap::Args, Debug)]
#[command(arg_required_else_help = true, disable_help_subcommand = true, subcommand_value_name = "COMMAND")]
pub(crate) struct ContainerArgs {
    #[command(subcommand)]
    command: ContainerCommand,
}

#[derive(Subcommand, Debug)]
enum ContainerCommand {
    /// Attach to the input and output of a running container
    Attach(attach::AttachArgs),
    /// Make an image of a container's changes
    Commit(commit::CommitArgs),
    /// Copy files between a container and this host
    Cp(cp::CpArgs),
    /// Create a new container
    Create(Box<create::CreateArgs>),
    /// Show what a container wrote over its image
    Diff(diff::DiffArgs),
    /// Run a command in a running container
    Exec(exec::ExecArgs),
    /// Write the files of a container as a tar archive
    Export(export::ExportArgs),
    /// Show everything about containers
    Inspect(container_inspect::ContainerInspectArgs),
    /// Send a signal to running containers
    Kill(kill::KillArgs),
    /// Show what a container wrote
    Logs(logs::LogsArgs),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ps::PsArgs),
    /// Hold all processes of containers
    Pause(pause::PauseArgs),
    /// List the published ports of a container
    Port(port::PortArgs),
    /// Remove all containers that do not run
    Prune(container_prune::ContainerPruneArgs),
    /// Give a container another name
    Rename(rename::RenameArgs),
    /// Stop and start containers
    Restart(restart::RestartArgs),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(rm::RmArgs),
    /// Create and run a new container from an image
    Run(Box<run_command::RunArgs>),
    /// Start stopped containers
    Start(start::StartArgs),
    /// Show what containers use, until it is interrupted
    Stats(stats::StatsArgs),
    /// Stop running containers
    Stop(stop::StopArgs),
    /// Show the processes of a running container
    Top(top::TopArgs),
    /// Let the processes of paused containers go on
    Unpause(unpause::UnpauseArgs),
    /// Change the limits and the restart policy of containers, also while they run
    Update(Box<update::UpdateArgs>),
    /// Wait until containers end, and print their exit codes
    Wait(wait::WaitArgs),
}

pub(crate) fn run(args: &ContainerArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    match &args.command {
        ContainerCommand::Attach(args) => attach::run(args, engine, ui),
        ContainerCommand::Commit(args) => commit::run(args, engine, ui),
        ContainerCommand::Cp(args) => cp::run(args, engine, ui),
        ContainerCommand::Diff(args) => diff::run(args, engine, ui),
        ContainerCommand::Create(args) => create::run(args, engine, ui),
        ContainerCommand::Exec(args) => exec::run(args, engine, ui),
        ContainerCommand::Export(args) => export::run(args, engine, ui),
        ContainerCommand::Inspect(args) => container_inspect::run(args, engine, ui),
        ContainerCommand::Kill(args) => kill::run(args, engine, ui),
        ContainerCommand::Logs(args) => logs::run(args, engine, ui),
        ContainerCommand::Ls(args) => ps::run(args, engine, ui),
        ContainerCommand::Pause(args) => pause::run(args, engine, ui),
        ContainerCommand::Port(args) => port::run(args, engine, ui),
        ContainerCommand::Prune(args) => container_prune::run(args, engine, ui),
        ContainerCommand::Rename(args) => rename::run(args, engine, ui),
        ContainerCommand::Restart(args) => restart::run(args, engine, ui),
        ContainerCommand::Rm(args) => rm::run(args, engine, ui),
        ContainerCommand::Run(args) => run_command::run(args, engine, ui),
        ContainerCommand::Start(args) => start::run(args, engine, ui),
        ContainerCommand::Stats(args) => stats::run(args, engine, ui),
        ContainerCommand::Top(args) => top::run(args, engine, ui),
        ContainerCommand::Stop(args) => stop::run(args, engine, ui),
        ContainerCommand::Unpause(args) => unpause::run(args, engine, ui),
        ContainerCommand::Update(args) => update::run(args, engine, ui),
        ContainerCommand::Wait(args) => wait::run(args, engine, ui),
    }
}
