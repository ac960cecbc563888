use std::io::{self, IsTerminal as _};
use std::path::Path;

use dhow_engine::Engine;
use dhow_engine::containers::CopyOptions;
use dhow_template::units::human_size;

use crate::error::CliError;
use crate::ui::Ui;

/// Copy files between a container, running or not, and this host; - is a tar archive
#[derive(clap::Args, Debug)]
pub(crate) struct CpArgs {
    /// CONTAINER:PATH, a path of this host, or - for an archive from standard input
    #[arg(value_name = "SOURCE")]
    source: String,
    /// CONTAINER:PATH, a path of this host, or - for an archive to standard output
    #[arg(value_name = "DESTINATION")]
    destination: String,
    /// Keep owners; in a container, files become its user's
    #[arg(short, long)]
    archive: bool,
    /// Copy what a link as source leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Do not say how much was copied; without a terminal nothing is said anyway
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: &CpArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let options = CopyOptions { archive: args.archive, follow_link: args.follow_link };
    let bytes = match (split(&args.source), split(&args.destination)) {
        (Some(_), Some(_)) => return Err(CliError::new("copying between containers is not supported")),
        (None, None) => return Err(CliError::new("must specify at least one container source")),
        (Some((container, path)), None) if args.destination == "-" => {
            to_stream(engine, container, path, options)?
        }
        (Some((container, path)), None) => {
            engine.copy_from_container(container, path, Path::new(&args.destination), options)?
        }
        (None, Some((container, path))) if args.source == "-" => {
            engine.copy_stream_to_container(io::stdin(), container, path, options)?;
            return Ok(0);
        }
        (None, Some((container, path))) => {
            engine.copy_to_container(Path::new(&args.source), container, path, options)?
        }
    };
    if !args.quiet && args.destination != "-" && ui.is_terminal() {
        ui.note(format_args!("Successfully copied {} to {}", human_size(bytes), args.destination));
    }
    Ok(0)
}

fn to_stream(engine: &Engine, container: &str, path: &str, options: CopyOptions) -> Result<u64, CliError> {
    if io::stdout().is_terminal() {
        return Err(CliError::new("cowardly refusing to write an archive to a terminal; redirect it"));
    }
    let stat = engine.archive_stat(container, path)?;
    let path = if options.follow_link && stat.is_link() { &stat.link_target } else { path };
    engine.archive_out(container, path, Some(&stat.name), io::stdout())?;
    Ok(0)
}

/// `CONTAINER:PATH`. A path that begins with a slash or a dot is this host's, whatever colons it has.
fn split(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['/', '.']) {
        return None;
    }
    text.split_once(':').filter(|(container, _)| !container.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_what_stands_before_a_colon() {
        assert_eq!(split("web:/etc/hosts"), Some(("web", "/etc/hosts")));
        assert_eq!(split("web:etc"), Some(("web", "etc")));
        assert_eq!(split("./a:b"), None);
        assert_eq!(split("/a:b"), None);
        assert_eq!(split("file"), None);
        assert_eq!(split("-"), None);
    }
}
