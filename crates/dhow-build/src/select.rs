//! Finding the files that a `COPY` or `ADD` names, in a build context or in another stage.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dhow_dockerfile::{IgnoreRules, IgnoreState, glob};
use dhow_sys::beneath::Root;
use dhow_sys::node;
use rustix::fs::{AtFlags, FileType, Stat};

use crate::resolve::resolve;

mod parents;

/// The deepest tree that is walked; deeper ones are a mistake or an attack.
const DEPTH_MAX: usize = 1024;

/// A tree that files are copied from.
pub(crate) struct Source<'a> {
    /// The tree.
    pub root: &'a Root,
    /// What is left out of it.
    pub ignored: Option<&'a Ignored>,
    /// What this one instruction leaves out, relative to each source.
    pub excluded: Option<&'a IgnoreRules>,
    /// What the modes of its files are taken to be.
    pub modes: Modes,
}

/// What the mode of a file in a build context is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Modes {
    /// What the disk says.
    #[default]
    Exact,
    /// What git would say: 0755 for directories and what its owner may execute, 0644 for the rest. The umask
    /// of a checkout then makes no difference.
    Git,
}

impl Modes {
    /// A file as it comes out.
    fn of(self, found: &Stat) -> Stat {
        let kind = FileType::from_raw_mode(found.st_mode);
        let bits = match (self, kind) {
            (Modes::Exact, _) | (_, FileType::Symlink) => return *found,
            (Modes::Git, FileType::Directory) => 0o755,
            (Modes::Git, _) if found.st_mode & 0o100 != 0 => 0o755,
            (Modes::Git, _) => 0o644,
        };
        let mut stat = *found;
        stat.st_mode = found.st_mode & !0o7777 | bits;
        stat
    }
}

/// One source as written, found.
#[derive(Debug)]
pub(crate) struct Selected {
    /// Where it was found by its name, links and all, relative to the tree.
    pub path: PathBuf,
    /// The name it keeps when it is copied into a directory.
    pub name: OsString,
    /// The file, or the directory and all in it. The first is the source itself, parents before children.
    pub entries: Vec<Entry>,
    /// With `--parents`: the entries keep their directories, and the source itself is not among them.
    pub keeps_parents: bool,
}

impl Selected {
    /// Whether the source is a directory, of which the contents are copied.
    pub(crate) fn is_dir(&self) -> bool {
        self.keeps_parents || self.entries[0].kind() == FileType::Directory
    }
}

/// A source that was found, with the tree it is in.
pub(crate) struct Found {
    pub root: Arc<Root>,
    pub selected: Selected,
    /// Whether it is unpacked if it is an archive.
    pub unpack: bool,
    /// Which of the sources of the instruction it is of.
    pub source: usize,
}

/// One file of a selection.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Where it is, relative to the tree, without links.
    pub path: PathBuf,
    /// Where it is relative to the source; empty for the source itself.
    pub relative: PathBuf,
    /// What it is for the image.
    pub stat: Stat,
    /// What it was when the selection was made, which must not have changed when it is copied.
    pub found: Stat,
}

impl Entry {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// A rule that leaves a file out of the build context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredBy {
    /// Name of the ignore file.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// What the line says.
    pub pattern: String,
}

/// Why a source was not found.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// There is no such file.
    #[error("{path} is not in the {place}", path = path.display())]
    NotFound {
        /// The source as written.
        path: PathBuf,
        /// `build context` or a stage.
        place: String,
        /// The line of the ignore file that leaves it out, if that is why.
        ignored_by: Option<IgnoredBy>,
    },
    /// A wildcard is malformed.
    #[error("malformed pattern `{0}`")]
    Pattern(String),
    /// The tree could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> SelectError + '_ {
    move |source| SelectError::Io { path: path.to_owned(), source }
}

/// Rules about files that are left out, and the file they are in.
pub(crate) struct Ignored {
    pub file: String,
    pub rules: IgnoreRules,
}

impl<'a> Source<'a> {
    /// All of a tree, as it is.
    pub(crate) fn whole(root: &'a Root) -> Source<'a> {
        Source { root, ignored: None, excluded: None, modes: Modes::Exact }
    }
}

impl Source<'_> {
    fn rules(&self) -> Option<&IgnoreRules> {
        self.ignored.map(|ignored| &ignored.rules)
    }

    /// Finds what `pattern` names. A wildcard may find nothing; a plain name must be there.
    pub(crate) fn select(&self, pattern: &str, place: &str) -> Result<Vec<Selected>, SelectError> {
        let clean = clean(pattern);
        if !glob::is_pattern(pattern) {
            return Ok(vec![self.select_one(&clean, place)?]);
        }
        let mut found = Vec::new();
        for path in self.expand(&clean, pattern)? {
            match self.select_one(&path, place) {
                Ok(selected) if self.excludes_file(&selected) => {}
                Ok(selected) => found.push(selected),
                Err(SelectError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Whether a file that a wildcard found is left out by its name. What is written in full is wanted.
    fn excludes_file(&self, selected: &Selected) -> bool {
        !selected.is_dir() && self.excluded.is_some_and(|rules| rules.check(selected.name.as_bytes()).ignored)
    }

    /// Finds what `path` names, in which nothing is a wildcard.
    pub(crate) fn select_path(&self, path: &Path, place: &str) -> Result<Selected, SelectError> {
        self.select_one(&clean(&path.to_string_lossy()), place)
    }

    /// Finds what `path` names, which is no pattern.
    pub(crate) fn select_one(&self, path: &Path, place: &str) -> Result<Selected, SelectError> {
        let real = resolve(self.root, path).map_err(io_error(path))?;
        let (state, rule) = self.judge(&real);
        let not_found =
            |ignored_by| SelectError::NotFound { path: path.to_owned(), place: place.to_owned(), ignored_by };
        let stat = match self.root.try_stat(&real) {
            // A file where the path has a directory: there is nothing below it.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => None,
            result => result.map_err(io_error(path))?,
        };
        let stat = stat.ok_or_else(|| not_found(None))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Socket {
            return Err(not_found(None));
        }
        let is_dir = kind == FileType::Directory;
        if let Some(rule) = rule {
            let may_hold = reincludes(self.rules(), &real);
            if !(is_dir && may_hold) {
                return Err(not_found(Some(rule)));
            }
        }
        let name = path.file_name().map(OsStr::to_owned).unwrap_or_default();
        let mut entries = vec![self.entry(real.clone(), PathBuf::new(), stat)];
        if is_dir {
            let dir = self.root.open_dir(&real).map_err(io_error(&real))?;
            let walk = Walk { source: self, base: &real, prefix: Path::new("") };
            walk.directory(&dir, Path::new(""), &state, &IgnoreState::default(), 0, &mut entries)?;
        }
        Ok(Selected { path: path.to_owned(), name, entries, keeps_parents: false })
    }

    fn entry(&self, path: PathBuf, relative: PathBuf, found: Stat) -> Entry {
        Entry { path, relative, stat: self.modes.of(&found), found }
    }

    /// The state of the ignore rules below `path`, and the rule that leaves `path` out, if one does.
    fn judge(&self, path: &Path) -> (IgnoreState, Option<IgnoredBy>) {
        let mut state = IgnoreState::default();
        let Some(Ignored { file, rules }) = self.ignored else { return (state, None) };
        let mut rule = None;
        let mut here = PathBuf::new();
        for component in path.components() {
            here.push(component);
            let (verdict, next) = rules.check_child(&state, here.as_os_str().as_bytes());
            let by = verdict.rule.filter(|_| verdict.ignored);
            rule =
                by.map(|by| IgnoredBy { file: file.clone(), line: by.line, pattern: by.pattern.to_owned() });
            state = next;
        }
        (state, rule)
    }

    /// All paths that match a pattern, component by component as Go's `filepath.Glob` does.
    fn expand(&self, clean: &Path, pattern: &str) -> Result<Vec<PathBuf>, SelectError> {
        let mut paths = vec![PathBuf::new()];
        for component in clean.components() {
            let component = component.as_os_str().to_string_lossy();
            let mut next = Vec::new();
            for path in paths {
                if glob::is_pattern(&component) {
                    self.expand_component(&path, &component, pattern, &mut next)?;
                } else {
                    next.push(path.join(&*component));
                }
            }
            paths = next;
        }
        Ok(paths)
    }

    fn expand_component(
        &self,
        dir: &Path,
        component: &str,
        pattern: &str,
        found: &mut Vec<PathBuf>,
    ) -> Result<(), SelectError> {
        let Ok(real) = resolve(self.root, dir) else { return Ok(()) };
        let Ok(open) = self.root.open_dir(&real) else { return Ok(()) };
        for entry in node::read_dir(&open).map_err(io_error(dir))? {
            let name = entry.name.to_string_lossy();
            let fits =
                glob::matches(component, &name).map_err(|_| SelectError::Pattern(pattern.to_owned()))?;
            if fits {
                found.push(dir.join(&entry.name));
            }
        }
        Ok(())
    }
}

/// A source path without leading slashes and without leaving the root.
fn clean(pattern: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(path.pop()),
            name => path.push(name),
        }
    }
    path
}

struct Walk<'a> {
    source: &'a Source<'a>,
    /// Where it begins, relative to the tree.
    base: &'a Path,
    /// What begins the names relative to the source.
    prefix: &'a Path,
}

impl Walk<'_> {
    fn directory(
        &self,
        dir: &impl rustix::fd::AsFd,
        relative: &Path,
        ignored: &IgnoreState,
        excluded: &IgnoreState,
        depth: usize,
        entries: &mut Vec<Entry>,
    ) -> Result<(), SelectError> {
        let path = self.base.join(relative);
        if depth > DEPTH_MAX {
            let source = io::Error::other(format!("more than {DEPTH_MAX} directories deep"));
            return Err(SelectError::Io { path, source });
        }
        for child in node::read_dir(dir).map_err(io_error(&path))? {
            let here = relative.join(&child.name);
            let path = self.base.join(&here);
            let relative = self.prefix.join(&here);
            let stat = match rustix::fs::statat(dir, &child.name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Gone since the directory was listed.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(SelectError::Io { path, source: error.into() }),
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let (out, ignored) = check(self.source.rules(), ignored, &path);
            let (out_here, excluded) = check(self.source.excluded, excluded, &relative);
            let left_out = out || out_here;
            let enter = kind == FileType::Directory
                && (!out || reincludes(self.source.rules(), &path))
                && (!out_here || reincludes(self.source.excluded, &relative));
            if kind == FileType::Socket || (left_out && !enter) {
                continue;
            }
            let before = entries.len();
            entries.push(self.source.entry(path.clone(), relative, stat));
            if enter {
                let flags = rustix::fs::OFlags::RDONLY
                    | rustix::fs::OFlags::DIRECTORY
                    | rustix::fs::OFlags::NOFOLLOW
                    | rustix::fs::OFlags::CLOEXEC;
                let open = rustix::fs::openat(dir, &child.name, flags, rustix::fs::Mode::empty())
                    .map_err(|error| SelectError::Io { path, source: error.into() })?;
                self.directory(&open, &here, &ignored, &excluded, depth + 1, entries)?;
            }
            // A directory left out by itself is there only for what was brought back below it.
            if left_out && entries.len() == before + 1 {
                entries.truncate(before);
            }
        }
        Ok(())
    }
}

fn check(rules: Option<&IgnoreRules>, parent: &IgnoreState, path: &Path) -> (bool, IgnoreState) {
    match rules {
        None => (false, IgnoreState::default()),
        Some(rules) => {
            let (verdict, state) = rules.check_child(parent, path.as_os_str().as_bytes());
            (verdict.ignored, state)
        }
    }
}

fn reincludes(rules: Option<&IgnoreRules>, path: &Path) -> bool {
    rules.is_some_and(|rules| rules.may_have_reincluded_children(path.as_os_str().as_bytes()))
}

#[cfg(test)]
mod tests;
