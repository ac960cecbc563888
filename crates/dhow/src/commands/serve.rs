use std::env;

use dhow_engine::Engine;
use dhow_serve::api::{Config, Listen, Notice, Server};

use crate::error::CliError;
use crate::ui::Ui;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The name of the socket in the folder of run-time state.
const SOCKET: &str = "dhow.sock";

/// Serve the Docker Engine API, so that docker's own clients work on dhow
#[derive(clap::Args, Debug)]
pub(crate) struct ServeArgs {
    /// Listen there: unix://PATH or tcp://ADDRESS:PORT (can be repeated) [default: unix:///run/dhow/dhow.sock]
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<Listen>,
    /// The group that may use the socket beside its owner, by name or number
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Listen on TCP without asking who is there: whoever reaches the port is root of this machine
    #[arg(long)]
    insecure: bool,
}

pub(crate) fn run(args: ServeArgs, engine: Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let inherited = inherited()?;
    let mut listen = args.listen;
    if listen.is_empty() && inherited.is_empty() {
        listen.push(Listen::Unix(engine.run_folder().join(SOCKET)));
    }
    if !args.insecure && listen.iter().any(|listen| matches!(listen, Listen::Tcp(_))) {
        return Err(CliError::new(
            "whoever reaches a TCP port without TLS is root of this machine: listen on a unix socket and reach it by \
             ssh, or say --insecure",
        ));
    }
    let group = args.group.as_deref().map(group_id).transpose()?;
    ui.flush()?;
    Server::new(Config { listen, inherited, group, version: VERSION }, engine, tell).run()?;
    Ok(0)
}

fn tell(notice: Notice) {
    let text = match notice {
        Notice::Listening(place) => format!("listening on {place}"),
        Notice::Failure(why) => why,
        Notice::Stopping => "stopping".to_owned(),
    };
    // If standard error is gone nobody is left to be told.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{text}\n").as_bytes());
}

/// Sockets that whoever started us has opened, as systemd does (sd_listen_fds(3)).
fn inherited() -> Result<Vec<std::sync::Arc<std::os::fd::OwnedFd>>, CliError> {
    let variable = |name| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if variable("LISTEN_PID") != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let sockets = dhow_engine::handed_over_sockets(variable("LISTEN_FDS").unwrap_or(0));
    let sockets =
        sockets.map_err(|error| CliError::new(format!("cannot take the sockets of LISTEN_FDS: {error}")))?;
    Ok(sockets.into_iter().map(std::sync::Arc::new).collect())
}

fn group_id(text: &str) -> Result<u32, CliError> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let groups = std::fs::read_to_string("/etc/group")
        .map_err(|error| CliError::new(format!("cannot read /etc/group: {error}")))?;
    let fields = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut ids = fields
        .filter(|fields| fields.first() == Some(&text))
        .filter_map(|fields| fields.get(2)?.parse().ok());
    ids.next().ok_or_else(|| CliError::new(format!("there is no group {text}")))
}
