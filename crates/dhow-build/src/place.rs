//! Where a build context is, made into a tree that can be read.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use dhow_layer::{ApplyOptions, Devices, Ownership};
use dhow_oci::Digest;
use dhow_snapshot::Snapshotter as _;
use dhow_solver::{Cache as _, Past};
use dhow_sys::beneath::Root;

use crate::cache::{Neighbours, Step, StepCache};
use crate::context::TEXT_BYTES_MAX;
use crate::error::{BuildError, StepError, StoreFailure, while_doing};
use crate::execute::{Rootfs, look_at, parents};
use crate::history::History;
use crate::provenance::Material;
use crate::remote::{Aside, Commit, GitSource, HttpSource, Remote, WrittenBy};
use crate::request::ContextSource;
use crate::unpack::{begins_archive, unpack_into};

/// How much of a stream is looked at to see what it is.
const HEAD_BYTES: u64 = 512;

/// A tree to build from.
pub(crate) struct Place {
    pub root: Arc<Root>,
    /// Its folder, if it is one of the user's.
    pub folder: Option<PathBuf>,
    /// Tells it from all others on this machine.
    pub identity: String,
    /// When it was committed, or what was downloaded was last changed, in seconds since 1970.
    pub time: Option<i64>,
    /// What it is, if it came from elsewhere.
    pub material: Option<Material>,
    /// The Dockerfile, where all that came was one.
    pub dockerfile: Option<Vec<u8>>,
    /// Goes when the tree is not needed any more.
    _aside: Option<Aside>,
}

impl Place {
    /// Finds the context, and gets it if it is elsewhere.
    pub(crate) fn find(
        context: &ContextSource,
        remote: &Remote<'_>,
        locks: &Path,
    ) -> Result<Place, BuildError> {
        match context {
            ContextSource::Folder(path) => Place::folder(path),
            ContextSource::Stream(file) => {
                let failed = failed("the build context from standard input");
                Place::stream(&**file, "-", remote).map_err(failed)
            }
            ContextSource::Url(url) => Place::url(url, remote, locks),
        }
    }

    /// A folder of this machine.
    pub(crate) fn folder(path: &Path) -> Result<Place, BuildError> {
        let error = |source| BuildError::Context { path: path.to_owned(), source };
        let real = fs::canonicalize(path).map_err(error)?;
        if !real.is_dir() {
            return Err(error(io::Error::from(rustix::io::Errno::NOTDIR)));
        }
        let root = Arc::new(Root::open(&real).map_err(error)?);
        let identity = real.display().to_string();
        Ok(Place {
            root,
            folder: Some(real),
            identity,
            time: None,
            material: None,
            dockerfile: None,
            _aside: None,
        })
    }

    fn url(url: &str, remote: &Remote<'_>, locks: &Path) -> Result<Place, BuildError> {
        if let Some(source) = GitSource::parse(url, WrittenBy::User) {
            let source = source.map_err(BuildError::Request)?;
            let failed = failed(&format!("the build context {source}"));
            return Place::repository(&source, remote, locks).map_err(failed);
        }
        let source = HttpSource { url: url.to_owned(), checksum: None };
        let failed = failed(&format!("the build context {}", source.shown()));
        let fetch = || {
            let fetched = remote.fetch(&source)?;
            let path = remote.images.store().content().path(&fetched.digest);
            let file = fs::File::open(path).map_err(while_doing("cannot read what was fetched"))?;
            let place = Place::stream(file, &source.shown(), remote)?;
            let material = Some(Material::file(source.shown(), &fetched.digest));
            Ok(Place { time: fetched.modified, material, ..place })
        };
        fetch().map_err(failed)
    }

    /// The files of a commit. They are kept as the layer of a step is, so the next build need not fetch them.
    fn repository(source: &GitSource, remote: &Remote<'_>, locks: &Path) -> Result<Place, StepError> {
        let (commit, step) = checked_out(source, remote, locks)?;
        let time = time_of(&step);
        let parents = parents(&Rootfs::base(step).layers)?;
        let spec = remote.images.snapshots().view(&parents);
        let root = look_at(&spec.map_err(while_doing("cannot look into the build context"))?)?;
        Ok(Place {
            root: Arc::new(root),
            folder: None,
            identity: source.to_string(),
            time,
            material: Some(Material::commit(source.to_string(), &commit.id)),
            dockerfile: None,
            _aside: None,
        })
    }

    /// An archive, or a Dockerfile.
    fn stream(mut stream: impl Read, name: &str, remote: &Remote<'_>) -> Result<Place, StepError> {
        const READING: &str = "cannot read it";
        let aside = remote.aside()?;
        let mut head = Vec::new();
        stream.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(while_doing(READING))?;
        let dockerfile = if begins_archive(&head) {
            let options = ApplyOptions {
                // Files of contexts belong to root, whatever the archive says.
                owner: Ownership::Ignore,
                devices: Devices::Skip,
                ..remote.images.apply_options()
            };
            let all = io::Cursor::new(head).chain(stream);
            unpack_into(all, aside.path(), options)
                .map_err(|error| StoreFailure::new("cannot unpack it", io::Error::other(error)))?;
            None
        } else {
            let rest = stream.take(TEXT_BYTES_MAX + 1).read_to_end(&mut head);
            rest.map_err(while_doing(READING))?;
            if head.len() as u64 > TEXT_BYTES_MAX {
                let why =
                    format!("it is neither an archive nor a Dockerfile of at most {TEXT_BYTES_MAX} bytes");
                return Err(StepError::Invalid(why));
            }
            Some(head)
        };
        let root = Root::open(aside.path()).map_err(while_doing("cannot open the build context"))?;
        let (root, identity) = (Arc::new(root), name.to_owned());
        Ok(Place {
            root,
            folder: None,
            identity,
            time: None,
            material: None,
            dockerfile,
            _aside: Some(aside),
        })
    }
}

/// The layer of a commit, from the cache if it is there.
fn checked_out(source: &GitSource, remote: &Remote<'_>, locks: &Path) -> Result<(Commit, Step), StepError> {
    let commit = remote.resolve(source)?;
    let facts = source.facts(&commit);
    let key = facts.key();
    // Nothing has to be explained: the build has not begun.
    let nobody = Neighbours {
        history: History::new(remote.images.store()),
        steps: Vec::new(),
        places: HashMap::new(),
        identity: String::new(),
        build: String::new(),
        found: OnceLock::new(),
    };
    let cache = StepCache::new(remote.images, remote.lease, locks.to_owned(), nobody)?;
    let cache = &cache;
    let _claim = cache.claim(&key)?;
    if let Some(step) = cache.lookup(&key)? {
        return Ok((commit, step));
    }
    let step = remote.check_out(source, &commit)?;
    cache.record(&Past { key, step: format!("git {source}"), facts, inputs: Vec::new() }, &step)?;
    Ok((commit, step))
}

/// A layer of a commit is as old as the commit.
fn time_of(step: &Step) -> Option<i64> {
    let created = step.created.as_deref()?.parse::<jiff::Timestamp>();
    Some(created.ok()?.as_second())
}

/// The time of the commit that a source leads to, in seconds since 1970.
pub(crate) fn commit_time(
    source: &GitSource,
    remote: &Remote<'_>,
    locks: &Path,
) -> Result<Option<i64>, BuildError> {
    let found = checked_out(source, remote, locks);
    let (_, step) = found.map_err(failed(&format!("the build context {source}")))?;
    Ok(time_of(&step))
}

/// When a file was last changed, as its server says, in seconds since 1970.
pub(crate) fn download_time(source: &HttpSource, remote: &Remote<'_>) -> Result<Option<i64>, BuildError> {
    let fetched = remote.fetch(source).map_err(StepError::from);
    Ok(fetched.map_err(failed(&format!("the build context {}", source.shown())))?.modified)
}

fn failed(what: &str) -> impl FnOnce(StepError) -> BuildError + use<> {
    let what = what.to_owned();
    move |source| BuildError::Source { what, source: Box::new(source) }
}

/// The text at a URL.
pub(crate) fn fetch_text(url: &str, remote: &Remote<'_>) -> Result<Vec<u8>, BuildError> {
    let source = HttpSource { url: url.to_owned(), checksum: None };
    let fetch = || -> Result<Vec<u8>, StepError> {
        let digest: Digest = remote.fetch(&source)?.digest;
        let text = remote.images.store().content().read_bounded(&digest, TEXT_BYTES_MAX);
        Ok(text.map_err(while_doing("cannot read what was fetched"))?)
    };
    fetch().map_err(failed(&format!("the Dockerfile {}", source.shown())))
}
