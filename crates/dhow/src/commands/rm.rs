use dhow_engine::Engine;
use dhow_engine::containers::RemoveOptions;

use super::each::each_at_once;
use crate::error::CliError;
use crate::ui::Ui;

/// Remove containers
#[derive(clap::Args, Debug)]
pub(crate) struct RmArgs {
    /// Kill containers that run
    #[arg(short, long)]
    force: bool,
    /// Remove anonymous volumes as well
    #[arg(short, long)]
    volumes: bool,
    /// Remove a link between containers
    #[arg(short, long, hide = true)]
    link: bool,
    /// Container, by name or id (can be repeated)
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) fn run(args: &RmArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    if args.link {
        return Err(super::create_flags::unsupported("rm --link"));
    }
    let options = RemoveOptions { force: args.force, volumes: args.volumes };
    let code = each_at_once(&args.containers, engine, ui, |engine, name| {
        match engine.containers().remove(name, options) {
            // As in docker, with force it is enough that the container is not there.
            Err(error) if args.force && error.is_not_found() => Err(CliError::from(error).exit_code(0)),
            result => Ok(result?),
        }
    })?;
    engine.containers().sweep()?;
    Ok(code)
}
