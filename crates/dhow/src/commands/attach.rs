use clap::ArgAction;
use dhow_engine::Engine;
use dhow_engine::containers::SignalProxy;

use super::create_flags::AttachedStreams;
use super::run::{Session, detach_keys};
use crate::error::CliError;
use crate::ui::Ui;

/// Attach to the input and output of a running container
#[derive(clap::Args, Debug)]
pub(crate) struct AttachArgs {
    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Do not attach to the input
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the container
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", hide_possible_values = true, action = ArgAction::Set)]
    sig_proxy: bool,
    /// Container, by name or id
    container: String,
}

pub(crate) fn run(args: &AttachArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let keys = detach_keys(args.detach_keys.as_deref(), engine)?;
    let signals = SignalProxy::install(args.sig_proxy).map_err(|error| CliError::new(error.to_string()))?;
    let (container, attached) = engine.containers().attach(&args.container)?;
    let host = &container.record.host;
    let streams = AttachedStreams { stdin: !args.no_stdin && host.open_stdin, stdout: true, stderr: true };
    Session { streams, terminal: host.tty, keys: &keys, signals: &signals }.attend(
        attached,
        &container.id,
        engine,
        ui,
    )
}
