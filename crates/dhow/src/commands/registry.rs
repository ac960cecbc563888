use std::io::{self, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dhow_distribution::{Config, Event, GcOptions, GcReport, Server};
use dhow_template::units::human_size;

use crate::error::CliError;
use crate::settings;
use crate::ui::Ui;

/// Run a registry server
#[derive(clap::Args, Debug)]
#[command(arg_required_else_help = true, subcommand_value_name = "COMMAND")]
pub(crate) struct RegistryArgs {
    #[command(subcommand)]
    command: RegistryCommand,
}

#[derive(clap::Subcommand, Debug)]
enum RegistryCommand {
    /// Serve images to dhow, docker and everything that speaks to registries
    Serve(ServeArgs),
    /// Remove what no image needs, also while servers run
    Gc(GcArgs),
    /// Print the line of a user for the file of users
    Htpasswd(HtpasswdArgs),
}

/// Where the registry is.
#[derive(clap::Args, Debug)]
struct Place {
    /// Read this configuration
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep the registry in this folder
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Serve images to dhow, docker and everything that speaks to registries
#[derive(clap::Args, Debug)]
struct ServeArgs {
    #[command(flatten)]
    place: Place,
    /// Listen here, by default on 127.0.0.1:5000; port 0 is any (can be repeated)
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<SocketAddr>,
    /// Serve other machines even without TLS, or without asking who they are
    #[arg(long)]
    insecure: bool,
    /// Print every request
    #[arg(short, long)]
    verbose: bool,
}

/// Remove what no image needs, also while servers run
#[derive(clap::Args, Debug)]
struct GcArgs {
    #[command(flatten)]
    place: Place,
    /// Keep what was pushed or asked for within this time, such as 90s, 15m or 24h
    #[arg(long, value_name = "TIME", value_parser = time)]
    grace: Option<Duration>,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

/// Print the line of a user for the file of users; the password is asked for, or read from standard input
#[derive(clap::Args, Debug)]
struct HtpasswdArgs {
    /// The name of the user
    user: String,
}

fn time(text: &str) -> Result<Duration, String> {
    dhow_distribution::parse_duration(text).ok_or_else(|| "not a time such as 90s, 15m, 24h or 7d".to_owned())
}

pub(crate) fn run(args: RegistryArgs, ui: &mut Ui) -> Result<u8, CliError> {
    match args.command {
        RegistryCommand::Serve(args) => serve(args),
        RegistryCommand::Gc(args) => gc(&args, ui),
        RegistryCommand::Htpasswd(args) => htpasswd(&args, ui),
    }
}

fn serve(args: ServeArgs) -> Result<u8, CliError> {
    let mut config = config(&args.place)?;
    if !args.listen.is_empty() {
        config.listen = args.listen;
    }
    config.insecure |= args.insecure;
    let verbose = args.verbose;
    Server::new(config, move |event| tell(&event, verbose)).run()?;
    Ok(0)
}

/// From any thread, a line at a time.
fn tell(event: &Event, verbose: bool) {
    let line = match event {
        Event::Listening(address) => format!("listening on {address}"),
        Event::Request(_) if !verbose => return,
        Event::Request(line) => line.clone(),
        Event::Failure(line) => format!("ERROR: {line}"),
        Event::Collected(report) => format!("gc: {}", summary(report, "removed")),
        Event::Stopping => "stopping".to_owned(),
    };
    // Standard error gone means that nobody is left to be told.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn gc(args: &GcArgs, ui: &mut Ui) -> Result<u8, CliError> {
    let config = config(&args.place)?;
    let options = GcOptions {
        grace: args.grace.unwrap_or(config.gc.grace),
        upload_expiry: config.gc.upload_expiry,
        dry_run: args.dry_run,
    };
    let report = dhow_distribution::collect(&config, &options)?;
    ui.line(summary(&report, if args.dry_run { "would remove" } else { "removed" }))?;
    Ok(0)
}

fn summary(report: &GcReport, did: &str) -> String {
    format!(
        "{did} {} blobs ({}), {} links of repositories to blobs, {} abandoned uploads, {} other leftovers",
        report.blobs,
        human_size(report.bytes),
        report.unlinked,
        report.uploads,
        report.swept
    )
}

fn htpasswd(args: &HtpasswdArgs, ui: &mut Ui) -> Result<u8, CliError> {
    let password = if io::stdin().is_terminal() {
        let password = rpassword::prompt_password("Password: ")?;
        if rpassword::prompt_password("Again: ")? != password {
            return Err(CliError::new("the passwords differ"));
        }
        password
    } else {
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        line.trim_end_matches(['\n', '\r']).to_owned()
    };
    ui.line(dhow_distribution::htpasswd_line(&args.user, &password)?)?;
    Ok(0)
}

fn config(place: &Place) -> Result<Config, CliError> {
    let mut config = match &place.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    if let Some(folder) = &place.folder {
        config.folder = Some(folder.clone());
    } else if config.folder.is_none() && config.bucket.is_none() {
        config.folder = Some(settings::registry_folder()?);
    }
    Ok(config)
}
