use dhow_engine::Engine;

use crate::commands;
use crate::error::CliError;
use crate::ui::Ui;

/// Manage images
#[derive(clap::Args, Debug)]
#[command(arg_required_else_help = true, subcommand_value_name = "COMMAND")]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(clap::Subcommand, Debug)]
enum ImageCommand {
    /// Build an image from a Dockerfile
    Build(Box<commands::build::BuildArgs>),
    /// Show what differs between two images: configuration, and files by size
    Diff(commands::diff::DiffArgs),
    /// Look through the layers and files of an image in the terminal
    Explore(commands::explore::ExploreArgs),
    /// Show how an image was made
    History(commands::history::HistoryArgs),
    /// Make an image of the files in an archive
    Import(commands::import::ImportArgs),
    /// Show everything about images
    Inspect(commands::inspect::ImageInspectArgs),
    /// Load images from a tar archive
    Load(commands::load::LoadArgs),
    /// List images
    #[command(visible_alias = "list")]
    Ls(commands::images::ImagesArgs),
    /// Remove images that are not used
    Prune(commands::image_prune::ImagePruneArgs),
    /// Download an image from a registry
    Pull(commands::pull::PullArgs),
    /// Upload an image to a registry
    Push(commands::push::PushArgs),
    /// Remove one or more images
    #[command(visible_alias = "remove")]
    Rm(commands::rmi::RmiArgs),
    /// Save one or more images to a tar archive
    Save(commands::save::SaveArgs),
    /// Give an image one more name
    Tag(commands::tag::TagArgs),
    /// Show the layers of an image, the instructions that made them and the images it was built from
    Tree(commands::image_tree::ImageTreeArgs),
}

pub(crate) fn run(args: ImageArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    match args.command {
        ImageCommand::Build(args) => commands::build::run(*args, engine, ui),
        ImageCommand::Diff(args) => commands::diff::run(&args, engine, ui),
        ImageCommand::Explore(args) => commands::explore::run(&args, engine, ui),
        ImageCommand::History(args) => commands::history::run(args, engine, ui),
        ImageCommand::Import(args) => commands::import::run(&args, engine, ui),
        ImageCommand::Inspect(args) => commands::inspect::run_image(args, engine, ui),
        ImageCommand::Load(args) => commands::load::run(args, engine, ui),
        ImageCommand::Ls(args) => commands::images::run(args, engine, ui),
        ImageCommand::Prune(args) => commands::image_prune::run(args, engine, ui),
        ImageCommand::Pull(args) => commands::pull::run(args, engine, ui),
        ImageCommand::Push(args) => commands::push::run(args, engine, ui),
        ImageCommand::Rm(args) => commands::rmi::run(args, engine, ui),
        ImageCommand::Save(args) => commands::save::run(args, engine, ui),
        ImageCommand::Tag(args) => commands::tag::run(args, engine, ui),
        ImageCommand::Tree(args) => commands::image_tree::run(&args, engine, ui),
    }
}
