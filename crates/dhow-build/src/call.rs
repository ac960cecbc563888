//! Questions about a build that are answered without running it: `--check`, `--call=outline` and
//! `--call=targets`.

use dhow_dockerfile::{Diagnostic, Span};

use dhow_store::Lease;

use crate::agents::Agents;
use crate::build::{Builder, locks_dir};
use crate::context::{Context, DockerfileText};
use crate::error::{BuildError, while_doing};
use crate::lower::{self, Reach};
use crate::parsed::Parsed;
use crate::place::Place;
use crate::request::BuildRequest;

/// A Dockerfile that was asked about.
#[derive(Clone, Debug)]
pub struct SourceText {
    /// Its name for people.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// What the rules found.
#[derive(Debug)]
pub struct CheckReport {
    /// The Dockerfile.
    pub source: SourceText,
    /// The findings, in the order of the text.
    pub warnings: Vec<Diagnostic>,
    /// Why the file could not be built, whatever the rules say.
    pub error: Option<BuildError>,
}

/// A stage that can be built.
#[derive(Clone, Debug)]
pub struct TargetInfo {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The comment above that begins with its name.
    pub description: Option<String>,
    /// What it builds on, as written.
    pub base: String,
    /// `--platform`, as written.
    pub platform: Option<String>,
    /// Where its `FROM` stands.
    pub span: Span,
}

/// What a target can be told.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    /// The name of the target, if it has one.
    pub name: Option<String>,
    /// The comment above that begins with its name.
    pub description: Option<String>,
    /// Arguments it reads.
    pub args: Vec<OutlineArg>,
    /// Secrets it may use.
    pub secrets: Vec<OutlineMount>,
    /// Agents it may use.
    pub ssh: Vec<OutlineMount>,
}

/// An argument that a target reads.
#[derive(Clone, Debug)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// The comment above that begins with its name.
    pub description: Option<String>,
    /// Its value as things are; empty if it has none.
    pub value: String,
    /// Where it is declared.
    pub span: Span,
}

/// A secret or an agent that a target may use.
#[derive(Clone, Debug)]
pub struct OutlineMount {
    /// Its ID.
    pub name: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// The `RUN` that mounts it.
    pub span: Span,
}

impl Builder<'_> {
    /// Looks a Dockerfile through: the target and what it needs, or all of it if no target is named.
    pub fn check(&self, request: &BuildRequest) -> Result<CheckReport, BuildError> {
        let lease = self.images.store().lease("build").map_err(while_doing("cannot take a lease"))?;
        let (place, file) = self.found(request, &lease)?;
        let parsed = Parsed::new(&file, request)?;
        let source = SourceText { name: file.name.clone(), text: parsed.text.clone() };
        let mut warnings = parsed.warnings.clone();
        let error = if parsed.mistakes.is_empty() {
            let (found, lowered) =
                self.lowered(request, (place, &lease), &file, &parsed, Reach::Everything)?;
            warnings.extend(found);
            lowered.err()
        } else {
            Some(parsed.into_error(&file.name))
        };
        warnings.retain(|warning| warning.rule.is_some());
        warnings.sort_by_key(|warning| warning.span.start_line);
        Ok(CheckReport { source, warnings, error })
    }

    /// What the target can be told.
    pub fn outline(&self, request: &BuildRequest) -> Result<(SourceText, Outline), BuildError> {
        let lease = self.images.store().lease("build").map_err(while_doing("cannot take a lease"))?;
        let (place, file) = self.found(request, &lease)?;
        let parsed = Parsed::new(&file, request)?;
        if !parsed.mistakes.is_empty() {
            return Err(parsed.into_error(&file.name));
        }
        let (_, outline) = self.lowered(request, (place, &lease), &file, &parsed, Reach::Target)?;
        Ok((SourceText { name: file.name.clone(), text: parsed.text }, outline?))
    }

    /// The stages there are. The last is built if none is named.
    pub fn targets(&self, request: &BuildRequest) -> Result<(SourceText, Vec<TargetInfo>), BuildError> {
        let lease = self.images.store().lease("build").map_err(while_doing("cannot take a lease"))?;
        let (_, file) = self.found(request, &lease)?;
        let parsed = Parsed::new(&file, request)?;
        if !parsed.mistakes.is_empty() {
            return Err(parsed.into_error(&file.name));
        }
        let stages = parsed.dockerfile.stages.into_iter().map(|stage| TargetInfo {
            name: stage.name,
            description: stage.description,
            base: stage.base,
            platform: stage.platform,
            span: stage.span,
        });
        Ok((SourceText { name: file.name.clone(), text: parsed.text }, stages.collect()))
    }

    /// The context and the Dockerfile.
    fn found(&self, request: &BuildRequest, lease: &Lease) -> Result<(Place, DockerfileText), BuildError> {
        let (_agents, run) = Agents::start(&request.run, self.run_dir)?;
        let remote = self.remote("context", lease, self.cancel, &run);
        let place = Place::find(&request.context, &remote, &locks_dir(self.run_dir))?;
        let file = DockerfileText::read(&place, &request.dockerfile, &remote)?;
        Ok((place, file))
    }

    /// Lowers without building: of base images only the configuration is fetched.
    fn lowered(
        &self,
        request: &BuildRequest,
        (place, lease): (Place, &Lease),
        file: &DockerfileText,
        parsed: &Parsed,
        reach: Reach,
    ) -> Result<(Vec<Diagnostic>, Result<Outline, BuildError>), BuildError> {
        let context = Context::new(place, file, request.sources.modes)?;
        let world = self.world(request, &context, lease, &|_| {}, file, &parsed.text).only_asking();
        let source = lower::Source {
            name: &file.name,
            text: &parsed.text,
            dockerfile: &parsed.dockerfile,
            identity: &file.identity,
        };
        let lowered = lower::lower(&source, request, reach, &world).map(|plan| plan.outline);
        Ok((world.into_found(), lowered))
    }
}
