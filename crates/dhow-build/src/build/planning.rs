//! What lowering sees of the world: images and their layers, the build context, and who is told.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use dhow_dockerfile::{Diagnostic, Severity, Span};
use dhow_image::{EnsurePolicy, Images, Layout, PullEvent};
use dhow_oci::{ImageConfig, Platform, Reference};
use dhow_store::Lease;

use super::{Builder, Observer};
use crate::context::{Context, DockerfileText};
use crate::error::{BuildError, StepError, while_doing};
use crate::event::BuildEvent;
use crate::lower::{NamedContext, World};
use crate::parsed::Parsed;
use crate::plan::{BaseImage, Layer};
use crate::provenance::Material;
use crate::request::BuildRequest;

impl<'b> Builder<'b> {
    /// The world as lowering sees it.
    pub(crate) fn world<'a>(
        &'a self,
        request: &'a BuildRequest,
        context: &'a Context,
        lease: &'a Lease,
        observer: Observer<'a>,
        file: &'a DockerfileText,
        text: &'a str,
    ) -> BuildWorld<'a, 'b> {
        let found = RefCell::default();
        BuildWorld { builder: self, request, context, lease, observer, file, text, only_asking: false, found }
    }
}

/// With `# check=error=true` a finding is an error.
pub(super) fn refuse_findings(parsed: &Parsed, found: &[Diagnostic]) -> Result<(), BuildError> {
    let rules: BTreeSet<_> = parsed.warnings.iter().chain(found).filter_map(|found| found.rule).collect();
    if parsed.dockerfile.directives.check.error && !rules.is_empty() {
        return Err(BuildError::Lint { rules });
    }
    Ok(())
}

/// The world as lowering sees it.
pub(crate) struct BuildWorld<'a, 'b> {
    builder: &'a Builder<'b>,
    request: &'a BuildRequest,
    context: &'a Context,
    lease: &'a Lease,
    observer: Observer<'a>,
    file: &'a DockerfileText,
    text: &'a str,
    /// Nothing will be built: of base images the configuration is enough.
    only_asking: bool,
    found: RefCell<Vec<Diagnostic>>,
}

impl BuildWorld<'_, '_> {
    /// Without layers of base images.
    pub(crate) fn only_asking(self) -> Self {
        BuildWorld { only_asking: true, ..self }
    }

    /// What the rules have found.
    pub(crate) fn into_found(self) -> Vec<Diagnostic> {
        self.found.into_inner()
    }

    fn base_config(&self, reference: &Reference, platform: &Platform) -> Result<BaseImage, StepError> {
        let client = &self.builder.registry;
        let config = self.builder.images.config_of(client, reference, platform, self.lease)?;
        Ok(BaseImage { layers: Vec::new(), config, source: None })
    }
}

impl World for BuildWorld<'_, '_> {
    fn base(&self, reference: &Reference, platform: &Platform) -> Result<BaseImage, StepError> {
        if self.only_asking {
            return self.base_config(reference, platform);
        }
        let images = self.builder.images;
        (self.observer)(BuildEvent::Resolving(reference));
        let policy = if self.request.pull { EnsurePolicy::Newer } else { EnsurePolicy::Missing };
        let now = (self.builder.clock)().as_second();
        let told = |event: &PullEvent| (self.observer)(BuildEvent::Pulling(reference, event));
        let image =
            images.ensure(&self.builder.registry, reference, platform, policy, self.lease, now, &told)?;
        let config = images.config(&image.record.id).map_err(while_doing("cannot read the base image"))?;
        // One that was built here has no manifest until it travels; then it is its own ID.
        let digest = image.record.target.as_ref().map_or(image.record.id, |target| target.digest);
        let source = Material::image(reference, platform, &digest);
        Ok(BaseImage { source: Some(source), ..base_image(images, config)? })
    }

    fn layout(&self, layout: &Layout, platform: &Platform) -> Result<BaseImage, StepError> {
        let images = self.builder.images;
        let config = images.read_layout(layout, platform, self.lease)?;
        base_image(images, config)
    }

    fn context_has(&self, name: &str) -> bool {
        self.context.has(name)
    }

    fn left_out(&self, source: &str) -> Option<String> {
        self.context.ignored.rules.leaves_out(source)
    }

    fn only_asks(&self) -> bool {
        self.only_asking
    }

    fn lint(&self, diagnostic: Diagnostic) {
        (self.observer)(BuildEvent::Warning {
            file: &self.file.name,
            source: self.text,
            diagnostic: &diagnostic,
        });
        self.found.borrow_mut().push(diagnostic);
    }

    fn warn(&self, span: Span, message: String, hint: Option<String>) {
        let diagnostic = Diagnostic { severity: Severity::Warning, rule: None, message, span, hint };
        (self.observer)(BuildEvent::Warning {
            file: &self.file.name,
            source: self.text,
            diagnostic: &diagnostic,
        });
    }
}

/// An image that is here, to build upon.
fn base_image(images: &Images, config: ImageConfig) -> Result<BaseImage, StepError> {
    let snapshots = images
        .layer_snapshots(&config.rootfs.diff_ids)
        .map_err(while_doing("cannot find the layers of the base image"))?;
    let layers = config.rootfs.diff_ids.iter().zip(&snapshots).map(|(diff_id, snapshot)| Layer {
        diff_id: *diff_id,
        content: diff_id.digest(),
        size_bytes: 0,
        snapshot: Some(snapshot.to_string()),
    });
    Ok(BaseImage { layers: layers.collect(), config, source: None })
}

/// The folders among the named contexts.
pub(super) fn named_folders(request: &BuildRequest) -> Result<BTreeMap<String, Context>, BuildError> {
    let mut folders = BTreeMap::new();
    for (name, context) in NamedContext::parse_all(&request.sources.named)? {
        if let NamedContext::Folder(path) = context {
            let context = Context::of_folder(&path, None, request.sources.modes)?;
            folders.insert(name, context);
        }
    }
    Ok(folders)
}
