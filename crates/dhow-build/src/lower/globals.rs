//! The `ARG`s before the first `FROM`.

use std::collections::{BTreeMap, BTreeSet};

use dhow_dockerfile::{Dockerfile, Expanded, InstructionKind, Span};

use super::{Lowering, outline};
use crate::error::{BuildError, StepError};

/// Values of the global arguments, and all that can be said about them.
pub(super) type Globals = (BTreeMap<String, String>, BTreeMap<String, outline::KnownArg>);

impl Lowering<'_> {
    /// The `ARG`s before the first `FROM`, with the values that `given` knows. A default that is not needed
    /// may be malformed.
    pub(super) fn globals_with<'v>(
        &self,
        given: impl Fn(&str) -> Option<&'v String>,
    ) -> Result<Globals, BuildError> {
        let (mut globals, mut known) = (BTreeMap::new(), BTreeMap::<String, outline::KnownArg>::new());
        for instruction in &self.source.dockerfile.global_args {
            for arg in &instruction.kind.args {
                let (value, mut deps) = match (given(&arg.name), &arg.default) {
                    (Some(given), _) => (Some(given.clone()), BTreeSet::new()),
                    (None, Some(default)) => {
                        let expanded = self.expand_with(&globals, default, instruction.span)?;
                        (Some(expanded.text), expanded.used)
                    }
                    (None, None) => (None, BTreeSet::new()),
                };
                if let Some(earlier) = known.get(&arg.name).filter(|_| deps.remove(&arg.name)) {
                    deps.extend(earlier.deps.iter().cloned());
                }
                let (description, span) = (arg.description.clone(), instruction.span);
                let entry =
                    outline::KnownArg { value: value.clone().unwrap_or_default(), description, deps, span };
                known.insert(arg.name.clone(), entry);
                globals.extend(value.map(|value| (arg.name.clone(), value)));
            }
        }
        Ok((globals, known))
    }

    fn expand_with(
        &self,
        globals: &BTreeMap<String, String>,
        word: &str,
        span: Span,
    ) -> Result<Expanded, BuildError> {
        let lookup = |name: &str| globals.get(name).or_else(|| self.arguments.automatic(name)).cloned();
        let expanded = dhow_dockerfile::expand(word, self.escape(), lookup);
        expanded.map_err(|error| self.fail(span, StepError::Invalid(error.to_string())))
    }

    pub(super) fn expanded_global(&self, word: &str, span: Span) -> Result<Expanded, BuildError> {
        self.expand_with(&self.globals, word, span)
    }

    pub(super) fn global(&self, name: &str) -> Option<&String> {
        self.globals.get(name).or_else(|| self.arguments.automatic(name))
    }
}

/// Every name that an `ARG` of the file declares, in stages that are not needed too.
pub(super) fn declared_names(dockerfile: &Dockerfile) -> BTreeSet<String> {
    let in_stages = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let args = in_stages.filter_map(|instruction| match &instruction.kind {
        InstructionKind::Arg(arg) => Some(arg),
        _ => None,
    });
    let globals = dockerfile.global_args.iter().map(|instruction| &instruction.kind);
    globals.chain(args).flat_map(|arg| &arg.args).map(|arg| arg.name.clone()).collect()
}
