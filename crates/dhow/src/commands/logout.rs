use dhow_engine::{Engine, server_key};

use crate::commands::login::registry;
use crate::error::CliError;
use crate::ui::Ui;

/// Sign out of a registry
#[derive(clap::Args, Debug)]
pub(crate) struct LogoutArgs {
    /// Registry to sign out of [default: Docker Hub]
    server: Option<String>,
}

pub(crate) fn run(args: LogoutArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let registry = registry(args.server.as_deref());
    let key = server_key(&registry);
    match engine.logout(&registry)? {
        true => ui.line(format_args!("Removing login credentials for {key}"))?,
        false => ui.line(format_args!("Not logged in to {key}"))?,
    }
    Ok(0)
}
