use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use clap::ArgAction;
use dhow_engine::Engine;
use dhow_engine::containers::{
    AttachEnd, AttachStreams, Attached, CreateError, CreateRequest, Created, DETACH_KEYS, FindImageError,
    NetworkMode, SignalProxy, WindowSize, parse_detach_keys,
};
use dhow_oci::{Platform, Reference};

use super::create_flags::{AttachedStreams, CreateFlags, PullArg};
use crate::error::{CliError, EXIT_FAILURE};
use crate::ui::Ui;

/// Exit status of `run` and `create` when it is not the program that failed.
const EXIT_ENGINE: u8 = 125;

/// Create and run a new container from an image
#[derive(clap::Args, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct RunArgs {
    /// Run in the background and print the id of the container
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set)]
    detach: bool,
    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Pass signals on to the container
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", hide_possible_values = true, action = ArgAction::Set)]
    sig_proxy: bool,
    #[command(flatten)]
    create: CreateFlags,
}

pub(crate) fn run(args: &RunArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let streams = args.create.attached_streams();
    if !args.detach && args.create.tty && streams.stdin && !io::IsTerminal::is_terminal(&io::stdin()) {
        return Err(CliError::new("the input device is not a TTY"));
    }
    start(args, streams, engine, ui).map_err(engine_error)
}

/// What the engine fails at has an exit status of its own, which no program uses.
pub(crate) fn engine_error(error: CliError) -> CliError {
    match error.code() {
        EXIT_FAILURE => error.exit_code(EXIT_ENGINE),
        _ => error,
    }
}

fn start(args: &RunArgs, streams: AttachedStreams, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let keys = detach_keys(args.detach_keys.as_deref(), engine)?;
    let created = create(&args.create, args.detach, engine, ui)?;
    let containers = engine.containers();
    if args.detach {
        containers.start(&created.id).map_err(start_error)?;
        ui.line(&created.id)?;
        return Ok(0);
    }
    // From here on signals are the container's.
    let signals = SignalProxy::install(args.sig_proxy).map_err(|error| CliError::new(error.to_string()))?;
    let attached = containers.start_attached(&created.id, window()).map_err(start_error)?;
    let Some(attached) = attached else {
        return Err(CliError::new(format!("container {} is already running", created.name)));
    };
    let session = Session { streams, terminal: args.create.tty, keys: &keys, signals: &signals };
    session.attend(attached, &created.id, engine, ui)
}

/// Makes the container, pulling its image if need be.
pub(crate) fn create(
    flags: &CreateFlags,
    detached: bool,
    engine: &Engine,
    ui: &mut Ui,
) -> Result<Created, CliError> {
    let mut request = flags.request(detached)?;
    if let Some(path) = flags.cidfile.as_deref().filter(|path| path.exists()) {
        return Err(CliError::new(format!(
            "container ID file found, make sure the other container isn't running or delete {}",
            path.display()
        )));
    }
    if let Some(warning) = flags.warnings() {
        ui.warn(warning);
        request.host.publish.clear();
    }
    if engine.is_rootless() {
        do_without_networks(&mut request, ui)?;
    }
    let platform = flags.platform.as_ref();
    if flags.pull == PullArg::Always {
        pull(flags.image(), platform, flags.quiet, engine, ui)?;
    }
    let created = match engine.containers().create(&request) {
        Err(CreateError::Image(error)) if flags.pull == PullArg::Missing && can_be_pulled(&error) => {
            if let (FindImageError::NotFound(name), false) = (&error, flags.quiet) {
                ui.note(format_args!("Unable to find image '{name}' locally"));
            }
            pull(flags.image(), platform, flags.quiet, engine, ui)?;
            engine.containers().create(&request)?
        }
        created => created?,
    };
    if let Some(path) = &flags.cidfile {
        write_cidfile(path, &created.id)?;
    }
    Ok(created)
}

/// Networks are made by root. What needs none of its own shares the host's.
fn do_without_networks(request: &mut CreateRequest, ui: &mut Ui) -> Result<(), CliError> {
    let host = &mut request.host;
    if host.network != NetworkMode::Bridge {
        return Ok(());
    }
    if !host.publish.is_empty() || host.publish_all {
        return Err(CliError::new("publishing ports needs root for now; use --network host"));
    }
    ui.warn("networks need root for now: the container shares the host's (--network host)");
    host.network = NetworkMode::Host;
    request.networks.clear();
    Ok(())
}

/// An image that is not here, or not for the platform that is asked for.
fn can_be_pulled(error: &FindImageError) -> bool {
    matches!(error, FindImageError::NotFound(_) | FindImageError::Platform { .. })
}

fn pull(
    image: &str,
    platform: Option<&Platform>,
    quiet: bool,
    engine: &Engine,
    ui: &mut Ui,
) -> Result<(), CliError> {
    let reference: Reference = image
        .parse()
        .map_err(|error| CliError::new(format!("invalid reference format: {image}: {error}")))?;
    super::pull_beside::pull(&reference.or_latest(), platform, quiet, engine, ui)
}

fn write_cidfile(path: &Path, id: &str) -> Result<(), CliError> {
    let written = std::fs::write(path, id);
    written.map_err(|error| {
        CliError::new(format!("failed to write the container ID to the file {}: {error}", path.display()))
    })
}

/// The error of a container that was made and did not start, with docker's exit code.
pub(crate) fn start_error(error: dhow_engine::containers::StartError) -> CliError {
    let exit_code = error.exit_code();
    CliError::from(error).exit_code(exit_code)
}

/// The keys that leave a container: of the flag, of docker's configuration, or docker's own.
pub(crate) fn detach_keys(text: Option<&str>, engine: &Engine) -> Result<Vec<u8>, CliError> {
    let said = text.filter(|text| !text.is_empty()).map(String::from);
    match said.map_or_else(|| configured_keys(&engine.credentials_file()), |said| Ok(Some(said)))? {
        Some(text) => Ok(parse_detach_keys(&text)?),
        None => Ok(DETACH_KEYS.to_vec()),
    }
}

/// `detachKeys` of docker's configuration.
fn configured_keys(path: &Path) -> Result<Option<String>, CliError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Configuration {
        #[serde(default)]
        detach_keys: String,
    }
    let failed = |what: String| CliError::new(format!("cannot read {}: {what}", path.display()));
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error.to_string())),
        Ok(text) => {
            let found: Configuration =
                serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
            Ok(Some(found.detach_keys).filter(|keys| !keys.is_empty()))
        }
    }
}

/// The size of the user's terminal.
pub(crate) fn window() -> Option<WindowSize> {
    let size = rustix::termios::tcgetwinsize(io::stdout())
        .or_else(|_| rustix::termios::tcgetwinsize(io::stdin()))
        .ok()?;
    Some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// A user in front of a container.
pub(crate) struct Session<'a> {
    pub streams: AttachedStreams,
    pub terminal: bool,
    pub keys: &'a [u8],
    pub signals: &'a SignalProxy,
}

impl Session<'_> {
    /// Stays with the container until one of the two has enough, and returns the container's exit code.
    pub(crate) fn attend(
        self,
        attached: Attached,
        id: &str,
        engine: &Engine,
        ui: &mut Ui,
    ) -> Result<u8, CliError> {
        ui.flush()?;
        let containers = engine.containers();
        let run_dir = containers.run_dir(id);
        let stdin = io::stdin();
        let resized = |size| containers.tell_resize(id, size);
        let streams = AttachStreams {
            resized: Some(&resized),
            stdin: self.streams.stdin.then(|| stdin.as_fd()),
            terminal: self.terminal,
            detach_keys: self.keys,
            signals: Some(self.signals),
        };
        let (mut stdout, mut stderr, mut nowhere) = (io::stdout(), io::stderr(), io::sink());
        let mut also_nowhere = io::sink();
        let out: &mut dyn io::Write = if self.streams.stdout { &mut stdout } else { &mut nowhere };
        let err: &mut dyn io::Write = if self.streams.stderr { &mut stderr } else { &mut also_nowhere };
        let end = attached.pump(&run_dir, streams, out, err);
        match end.map_err(|error| crate::error::output_error(&error))? {
            AttachEnd::Exited(status) => {
                if let Some(error) = &status.error {
                    ui.note(format_args!("Error: {error}"));
                }
                // What follows on this command may want its name and its ports.
                containers.wait_until_released(id)?;
                Ok(u8::try_from(status.exit_code).unwrap_or(u8::MAX))
            }
            AttachEnd::Detached => {
                containers.tell_detach(id);
                Ok(0)
            }
            AttachEnd::Lost => {
                Err(CliError::new("the connection to the container was lost").exit_code(EXIT_ENGINE))
            }
        }
    }
}
