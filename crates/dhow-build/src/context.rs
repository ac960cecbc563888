//! The build context: a folder, read where it lies.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dhow_dockerfile::IgnoreRules;
use dhow_sys::beneath::Root;
use rustix::fs::FileType;

use crate::error::BuildError;
use crate::request::DockerfileSource;
use crate::select::{Ignored, Modes, SelectError, Source};

/// The largest Dockerfile and ignore file that is read.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// A folder to build from, and what is left out of it.
pub(crate) struct Context {
    pub root: Root,
    pub ignored: Ignored,
    /// What the modes of its files are taken to be.
    pub modes: Modes,
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
    pub(crate) fn read(context: &Path, source: &DockerfileSource) -> Result<DockerfileText, BuildError> {
        match source {
            DockerfileSource::Text(text) => Ok(DockerfileText {
                name: "Dockerfile".to_owned(),
                identity: format!("{} -", context.display()),
                text: text.clone().into_bytes(),
                path: None,
            }),
            DockerfileSource::File(path) => read_dockerfile(path.clone()),
            DockerfileSource::Default => {
                let path = context.join("Dockerfile");
                let lower = context.join("dockerfile");
                read_dockerfile(if !path.exists() && lower.exists() { lower } else { path })
            }
        }
    }
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
    use io::Read as _;
    let file = fs::File::open(path)?;
    let mut text = Vec::new();
    file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > TEXT_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {TEXT_BYTES_MAX} bytes")));
    }
    Ok(text)
}

impl Context {
    /// Opens the folder and reads what to ignore: `<Dockerfile>.dockerignore` if it is there, else
    /// `.dockerignore` at the root.
    pub(crate) fn open(dir: &Path, dockerfile: &DockerfileText, modes: Modes) -> Result<Context, BuildError> {
        let error = |source| BuildError::Context { path: dir.to_owned(), source };
        let real = fs::canonicalize(dir).map_err(error)?;
        if !real.is_dir() {
            return Err(error(io::Error::from(rustix::io::Errno::NOTDIR)));
        }
        let root = Root::open(&real).map_err(error)?;
        let ignored = read_ignore(&real, dockerfile)?;
        Ok(Context { root, ignored, modes })
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

fn read_ignore(context: &Path, dockerfile: &DockerfileText) -> Result<Ignored, BuildError> {
    let own = dockerfile.path.as_ref().map(|path| {
        let mut name = path.clone().into_os_string();
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
    let nothing = IgnoreRules::from_patterns([]).expect("no pattern is malformed");
    Ok(Ignored { file: ".dockerignore".to_owned(), rules: nothing })
}
