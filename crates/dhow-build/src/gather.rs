//! Finding the sources of a `COPY`, wherever they are.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use dhow_dockerfile::IgnoreRules;
use dhow_solver::{FactKind, Facts, Vertex, VertexId};
use dhow_sys::beneath::Root;
use rustix::fs::FileType;

use crate::cache::Step;
use crate::error::{StepError, while_doing};
use crate::execute::{Executor, Rootfs, exclusions};
use crate::plan::{CopyFrom, CopyOp, CopySource, Op};
use crate::remote::{Fetched, GitSource, HttpSource};
use crate::select::{Entry, Found, Selected, Source};

/// The mode of a file that came by HTTP.
const FETCHED_MODE: u32 = 0o600;

/// The tree that the paths of a `COPY` are in.
struct Tree<'a> {
    root: Arc<Root>,
    source: Source<'a>,
    /// What it is called.
    place: String,
}

impl Executor<'_> {
    /// Finds all sources in the order in which they are written.
    pub(crate) fn select(
        &self,
        copy: &CopyOp,
        vertex: &Vertex<Op>,
        inputs: &[Rootfs],
        facts: &mut Facts,
    ) -> Result<Vec<Found>, StepError> {
        let excluded = exclusions(copy)?;
        let stage = match &copy.from {
            CopyFrom::Stage(_) => Some(Arc::new(self.view(&inputs[1])?)),
            _ => None,
        };
        let tree = self.tree(copy, stage.as_ref(), &excluded);
        let mut found = Vec::new();
        for (number, source) in copy.sources.iter().enumerate() {
            let first = found.len();
            match source {
                CopySource::Path(pattern) => self.select_paths(copy, &tree, pattern, &mut found)?,
                CopySource::Input(input) => {
                    let fetched = lock(&self.fetched).get(&vertex.inputs[*input]).cloned();
                    found.push(match fetched {
                        Some(fetched) => self.fetched_file(copy, &fetched, facts)?,
                        None => self.checkout(copy, &inputs[*input], &excluded)?,
                    });
                }
            }
            found[first..].iter_mut().for_each(|found: &mut Found| found.source = number);
        }
        Ok(found)
    }

    fn tree<'t>(
        &'t self,
        copy: &'t CopyOp,
        stage: Option<&'t Arc<Root>>,
        excluded: &'t IgnoreRules,
    ) -> Tree<'t> {
        let (context, place) = match (&copy.from, stage) {
            (CopyFrom::Stage(name), Some(root)) => {
                let source = Source { excluded: Some(excluded), ..Source::whole(root) };
                return Tree { root: Arc::clone(root), source, place: format!("file system of {name}") };
            }
            (CopyFrom::Named(name), _) => (&self.named[name], format!("build context {name}")),
            _ => (self.context, "build context".to_owned()),
        };
        Tree { root: Arc::clone(&context.root), source: context.source(Some(excluded)), place }
    }

    fn select_paths(
        &self,
        copy: &CopyOp,
        tree: &Tree<'_>,
        pattern: &str,
        found: &mut Vec<Found>,
    ) -> Result<(), StepError> {
        let selected = match copy.parents {
            true => tree.source.select_with_parents(pattern, &tree.place),
            false => tree.source.select(pattern, &tree.place),
        };
        let instruction = copy.instruction();
        let selected = selected.map_err(|source| StepError::Select { instruction, source })?;
        let with_root =
            |selected| Found { root: Arc::clone(&tree.root), selected, unpack: copy.unpack, source: 0 };
        found.extend(selected.into_iter().map(with_root));
        Ok(())
    }

    /// The blob of a file that came by HTTP, under the name and with the time it has there.
    fn fetched_file(&self, copy: &CopyOp, fetched: &Fetched, facts: &mut Facts) -> Result<Found, StepError> {
        const DOING: &str = "cannot open what was fetched";
        // One without a time is as old as can be.
        let modified = fetched.modified.unwrap_or_default();
        let fact = format!("last modified of {}", fetched.name);
        facts.text(FactKind::Option, fact, modified.to_string());
        let path = self.images.store().content().path(&fetched.digest);
        let (dir, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default());
        let root = Root::open(dir).map_err(while_doing(DOING))?;
        let path = PathBuf::from(name);
        let found = root.stat(&path).map_err(while_doing(DOING))?;
        let mut stat = found;
        stat.st_mode = FileType::RegularFile.as_raw_mode() | FETCHED_MODE;
        stat.st_mtime = modified;
        stat.st_mtime_nsec = 0;
        stat.st_nlink = 1;
        let entries = vec![Entry { path, relative: PathBuf::new(), stat, found }];
        let selected = Selected {
            path: PathBuf::new(),
            name: OsString::from(&fetched.name),
            entries,
            keeps_parents: false,
        };
        Ok(Found { root: Arc::new(root), selected, unpack: copy.unpack_fetched, source: 0 })
    }

    /// All files of a checkout.
    fn checkout(&self, copy: &CopyOp, rootfs: &Rootfs, excluded: &IgnoreRules) -> Result<Found, StepError> {
        let root = self.view(rootfs)?;
        let source = Source { excluded: Some(excluded), ..Source::whole(&root) };
        let selected = source.select_one(Path::new(""), "repository");
        let instruction = copy.instruction();
        let selected = selected.map_err(|source| StepError::Select { instruction, source })?;
        Ok(Found { root: Arc::new(root), selected, unpack: false, source: 0 })
    }

    pub(crate) fn fetch(&self, id: VertexId, source: &HttpSource) -> Result<Step, StepError> {
        let fetched = self.remote.fetch(source)?;
        lock(&self.fetched).insert(id, fetched);
        Ok(Step { layers: Vec::new(), created: None, log: None, is_whole: true })
    }

    pub(crate) fn check_out_facts(&self, id: VertexId, source: &GitSource) -> Result<Facts, StepError> {
        let commit = self.remote.resolve(source)?;
        let facts = source.facts(&commit);
        lock(&self.commits).insert(id, commit);
        Ok(facts)
    }

    pub(crate) fn check_out(&self, id: VertexId, source: &GitSource) -> Result<Step, StepError> {
        let commit = lock(&self.commits).get(&id).cloned();
        let commit = commit.expect("facts are asked for before a step runs");
        self.remote.check_out(source, &commit)
    }
}

fn lock<T>(known: &Mutex<HashMap<VertexId, T>>) -> MutexGuard<'_, HashMap<VertexId, T>> {
    known.lock().expect("no thread panics while it holds the lock")
}
