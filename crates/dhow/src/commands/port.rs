use dhow_engine::Engine;
use dhow_engine::containers::{ContainerPort, State};

use crate::error::CliError;
use crate::ui::Ui;

/// List the published ports of a container
#[derive(clap::Args, Debug)]
pub(crate) struct PortArgs {
    /// Container, by name or id
    container: String,
    /// Only where this port of the container is published
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

pub(crate) fn run(args: &PortArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let container = engine.containers().find(&args.container)?;
    if !matches!(container.state, State::Running { .. }) && args.port.is_none() {
        return Ok(0);
    }
    let mut bound: Vec<_> = container.attached.into_iter().flat_map(|attached| attached.ports).collect();
    bound.sort_by_key(|bound| (bound.container_port, bound.host()));
    let Some(text) = &args.port else {
        for bound in bound {
            ui.line(format_args!("{} -> {}", bound.container_port, bound.host()))?;
        }
        return Ok(0);
    };
    let port: ContainerPort =
        text.parse().map_err(|error| CliError::new(format!("invalid port '{text}': {error}")))?;
    bound.retain(|bound| bound.container_port == port);
    if bound.is_empty() {
        return Err(CliError::new(format!("No public port '{port}' published for {}", args.container)));
    }
    bound.iter().try_for_each(|bound| ui.line(bound.host())).map(|()| 0)
}
