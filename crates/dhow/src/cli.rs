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
    /// Manage builds
    #[command(visible_alias = "buildx")]
    Builder(commands::builder::BuilderArgs),
    /// Show what a container wrote over its image, or what differs between two images
    Diff(commands::diff::DiffArgs),
    /// Show what happens to images, containers and volumes
    Events(commands::events::EventsArgs),
    /// Say why the steps of a build ran or did not
    Explain(commands::explain::ExplainArgs),
    /// Look through the layers and files of an image in the terminal
    Explore(commands::explore::ExploreArgs),
    /// Show how an image was made
    History(commands::history::HistoryArgs),
    /// Manage images
    Image(commands::image::ImageArgs),
    /// List images
    Images(commands::images::ImagesArgs),
    /// Make an image of the files in an archive
    Import(commands::import::ImportArgs),
    /// Show what there is to know about this machine and this dhow
    Info(commands::info::InfoArgs),
    /// Show everything about containers, images, networks and volumes
    Inspect(commands::inspect::InspectArgs),
    /// Load images from a tar archive
    Load(commands::load::LoadArgs),
    /// Sign in to a registry
    Login(commands::login::LoginArgs),
    /// Sign out of a registry
    Logout(commands::logout::LogoutArgs),
    /// Put together and look at lists of manifests for several platforms
    Manifest(commands::manifest::ManifestArgs),
    /// Download an image from a registry
    Pull(commands::pull::PullArgs),
    /// Upload an image to a registry
    Push(commands::push::PushArgs),
    /// Run a registry server
    Registry(commands::registry::RegistryArgs),
    Serve(commands::serve::ServeArgs),
    /// Remove one or more images
    Rmi(commands::rmi::RmiArgs),
    /// Save one or more images to a tar archive
    Save(commands::save::SaveArgs),
    /// Search a registry for images
    Search(commands::search::SearchArgs),
    /// Manage dhow itself
    System(commands::system::SystemArgs),
    /// Give an image one more name
    Tag(commands::tag::TagArgs),
    /// Say which layer and instruction brought a file into an image, and which later ones changed it
    Why(commands::why::WhyArgs),
    /// Show the version of dhow
    Version(commands::version::VersionArgs),
    // containers: alphabetical
    /// Attach to the input and output of a running container
    Attach(commands::attach::AttachArgs),
    /// Make an image of a container's changes
    Commit(commands::commit::CommitArgs),
    /// Manage containers
    Container(commands::container::ContainerArgs),
    /// Copy files between a container and this host
    Cp(commands::cp::CpArgs),
    /// Create a new container
    Create(Box<commands::create::CreateArgs>),
    /// Run a command in a running container
    Exec(commands::exec::ExecArgs),
    /// Write the files of a container as a tar archive
    Export(commands::export::ExportArgs),
    /// Send a signal to running containers
    Kill(commands::kill::KillArgs),
    /// Show what a container wrote
    Logs(commands::logs::LogsArgs),
    /// Hold all processes of containers
    Pause(commands::pause::PauseArgs),
    /// Manage networks
    Network(commands::network::NetworkArgs),
    /// List the published ports of a container
    Port(commands::port::PortArgs),
    /// List containers
    Ps(commands::ps::PsArgs),
    /// Give a container another name
    Rename(commands::rename::RenameArgs),
    /// Stop and start containers
    Restart(commands::restart::RestartArgs),
    /// Remove containers
    Rm(commands::rm::RmArgs),
    /// Create and run a new container from an image
    Run(Box<commands::run::RunArgs>),
    /// Start stopped containers
    Start(commands::start::StartArgs),
    /// Show what containers use, until it is interrupted
    Stats(commands::stats::StatsArgs),
    /// Stop running containers
    Stop(commands::stop::StopArgs),
    /// Show the processes of a running container
    Top(commands::top::TopArgs),
    /// Let the processes of paused containers go on
    Unpause(commands::unpause::UnpauseArgs),
    /// Manage volumes
    Volume(commands::volume::VolumeArgs),
    /// Change the limits and the restart policy of containers, also while they run
    Update(Box<commands::update::UpdateArgs>),
    /// Wait until containers end, and print their exit codes
    Wait(commands::wait::WaitArgs),
    /// Open a shell where a step of a build failed
    Debug(commands::debug::DebugArgs),
    /// Build an image from a Dockerfile
    Build(Box<commands::build::BuildArgs>),
}

/// Runs one command line and returns the exit status of the process.
pub(crate) fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(words_for_logs(args.collect())) {
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

/// `dhow build logs [BUILD [STEP]]` stands for `dhow builder history logs`, but only where it cannot mean a build
/// of the folder `logs`: when there is no such folder, or when more words follow, as a build takes one folder.
fn words_for_logs(mut words: Vec<OsString>) -> Vec<OsString> {
    let is_logs = words.get(1).is_some_and(|word| word == "build")
        && words.get(2).is_some_and(|word| word == "logs")
        && match words.get(3) {
            None => !std::path::Path::new("logs").is_dir(),
            Some(word) => !word.as_encoded_bytes().starts_with(b"-"),
        };
    if is_logs {
        words.splice(1..3, ["builder", "history", "logs"].map(OsString::from));
    }
    words
}

/// Help is a success. Docker's status is 125 for a flag it does not know or cannot read, and 1 for a command
/// it does not know or the wrong number of arguments.
fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    // Nobody is left to be told when this fails.
    let _ = error.print();
    ExitCode::from(match error.kind() {
        _ if !error.use_stderr() => 0,
        ErrorKind::MissingRequiredArgument
        | ErrorKind::InvalidSubcommand
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => 1,
        // A word too many is told as an unknown argument; it is no flag.
        ErrorKind::UnknownArgument | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues
            if !names_flag(error) =>
        {
            1
        }
        _ => 125,
    })
}

fn names_flag(error: &clap::Error) -> bool {
    use clap::error::{ContextKind, ContextValue};
    let invalid = error.get(ContextKind::InvalidArg);
    matches!(invalid, Some(ContextValue::String(word)) if word.starts_with('-'))
}

/// Without root, most commands work as root of the user's own namespace. No thread has been started yet.
fn open() -> Result<Engine, CliError> {
    let mut settings = settings::read()?;
    if !rustix::process::geteuid().is_root() {
        let entered = dhow_engine::userns::enter(&settings.run, &settings.helper_folders);
        settings.user_namespace = Some(entered.map_err(|error| match error.hint() {
            Some(hint) => CliError::from(error).hint(hint),
            None => error.into(),
        })?);
    }
    Ok(Engine::open(settings)?)
}

/// For commands that touch neither the files of images nor processes: anybody may do that as they are, and
/// programs that keep credentials want to see who is asking.
fn open_as_is() -> Result<Engine, CliError> {
    Ok(Engine::open(settings::read()?)?)
}

fn dispatch(command: Command, ui: &mut Ui) -> Result<u8, CliError> {
    match command {
        Command::Builder(args) => commands::builder::run(args, &open()?, ui),
        Command::Diff(args) => commands::diff::run(&args, &open()?, ui),
        Command::Events(args) => commands::events::run(&args, &open()?, ui),
        Command::Explain(args) => commands::explain::run(&args, &open_as_is()?, ui),
        Command::Explore(args) => commands::explore::run(&args, &open()?, ui),
        Command::History(args) => commands::history::run(args, &open_as_is()?, ui),
        Command::Image(args) => commands::image::run(args, &open()?, ui),
        Command::Images(args) => commands::images::run(args, &open_as_is()?, ui),
        Command::Import(args) => commands::import::run(&args, &open()?, ui),
        Command::Info(args) => commands::info::run(&args, &open()?, ui),
        Command::Inspect(args) => commands::inspect::run(args, &open()?, ui),
        Command::Load(args) => commands::load::run(args, &open()?, ui),
        Command::Login(args) => commands::login::run(args, &open_as_is()?, ui),
        Command::Logout(args) => commands::logout::run(args, &open_as_is()?, ui),
        Command::Manifest(args) => commands::manifest::run(&args, &open_as_is()?, ui),
        Command::Pull(args) => commands::pull::run(args, &open()?, ui),
        Command::Push(args) => commands::push::run(args, &open()?, ui),
        Command::Registry(args) => commands::registry::run(args, ui),
        Command::Rmi(args) => commands::rmi::run(args, &open()?, ui),
        Command::Save(args) => commands::save::run(args, &open()?, ui),
        Command::Search(args) => commands::search::run(args, &open_as_is()?, ui),
        Command::Serve(args) => commands::serve::run(args, open()?, ui),
        Command::System(args) => commands::system::run(args, &open()?, ui),
        Command::Tag(args) => commands::tag::run(args, &open()?, ui),
        Command::Why(args) => commands::why::run(&args, &open()?, ui),
        Command::Version(args) => commands::version::run(&args, &open_as_is()?, ui),
        Command::Attach(args) => commands::attach::run(&args, &open()?, ui),
        Command::Commit(args) => commands::commit::run(&args, &open()?, ui),
        Command::Container(args) => commands::container::run(&args, &open()?, ui),
        Command::Cp(args) => commands::cp::run(&args, &open()?, ui),
        Command::Create(args) => commands::create::run(&args, &open()?, ui),
        Command::Exec(args) => commands::exec::run(&args, &open()?, ui),
        Command::Export(args) => commands::export::run(&args, &open()?, ui),
        Command::Kill(args) => commands::kill::run(&args, &open()?, ui),
        Command::Logs(args) => commands::logs::run(&args, &open()?, ui),
        Command::Pause(args) => commands::pause::run(&args, &open()?, ui),
        Command::Network(args) => commands::network::run(&args, &open()?, ui),
        Command::Port(args) => commands::port::run(&args, &open()?, ui),
        Command::Ps(args) => commands::ps::run(&args, &open()?, ui),
        Command::Rename(args) => commands::rename::run(&args, &open()?, ui),
        Command::Restart(args) => commands::restart::run(&args, &open()?, ui),
        Command::Rm(args) => commands::rm::run(&args, &open()?, ui),
        Command::Run(args) => commands::run::run(&args, &open()?, ui),
        Command::Start(args) => commands::start::run(&args, &open()?, ui),
        Command::Stats(args) => commands::stats::run(&args, &open()?, ui),
        Command::Top(args) => commands::top::run(&args, &open()?, ui),
        Command::Stop(args) => commands::stop::run(&args, &open()?, ui),
        Command::Unpause(args) => commands::unpause::run(&args, &open()?, ui),
        Command::Volume(args) => commands::volume::run(&args, &open()?, ui),
        Command::Update(args) => commands::update::run(&args, &open()?, ui),
        Command::Wait(args) => commands::wait::run(&args, &open()?, ui),
        Command::Debug(args) => commands::debug::run(&args, &open()?, ui),
        Command::Build(args) => commands::build::run(*args, &open()?, ui),
    }
}
