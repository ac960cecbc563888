use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use dhow_engine::{Engine, PushEvent};
use dhow_oci::{DiffId, Platform, Reference};
use indicatif::{MultiProgress, ProgressBar};

use super::bars;
use crate::error::CliError;
use crate::ui::Ui;

/// Upload an image to a registry
#[derive(clap::Args, Debug)]
pub(crate) struct PushArgs {
    /// Image to upload
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
    /// Upload all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Push only the manifest of this platform, such as linux/amd64
    #[arg(long)]
    platform: Option<Platform>,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: PushArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let reference: Reference = args.image.parse()?;
    let references = match (args.all_tags, reference.tag()) {
        (true, Some(_)) => return Err(CliError::new("tag can't be used with --all-tags/-a")),
        (true, None) => engine.local_tags(&reference)?,
        (false, Some(_)) => vec![reference.clone()],
        (false, None) => {
            if !args.quiet && reference.digest().is_none() {
                ui.line(format_args!("Using default tag: {}", dhow_oci::DEFAULT_TAG))?;
            }
            vec![reference.clone().or_latest()]
        }
    };
    if references.is_empty() {
        return Err(CliError::new(format!(
            "An image does not exist locally with the tag: {}",
            reference.familiar_name()
        )));
    }
    if !args.quiet {
        ui.line(format_args!("The push refers to repository [{}]", reference.name()))?;
        ui.flush()?;
    }
    references.iter().try_for_each(|reference| push(engine, reference, &args, ui))?;
    Ok(0)
}

fn push(engine: &Engine, reference: &Reference, args: &PushArgs, ui: &mut Ui) -> Result<(), CliError> {
    let display = Display::new(ui, args.quiet);
    let pushed = engine.push_image(reference, args.platform.as_ref(), &|event| display.show(event));
    display.finish()?;
    let pushed = pushed?;
    if args.quiet {
        return ui.line(reference);
    }
    let tag = reference.tag().unwrap_or(dhow_oci::DEFAULT_TAG);
    ui.line(format_args!("{tag}: digest: {} size: {}", pushed.digest, pushed.size_bytes))?;
    if let Some(index) = pushed.instead_of {
        ui.flush()?;
        ui.note(format_args!(
            "Info: Not all multiplatform-content is present and only the available single-platform image was pushed\n\
             {index} -> {}\n\
             Hint: `dhow pull --all-platforms` fetches the rest",
            pushed.digest
        ));
    }
    Ok(())
}

/// The layers of an image on their way: bars on a terminal, what became of each elsewhere.
struct Display<'a>(Mutex<Inner<'a>>);

struct Inner<'a> {
    ui: &'a mut Ui,
    quiet: bool,
    bars: Option<Bars>,
    /// The first error of printing; nobody can be told meanwhile.
    failed: Option<CliError>,
}

struct Bars {
    all: MultiProgress,
    layers: BTreeMap<DiffId, ProgressBar>,
}

impl<'a> Display<'a> {
    fn new(ui: &'a mut Ui, quiet: bool) -> Display<'a> {
        let bars = (ui.is_terminal() && !quiet).then(|| Bars { all: bars::new(), layers: BTreeMap::new() });
        Display(Mutex::new(Inner { ui, quiet, bars, failed: None }))
    }

    fn show(&self, event: &PushEvent) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = inner.show(event) {
            inner.failed.get_or_insert(error);
        }
    }

    fn finish(self) -> Result<(), CliError> {
        let inner = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        inner.failed.map_or(Ok(()), Err)
    }
}

impl Inner<'_> {
    fn show(&mut self, event: &PushEvent) -> Result<(), CliError> {
        if self.quiet {
            return Ok(());
        }
        if let Some(bars) = &mut self.bars {
            bars.show(event);
            return Ok(());
        }
        if let Some((diff_id, text)) = outcome(event) {
            self.ui.line(format_args!("{}: {text}", diff_id.digest().short()))?;
        }
        self.ui.flush()
    }
}

impl Bars {
    fn show(&mut self, event: &PushEvent) {
        if let PushEvent::LayerStarted { diff_id } = event {
            let line = bars::line(&self.all, diff_id.digest().short(), "Preparing");
            self.layers.insert(*diff_id, line);
        }
        if let PushEvent::LayerProgress { diff_id, bytes, size_bytes } = event
            && let Some(bar) = self.layers.get(diff_id)
        {
            if bar.length() != Some(*size_bytes) {
                bar.set_message("Pushing");
                bars::measure(bar, *size_bytes);
            }
            bar.set_position(*bytes);
        }
        if let Some((diff_id, text)) = outcome(event)
            && let Some(bar) = self.layers.get(diff_id)
        {
            bars::end(bar, text);
        }
    }
}

/// What became of a layer, if this says so.
fn outcome(event: &PushEvent) -> Option<(&DiffId, String)> {
    match event {
        PushEvent::LayerStarted { .. } | PushEvent::LayerProgress { .. } => None,
        PushEvent::LayerExists { diff_id } => Some((diff_id, "Layer already exists".to_owned())),
        PushEvent::LayerMounted { diff_id, from } => Some((diff_id, format!("Mounted from {from}"))),
        PushEvent::LayerPushed { diff_id } => Some((diff_id, "Pushed".to_owned())),
    }
}
