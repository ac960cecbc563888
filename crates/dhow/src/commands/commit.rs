use dhow_engine::Engine;
use dhow_oci::Reference;

use crate::error::CliError;
use crate::ui::Ui;

/// Make an image of a container's changes
#[derive(clap::Args, Debug)]
pub(crate) struct CommitArgs {
    /// Who makes the image
    #[arg(short, long, value_name = "NAME", default_value = "", hide_default_value = true)]
    author: String,
    /// Apply a Dockerfile instruction to the image (can be repeated)
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// What to say about the change
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    /// Do not pause the container meanwhile
    #[arg(long)]
    no_pause: bool,
    /// Pause the container meanwhile, which is the default
    #[arg(short, long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pause: Option<bool>,
    /// Container, by name or id
    container: String,
    /// Name for the image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

pub(crate) fn run(args: &CommitArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let reference = args.name.as_deref().map(|name| name.parse::<Reference>().map(Reference::or_latest));
    let request = dhow_engine::containers::CommitContainer {
        reference: reference.transpose()?,
        author: args.author.clone(),
        message: args.message.clone(),
        no_pause: args.no_pause || args.pause == Some(false),
        changes: args.change.clone(),
    };
    ui.line(engine.commit_container(&args.container, request)?)?;
    Ok(0)
}
