//! Rebuild stories: edit something, build again, and see what ran and why.
//!
//! Everything is real but the programs that `RUN` starts, which [`launch_once`] pretends, and the registry, which
//! there is none of. A story is text:
//!
//! ```text
//! //- Dockerfile          a file of the build context; @base and @other are Dockerfiles of images of these names
//! FROM base
//! COPY a /
//! //- a
//! 1
//! //= args V=2            what is different about the next build, then the files that change
//! //- a
//! 2
//! ```
//! What became of the steps of the last build is compared with what the story says should.

mod cutoff;
mod files;
mod images;
mod mounts;
mod program;
mod stages;
mod values;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dhow_image::Images;
use dhow_snapshot::OverlaySnapshotter;
use dhow_store::Store;
use expect_test::Expect;
use tempfile::TempDir;

pub(crate) use program::launch_once;

use crate::{
    BuildRecord, BuildRequest, Builder, DockerfileSource, Entitlements, History, PruneCache, RunOptions,
    SecretSource, SshSource, StepOutcome, Stock,
};

const BASE: &str = "FROM scratch\nCOPY <<os /os\n1\nos\nENV PATH=/bin\n";

/// What an application is mostly made of: something that is installed, and then files that change often.
const APP: &str = "\
//- Dockerfile
FROM base
COPY req /
RUN copy /req /installed
COPY app /
CMD [\"/app\"]
//- req
1
//- app
1
";

/// A store and a folder for one story.
struct World {
    dir: TempDir,
    images: Images,
    /// The build context, relative to the folder.
    context: PathBuf,
    dockerfile: Option<String>,
}

/// What a build is asked for beside the files.
#[derive(Default)]
struct Asked {
    args: Vec<(String, String)>,
    target: Option<String>,
    no_cache: bool,
    filter: Vec<String>,
    jobs: usize,
    run: RunOptions,
}

impl World {
    /// A fresh one, or none, with the reason printed, where nothing can be mounted.
    fn new() -> Option<World> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: layers are mounted, which needs root");
            return None;
        }
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = TempDir::with_prefix_in("dhow-story-", parent).expect("a folder");
        let store = Store::open(&dir.path().join("root")).expect("a store");
        let snapshots = OverlaySnapshotter::open(&dir.path().join("root/snapshots")).expect("snapshots");
        let images = Images::new(store, Arc::new(snapshots));
        Some(World { dir, images, context: PathBuf::from("app"), dockerfile: None })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(&self.context).join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
    }

    /// Builds, and returns what is remembered of it.
    fn build(&self, request: &BuildRequest) -> BuildRecord {
        let run_dir = self.dir.path().join("run");
        fs::create_dir_all(&run_dir).expect("a folder");
        let builder = Builder {
            images: &self.images,
            registry: &|| unreachable!("there is no registry in a story"),
            run_dir: &run_dir,
            network: &|_, _, _, _| None,
            cancel: None,
            clock: jiff::Timestamp::now,
        };
        // How it ended is in the record.
        let _ = builder.build(request, &|_| {});
        History::new(self.images.store()).find(None).expect("the build is recorded")
    }

    fn build_image(&self, name: &str, dockerfile: &str) {
        let request = BuildRequest {
            dockerfile: DockerfileSource::Text(dockerfile.to_owned()),
            names: vec![format!("{name}:latest").parse().expect("a name")],
            ..self.request()
        };
        let record = self.build(&request);
        assert_eq!(record.error, None, "{name}");
        History::new(self.images.store()).remove(&record.id).expect("it is forgotten");
    }

    fn request(&self) -> BuildRequest {
        let context = self.dir.path().join(&self.context);
        fs::create_dir_all(&context).expect("a folder");
        BuildRequest::new(context)
    }

    fn build_asked(&self, asked: &Asked) -> BuildRecord {
        let dockerfile = match &self.dockerfile {
            None => DockerfileSource::Default,
            Some(name) => DockerfileSource::File(self.path(name)),
        };
        self.build(&BuildRequest {
            dockerfile,
            build_args: asked.args.iter().cloned().collect(),
            target: asked.target.clone(),
            no_cache: asked.no_cache,
            no_cache_filter: asked.filter.clone(),
            jobs: std::num::NonZeroUsize::new(asked.jobs.max(1)).expect("at least one"),
            run: asked.run.clone(),
            ..self.request()
        })
    }

    /// Does what a line of a story says happens before the next build.
    fn act(&mut self, line: &str, asked: &mut Asked) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["args", pairs @ ..] => {
                let pair = |text: &&str| text.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned()));
                asked.args = pairs.iter().filter_map(pair).collect();
            }
            ["target", name] => asked.target = Some((*name).to_owned()),
            ["no-cache"] => asked.no_cache = true,
            ["filter", stage] => asked.filter = vec![(*stage).to_owned()],
            ["secret", pair] => {
                let (id, value) = pair.split_once('=').expect("a secret has an id and a value");
                asked.run.secrets.insert(id.to_owned(), SecretSource::Value(value.into()));
            }
            // Nobody listens there, and no program of a story asks.
            ["ssh", name] => {
                let socket = self.dir.path().join(name);
                asked.run.ssh.insert("default".to_owned(), SshSource::Agent(socket));
            }
            ["allow"] => {
                asked.run.entitlements = Entitlements { network_host: true, security_insecure: true };
            }
            ["jobs", number] => asked.jobs = number.parse().expect("a number"),
            ["chmod", mode, name] => {
                let mode = u32::from_str_radix(mode, 8).expect("a mode");
                fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("a mode");
            }
            ["chown", owner, name] => {
                let id = owner.parse().expect("an id");
                std::os::unix::fs::chown(self.path(name), Some(id), Some(id)).expect("an owner");
            }
            // The times of a file as they were long ago.
            ["touch", name] => {
                let file = fs::File::options().write(true).open(self.path(name)).expect("a file");
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("a time");
            }
            ["rm", name] => fs::remove_file(self.path(name)).expect("it goes"),
            ["mv", from, to] => fs::rename(self.path(from), self.path(to)).expect("it moves"),
            ["link", name, target] => std::os::unix::fs::symlink(target, self.path(name)).expect("a link"),
            ["file", name] => self.dockerfile = Some((*name).to_owned()),
            ["folder", name] => {
                let to = self.dir.path().join(name);
                let copied = std::process::Command::new("cp").arg("-a").arg(self.path("")).arg(&to).status();
                assert!(copied.expect("cp starts").success());
                self.context = PathBuf::from(name);
            }
            ["gc"] => {
                let prune = PruneCache { shared: true, fits: &|_| true, bytes_max: None };
                Stock::new(&self.images).prune(&prune).expect("it is pruned");
            }
            other => panic!("{other:?} is not something that happens in stories"),
        }
    }
}

/// Tells a story and returns what became of the steps of its last build.
fn tell(story: &str) -> Option<String> {
    let mut world = World::new()?;
    world.build_image("base", BASE);
    let mut last = None;
    for part in format!("\n{story}").split("\n//=") {
        let mut asked = Asked::default();
        let mut lines = part.lines();
        let happens = lines.next().unwrap_or_default().to_owned();
        let rest: Vec<&str> = lines.collect();
        for file in rest.join("\n").split("//- ").skip(1) {
            let (name, text) = file.split_once('\n').unwrap_or((file, ""));
            let text =
                if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
            match name.strip_prefix('@') {
                Some(image) => world.build_image(image, &text),
                None => world.write(name, &text),
            }
        }
        happens.split(',').for_each(|line| world.act(line, &mut asked));
        last = Some(world.build_asked(&asked));
    }
    last.map(|record| show(&record))
}

fn show(record: &BuildRecord) -> String {
    let mut told = String::new();
    let has_stages = record.has_stages();
    for step in record.steps.iter().filter(|step| step.key.is_some() || step.outcome == StepOutcome::Failed) {
        let outcome = match step.outcome {
            StepOutcome::Cached => "hit ",
            StepOutcome::Done => "miss",
            StepOutcome::Failed => "fail",
            StepOutcome::Canceled | StepOutcome::NotReached | StepOutcome::Running => "----",
        };
        let stage = if has_stages { format!("{}: ", step.stage) } else { String::new() };
        let text = step.text.lines().next().unwrap_or_default();
        let reason =
            step.reason.as_ref().map(|reason| format!("  ({})", without_digests(&reason.to_string())));
        let reason = reason.unwrap_or_default();
        writeln!(told, "{outcome}  {stage}{text}{reason}").expect("a String takes all text");
    }
    if let Some(error) = record.error.as_deref().and_then(|error| error.lines().next()) {
        writeln!(told, "error {error}").expect("a String takes all text");
    }
    told
}

/// Images are made at some time, and so have a new digest each.
fn without_digests(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |told, part| {
        told + "sha256:…" + part.trim_start_matches(|c: char| c.is_ascii_hexdigit())
    })
}

/// Tells a story that begins as others do.
fn check_after(beginning: &str, story: &str, expected: Expect) {
    check(&format!("{beginning}{story}"), expected);
}

fn check(story: &str, expected: Expect) {
    if let Some(told) = tell(story) {
        expected.assert_eq(&told);
    }
}
