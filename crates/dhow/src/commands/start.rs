use dhow_engine::Engine;
use dhow_engine::containers::SignalProxy;

use super::create_flags::AttachedStreams;
use super::each::each;
use super::run::{Session, detach_keys, start_error, window};
use crate::error::CliError;
use crate::ui::Ui;

/// Start stopped containers
#[derive(clap::Args, Debug)]
pub(crate) struct StartArgs {
    /// Attach to the output of the container
    #[arg(short, long)]
    attach: bool,
    /// Attach to the input of the container
    #[arg(short, long)]
    interactive: bool,
    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Container, by name or id (can be repeated)
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) fn run(args: &StartArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    match (&args.containers[..], args.attach || args.interactive) {
        (names, false) => each(names, ui, |name| {
            engine.containers().start(name).map_err(|error| start_error(error).exit_code(1))
        }),
        ([name], true) => attach(args, name, engine, ui),
        _ => Err(CliError::new("you cannot start and attach multiple containers at once")),
    }
}

fn attach(args: &StartArgs, name: &str, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let keys = detach_keys(args.detach_keys.as_deref(), engine)?;
    let containers = engine.containers();
    let container = containers.find(name)?;
    let host = &container.record.host;
    let signals = SignalProxy::install(!host.tty).map_err(|error| CliError::new(error.to_string()))?;
    let attached = match containers.start_attached(name, window()).map_err(start_error)? {
        Some(attached) => attached,
        None => containers.attach(name)?.1,
    };
    let streams = AttachedStreams { stdin: args.interactive && host.open_stdin, stdout: true, stderr: true };
    Session { streams, terminal: host.tty, keys: &keys, signals: &signals }.attend(
        attached,
        &container.id,
        engine,
        ui,
    )
}
