//! `--parents`: sources that keep the directories they are in.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dhow_dockerfile::{IgnoreRules, IgnoreState, glob};
use rustix::fs::FileType;

use super::{Entry, SelectError, Selected, Source, Walk, check, clean, io_error, reincludes};
use crate::resolve::resolve;

/// What stands between the directories that are left behind and those that come along.
const PIVOT: &str = "/./";

impl Source<'_> {
    /// Finds what `pattern` names, each with the directories between it and the pivot point `/./`, or the root.
    /// `**` stands for any number of directories. A path without wildcards must be there.
    pub(crate) fn select_with_parents(
        &self,
        pattern: &str,
        place: &str,
    ) -> Result<Vec<Selected>, SelectError> {
        let (base, below) = pattern.split_once(PIVOT).unwrap_or(("", pattern));
        let below = clean(below);
        let is_required = !glob::is_pattern(pattern);
        let mut found = Vec::new();
        for base in self.expand(&clean(base), base)? {
            let entries = self.below(&base, &below, pattern, place, is_required)?;
            if !entries.is_empty() {
                found.push(Selected {
                    path: PathBuf::new(),
                    name: OsString::new(),
                    entries,
                    keeps_parents: true,
                });
            }
        }
        Ok(found)
    }

    /// What matches `pattern` below `base`, parents first.
    fn below(
        &self,
        base: &Path,
        pattern: &Path,
        written: &str,
        place: &str,
        is_required: bool,
    ) -> Result<Vec<Entry>, SelectError> {
        let plain: PathBuf = pattern
            .components()
            .take_while(|part| !glob::is_pattern(&part.as_os_str().to_string_lossy()))
            .collect();
        let start = base.join(&plain);
        let not_found = |ignored_by| match is_required {
            true => Err(SelectError::NotFound { path: start.clone(), place: place.to_owned(), ignored_by }),
            false => Ok(Vec::new()),
        };
        let real = resolve(self.root, &start).map_err(io_error(&start))?;
        let (ignored, rule) = self.judge(&real);
        let stat = match self.root.try_stat(&real) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => None,
            result => result.map_err(io_error(&start))?,
        };
        let Some(stat) = stat else { return not_found(None) };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if let Some(rule) = rule
            && !(is_dir && reincludes(self.rules(), &real))
        {
            return not_found(Some(rule));
        }
        let (is_out, excluded) = self.exclusion(&plain);
        if is_out && !(is_dir && reincludes(self.excluded, &plain)) {
            return Ok(Vec::new());
        }
        let mut entries = Vec::new();
        if !plain.as_os_str().is_empty() {
            entries.push(self.entry(real.clone(), plain.clone(), stat));
        }
        if is_dir {
            let dir = self.root.open_dir(&real).map_err(io_error(&real))?;
            let walk = Walk { source: self, base: &real, prefix: &plain };
            walk.directory(&dir, Path::new(""), &ignored, &excluded, 0, &mut entries)?;
        }
        if plain != pattern {
            let malformed = |_| SelectError::Pattern(written.to_owned());
            // A `!` at the beginning is a letter here.
            let text = pattern.to_string_lossy();
            let text = text.strip_prefix('!').map_or(text.to_string(), |rest| format!("\\!{rest}"));
            let rules = IgnoreRules::from_patterns([text.as_str()]).map_err(malformed)?;
            entries.retain(|entry| rules.check(entry.relative.as_os_str().as_bytes()).ignored);
        }
        self.with_parents(base, entries)
    }

    /// Whether `--exclude` leaves out `path`, and its state for what is below.
    fn exclusion(&self, path: &Path) -> (bool, IgnoreState) {
        let mut state = IgnoreState::default();
        let mut is_out = false;
        let mut here = PathBuf::new();
        for part in path.components() {
            here.push(part);
            (is_out, state) = check(self.excluded, &state, &here);
        }
        (is_out, state)
    }

    /// Puts before the entries the directories that lead to them from `base`.
    fn with_parents(&self, base: &Path, entries: Vec<Entry>) -> Result<Vec<Entry>, SelectError> {
        let mut listed: BTreeSet<PathBuf> = entries.iter().map(|entry| entry.relative.clone()).collect();
        let mut all = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut missing: Vec<&Path> =
                entry.relative.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()).collect();
            missing.reverse();
            for dir in missing {
                if listed.insert(dir.to_owned()) {
                    let path = resolve(self.root, &base.join(dir)).map_err(io_error(dir))?;
                    let stat = self.root.stat(&path).map_err(io_error(dir))?;
                    all.push(self.entry(path, dir.to_owned(), stat));
                }
            }
            all.push(entry);
        }
        Ok(all)
    }
}
