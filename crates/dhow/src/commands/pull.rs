use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use dhow_engine::{Engine, PullEvent, Pulled};
use dhow_oci::{Digest, Platform, Reference};
use indicatif::{MultiProgress, ProgressBar};

use super::bars;
use crate::error::CliError;
use crate::ui::Ui;

/// Download an image from a registry
#[derive(clap::Args, Debug)]
pub(crate) struct PullArgs {
    /// Image to download
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
    /// Download all tagged images in the repository
    #[arg(short, long)]
    all_tags: bool,
    /// What the image shall run on, such as linux/amd64 [default: this machine]
    #[arg(long, env = "DOCKER_DEFAULT_PLATFORM")]
    platform: Option<Platform>,
    /// Fetch all platforms and whatever else comes with the image, such as attestations
    #[arg(long)]
    all_platforms: bool,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: PullArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let reference: Reference = args.image.parse()?;
    if !args.all_tags {
        if reference.tag().is_none() && reference.digest().is_none() && !args.quiet {
            ui.line(format_args!("Using default tag: {}", dhow_oci::DEFAULT_TAG))?;
        }
        pull(engine, &reference.or_latest(), &args, ui)?;
        return Ok(0);
    }
    if reference.tag().is_some() || reference.digest().is_some() {
        return Err(CliError::new("tag can't be used with --all-tags/-a"));
    }
    for tag in engine.remote_tags(&reference)? {
        pull(engine, &reference.with_tag(&tag)?, &args, ui)?;
    }
    Ok(0)
}

fn pull(engine: &Engine, reference: &Reference, args: &PullArgs, ui: &mut Ui) -> Result<(), CliError> {
    if !args.quiet {
        let digest = reference.digest().map(|digest| digest.to_string());
        let version = digest.as_deref().or(reference.tag()).unwrap_or(dhow_oci::DEFAULT_TAG);
        ui.line(format_args!("{version}: Pulling from {}", reference.repository()))?;
        ui.flush()?;
    }
    let display = LayerDisplay::new(ui, args.quiet);
    let pulled = engine
        .pull_image(reference, args.platform.as_ref(), args.all_platforms, &|event| display.show(event));
    display.finish()?;
    report(&pulled?, reference, args.quiet, ui)
}

fn report(pulled: &Pulled, reference: &Reference, quiet: bool, ui: &mut Ui) -> Result<(), CliError> {
    if !quiet {
        let name = reference.familiar();
        ui.line(format_args!("Digest: {}", pulled.digest))?;
        match pulled.is_new {
            true => ui.line(format_args!("Status: Downloaded newer image for {name}"))?,
            false => ui.line(format_args!("Status: Image is up to date for {name}"))?,
        }
    }
    ui.line(reference)
}

/// The layers of an image on their way: bars on a terminal, lines elsewhere.
pub(crate) struct LayerDisplay<'a>(Mutex<Inner<'a>>);

struct Inner<'a> {
    ui: &'a mut Ui,
    quiet: bool,
    bars: Option<Bars>,
    /// The first error of printing; nobody can be told meanwhile.
    failed: Option<CliError>,
}

struct Bars {
    all: MultiProgress,
    layers: BTreeMap<Digest, ProgressBar>,
}

impl<'a> LayerDisplay<'a> {
    pub(crate) fn new(ui: &'a mut Ui, quiet: bool) -> LayerDisplay<'a> {
        let bars = (ui.is_terminal() && !quiet).then(|| Bars { all: bars::new(), layers: BTreeMap::new() });
        LayerDisplay(Mutex::new(Inner { ui, quiet, bars, failed: None }))
    }

    pub(crate) fn show(&self, event: &PullEvent) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = inner.show(event) {
            inner.failed.get_or_insert(error);
        }
    }

    pub(crate) fn finish(self) -> Result<(), CliError> {
        let inner = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        inner.failed.map_or(Ok(()), Err)
    }
}

impl Inner<'_> {
    fn show(&mut self, event: &PullEvent) -> Result<(), CliError> {
        if let PullEvent::Warning(text) = event {
            self.ui.warn(text);
            return Ok(());
        }
        match &mut self.bars {
            _ if self.quiet => Ok(()),
            Some(bars) => {
                bars.show(event);
                Ok(())
            }
            None => self.line(event),
        }
    }

    fn line(&mut self, event: &PullEvent) -> Result<(), CliError> {
        let (digest, text) = match event {
            PullEvent::LayerStarted { digest, .. } => (digest, "Pulling fs layer"),
            PullEvent::LayerExists { digest } => (digest, "Already exists"),
            PullEvent::LayerDone { digest } => (digest, "Pull complete"),
            PullEvent::Started | PullEvent::LayerProgress { .. } | PullEvent::Warning(_) => return Ok(()),
        };
        self.ui.line(format_args!("{}: {text}", digest.short()))?;
        self.ui.flush()
    }
}

impl Bars {
    fn show(&mut self, event: &PullEvent) {
        match event {
            PullEvent::LayerStarted { digest, size_bytes } => {
                let bar = bars::line(&self.all, digest.short(), "Downloading");
                bars::measure(&bar, *size_bytes);
                self.layers.insert(*digest, bar);
            }
            PullEvent::LayerProgress { digest, bytes } => {
                if let Some(bar) = self.layers.get(digest) {
                    bar.set_position(*bytes);
                    if bar.length() == Some(*bytes) {
                        bar.set_message("Extracting");
                    }
                }
            }
            PullEvent::LayerExists { digest } => {
                bars::line(&self.all, digest.short(), "Already exists").finish();
            }
            PullEvent::LayerDone { digest } => {
                if let Some(bar) = self.layers.get(digest) {
                    bars::end(bar, "Pull complete".to_owned());
                }
            }
            PullEvent::Started | PullEvent::Warning(_) => {}
        }
    }
}
