//! The build context: a tree, read where it lies, and what is left out of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dhow_dockerfile::IgnoreRules;
use dhow_sys::beneath::Root;
use rustix::fs::FileType;

use crate::error::BuildError;
use crate::place::{Place, fetch_text};
use crate::remote::Remote;
use crate::request::DockerfileSource;
use crate::select::{Ignored, Modes, SelectError, Source};

/// The largest Dockerfile and ignore file that is read.
pub(crate) const TEXT_BYTES_MAX: u64 = 16 << 20;

/// A tree to build from, and what is left out of it.
pub(crate) struct Context {
    pub root: Arc<Root>,
    pub ignored: Ignored,
    /// What the modes of its files are taken to be.
    pub modes: Modes,
    /// What came from elsewhere goes when it is not needed any more.
    _place: Place,
}

/// The text of a Dockerfile and what to call it.
pub(crate) struct DockerfileText {
    /// For people.
    pub name: String,
    /// Tells it from all others on this machine.
    pub identity: String,
    pub text: Vec<u8>,
    /// Where it is, for `<name>.dockerignore` beside it.
    path: Option<PathBuf>,
}

impl DockerfileText {
    pub(crate) fn read(
        place: &Place,
        source: &DockerfileSource,
        remote: &Remote<'_>,
    ) -> Result<DockerfileText, BuildError> {
        let named = |text: Vec<u8>, identity: String| DockerfileText {
            name: "Dockerfile".to_owned(),
            identity,
            text,
            path: None,
        };
        match (source, &place.folder) {
            (DockerfileSource::Text(text), _) => {
                Ok(named(text.clone().into_bytes(), format!("{} -", place.identity)))
            }
            (DockerfileSource::Url(url), _) => {
                Ok(named(fetch_text(url, remote)?, format!("{} {url}", place.identity)))
            }
            (DockerfileSource::File(path), _) if place.dockerfile.is_some() => {
                let (path, whole) = (path.display(), &place.identity);
                Err(BuildError::Request(format!(
                    "there is no {path} in {whole}, which is a Dockerfile itself"
                )))
            }
            (DockerfileSource::File(path), Some(_)) => read_dockerfile(path.clone()),
            (DockerfileSource::File(path), None) => read_dockerfile_in(place, path),
            (DockerfileSource::Default, Some(folder)) => {
                let path = folder.join("Dockerfile");
                let lower = folder.join("dockerfile");
                read_dockerfile(if !path.exists() && lower.exists() { lower } else { path })
            }
            (DockerfileSource::Default, None) => match &place.dockerfile {
                Some(text) => Ok(named(text.clone(), place.identity.clone())),
                None => {
                    let [path, lower] = ["Dockerfile", "dockerfile"].map(Path::new);
                    let has = |path| matches!(place.root.try_stat(path), Ok(Some(_)));
                    read_dockerfile_in(place, if !has(path) && has(lower) { lower } else { path })
                }
            },
        }
    }
}

/// Reads a Dockerfile of a context that is no folder of the user's.
fn read_dockerfile_in(place: &Place, path: &Path) -> Result<DockerfileText, BuildError> {
    let error = |source| BuildError::Dockerfile { path: path.to_owned(), source };
    let text = read_all(place.root.open_file(path).map_err(error)?).map_err(error)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(DockerfileText { name, identity: format!("{} {}", place.identity, path.display()), text, path: None })
}

fn read_dockerfile(path: PathBuf) -> Result<DockerfileText, BuildError> {
    let error = |source| BuildError::Dockerfile { path: path.clone(), source };
    let text = read_bounded(&path).map_err(error)?;
    let identity = fs::canonicalize(&path).map_err(error)?;
    Ok(DockerfileText {
        name: path
            .file_name()
            .map_or_else(|| "Dockerfile".to_owned(), |name| name.to_string_lossy().into_owned()),
        identity: identity.display().to_string(),
        text,
        path: Some(path),
    })
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    read_all(fs::File::open(path)?)
}

fn read_all(file: fs::File) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut text = Vec::new();
    file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > TEXT_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {TEXT_BYTES_MAX} bytes")));
    }
    Ok(text)
}

impl Context {
    /// Reads what to ignore: `<Dockerfile>.dockerignore` if it is there, else `.dockerignore` at the root. What
    /// came from elsewhere is used as it came.
    pub(crate) fn new(
        place: Place,
        dockerfile: &DockerfileText,
        modes: Modes,
    ) -> Result<Context, BuildError> {
        Context::with_ignore(place, dockerfile.path.as_deref(), modes)
    }

    fn with_ignore(place: Place, own: Option<&Path>, modes: Modes) -> Result<Context, BuildError> {
        let (ignored, modes) = match &place.folder {
            Some(folder) => (read_ignore(folder, own)?, modes),
            None => (nothing_ignored(), Modes::Exact),
        };
        Ok(Context { root: Arc::clone(&place.root), ignored, modes, _place: place })
    }

    /// A folder of this machine, with the ignore file of `dockerfile`, if it has one, or its own.
    pub(crate) fn of_folder(
        folder: &Path,
        dockerfile: Option<&Path>,
        modes: Modes,
    ) -> Result<Context, BuildError> {
        Context::with_ignore(Place::folder(folder)?, dockerfile, modes)
    }

    /// Its files, but for those that are ignored and those that one instruction excludes.
    pub(crate) fn source<'s>(&'s self, excluded: Option<&'s IgnoreRules>) -> Source<'s> {
        Source { root: &self.root, ignored: Some(&self.ignored), excluded, modes: self.modes }
    }

    /// Whether there is a file of this name at the root, ignored or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        matches!(self.root.try_stat(Path::new(name)), Ok(Some(_)))
    }

    /// Bytes of all files that are not left out.
    pub(crate) fn size_bytes(&self) -> Result<u64, SelectError> {
        let source = self.source(None);
        let all = source.select(".", "build context")?;
        let files = all.iter().flat_map(|selected| &selected.entries);
        let sizes = files
            .filter(|entry| entry.kind() == FileType::RegularFile)
            .map(|entry| entry.stat.st_size as u64);
        Ok(sizes.sum())
    }
}

fn read_ignore(context: &Path, dockerfile: Option<&Path>) -> Result<Ignored, BuildError> {
    let own = dockerfile.map(|path| {
        let mut name = path.to_owned().into_os_string();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in own.into_iter().chain([context.join(".dockerignore")]) {
        match read_bounded(&path) {
            Ok(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let rules = IgnoreRules::parse(&text);
                let rules = rules.map_err(|source| BuildError::Ignore { path: path.clone(), source })?;
                return Ok(Ignored { file, rules });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(BuildError::Context { path, source }),
        }
    }
    Ok(nothing_ignored())
}

fn nothing_ignored() -> Ignored {
    let nothing = IgnoreRules::from_patterns([]).expect("no pattern is malformed");
    Ignored { file: ".dockerignore".to_owned(), rules: nothing }
}
