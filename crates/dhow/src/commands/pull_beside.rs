//! Pulling an image on the way to something else: what is told goes to standard error.

use dhow_engine::{Engine, PullEvent};
use dhow_oci::{Platform, Reference};

use crate::error::CliError;
use crate::ui::Ui;

/// Pulls an image, telling how it goes unless `quiet`.
pub(crate) fn pull(
    reference: &Reference,
    platform: Option<&Platform>,
    quiet: bool,
    engine: &Engine,
    ui: &Ui,
) -> Result<(), CliError> {
    let tell = |text: std::fmt::Arguments<'_>| {
        if !quiet {
            ui.note(text);
        }
    };
    let (tag, repository) = (reference.tag().unwrap_or_default(), reference.repository());
    tell(format_args!("{tag}: Pulling from {repository}"));
    let pulled = engine.pull_image(reference, platform, false, &|event| match event {
        PullEvent::LayerExists { digest } => tell(format_args!("{}: Already exists", digest.short())),
        PullEvent::LayerDone { digest } => tell(format_args!("{}: Pull complete", digest.short())),
        PullEvent::Warning(text) => ui.warn(text),
        PullEvent::Started | PullEvent::LayerStarted { .. } | PullEvent::LayerProgress { .. } => {}
    });
    let pulled = pulled?;
    tell(format_args!("Digest: {}", pulled.digest));
    tell(format_args!("Status: Downloaded newer image for {}", reference.familiar()));
    Ok(())
}
