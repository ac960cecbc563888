use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dhow_engine::{BuildEvent, BuildRecord, BuildRequest, Built, Engine, Interrupts, StepNetwork};
use dhow_oci::{Platform, Reference};

use clap::ArgAction;

use super::build_cache_elsewhere::CacheArgs;
use super::build_docker_flags::DockerFlags;
use super::build_outputs::OutputArgs;
use super::build_proxies::add_proxies;
use super::build_run_flags::BuildRunFlags;
use super::build_why::WhyArgs;
use super::explain;
use crate::commands::build_call::CallArgs;
use crate::commands::build_findings::Findings;
use crate::commands::build_sources::{self, SourceArgs};
use crate::error::CliError;
use crate::progress::{self, Progress, ProgressMode};
use crate::ui::Ui;

/// The time that no file and no document of the image is later than, by a convention of reproducible builds.
const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";
const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// Build an image from a Dockerfile
#[derive(clap::Args, Debug)]
pub(crate) struct BuildArgs {
    /// Folder with the files to build from, URL of a git repository or archive, or `-` for an archive or a
    /// Dockerfile from standard input
    #[arg(value_name = "PATH|URL|-")]
    context: Option<PathBuf>,
    /// Name and optionally a tag for the image (can be repeated)
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    tags: Vec<String>,
    /// Dockerfile to read, its URL, or `-` for standard input [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Value for an ARG; without a value it is taken from the environment (can be repeated)
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,
    /// Stage to build [default: the last]
    #[arg(long)]
    target: Option<String>,
    /// Label for the image (can be repeated)
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// What the image shall run on, such as linux/amd64; several, with commas between them, make an index
    #[arg(long = "platform", env = "DOCKER_DEFAULT_PLATFORM", value_delimiter = ',')]
    platforms: Vec<Platform>,
    /// Run every step, whether its result is known or not
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true)]
    no_cache: bool,
    /// Look for newer base images in the registry
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true)]
    pull: bool,
    /// Network of RUN steps
    #[arg(long, value_enum, default_value = "default", alias = "net")]
    network: NetworkArg,
    /// Print only the image ID
    #[arg(short, long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true)]
    quiet: bool,
    /// How to show the build; where neither this nor --quiet is given, BUILDKIT_PROGRESS decides
    #[arg(long, value_enum, default_value = "auto")]
    progress: ProgressMode,
    /// Write the image ID to this file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    #[command(flatten)]
    run: BuildRunFlags,
    /// Steps that may run at the same time [default: one per processor]
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    why: WhyArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    call: CallArgs,
    #[command(flatten)]
    cache: CacheArgs,
    /// Remove intermediate containers; dhow leaves none
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rm: Option<bool>,
    /// Always remove intermediate containers; dhow leaves none
    #[arg(long, hide = true)]
    force_rm: bool,
    #[command(flatten)]
    docker: DockerFlags,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum NetworkArg {
    /// The bridge that containers use
    #[value(alias = "bridge")]
    Default,
    /// The host's network
    Host,
    /// No network
    None,
}

pub(crate) fn run(mut args: BuildArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    if args.rm == Some(false) {
        return Err(CliError::new("--rm=false is not supported: a step leaves no container behind"));
    }
    args.docker.check()?;
    let names = references(&args.tags)?;
    let variable = std::env::var("BUILDKIT_PROGRESS").ok();
    let mode = args.progress.resolve(args.quiet, variable.as_deref()).map_err(CliError::new)?;
    args.progress = mode;
    let iidfile = args.iidfile.clone();
    let explain = args.why.explain;
    let output = args.output.request()?;
    if mode == ProgressMode::Classic && OutputArgs::takes_stdout(&output) {
        return Err(CliError::new("--progress=classic and the result cannot both go to standard output"));
    }
    let output_args = std::mem::take(&mut args.output);
    let (request, call) = request(args, names.clone())?;
    let mut request = BuildRequest { output, ..request };
    add_proxies(&engine.credentials_file(), &mut request.build_args)?;
    if let Some(status) = call.answer(&request, engine, ui)? {
        return Ok(status);
    }
    let context_bytes = match mode {
        ProgressMode::Classic => Some(engine.context_bytes(&request)?),
        _ => None,
    };
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let display = progress::new(mode, is_terminal, context_bytes);
    let findings = Findings::default();
    let (record, built) = build(engine, &request, display, &findings, mode.is_silent());
    // docker's classic builder has no rules.
    if !mode.is_silent() && mode != ProgressMode::Classic {
        findings.tell(ui);
    }
    if let (Some(format), Some(record)) = (explain, record) {
        explain::print(&record, None, format, ui)?;
    }
    let built = built?;
    if let Some(path) = iidfile {
        std::fs::write(&path, built.image.to_string())
            .map_err(|error| CliError::new(format!("cannot write {}: {error}", path.display())))?;
    }
    output_args.write_metadata(&request.output, &names, &built)?;
    if mode == ProgressMode::Quiet && !OutputArgs::takes_stdout(&request.output) {
        ui.line(built.image)?;
    }
    Ok(0)
}

/// Builds, with a thread beside it that keeps a live display moving.
fn build(
    engine: &Engine,
    request: &BuildRequest,
    display: Box<dyn Progress>,
    findings: &Findings,
    is_quiet: bool,
) -> (Option<BuildRecord>, Result<Built, CliError>) {
    let display = Mutex::new(display);
    let record = Mutex::new(None);
    let is_over = AtomicBool::new(false);
    let show = |f: &dyn Fn(&mut dyn Progress)| f(&mut **display.lock().expect("no display panics"));
    let interrupts = match Interrupts::catch() {
        Ok(interrupts) => interrupts,
        Err(error) => return (None, Err(CliError::new(format!("cannot catch signals: {error}")))),
    };
    let result = std::thread::scope(|scope| {
        let ticker = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                std::thread::park_timeout(REDRAW_EVERY);
                show(&|display| display.tick());
            }
        });
        let result = engine.build(request, Some(interrupts.as_fd()), &|event| {
            if matches!(event, BuildEvent::Canceled) {
                show(&|display| display.close());
                interrupts.end();
            }
            if let BuildEvent::Recorded(build) = event {
                *record.lock().expect("nobody panics with it") = Some(build.clone());
            }
            findings.note(&event);
            show(&|display| display.event(&event));
        });
        is_over.store(true, Ordering::Relaxed);
        ticker.thread().unpark();
        result
    });
    show(&|display| display.close());
    let built = result.map_err(|error| build_error(&error, is_quiet)).inspect(|built| {
        show(&|display| display.built(&built.image, &request.names));
    });
    (record.into_inner().expect("nobody panics with it"), built)
}

/// What went wrong. Who saw no output while it was written sees the end of it now.
pub(crate) fn build_error(error: &dhow_engine::BuildError, is_quiet: bool) -> CliError {
    let mut text = error.report();
    if let Some(output) = error.output().filter(|_| is_quiet) {
        text.push_str("\nIts last output:");
        for line in output.lines() {
            text.push_str("\n  | ");
            text.push_str(line);
        }
    }
    let told = CliError::new(text);
    match error.hint() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

fn references(tags: &[String]) -> Result<Vec<Reference>, CliError> {
    let parse = |tag: &String| {
        let reference: Reference = tag.parse().map_err(|error| {
            CliError::new(format!("invalid argument \"{tag}\" for \"-t, --tag\" flag: {error}"))
        })?;
        Ok(reference.or_latest())
    };
    tags.iter().map(parse).collect()
}

fn request(args: BuildArgs, names: Vec<Reference>) -> Result<(BuildRequest, CallArgs), CliError> {
    let context = build_sources::context(args.context)?;
    let dockerfile = build_sources::dockerfile(args.file, &context)?;
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    // Step N/M only makes sense one after the other.
    let jobs = if args.progress == ProgressMode::Classic { NonZeroUsize::MIN } else { jobs };
    let build_args = build_args(&args.build_args);
    let cache = args.cache.caches(|name| build_args.get(name).map(String::as_str))?;
    let request = BuildRequest {
        run: args.run.options(&|name| std::env::var_os(name))?,
        dockerfile,
        names,
        build_args,
        cache,
        target: args.target,
        labels: labels(&args.labels),
        platforms: distinct(args.platforms),
        no_cache: args.no_cache,
        no_cache_filter: args.why.no_cache_filter,
        pull: args.pull,
        network: match args.network {
            NetworkArg::Default => StepNetwork::Default,
            NetworkArg::Host => StepNetwork::Host,
            NetworkArg::None => StepNetwork::None,
        },
        jobs,
        sources: args.sources.request()?,
        ..BuildRequest::new(context)
    };
    Ok((request, args.call))
}

/// The platforms, each once.
fn distinct(platforms: Vec<Platform>) -> Vec<Platform> {
    let mut seen = std::collections::BTreeSet::new();
    platforms.into_iter().filter(|platform| seen.insert(platform.clone())).collect()
}

/// `NAME=value`, or `NAME` for its value in the environment; a name that is not set there is left out.
fn build_args(args: &[String]) -> BTreeMap<String, String> {
    let pair = |arg: &String| match arg.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => std::env::var(arg).ok().map(|value| (arg.clone(), value)),
    };
    let given: BTreeMap<String, String> = args.iter().filter_map(pair).collect();
    // As with buildx, what the environment says holds unless an argument says otherwise.
    let epoch = std::env::var(SOURCE_DATE_EPOCH).ok().map(|value| (SOURCE_DATE_EPOCH.to_owned(), value));
    epoch.into_iter().chain(given).collect()
}

fn labels(args: &[String]) -> BTreeMap<String, String> {
    let pair = |arg: &String| {
        let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
        (name.to_owned(), value.to_owned())
    };
    args.iter().map(pair).collect()
}
